//! What copies of contexts and the context of a response say about requests.

use super::SpanRef;
use super::delivery::Handed;
use super::evidence::{Answered, Claim, Evidence, Found};
use super::given::is_given;
use super::state::{Call, Causality, Pending, Via};
use super::style::Style;
use super::tree::{NodeId, Place};
use crate::event::{Ns, PyCopy, Task};
use ktrdr_ebpf_common::THREADS_OWN_CONTEXT;

/// What a copy on a thread with a pending request is.
enum Binding {
    To(SpanRef),
    Unseen,
    Doubt,
    None,
}

impl Causality {
    /// The tree's node for the context current on the task.
    pub(super) fn node_of(&mut self, task: Task, ts: Ns) -> Option<NodeId> {
        self.note_own(task);
        let work = self.own_work(task);
        if work.is_some() || task.py_context == 0 {
            return work;
        }
        let epoch = self.contexts(task.tgid, ts)?;
        self.node_in(epoch, task)
    }

    /// What the thread runs of its pool, unless it runs a task.
    fn own_work(&self, task: Task) -> Option<NodeId> {
        let own = task.py_context == 0 || task.py_context & THREADS_OWN_CONTEXT != 0;
        if own { self.working(task.tgid, task.tid) } else { None }
    }

    /// What tells the contexts of the process from others at the same addresses; `None`: of before they are followed.
    fn contexts(&mut self, tgid: u32, ts: Ns) -> Option<u32> {
        let p = self.process(tgid);
        (ts >= p.since).then_some(p.contexts)
    }

    fn node_in(&mut self, epoch: u32, task: Task) -> Option<NodeId> {
        if is_given(task) {
            return self.giver(task);
        }
        if self.of_greenlet(task) {
            return Some(self.tree.greenlets(epoch, task.py_context));
        }
        Some(self.tree.node(Place::new(epoch, task.py_context, task.tid)))
    }

    pub(super) fn copied(&mut self, tgid: u32, tid: u32, copy: PyCopy, ts: Ns, now: Ns) {
        // The copy failed (no memory).
        if copy.child == 0 {
            return;
        }
        // By its place in the stream: whatever was at its address before is no more.
        let Some(epoch) = self.contexts(tgid, now) else { return };
        if copy.parent == 0 {
            // The thread is not known to the kernel programs yet: whatever was at this address is no more.
            self.tree.unknown_copy(Place::new(epoch, copy.child, tid));
            return;
        }
        let copier = Task { tgid, tid, py_context: copy.parent };
        self.note_own(copier);
        let Some(parent) = self.own_work(copier).or_else(|| self.node_in(epoch, copier)) else { return };
        let child = self.tree.copy(Place::new(epoch, copy.child, tid), parent, ts);
        let binding = self.bind_pending(tgid, tid, parent, ts);
        match binding {
            Binding::To(span) => return self.tree.bind(child, span),
            Binding::Unseen => return self.tree.unseen(child),
            Binding::Doubt | Binding::None => {}
        }
        match self.handed(tgid, parent, ts) {
            Handed::To(span) => self.tree.hand(child, Some(span)),
            Handed::Unknown => self.tree.hand(child, None),
            Handed::Elsewhere if matches!(binding, Binding::Doubt) => self.tree.doubt(child, true),
            Handed::Elsewhere => {}
        }
    }

