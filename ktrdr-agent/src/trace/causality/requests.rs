//! The life of a request: read, answered, over.

use super::given::is_given;
use super::greenlets::Reading;
use super::settle::Phase;
use super::state::{Causality, MAX_IN_FLIGHT, MAX_WAITING, Request};
use super::tree::NodeId;
use super::{AskedOn, SpanRef};
use crate::event::{Ns, Task};

impl Causality {
    pub(super) fn begin_request(
        &mut self,
        task: Task,
        node: Option<NodeId>,
        asked: AskedOn,
        span: SpanRef,
        ts: Ns,
    ) {
        self.first_read(task.tgid);
        self.asked_next(asked.conn, ts);
        let t = self.thread(task.tgid, task.tid);
        let before = t.serving.replace(span);
        t.is_loop |= before.is_some();
        let p = self.process(task.tgid);
        p.loops |= before.is_some();
        let epoch = p.epoch;
        let number = p.reads;
        p.reads += 1;
        p.serves = true;
        p.unplaced += 1;
        let first = p.in_flight.first_key_value().map(|(_, s)| *s);
        let alone = first.is_none();
        // The only one until now is not alone any more; with two or more none was.
        let company = first.filter(|_| p.in_flight.len() == 1);
        if alone {
            p.idle.ends(ts);
        }
        p.in_flight.insert(number, span);
        let dropped = if p.in_flight.len() > MAX_IN_FLIGHT { first } else { None };
        if let Some(r) = company.and_then(|s| self.requests.get_mut(&s)) {
            r.alone = false;
        }
        if let Some(r) = before.and_then(|s| self.requests.get_mut(&s)) {
            r.overlapped = true;
        }
        let request = Request {
            tgid: task.tgid,
            epoch,
            number,
            tid: task.tid,
            conn: asked.conn,
            opened: asked.opened,
            read: ts,
            node,
            responded: None,
            done: false,
            left: false,
            placed: false,
            via: None,
            confirmed: false,
            refuted: false,
            answered_under: None,
            given: false,
            reading: Reading::default(),
            one_thread: false,
            overlapped: before.is_some(),
            alone,
            session: None,
            waiting: Vec::new(),
        };
        if let Some(s) = dropped {
            self.stats.evicted += 1;
            self.end_request(s, ts);
        }
        self.requests.insert(span, request);
    }

    /// What there is of contexts before a process reads its first request is no request's.
    pub(super) fn first_read(&mut self, tgid: u32) {
        // One that nobody saw begin may have read others before: some are contexts of their tasks, or were.
        let newest = if self.born.peek(&tgid).is_some() { self.tree.newest() } else { NodeId::NONE };
        self.process(tgid).first_read.get_or_insert(newest);
    }

    pub(super) fn respond(&mut self, task: Task, node: Option<NodeId>, span: SpanRef, ts: Ns) {
        let Some(r) = self.requests.get_mut(&span).filter(|r| r.responded.is_none()) else { return };
        r.responded = Some(ts);
        r.given = is_given(task);
        r.one_thread = r.tid == task.tid && r.tgid == task.tgid && !r.overlapped;
        // Of one among others that nobody sees, that it stayed on its thread, or was alone there, says nothing.
        let whole = !self.sight.void(r.read);
        let (tgid, moved, proof) = (r.tgid, r.tid != task.tid, r.one_thread && !r.alone && whole);
        let stayed = !moved && !r.alone && whole;
        let p = self.process(tgid);
        p.migrates |= moved;
        p.stayed = p.stayed.saturating_add(u32::from(stayed));
        p.sync_proofs = p.sync_proofs.saturating_add(u32::from(proof));
        let claimed = node.filter(|n| self.response_context(span, *n, is_given(task), ts));
        self.place(span);
        if let Some(node) = claimed {
            for call in self.tree.take_waiting(node) {
                self.resolve(call, Phase::Now);
            }
        }
        self.wake(span);
    }

    pub(super) fn end_request(&mut self, span: SpanRef, ts: Ns) {
        self.place(span);
        let Some(r) = self.requests.get_mut(&span).filter(|r| !r.done) else { return };
        let tgid = r.tgid;
        self.message_over(tgid, span);
        let Some(r) = self.requests.get_mut(&span) else { return };
        r.done = true;
        let (tgid, tid, epoch, number) = (r.tgid, r.tid, r.epoch, r.number);
        let wanted = r.under_contexts() || r.waiting.len() >= MAX_WAITING;
        if let Some(t) = self.threads.get_mut(&tid).filter(|t| t.tgid == tgid && t.serving == Some(span)) {
            t.serving = None;
        }
        let settled = self.wake(span);
        if settled && !wanted && !self.follows_contexts(tgid) {
            // No context leads to it and no call waits for it: nobody will ask for it again.
            self.requests.remove(&span);
        }
        let Some(p) = self.processes.get_mut(&tgid).filter(|p| p.epoch == epoch) else { return };
        if p.in_flight.remove(&number).is_some() && p.in_flight.is_empty() {
            p.idle.begins(ts.max(self.sight.whole));
        }
        let oldest = p.in_flight.first_key_value().map_or(u64::MAX, |(n, _)| *n);
        let mut over = Vec::new();
        while p.horizon.front().is_some_and(|(newest, _)| *newest < oldest) {
            over.extend(p.horizon.pop_front().map(|(_, call)| call));
        }
        for call in over {
            if !self.resolve(call, Phase::Horizon) {
                self.waits_on(tgid, call);
            }
        }
    }

    /// Settles what waited for this request. Whether that was all.
    pub(super) fn wake(&mut self, span: SpanRef) -> bool {
        let Some(r) = self.requests.get_mut(&span) else { return true };
        let calls = std::mem::take(&mut r.waiting);
        let mut open = Vec::new();
        for call in calls {
            if !self.resolve(call, Phase::Now) {
                open.push(call);
            }
        }
        let all = open.is_empty();
        if let Some(r) = self.requests.get_mut(&span).filter(|r| !r.done) {
            r.waiting = open;
        }
        all
    }
}
