//! Reading the ring of records.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use rustix::event::{Timespec, epoll};

/// Bytes read by one [`Ring::poll`] before it returns: the caller has other work too. A quarter of the default ring.
const BUDGET_BYTES: usize = 4 * 1024 * 1024;
/// Time spent in one [`Ring::poll`], for a caller that is slow with each record: signals, the flush timer and what
/// the records lead to wait no longer.
const BUDGET_TIME: Duration = Duration::from_millis(20);
/// Records between two looks at the clock.
const CLOCK_EVERY: usize = 64;

/// The reader's end of the ring.
pub(super) struct Ring {
    ring: RingBuf<MapData>,
    epoll: OwnedFd,
    /// The budget ended a read early: more is there, so do not wait.
    unfinished: bool,
    /// Records read so far.
    read: u64,
}

impl Ring {
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Ring> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: only a wake-up by the programs (much unread, or something urgent) ends a wait early, not
        // every quiet record. That makes the time-out the flush interval.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, ring.as_fd(), epoll::EventData::new_u64(0), flags)?;
        Ok(Ring { ring, epoll, unfinished: false, read: 0 })
    }

    pub fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        if !self.unfinished {
            self.wait(timeout)?;
        }
        let mut budget = BUDGET_BYTES;
        let begin = Instant::now();
        let mut records = 0;
        self.unfinished = false;
        while let Some(record) = self.ring.next() {
            each(&record);
            records += 1;
            budget = budget.saturating_sub(record.len());
            let late = records % CLOCK_EVERY == 0 && begin.elapsed() > BUDGET_TIME;
            if budget == 0 || late {
                self.unfinished = true;
                break;
            }
        }
        self.read += records as u64;
        Ok(records)
    }

    /// Whether the last [`poll`](Self::poll) read all there was.
    pub fn is_drained(&self) -> bool {
        !self.unfinished
    }

    /// Records read so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    fn wait(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        match epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
