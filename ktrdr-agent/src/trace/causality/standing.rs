//! Requests that may be under way and that nobody saw come: they were read before the agent came.
//!
//! Each is on a connection that stood by then. So whoever observes tells of all that a process had accepted, and of each
//! when it holds no such request any more: its response was seen, or another request, or its end; or it was opened since.
//!
//! As long as there is one, what rests on having heard of all requests that were in flight with a call is not believed:
//! that nobody else claims its context, where contexts are made unseen; that a context which was there before works for one
//! request only, as a worker's does not. Such calls wait: the response that is still to come may say that it was for another.

use super::CallRef;
use super::given::is_given;
use super::settle::Phase;
use super::state::{Call, Causality, MAX_HORIZON, OpenCall, SETTLE_NS};
use super::tree::NodeId;
use crate::event::{Ns, Task};

/// The connections of one process that were there before the agent.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Those that may hold a request.
    conns: usize,
    /// Until when: no client waits longer for what was asked before. Many connections are idle and stay so.
    until: Ns,
    /// Open calls for which all requests in flight are over, but for those.
    waiting: Vec<CallRef>,
    /// When the thread itself sent a response to such a request last, as it seemed.
    sent: Option<Ns>,
    /// When the response to such a request was sent last by its loop, and for whom is not known.
    pub untold: Option<Ns>,
}

impl Standing {
    /// What the process's loop sends is told of from now on when it is written: for whom it sent before is not known.
    pub fn loop_is_found(&mut self) {
        if let Some(sent) = self.sent {
            self.not_told(sent);
        }
    }

    fn not_told(&mut self, ts: Ns) {
        self.untold = self.untold.max(Some(ts));
    }

    fn may(&self, now: Ns) -> bool {
        // Time that is never told of does not pass: the stream ended before.
        self.conns > 0 && (now < self.until || self.until == Ns::MAX)
    }
}

impl Causality {
    /// The process had accepted this connection before the agent came, as was seen at `ts`.
    pub fn stood(&mut self, tgid: u32, ts: Ns) {
        let standing = &mut self.process(tgid).standing;
        standing.conns += 1;
        standing.until = standing.until.max(ts.saturating_add(SETTLE_NS));
    }

    /// One of these holds no request any more that nobody saw come.
    pub fn stands_no_more(&mut self, tgid: u32) {
        let Some(p) = self.processes.get_mut(&tgid) else { return };
        p.standing.conns = p.standing.conns.saturating_sub(1);
        if p.standing.conns > 0 {
            return;
        }
        for call in std::mem::take(&mut p.standing.waiting) {
            if !self.resolve(call, Phase::Horizon) {
                self.waits_on(tgid, call);
            }
        }
    }

    /// The response to such a request was written: whoever wrote it worked for that, too.
    pub(super) fn answered_unasked(&mut self, task: Task, node: Option<NodeId>, ts: Ns) {
        let says = self.says(task, node);
        let standing = &mut self.process(task.tgid).standing;
        if !is_given(task) {
            standing.sent = standing.sent.max(Some(ts));
        }
        match node {
            _ if !says => standing.not_told(ts),
            Some(node) => self.tree.unasked(node, self.wrote(task, ts)),
            None => {}
        }
    }

    /// The stream ends: what requests that are under way will say is not seen.
    pub fn ends(&mut self) {
        for (_, p) in self.processes.iter_mut() {
            p.standing.until = Ns::MAX;
            if !p.in_flight.is_empty() {
                p.untold.add(0, Ns::MAX);
            }
        }
    }

    /// Whether the process may be working for requests that nobody saw come, as far as is known now.
    pub(super) fn may_work_unasked(&self, tgid: u32) -> bool {
        self.processes.peek(&tgid).is_some_and(|p| p.standing.may(self.clock))
    }

    /// All requests are over that were in flight with this call and seen to come: it waits for the others. Whether there may
    /// be any.
    pub(super) fn waits_on_unasked(&mut self, tgid: u32, call: CallRef) -> bool {
        if !self.may_work_unasked(tgid) {
            if let Some(p) = self.processes.get_mut(&tgid) {
                // What waited longer is settled by its own time.
                p.standing.waiting = Vec::new();
            }
            return false;
        }
        if let Some(Call::Open(c)) = self.calls.peek_mut(&call) {
            c.behind = true;
        }
        if let Some(p) = self.processes.get_mut(&tgid)
            && p.standing.waiting.len() < MAX_HORIZON
        {
            p.standing.waiting.push(call);
        }
        true
    }

    /// The time of a call is over. If it waited for such requests alone, so is theirs.
    pub(super) fn waited_for_unasked(&self, c: &OpenCall) -> bool {
        c.behind && !self.may_work_unasked(c.task.tgid)
    }
}
