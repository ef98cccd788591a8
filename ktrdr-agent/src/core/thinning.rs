//! Connections that are left out for a while, so that the agent stays within its budget.
//!
//! Nothing that is not told of them is taken for something that happened: what is under way on one that is left out from now
//! on ends here as not seen to its end, and the connection is forgotten. One that comes back is like one older than the
//! agent. Whoever changes what is left out tells the core first, of what was and what will be, then the kernel programs, and
//! then the core of what is; so whatever still comes of a connection that is left out may be dropped.

use std::collections::BTreeMap;

use ktrdr_ebpf_common::thinning::{ALL, left_out};

use super::calls::digest;
use super::{Core, Output};
use crate::engine::MAX_CONNS;
use crate::event::shell::Thinned;
use crate::event::{ConnId, Data, Direction, MS, Ns, Task, Tuple};
use crate::trace::spans::LEFT_OUT;

/// For so long transfers come without addresses on a connection that was given up: until the kernel programs have forgotten
/// what they know of it, and what they sent before is read. That is milliseconds, seconds where the agent is far behind.
const ENDING_NS: Ns = 10_000 * MS;

/// What is left out of each port's connections, as [`left_out`] counts them.
#[derive(Debug, Default)]
struct Shares(BTreeMap<u16, u32>);

impl Shares {
    fn of(thinned: Thinned) -> Self {
        Self(thinned.ports.into_iter().filter(|(_, share)| *share > 0).collect())
    }

    fn leave_out(&self, t: &Tuple) -> bool {
        let share = |port| self.0.get(&port).copied().unwrap_or(0);
        !self.0.is_empty() && left_out(t.local.port(), t.remote.port(), share)
    }
}

/// What is left out, and what was until now.
#[derive(Debug, Default)]
pub(super) struct Thinning {
    shares: Shares,
    /// Connections given up lately; as many as are followed at most.
    ending: BTreeMap<ConnId, Tuple>,
    /// When something changed last.
    changed: Option<Ns>,
}

impl Thinning {
    /// Whether a connection is left out.
    pub fn leaves_out(&self, t: &Tuple) -> bool {
        self.shares.leave_out(t)
    }

    /// How much of a port's connections is observed (0 to 1, to four places), if it is not all.
    pub fn observed(&self, port: u16) -> Option<f64> {
        let share = f64::from(ALL.saturating_sub(*self.shares.0.get(&port)?)) / f64::from(ALL);
        Some((share * 1e4).round() / 1e4)
    }

    /// Whether anything was ever left out.
    pub fn ever(&self) -> bool {
        self.changed.is_some()
    }

    /// Whether there may still be records from before the last change.
    fn just_changed(&self, now: Ns) -> bool {
        self.changed.is_some_and(|changed| now.saturating_sub(changed) <= ENDING_NS)
    }

    /// Forgets connections that nothing comes of any more.
    pub fn expire(&mut self, now: Ns) {
        if !self.ending.is_empty() && !self.just_changed(now) {
            self.ending = BTreeMap::new();
        }
    }
}

impl Core {
    /// Other connections are left out from now on.
    pub(super) fn thinned(&mut self, thinned: Thinned) {
        let next = Shares::of(thinned);
        let partial = !next.0.is_empty();
        if partial {
            // Before the calls end that are under way: what waits for evidence waits in vain.
            self.partial(true);
        }
        let leaves = |id: &ConnId| self.engine.get(*id).is_some_and(|c| next.leave_out(&c.tuple));
        let left: Vec<ConnId> = self.engine.ids().into_iter().filter(leaves).collect();
        for id in left {
            if let Some(outcome) = self.engine.left(self.now, id, LEFT_OUT) {
                if self.thinning.ending.len() < MAX_CONNS {
                    self.thinning.ending.insert(id, outcome.conn.tuple);
                }
                let (on, paired) = digest(outcome);
                self.paired(id, on, paired);
            }
            self.engine.forget(id);
            self.out.push_back(Output::Forget(id));
        }
        self.thinning.shares = next;
        self.thinning.changed = Some(self.now);
        if !partial {
            self.partial(false);
        }
        // Of the same client a request may come that nobody sees.
        self.logs.forget_requests();
    }

    fn partial(&mut self, partial: bool) {
        let whole = self.causality.partial(partial, self.now);
        self.assembler.partial(partial, whole);
    }

    /// Whether a transfer is on a connection that is left out.
    pub(super) fn is_left_out(&self, d: &Data<'_>) -> bool {
        match &d.tuple {
            Some(t) => self.thinning.leaves_out(t) || (self.thinning.just_changed(self.now) && told_only(d)),
            None => self.thinning.ending.contains_key(&d.conn) && self.engine.get(d.conn).is_none(),
        }
    }

    /// A transfer on a connection that is left out.
    pub(super) fn passed_over(&mut self, ts: Ns, task: Task, d: &Data<'_>) {
        self.counts.left_out += 1;
        if d.direction == Direction::Send {
            return;
        }
        self.watch_user(task.tgid);
        self.causality.received(task, d.conn, ts);
        let tuple = d.tuple.or_else(|| self.thinning.ending.get(&d.conn).copied());
        let serves = |t: Tuple| {
            self.thinning.shares.0.contains_key(&t.local.port())
                || self.listeners.any(t.netns, t.local.port())
        };
        if !d.eof && tuple.is_some_and(serves) {
            self.causality.unseen_request(task, d.conn, ts);
        }
    }
}

/// Addresses come with the first bytes, except of a transfer that is told for the sake of causality alone. One from before
/// the programs knew that its connection is observed again is read when the core knows it already.
fn told_only(d: &Data<'_>) -> bool {
    d.direction == Direction::Recv && d.len > 0 && d.payload.is_empty() && !d.no_buffer && !d.fault
}
