//! Reading the ring of records.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use rustix::event::{Timespec, epoll};

use super::positions::Positions;

/// Bytes read by one [`Ring::poll`] before it returns: the caller has other work too. Half of the default ring.
const BUDGET_BYTES: usize = 4 * 1024 * 1024;
/// Time spent in one [`Ring::poll`], for a caller that is slow with each record: signals, the flush timer and what
/// the records lead to wait no longer.
const BUDGET_TIME: Duration = Duration::from_millis(20);
/// Records between two looks at the clock: a tenth of a millisecond of work, in which the observed services that wait for
/// this processor keep those busy that wait for them.
const CLOCK_EVERY: usize = 64;
/// Longest time since nothing was unread in which the reader gives way: with the flush interval before and the assembler's
/// grace behind it, what a busy host tells is out within 200 ms, too.
const GIVE_WAY: Duration = Duration::from_millis(60);

/// The reader's end of the ring.
pub(super) struct Ring {
    ring: RingBuf<MapData>,
    epoll: OwnedFd,
    /// The budget ended a read early: more is there, so do not wait.
    unfinished: bool,
    /// Records read so far.
    read: u64,
    positions: Positions,
    /// Bytes that it has room for.
    room: u64,
    /// When nothing was unread last.
    drained: Instant,
}

impl Ring {
    /// The reader of a ring with `room` bytes.
    pub fn new(ring: RingBuf<MapData>, room: u32) -> io::Result<Ring> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: only a wake-up by the programs (much unread, or something urgent) ends a wait early, not
        // every quiet record. That makes the time-out the flush interval.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, ring.as_fd(), epoll::EventData::new_u64(0), flags)?;
        let positions = Positions::of(ring.as_fd())?;
        let (room, drained) = (room.into(), Instant::now());
        Ok(Ring { ring, epoll, unfinished: false, read: 0, positions, room, drained })
    }

    pub fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        if !self.unfinished {
            self.wait(timeout)?;
        }
        let mut budget = BUDGET_BYTES;
        let begin = Instant::now();
        let mut records = 0;
        self.unfinished = true;
        while budget > 0 {
            let Some(record) = self.ring.next() else {
                self.unfinished = false;
                self.drained = Instant::now();
                break;
            };
            each(&record);
            records += 1;
            budget = budget.saturating_sub(record.len());
            drop(record);
            if records % CLOCK_EVERY == 0 {
                let now = Instant::now();
                if now - begin > BUDGET_TIME {
                    break;
                }
                if may_wait(self.unread(), self.room, now - self.drained) {
                    std::thread::yield_now();
                }
            }
        }
        self.read += records as u64;
        Ok(records)
    }

    /// Bytes that are not read yet.
    pub fn unread(&self) -> u64 {
        self.positions.unread()
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

/// Whether the reader lets those go first that wait for its processor. On a host without a free one they are the services
/// that it observes: while it goes on, they stand still, and so do those on other processors that wait for them. As
/// long as there is room, what they tell meanwhile is read later; then the reader takes its fair part.
fn may_wait(unread: u64, room: u64, since_drained: Duration) -> bool {
    unread < room / 2 && since_drained < GIVE_WAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_way_while_there_is_room_and_all_is_new() {
        let moment = Duration::from_millis(1);
        assert!(may_wait(0, 1024, moment));
        assert!(may_wait(511, 1024, GIVE_WAY - moment));
        assert!(!may_wait(512, 1024, moment), "half of it is unread");
        assert!(!may_wait(0, 1024, GIVE_WAY), "what is unread may be old");
    }
}