    /// The request that a copy of `parent` on this thread belongs to, if one is pending there.
    ///
    /// The handler of a read runs right after it and copies in one context: the one current at the read
    /// (asyncio's reader handle), or the connection's, which uvloop enters after the read. So only copies of one
    /// parent belong to the request, and a copy of another one shows that the handler has returned.
    fn bind_pending(&mut self, tgid: u32, tid: u32, parent: NodeId, ts: Ns) -> Binding {
        let pending = self.threads.peek(&tid).filter(|t| t.tgid == tgid).and_then(|t| t.pending);
        // What its handler copied may have been copied before copies were seen.
        let older = |p: &Pending| p.span.is_some_and(|span| self.older(span));
        let Some(pending) = pending.filter(|p| !p.closed && !older(p)) else { return Binding::None };
        let (bound, first) = match pending.parent {
            Some(p) => (p == parent, false),
            None => {
                (!self.serves_another(&pending, parent) && self.may_bind(tgid, &pending, parent, ts), true)
            }
        };
        let pending = self.thread(tgid, tid).pending.insert(Pending { closed: !bound, ..pending });
        if !bound {
            // The task of another request went on; or the handler entered a context that is no copy, at the address
            // of one that is gone, and had it copied (uvicorn 0.39 before Python 3.11). The responses will tell.
            // Bytes that nobody saw may be no request at all. Where handlers are known to copy the context of the read, and
            // nothing else, the copy of another one is somebody else's.
            let other = pending.span.is_none() && self.process(tgid).direct.proven();
            return if first && !other { Binding::Doubt } else { Binding::None };
        }
        let read = pending.read;
        pending.parent = Some(parent);
        let Some(span) = pending.span else { return Binding::Unseen };
        if first {
            let via = if read == Some(parent) { Via::Direct } else { Via::Other(parent) };
            if let Some(r) = self.requests.get_mut(&span) {
                r.via = Some(via);
            }
            if self.trusted(span) {
                self.place(span);
            }
        }
        Binding::To(span)
    }

    /// The context is that of a task which serves another connection.
    fn serves_another(&self, pending: &Pending, parent: NodeId) -> bool {
        let asked = pending.span.and_then(|span| self.requests.peek(&span));
        asked.is_some_and(|r| self.tree.serves_another(parent, r.conn))
    }

    fn may_bind(&mut self, tgid: u32, pending: &Pending, parent: NodeId, ts: Ns) -> bool {
        if pending.read == Some(parent) {
            // Under a loop's own context only the loop copies (an accepted connection), not a request's handler.
            return pending.unshared;
        }
        // A greenlet that has just begun has no context, and what one copies is its own.
        if self.tree.greenlet(parent) {
            return false;
        }
        // Where each connection has its own context at the read, its handler copies there and nowhere else.
        if pending.read.is_some() && pending.unshared && self.process(tgid).direct.proven() {
            return false;
        }
        // A task of another open request went on: the copy is its own.
        let over = |s| self.requests.peek(&s).is_none_or(|r| r.done && !r.left);
        match self.tree.find(parent, ts, &self.requests).found {
            Found::Bound(s) | Found::Claim(s) | Found::After(s) | Found::Handed(s) => over(s),
            Found::Work(submission) => match self.calls.peek(&submission) {
                Some(Call::Open(_)) => false,
                Some(Call::Settled(Some(o), _)) => over(o.span),
                // A server that was started in a pool.
                Some(Call::Settled(None, _)) | None => true,
            },
            Found::Conflict | Found::Unseen | Found::Next => false,
            Found::Nothing => true,
        }
    }

    /// The way the request was bound by a copy has been confirmed by responses before.
    pub(super) fn trusted(&mut self, span: SpanRef) -> bool {
        let Some((tgid, conn, via, read)) =
            self.requests.peek(&span).map(|r| (r.tgid, r.conn, r.via, r.read))
        else {
            return false;
        };
        let Some(p) = self.processes.peek(&tgid) else { return false };
        let whole = !self.sight.void(read);
        match via {
            None => false,
            Some(Via::Direct) => p.direct.proven(),
            Some(Via::Other(node)) => p.via.peek(&node).is_some_and(|s| {
                // One context alone copies after every read, as a server's that its loop enters for that.
                let silent = s.uncontested() && !p.gives;
                s.proven_for(conn) || (silent && p.via.len() == 1 && !p.mixed && whole)
            }),
        }
    }

