//! Threads that switch between greenlets (gevent, eventlet), each of which has a context of its own.
//!
//! A greenlet begins with no context. The first variable that is set in it makes an empty one, which nobody copied and nobody enters:
//! to the kernel programs it looks like the thread's own. But a thread has one of these, from some moment on until its end. So
//! one on which another follows, or none, switches between greenlets; from then on each of its own contexts is a task's,
//! and the thread itself says nothing any more.
//!
//! Such a context is a greenlet's until that ends; then the next one that is made may take its address, unseen. So a response
//! under it says whose the work there was only for the time in which it certainly was the same greenlet's:
//!
//! - The request was read under it, too, and one before on that connection was answered under it: since the read. Whoever waits for a
//!   connection's next request has it already.
//! - The request was read under none, as by a greenlet that has just begun: since the last of it was received, if whoever reads
//!   makes its context at once. One that waits first may get the address of another that called meanwhile, and ended. Of servers
//!   whose greenlets do that it shows: an address answers two requests that were served at one time, or one that another called
//!   under before for no request. So this is believed of threads where many took an address that was used before, and
//!   none was ever seen to have got it late.
//!
//! Of a greenlet without a context nothing is known.

use ktrdr_ebpf_common::THREADS_OWN_CONTEXT;

use super::state::{Causality, Lru, MAX_REQUESTS, Request, lru};
use super::tree::NodeId;
use super::{Method, SpanRef};
use crate::event::{ConnId, Ns, Task};

/// So many greenlets of a thread must have taken an address that was used before, without a sign that one got it late. Where they wait
/// before they make their context, the addresses that are freed meanwhile are the first to be used again.
const PROMPT: u32 = 16;

/// What a thread's own contexts were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Switches {
    /// One that was current; 0: none yet.
    own: u64,
    /// Then another was, or none.
    pub greenlets: bool,
    /// Greenlets that answered under an address which was another's before, …
    reused: u32,
    /// … and whether one of them may have got it after its request was read.
    late: bool,
    /// What one read another answered.
    hands_over: bool,
}

/// What is known of the greenlet that serves a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// When the last of it was received under no context, on such a thread.
    whole: Option<Ns>,
    answered: Option<Answered>,
    /// The response was written under a context of its thread's own.
    own: bool,
}

/// Who answered a request under a greenlet's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    /// Who read it.
    Reader,
    /// Who read it under none, as it seems.
    Beginner,
    /// Nobody knows.
    Other,
}

/// Requests that were read under no context on such threads, by connection.
#[derive(Debug)]
pub(super) struct Readings(Lru<ConnId, SpanRef>);

impl Default for Readings {
    fn default() -> Self {
        Self(lru(MAX_REQUESTS))
    }
}

fn is_own(task: Task) -> bool {
    task.py_context & THREADS_OWN_CONTEXT != 0
}

impl Causality {
    /// Threads of the process may switch between greenlets.
    pub fn greenlets(&mut self, tgid: u32) {
        self.process(tgid).greenlets = true;
    }

    /// Takes note of a thread's own context, or that it has none.
    pub(super) fn note_own(&mut self, task: Task) {
        if task.py_context != 0 && !is_own(task) {
            return;
        }
        // Most threads of a host never have a context, and leave no trace here for that.
        if task.py_context == 0 && self.threads.peek(&task.tid).is_none_or(|t| t.switches.own == 0) {
            return;
        }
        let t = self.thread(task.tgid, task.tid);
        let before = t.switches.own;
        if before == 0 {
            t.switches.own = task.py_context;
        } else if before != task.py_context {
            t.switches.greenlets = true;
            t.many_contexts = true;
        }
    }

    /// Whether the context is that of a greenlet.
    pub(super) fn of_greenlet(&self, task: Task) -> bool {
        is_own(task) && self.switches(task)
    }

