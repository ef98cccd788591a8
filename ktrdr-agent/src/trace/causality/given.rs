//! What tasks give a loop that it sends later (uvloop before 0.23), under a context of its own.
//!
//! Each write is told when it is made, so the context current then is the writer's and nobody else's yet; what is sent bears
//! the number under which that was told. All that is written for a connection until its next send has one number: where
//! it was not all written under one context, whose the message is that begins there is not known.

use std::collections::VecDeque;

use ktrdr_ebpf_common::GIVEN_BEFORE;

use super::SpanRef;
use super::state::{Causality, Lru, OpenCall, Process, SETTLE_NS, lru};
use super::tree::NodeId;
use crate::event::{Ns, Task};

/// Writes remembered, host-wide. They are sent within a turn of their loop, or when the connection takes more; and a
/// message whose first bytes were sent is told of when it is whole, which may be as many turns later as it has pieces.
const MAX_WRITES: usize = 65_536;

/// Responses of one process that are remembered because it is not known who wrote them: most are known. Beyond, the oldest count
/// as one.
const MAX_UNTOLD: usize = 64;

/// By process (as contexts are told apart), thread and number; `None`: several wrote.
#[derive(Debug)]
pub(super) struct Given(Lru<(u32, u32, u64), Option<Writer>>);

impl Default for Given {
    fn default() -> Self {
        Self(lru(MAX_WRITES))
    }
}

#[derive(Clone, Copy, Debug)]
struct Writer {
    node: NodeId,
    /// Its context's address then.
    context: u64,
    /// When it wrote. By the time of the send the address may be another context's, of which nobody saw where it came from.
    ts: Ns,
    /// Requests that the process had read by then.
    reads: u64,
}

/// Whether a number stands in the place of the task's context.
pub(super) fn is_given(task: Task) -> bool {
    task.py_context & GIVEN_BEFORE != 0
}

/// Responses of which it is not known under which contexts they were: a loop sent them. As when their requests were read, and
/// when they were sent.
#[derive(Debug, Default)]
pub(super) struct Untold(VecDeque<(Ns, Ns)>);

impl Untold {
    pub fn add(&mut self, read: Ns, sent: Ns) {
        self.0.push_back((read, sent));
        if self.0.len() > MAX_UNTOLD
            && let Some((first, second)) = self.0.pop_front().zip(self.0.front_mut())
        {
            *second = (first.0.min(second.0), first.1.max(second.1));
        }
    }
}

impl Process {
    /// Whether what was done at `ts`, and seems to be the work of a request read at `read`, may be that of another one whose
    /// response did not tell under which context it was; those that nobody saw come are among them, or not.
    ///
    /// - One that was read later did not begin it.
    /// - One that was answered before this one was read would not have spoken against it if it had told.
    /// - Of those answered before contexts were followed nobody tells anywhere. What was done since is no worker's for them.
    /// - Where addresses may be stale, what an answered one began goes on under addresses of others, for as long as calls wait.
    pub(super) fn may_be_untold(&self, ts: Ns, read: Option<Ns>, stale: bool, unasked: bool) -> bool {
        let goes_on = if stale { SETTLE_NS } else { 0 };
        let may = |(asked, sent): (Ns, Ns)| {
            let met = read.is_none_or(|read| read <= sent) && asked <= ts;
            met && sent >= self.since && ts <= sent.saturating_add(goes_on)
        };
        let unseen = self.standing.untold.filter(|_| unasked);
        self.untold.0.iter().copied().any(may) || unseen.is_some_and(|sent| may((0, sent)))
    }
}

impl Causality {
    pub(super) fn gave(&mut self, task: Task, number: u64, behind: bool, ts: Ns) {
        let reads = self.process(task.tgid).reads;
        let writer = self.node_of(task, ts).map(|node| Writer { node, context: task.py_context, ts, reads });
        let p = self.process(task.tgid);
        if !p.gives {
            p.gives = true;
            // Found late: what responses said till now was the loop's.
            p.standing.loop_is_found();
            if let Some(sent) = p.sent {
                // Others before that, too.
                p.untold.add(0, sent);
            }
        }
        let key = (self.process(task.tgid).contexts, task.tid, number);
        if !behind {
            self.given.0.insert(key, writer);
            return;
        }
        // A worker's may be for a request that was read in between, and so later than what was written first.
        let several = self.given.0.peek(&key).is_some_and(|first| match (*first, writer) {
            (Some(a), Some(b)) => a.node != b.node || (a.reads != b.reads && !self.tree.inherits(b.node)),
            (first, last) => first.is_some() || last.is_some(),
        });
        if several {
            self.given.0.insert(key, None);
        }
    }

    fn writer(&self, task: Task) -> Option<Writer> {
        let epoch = self.processes.peek(&task.tgid)?.contexts;
        *self.given.0.peek(&(epoch, task.tid, task.py_context))?
    }

    /// Takes note of a response: whether it tells for whom it was sent.
    pub(super) fn tells(&mut self, task: Task, span: SpanRef, node: Option<NodeId>, ts: Ns) -> bool {
        if !is_given(task) {
            let p = self.process(task.tgid);
            p.sent = p.sent.max(Some(ts));
        }
        let tells = self.says(task, node);
        if !tells {
            self.not_told(task.tgid, span, ts);
        }
        tells
    }

    /// Whether a response tells for whom it was sent.
    pub(super) fn says(&self, task: Task, node: Option<NodeId>) -> bool {
        if is_given(task) {
            return node.is_some();
        }
        // Of a thread outside all tasks the thread tells; a loop's is one that was not seen to be given this.
        let gives = self.processes.peek(&task.tgid).is_some_and(|p| p.gives);
        !gives || node.is_none_or(|n| self.tree.own(n))
    }

    /// The response that claims the call's context was the loop's, as is known since it was found: so is the context.
    pub(super) fn sent_by_the_loop(&self, c: &OpenCall, span: SpanRef) -> bool {
        let gives = self.processes.peek(&c.task.tgid).is_some_and(|p| p.gives);
        gives && self.requests.peek(&span).is_some_and(|r| !r.given)
    }

    /// The node of whoever gave the loop what it sends.
    pub(super) fn giver(&self, task: Task) -> Option<NodeId> {
        self.writer(task).map(|w| w.node)
    }

    /// When what is sent now was written.
    pub(super) fn wrote(&self, task: Task, now: Ns) -> Ns {
        self.writer(task).filter(|_| is_given(task)).map_or(now, |w| w.ts)
    }

    /// The task, with the address of the context that it wrote under in the place of a number.
    pub fn writing(&self, task: Task) -> Task {
        match self.writer(task).filter(|_| is_given(task)) {
            Some(writer) => Task { py_context: writer.context, ..task },
            None => task,
        }
    }
}