    fn style(&mut self, span: SpanRef) -> Option<&mut Style> {
        let (tgid, via) = self.requests.peek(&span).map(|r| (r.tgid, r.via))?;
        let p = self.process(tgid);
        match via? {
            Via::Direct => Some(&mut p.direct),
            Via::Other(node) => p.via.get_mut(&node),
        }
    }

    fn agree(&mut self, span: SpanRef) {
        let Some((tgid, conn, via)) = self.requests.peek(&span).map(|r| (r.tgid, r.conn, r.via)) else {
            return;
        };
        let p = self.process(tgid);
        match via {
            // Addresses may be stale: agreement may be chance.
            _ if p.mixed => {}
            None => {}
            Some(Via::Direct) => p.direct.agree(conn),
            Some(Via::Other(node)) => p.via.entry(node).or_insert_with(Style::default).agree(conn),
        }
    }

    fn refute_style(&mut self, span: SpanRef) {
        if let Some(style) = self.style(span) {
            style.refute();
        }
    }

    /// The response to `span` was written under `node`: confirms, refutes or replaces what the tree says.
    /// Whether it claims the context. With `given` the loop sent it for whoever wrote it under that.
    pub(super) fn response_context(&mut self, span: SpanRef, node: NodeId, given: bool, ts: Ns) -> bool {
        let Some(r) = self.requests.peek(&span) else { return false };
        let (tgid, conn, opened, read, read_node, via) = (r.tgid, r.conn, r.opened, r.read, r.node, r.via);
        let Some(p) = self.processes.peek(&tgid) else { return false };
        if read < p.since {
            return self.answered_older(span, node, given, ts);
        }
        // What a thread does outside its tasks is known by the thread only.
        if self.tree.own(node) {
            return false;
        }
        // A loop's own context serves everybody, and so does a server's that is known to copy for its requests.
        let server = !p.mixed && p.via.contains_key(&node);
        if server || self.tree.shared(node) {
            return false;
        }
        let (reader, greenlet) = (read_node == Some(node), self.tree.greenlet(node));
        // A task that was created for the connection, and serves its requests one after the other.
        let serves = !reader && opened.is_some_and(|opened| self.tree.serves(node, conn, opened, read));
        if !reader && !given && !greenlet && self.written_by_the_loop(span, node, serves, ts) {
            return false;
        }
        if serves {
            self.process(tgid).serving.add(node);
        }
        if !reader && !serves && self.tree.get(node).is_none_or(|n| n.made.is_none_or(|made| made < read)) {
            self.process(tgid).mixed = true;
        }
        if let Some(r) = self.requests.get_mut(&span) {
            r.answered_under = Some(node);
        }
        self.answers_itself(span, node);
        let unseen = self.sight.void(read);
        let from = if greenlet { self.greenlet_answers(span, node, ts) } else { read };
        let next = if serves { self.serves_next(conn, node, read, ts) } else { None };
        let claim = Claim { span, conn, from, to: ts, void: false, unseen, older: false, next };
        // A task that serves its connection itself: it copies and answers, and reads, or its loop does.
        let itself = match via {
            Some(Via::Direct) => reader && (!greenlet || self.reader_answered(span)),
            Some(Via::Other(copies)) => serves && copies == node,
            None => false,
        };
        let Evidence { found, doubt, .. } = self.tree.find(node, ts, &self.requests);
        match found {
            Found::Bound(s) | Found::Claim(s) | Found::After(s) if s == span => {
                self.stats.agreed += 1;
                self.confirm(span);
                self.agree(span);
                self.tree.doubt(node, false);
                return false;
            }
            // Inherited by a copy of something else, as it turns out.
            Found::Bound(_) if doubt => {}
            _ if itself => {
                self.confirm(span);
                self.tree.claim(node, claim);
                return true;
            }
            Found::Bound(s) if self.requests.peek(&s).is_some_and(|r| r.responded.is_none() && !r.done) => {
                self.stats.disagreed += 1;
                // A copy that was never confirmed is refuted by a response. One of a kind that has been right so
                // far contradicts it.
                let void = self.trusted(s);
                self.refute(s);
                self.refute(span);
                self.process(tgid).strays |= !reader;
                self.tree.claim(node, Claim { void, ..claim });
                return true;
            }
            // Bound right here, not inherited by work that goes on after its response.
            Found::Bound(s) if self.tree.get(node).is_some_and(|n| n.bound == Some(s)) => {
                self.refute_style(s)
            }
            _ => {}
        }
        self.refute(span);
        self.process(tgid).strays |= !reader;
        self.tree.claim(node, claim);
        true
    }

