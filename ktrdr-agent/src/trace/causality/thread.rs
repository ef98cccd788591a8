//! What threads say: one request at a time, contexts that share a thread, creation.

use ktrdr_ebpf_common::THREADS_OWN_CONTEXT;

use super::SpanRef;
use super::state::{Causality, MAX_GUARDS, OpenCall, Thread};
use crate::event::{Ns, Task};

/// Requests that a process of an unknown runtime must have served thread by thread, while others were open on its
/// other threads, before its threads are believed under concurrency: runtimes that move tasks between threads
/// (Go, tokio) betray themselves within as many, and an event loop (Node) never serves two at once on two threads.
const SYNC_PROOFS: u32 = 3;

/// The task's context, 0 for none or the thread's own: those are the thread's, not a task's.
fn shared_by_tasks(task: Task) -> u64 {
    if task.py_context & THREADS_OWN_CONTEXT == 0 { task.py_context } else { 0 }
}

impl Causality {
    /// The context current at a read of a request, on the thread.
    pub(super) fn note_read_context(&mut self, task: Task) -> &mut Thread {
        let context = shared_by_tasks(task);
        let t = self.thread(task.tgid, task.tid);
        // Each connection has its own: an event loop.
        t.many_contexts |= t.read_context.replace(context).is_some_and(|before| before != context);
        // It serves by itself: what it was created for is over, and what it took was a connection.
        (t.clone, t.work) = (None, None);
        t
    }

    /// The context current at a call or a response.
    pub(super) fn note_context(&mut self, task: Task) {
        let context = shared_by_tasks(task);
        let t = self.thread(task.tgid, task.tid);
        t.many_contexts |= t.read_context.is_some_and(|read| read != context);
    }

    /// What must stay true for a task created now to work for its creator's request only; `None` if it may
    /// already work for another.
    pub(super) fn clone_guards(&mut self, creator: Task, ts: Ns) -> Option<Vec<(u32, u32, u64)>> {
        let inherited = self.valid_clone(creator).map(|c| c.guards).unwrap_or_default();
        let p = self.processes.peek(&creator.tgid);
        let unseen = self.sight.void(ts);
        let own = p.filter(|p| p.reads > 0 || (unseen && p.serves));
        if own.is_some_and(|p| p.in_flight.len() > 1) || (own.is_none() && inherited.is_empty()) {
            return None;
        }
        let mut guards = inherited;
        if let Some(p) = p {
            guards.push((creator.tgid, p.epoch, p.reads));
        }
        (guards.len() <= MAX_GUARDS).then_some(guards)
    }

    /// The creation of this task, if its origin still tells what it works for.
    pub(super) fn valid_clone(&mut self, task: Task) -> Option<super::Cloned> {
        let clone = self.threads.peek(&task.tid).filter(|t| t.tgid == task.tgid)?.clone.clone()?;
        let holds = |&(tgid, epoch, reads): &(u32, u32, u64)| {
            self.processes.peek(&tgid).is_some_and(|p| p.epoch == epoch && p.reads == reads)
        };
        clone.guards.iter().all(holds).then_some(clone)
    }

    /// Whether the call's thread served `span` alone from its read to its response. `None`: not known yet.
    pub(super) fn thread_served(&mut self, call: &OpenCall, span: SpanRef) -> Option<bool> {
        let Some(r) = self.requests.peek(&span) else { return Some(false) };
        let Some(p) = self.processes.peek(&call.task.tgid).filter(|p| p.epoch == call.epoch) else {
            return Some(false);
        };
        let Some(t) = self.threads.peek(&call.task.tid).filter(|t| t.tgid == call.task.tgid) else {
            return Some(false);
        };
        if t.is_loop || t.many_contexts || r.overlapped || p.migrates {
            return Some(false);
        }
        if r.responded.is_none() {
            return if r.done { Some(false) } else { None };
        }
        if Self::may_be_anothers(call.task, r) {
            return Some(false);
        }
        // Until then, a loop that happened to serve one request may have called for anybody.
        // Nor would contexts have shown one before they were followed.
        let shown = p.python == Some(true) && call.ts >= p.since && !p.greenlets;
        let proven = shown || (p.sync_proofs >= SYNC_PROOFS && !p.loops);
        Some(r.one_thread && proven)
    }
}
