//! When the only request in flight may be taken for the origin of a call that nothing else tells of.
//!
//! A timer, a poller or work left over from an earlier request calls just as the request's own handler does. So the
//! guess is made only for a process that was left alone before and then made no such call: long enough that one which
//! comes by itself would have shown. A process that was ever seen to make one is never guessed about again.

use crate::event::Ns;

/// Idle time without a call per time that the request had been in flight. For calls that come by themselves at any
/// rate, a guess is then wrong in at most 1 of 100·e = 272 requests; for periodic ones with a period up to that idle
/// time, never.
const IDLE_PER_BUSY: Ns = 100;

/// What a process did while no request was in flight.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Since when none is; `None` while one is, and where that is not known.
    since: Option<Ns>,
    /// When the last request in flight ended, before the one now in flight was read.
    last: Option<Ns>,
    /// All idle time so far.
    total: Ns,
    /// The longest stretch of it.
    longest: Ns,
    /// It made a call of which nothing but the requests in flight could have told.
    called: bool,
}

impl Idle {
    /// A process that is watched from `ts` on, or from its creation.
    pub fn watched(ts: Option<Ns>) -> Self {
        Self { since: ts, ..Self::default() }
    }

    /// A request was read while none was in flight.
    pub fn ends(&mut self, ts: Ns) {
        self.last = self.since.take();
        let stretch = self.last.map_or(0, |since| ts.saturating_sub(since));
        self.total = self.total.saturating_add(stretch);
        self.longest = self.longest.max(stretch);
    }

    /// The last request in flight is over.
    pub fn begins(&mut self, ts: Ns) {
        self.since = Some(ts);
    }

    /// It called by itself.
    pub fn called(&mut self) {
        self.called = true;
    }

    /// It was seen to call by itself.
    pub fn calls(&self) -> bool {
        self.called
    }

    /// Records are missing, calls may be among them.
    pub fn unseen(&mut self) {
        *self = Self { called: self.called, ..Self::default() };
    }

    /// Whether a call at `ts`, while the request read at `read` is the only one in flight, would hardly have come by
    /// itself.
    pub fn vouches(&self, read: Ns, ts: Ns) -> bool {
        let Some(last) = self.last else { return false };
        let enough = ts.saturating_sub(read).saturating_mul(IDLE_PER_BUSY);
        // What an earlier request left to be done later has shown before, after as long a time, or is long done.
        let as_late = ts.saturating_sub(last).min(enough);
        !self.called && self.total >= enough && self.longest >= as_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(stretches: &[(Ns, Ns)]) -> Idle {
        let mut idle = Idle::default();
        for (from, to) in stretches {
            idle.begins(*from);
            idle.ends(*to);
        }
        idle
    }

    #[test]
    fn idle_time_without_a_call_vouches_for_a_hundredth_of_it() {
        let idle = idle(&[(1_000, 11_000)]);
        assert!(idle.vouches(11_000, 11_100));
        assert!(!idle.vouches(11_000, 11_101));
    }

    #[test]
    fn short_pauses_do_not_show_what_an_earlier_request_left_behind() {
        // 1,000 pauses of 10: work left for 50 after its response would have come in none of them.
        let short: Vec<(Ns, Ns)> = (0..1_000).map(|n| (n * 100, n * 100 + 10)).collect();
        assert!(!idle(&short).vouches(99_910, 99_950));
        let mut long = short.clone();
        long.insert(500, (50_010, 50_090));
        assert!(idle(&long).vouches(99_910, 99_950));
    }

    #[test]
    fn one_call_by_itself_or_lost_records_end_it() {
        let mut a = idle(&[(1_000, 11_000)]);
        a.called();
        assert!(!a.vouches(11_000, 11_001));
        let mut b = idle(&[(1_000, 11_000)]);
        b.unseen();
        assert!(!b.vouches(11_000, 11_001));
        assert!(!Idle::default().vouches(0, 0));
        let mut first = Idle::watched(Some(1_000));
        first.ends(2_000);
        assert!(first.vouches(2_000, 2_010) && !first.vouches(2_000, 2_011));
    }
}