    /// Some loops (uvloop) queue what a task writes and write it later, under a context of their own. That one was
    /// there before the first request and is no connection's (`serves`), or answers on two connections at a time, which no
    /// task does. Such a response
    /// tells nothing about its request, and a call under it nothing about its cause.
    pub(super) fn written_by_the_loop(&mut self, span: SpanRef, node: NodeId, serves: bool, ts: Ns) -> bool {
        let Some(r) = self.requests.peek(&span) else { return false };
        let (tgid, via, conn, read) = (r.tgid, r.via, r.conn, r.read);
        if via == Some(Via::Other(node)) {
            if let Some(style) = self.style(span) {
                style.answered();
            }
            return false;
        }
        let first = self.processes.peek(&tgid).and_then(|p| p.first_read);
        let old = !serves && first.is_some_and(|first| node <= first);
        let answered = self.tree.answered(node, conn, read, ts);
        if !old && answered == Answered::ByTask {
            return false;
        }
        if answered == Answered::FirstSeenByLoop || self.tree.claims(node) {
            // What its earlier responses seemed to say was nothing.
            let p = self.process(tgid);
            p.mixed = false;
            p.via.clear();
            self.answers_for_all(span);
            for earlier in self.tree.disclaim(node) {
                let Some(r) = self.requests.get_mut(&earlier) else { continue };
                r.refuted = false;
                let via = r.via;
                self.answered_silently(tgid, via);
                self.wake(earlier);
            }
        }
        self.answered_silently(tgid, via);
        self.not_told(tgid, span, ts);
        true
    }

    /// A response was sent by a loop, and for whom is not known.
    pub(super) fn not_told(&mut self, tgid: u32, span: SpanRef, ts: Ns) {
        let read = self.requests.peek(&span).map_or(0, |r| r.read);
        self.process(tgid).untold.add(read, ts);
    }

    /// The loop wrote the response to a request that was bound like this.
    fn answered_silently(&mut self, tgid: u32, via: Option<Via>) {
        if let Some(Via::Other(by)) = via {
            self.process(tgid).via.entry(by).or_insert_with(Style::default).silent();
        }
    }

    /// It was served elsewhere than the copies bound to it said.
    fn refute(&mut self, span: SpanRef) {
        self.refute_style(span);
        if let Some(r) = self.requests.get_mut(&span) {
            r.refuted = true;
        }
    }

    /// What refuted the request may yet turn out to be no evidence: its response was written by the loop.
    pub(super) fn may_be_taken_back(&self, span: SpanRef) -> bool {
        let by = self.requests.peek(&span).filter(|r| r.refuted).and_then(|r| r.answered_under);
        by.is_some_and(|node| self.tree.may_be_a_loops(node))
    }

    fn confirm(&mut self, span: SpanRef) {
        if let Some(r) = self.requests.get_mut(&span) {
            r.confirmed = true;
        }
    }

    /// The tree has a place for the request.
    pub(super) fn place(&mut self, span: SpanRef) {
        let Some(r) = self.requests.get_mut(&span).filter(|r| !r.placed) else { return };
        r.placed = true;
        if let Some(p) = self.processes.get_mut(&r.tgid).filter(|p| p.epoch == r.epoch) {
            p.unplaced = p.unplaced.saturating_sub(1);
        }
    }
}
