//! Records that wait for their origin, and for its place in a trace.

use std::collections::VecDeque;

use super::{Draft, Unlinked};
use crate::event::{MS, Ns};
use crate::trace::causality::{Origin, Written};

/// Records that wait; about 1 kB each. At the rates of KTRDR's services, minutes.
const MAX_PENDING: usize = 16 * 1024;
/// Records waiting are looked at again so often: often enough for what they say of a span to reach it before it is sent
/// (60 ms after its end).
const PASS_NS: Ns = 10 * MS;
/// How long a record waits for its span's place: as long as a span does. Evidence of its caller's origin comes within 30 s
/// (at the end of the request that called), and whether its caller is a command is known after 2 s; a trace has a few
/// such calls above it. What limits the memory is [`MAX_PENDING`].
pub const PLACE_NS: Ns = 120_000 * MS;

/// The waiting records, oldest first.
#[derive(Default)]
pub struct Pending {
    /// Each in a place of its own: they come by every few milliseconds, and are large.
    queue: VecDeque<Box<Settled>>,
    passed: Ns,
}

/// A record and what is known of its origin.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The record.
    pub draft: Draft,
    /// Its origin.
    pub origin: Written,
    /// Its origin is what an access line says of itself.
    pub named: bool,
    /// Its span has been told.
    pub told: bool,
    /// Since when its origin is known.
    pub since: Option<Ns>,
    /// There is no need to look at it before.
    pub look_at: Ns,
}

impl Settled {
    /// Its span has no place yet. The longer that takes the seldomer it is looked for, or thousands of records of a
    /// call that takes a minute would be looked at a hundred times a second; it waits at most an eighth longer.
    pub fn wait(&mut self, now: Ns) {
        let waited = self.since.map_or(0, |since| now.saturating_sub(since));
        self.look_at = now.saturating_add(waited / 8);
    }

    /// Why it has no trace, where its origin is known to be none.
    pub fn why(&self) -> Unlinked {
        match self.origin {
            _ if self.draft.raw.origin.is_none() => Unlinked::Buffered,
            Written::TooMany => Unlinked::TooMany,
            Written::LeftOut => Unlinked::LeftOut,
            _ => Unlinked::NoEvidence,
        }
    }

    /// The origin, if it is known by now.
    pub fn known(&self) -> Option<Option<Origin>> {
        match self.origin {
            Written::Known(origin) => Some(origin),
            Written::TooMany | Written::LeftOut => Some(None),
            Written::Open(_) => None,
        }
    }
}

impl Pending {
    /// Whether it is time for another pass.
    pub fn due(&mut self, now: Ns) -> bool {
        let due = now.saturating_sub(self.passed) >= PASS_NS;
        if due {
            self.passed = now;
        }
        due
    }

    /// A record begins to wait. Returns the oldest if there are too many.
    pub fn add(&mut self, draft: Draft) -> Option<Box<Settled>> {
        let origin = draft.raw.origin.unwrap_or(Written::Known(None));
        let settled = Settled { draft, origin, named: false, told: false, since: None, look_at: 0 };
        self.queue.push_back(Box::new(settled));
        if self.queue.len() > MAX_PENDING { self.queue.pop_front() } else { None }
    }

    /// The one that has waited for longest, to be looked at; if it goes on waiting it is to be given back.
    pub fn pop(&mut self) -> Option<Box<Settled>> {
        self.queue.pop_front()
    }

    /// It goes on waiting.
    pub fn back(&mut self, settled: Box<Settled>) {
        self.queue.push_back(settled);
    }

    /// Those that say something of a span that is not known yet.
    pub fn untold(&self) -> impl Iterator<Item = (Ns, Written)> {
        let untold = self.queue.iter().filter(|s| !s.told && s.draft.tells());
        untold.map(|s| (s.draft.raw.ts, s.origin))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
