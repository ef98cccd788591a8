//! How much of the ring is unread.

use std::{io, os::fd::BorrowedFd, sync::atomic::Ordering::Relaxed};

use super::mapped::{Access, Mapped};

/// The two ends of a ring, in bytes since it was made. The kernel gives each a page, the reader's first, then the programs'
/// (`kernel/bpf/ringbuf.c`, `struct bpf_ringbuf`), and the records behind them.
pub(super) struct Positions {
    read: Mapped,
    written: Mapped,
}

impl Positions {
    /// # Errors
    /// The kernel does not let them be mapped.
    pub fn of(ring: BorrowedFd<'_>) -> io::Result<Positions> {
        let page = |number| Mapped::new(ring, number * rustix::param::page_size(), 1, Access::Read);
        Ok(Positions { read: page(0)?, written: page(1)? })
    }

    /// Bytes that were written, or are being written, and not read.
    pub fn unread(&self) -> u64 {
        let position = |end: &Mapped| end.words().first().map_or(0, |word| word.load(Relaxed));
        // The reader is this thread; what is written meanwhile only adds.
        position(&self.written).saturating_sub(position(&self.read))
    }
}