    fn switches(&self, task: Task) -> bool {
        let thread = self.threads.peek(&task.tid).filter(|t| t.tgid == task.tgid);
        thread.is_some_and(|t| t.switches.greenlets)
            || self.processes.peek(&task.tgid).is_some_and(|p| p.greenlets)
    }

    /// The task received something.
    pub(super) fn received_on(&mut self, task: Task, conn: ConnId, ts: Ns) {
        self.note_own(task);
        if task.py_context == 0
            && let Some(span) = self.readings.0.peek(&conn)
            && let Some(r) = self.requests.peek_mut(span).filter(|r| r.responded.is_none())
        {
            // More of that request: until now its greenlet has no context.
            r.reading.whole = Some(ts);
        }
    }

    /// A request was read.
    pub(super) fn greenlet_reads(&mut self, task: Task, conn: ConnId, span: SpanRef, ts: Ns) {
        if task.py_context == 0 && self.switches(task) {
            self.readings.0.insert(conn, span);
            if let Some(r) = self.requests.peek_mut(&span) {
                r.reading.whole = Some(ts);
            }
        }
    }

    /// A response was written.
    pub(super) fn note_answer(&mut self, task: Task, span: SpanRef) {
        if is_own(task)
            && let Some(r) = self.requests.peek_mut(&span)
        {
            r.reading.own = true;
        }
    }

    /// Whether the call may be another greenlet's than the one that answered, as far as is known of their thread: it was made under
    /// no context, and the response was written under one.
    pub(super) fn may_be_anothers(task: Task, r: &Request) -> bool {
        task.py_context == 0 && r.reading.own
    }

    /// A response was written under a greenlet's context. Since when that certainly is whose it is now, if it is known.
    pub(super) fn greenlet_answers(&mut self, span: SpanRef, node: NodeId, to: Ns) -> Ns {
        let Some(r) = self.requests.peek_mut(&span) else { return to };
        let (how, from) = match (r.node, r.reading.whole) {
            (Some(read), _) if read == node && self.tree.answers(node, r.conn) => (Answered::Reader, r.read),
            (None, Some(whole)) => (Answered::Beginner, whole),
            _ => (Answered::Other, r.read),
        };
        let handed_over = r.node.is_some_and(|read| read != node);
        r.reading.answered = Some(how);
        let (tgid, tid, conn) = (r.tgid, r.tid, r.conn);
        if handed_over {
            self.thread(tgid, tid).switches.hands_over = true;
        }
        if how == Answered::Beginner {
            let late = self.tree.used(node, from, to);
            let reused = self.tree.claimed_by_others(node, conn);
            let switches = &mut self.thread(tgid, tid).switches;
            switches.late |= late;
            switches.reused = switches.reused.saturating_add(u32::from(reused));
        }
        from
    }

    /// Whether a greenlet read the request and answered it, under its own context. It had that all the time, and nobody else.
    pub(super) fn reader_answered(&self, span: SpanRef) -> bool {
        let reader = |r: &Request| r.reading.answered == Some(Answered::Reader);
        self.requests.peek(&span).is_some_and(reader) && self.kept_its_context(span) && !self.older(span)
    }

    /// What it is called that a call belongs to `span` by the context that answered it.
    pub(super) fn by_context(&self, span: SpanRef) -> Method {
        match self.requests.peek(&span).and_then(|r| r.reading.answered) {
            Some(Answered::Beginner) => Method::PythonGreenlet,
            _ => Method::PythonContext,
        }
    }

    /// Whether the context under which the request was answered was the same greenlet's all the time.
    pub(super) fn kept_its_context(&self, span: SpanRef) -> bool {
        let Some(r) = self.requests.peek(&span) else { return true };
        let Some(answered) = r.reading.answered else { return true };
        let switches = self.threads.peek(&r.tid).filter(|t| t.tgid == r.tgid).map(|t| t.switches);
        switches.is_some_and(|s| match answered {
            Answered::Reader => !s.hands_over,
            Answered::Beginner => !s.hands_over && !s.late && s.reused >= PROMPT,
            Answered::Other => false,
        })
    }
}
