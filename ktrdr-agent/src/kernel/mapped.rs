//! Memory that the programs and the agent share: a part of a map, without a system call for each look.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::AtomicU64,
};

/// What the agent may do with it; the kernel refuses what the map does not allow.
#[derive(Clone, Copy)]
pub(super) enum Access {
    /// Words may be loaded, and only that.
    Read,
    /// Words may be loaded and stored.
    Write,
}

/// A part of a map, mapped as long as this value lives.
pub(super) struct Mapped {
    memory: NonNull<[AtomicU64]>,
}

// SAFETY: the memory is this value's alone, but for the programs, and made of atomics.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps `words` words from `offset` on, which is a number of whole pages (bytes).
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn new(map: BorrowedFd<'_>, offset: usize, words: usize, access: Access) -> io::Result<Mapped> {
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        let bytes = words * size_of::<AtomicU64>();
        let offset =
            libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: a new mapping, where the kernel wants it.
        let memory = unsafe {
            libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, map.as_raw_fd(), offset)
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(memory.cast::<AtomicU64>())
            .ok_or_else(|| io::Error::other("the kernel mapped it at address 0"))?;
        Ok(Mapped { memory: NonNull::slice_from_raw_parts(first, words) })
    }

    /// The words; those of [`Access::Read`] are not to be stored to.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped as long as `self`, filled by the kernel, and never changed but as atomics.
        unsafe { self.memory.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this length, and not used after this. There is nothing to do about an error.
        unsafe {
            libc::munmap(self.memory.as_ptr().cast(), size_of_val(self.words()));
        }
    }
}
