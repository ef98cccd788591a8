//! Services that end again and again: a supervisor brings them back, and callers see a refused connect here and a reset
//! there.

use std::collections::VecDeque;

use hashlink::LruCache;

use crate::event::{MS, Ns};

/// Services whose ends are remembered. A host runs tens.
const MAX_SERVICES: usize = 256;
/// Listening processes known, the one that began to longest ago is forgotten.
const MAX_SERVING: usize = 4_096;
/// Ends remembered per service.
const MAX_ENDS: usize = 32;
/// How far back ends count: systemd's and Docker's patience with a failing service is shorter.
const WINDOW_NS: Ns = 300_000 * MS;
/// A supervisor and the child that serves for it (uvicorn's reloader) end together, which is one end.
const TOGETHER_NS: Ns = 2_000 * MS;
/// So many ends within that time are no accident any more.
const MANY: usize = 3;

/// A service that ended several times of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarts {
    /// How often.
    pub times: usize,
    /// From the first of these ends until now.
    pub within: Ns,
}

/// When a process ended, which, and whose child it was.
type End = (Ns, u32, u32);

/// Ends of services.
pub struct Deaths {
    serving: LruCache<u32, (), foldhash::fast::FixedState>,
    ends: LruCache<Box<str>, VecDeque<End>, foldhash::fast::FixedState>,
}

impl Default for Deaths {
    fn default() -> Self {
        Self {
            serving: LruCache::with_hasher(MAX_SERVING, foldhash::fast::FixedState::default()),
            ends: LruCache::with_hasher(MAX_SERVICES, foldhash::fast::FixedState::default()),
        }
    }
}

impl Deaths {
    /// A process listens.
    pub fn serves(&mut self, tgid: u32) {
        self.serving.insert(tgid, ());
    }

    /// A process of this service ended, `parent`'s child. Only those that listened count.
    pub fn ended(&mut self, tgid: u32, parent: u32, service: &str, ts: Ns) {
        if self.serving.remove(&tgid).is_none() {
            return;
        }
        if !self.ends.contains_key(service) {
            self.ends.insert(service.into(), VecDeque::new());
        }
        let Some(ends) = self.ends.get_mut(service) else { return };
        // A supervisor and its child (a reloader's) go down together: that is one end.
        let other = |(at, t, p): &End| ts.abs_diff(*at) <= TOGETHER_NS && (*t == parent || *p == tgid);
        if ends.iter().any(other) {
            return;
        }
        ends.push_back((ts, tgid, parent));
        let old = |(first, ..): &End| ts.saturating_sub(*first) > WINDOW_NS;
        while ends.len() > MAX_ENDS || ends.front().is_some_and(old) {
            ends.pop_front();
        }
    }

    /// Whether the service ended again and again before `now`.
    pub fn of(&self, service: &str, now: Ns) -> Option<Restarts> {
        let ends = self.ends.peek(service)?;
        let recent = || {
            ends.iter().map(|(at, ..)| *at).filter(|at| now.saturating_sub(*at) <= WINDOW_NS && *at <= now)
        };
        let times = recent().count();
        let within = now.saturating_sub(recent().next()?);
        (times >= MANY).then_some(Restarts { times, within })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Ns = 1_000 * MS;

    #[test]
    fn ends_count_for_services_and_for_a_while() {
        let mut d = Deaths::default();
        for (tgid, ts) in [(1, S), (2, 10 * S), (3, 20 * S)] {
            d.ended(tgid, 1, "client", ts);
            d.serves(tgid);
            d.ended(tgid, 1, "api", ts);
        }
        assert_eq!(d.of("client", 21 * S), None);
        assert_eq!(d.of("api", 15 * S), None, "two of them by then");
        assert_eq!(d.of("api", 21 * S), Some(Restarts { times: 3, within: 20 * S }));
        assert_eq!(d.of("api", 302 * S), None, "the first is too long ago");
        // A supervisor and its child are one, in either order.
        for (tgid, parent) in [(20, 10), (10, 1), (11, 1), (21, 11)] {
            d.serves(tgid);
            d.ended(tgid, parent, "pair", u64::from(tgid) * MS);
        }
        assert_eq!(d.of("pair", S), None);
        assert_eq!(d.ends.peek("pair").map(VecDeque::len), Some(2));
        for tgid in 10..10_000 {
            d.serves(tgid);
            d.ended(tgid, 1, &format!("s{}", tgid % 1000), u64::from(tgid) * MS);
        }
        assert!(d.ends.len() <= MAX_SERVICES && d.ends.iter().all(|(_, e)| e.len() <= MAX_ENDS));
    }
}
