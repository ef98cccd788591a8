//! What pools of Python threads run (`concurrent.futures`, and so `loop.run_in_executor`).
//!
//! A function that is submitted to a pool becomes an item in its queue: put there once, by whoever submitted it, and taken
//! once, by the thread that runs it. Both are told, with the item's address. So a thread that took an item works for its submitter
//! until it takes the next one, whatever else that pool has in hand. It copies no context (`asyncio.to_thread` does); but
//! contexts that are copied meanwhile from the thread's own, as those of a loop that it runs, descend from the item.
//!
//! A thread that reads a request serves that: a server's pool (gunicorn's threads) is given connections.

use super::evidence::Found;
use super::settle::{Phase, Verdict};
use super::state::{Call, Causality, Lru, lru};
use super::tree::NodeId;
use super::{CallRef, Gap, Method, Origin};
use crate::event::{Ns, Task};

/// Items that were submitted and not taken yet, host-wide. Longer queues lose their first items' submitters; a pool that is
/// so far behind its requests has answered them with time-outs.
const MAX_ITEMS: usize = 65_536;

/// Items by process (as contexts are told apart) and address, with what stands for their submission: its origin is that of a
/// call made then.
#[derive(Debug)]
pub(super) struct Items(Lru<(u32, u64), CallRef>);

impl Default for Items {
    fn default() -> Self {
        Self(lru(MAX_ITEMS))
    }
}

/// What a thread took last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    item: u64,
    /// Stands for the thread's own context while it runs the item.
    pub node: NodeId,
}

impl Causality {
    pub(super) fn submitted(&mut self, task: Task, item: u64, ts: Ns) {
        self.expire(ts);
        let p = self.process(task.tgid);
        if item == 0 || ts < p.since {
            return;
        }
        let epoch = p.contexts;
        let node = self.node_of(task, ts);
        let submission = self.open_creation(task, node, ts);
        self.items.0.insert((epoch, item), submission);
    }

    pub(super) fn taken(&mut self, tgid: u32, tid: u32, item: u64, ts: Ns) {
        let epoch = self.process(tgid).contexts;
        let submission = self.items.0.remove(&(epoch, item));
        let t = self.thread(tgid, tid);
        // Another return of the same call may tell it again.
        if item != 0 && t.work.is_some_and(|w| w.item == item) && submission.is_none() {
            return;
        }
        // It was created for the first item of its pool, at most.
        t.clone = None;
        t.work = None;
        let Some(submission) = submission else { return };
        let node = self.tree.work(submission, ts);
        self.thread(tgid, tid).work = Some(Work { item, node });
    }

    /// The node that stands for a thread's own context, if it took an item.
    pub(super) fn working(&self, tgid: u32, tid: u32) -> Option<NodeId> {
        let thread = self.threads.peek(&tid).filter(|t| t.tgid == tgid && !t.switches.greenlets)?;
        thread.work.map(|w| w.node)
    }

    /// Whose an item was that a context descends from, which may be `stale`: of another that has its address now. `None`: nobody's, as far as is known, so other evidence counts.
    pub(super) fn judge_work(&self, found: Found, stale: bool, phase: Phase) -> Option<Verdict> {
        let Found::Work(submission) = found else { return None };
        if stale {
            // A response under it may yet say whose it is.
            let told =
                if phase < Phase::Horizon { Verdict::Wait } else { Verdict::Missing(Gap::ContextStale) };
            return Some(told);
        }
        match self.calls.peek(&submission)? {
            Call::Open(_) => (phase < Phase::Deadline).then_some(Verdict::Wait),
            Call::Settled(Some(o), _) => {
                let Origin { span, method } = *o;
                // The only request in flight then need not be so now, and was a guess.
                let told = method != Method::SingleInFlight;
                let method = if method.exact() { Method::PythonExecutor } else { method };
                told.then_some(Verdict::Final(Some(Origin { span, method })))
            }
            Call::Settled(None, gap) => gap.map(Verdict::Missing),
        }
    }
}
