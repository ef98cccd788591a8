//! A small language for scenarios, and the rules one by one.

use ktrdr_ebpf_common::{GIVEN_BEFORE, THREADS_OWN_CONTEXT};

use super::super::*;
use crate::event::{ConnId, Fork, MS, Ns, PyCopy, Task};

/// One process (tgid 1) on a clock that ticks once per step.
pub struct World {
    pub c: Causality,
    pub now: Ns,
    spans: u64,
    /// When all connections were opened, if that was seen.
    pub opened: Option<Ns>,
    /// Contexts are not followed yet: tasks seem to have none, and of copies, pools and streams nobody tells.
    pub blind: bool,
}

/// Thread and context of a step; context 0 = none.
pub fn at(tid: u32, ctx: u64) -> Task {
    Task { tgid: 1, tid, py_context: addr(ctx) }
}

/// Thread in its own context, which the interpreter made at this address.
pub fn own(tid: u32, ctx: u64) -> Task {
    Task { tgid: 1, tid, py_context: addr(ctx) | THREADS_OWN_CONTEXT }
}

/// Thread that sends what was written before under this number.
pub fn given(tid: u32, number: u64) -> Task {
    Task { tgid: 1, tid, py_context: number << 2 | GIVEN_BEFORE }
}

/// Objects are aligned.
fn addr(ctx: u64) -> u64 {
    ctx * 16
}

impl World {
    pub fn new() -> Self {
        Self { c: Causality::new(), now: MS, spans: 0, opened: None, blind: false }
    }
    pub fn python() -> Self {
        let mut w = Self::new();
        w.c.exec(1, 0);
        w.c.python(1, true, 0);
        w
    }
    /// One whose contexts will be followed some day.
    pub fn blind() -> Self {
        Self { blind: true, ..Self::new() }
    }
    pub fn follow(&mut self) {
        let ts = self.tick();
        self.c.python(1, true, ts);
        self.blind = false;
    }
    /// The task as the kernel programs tell of it.
    fn told(&self, t: Task) -> Task {
        if self.blind { Task { py_context: 0, ..t } } else { t }
    }
    /// It had accepted a connection before anybody looked.
    pub fn stood(&mut self) {
        let ts = self.tick();
        self.c.stood(1, ts);
    }
    pub fn tick(&mut self) -> Ns {
        self.now += 1_000;
        self.now
    }
    pub fn recv(&mut self, t: Task, conn: u64) {
        let (t, ts) = (self.told(t), self.tick());
        self.c.received(t, ConnId(conn), ts);
    }
    pub fn read(&mut self, t: Task, conn: u64) -> SpanRef {
        self.recv(t, conn);
        self.more(t, conn)
    }
    /// Another head in the bytes just received.
    pub fn more(&mut self, t: Task, conn: u64) -> SpanRef {
        self.spans += 1;
        let (t, ts) = (self.told(t), self.now);
        let asked = AskedOn { conn: ConnId(conn), opened: self.opened };
        self.c.request_read(t, asked, SpanRef(self.spans), ts);
        SpanRef(self.spans)
    }
    /// The last request.
    pub fn newest(&self) -> SpanRef {
        SpanRef(self.spans)
    }
    /// Bytes that may be a request, on a connection that is left out.
    pub fn unseen(&mut self, t: Task, conn: u64) {
        self.recv(t, conn);
        let ts = self.now;
        self.c.unseen_request(t, ConnId(conn), ts);
    }
    pub fn partial(&mut self, partial: bool) {
        let ts = self.tick();
        self.c.partial(partial, ts);
    }
    pub fn copy(&mut self, tid: u32, parent: u64, child: u64) {
        self.copy_under(at(tid, parent), child);
    }
    /// A copy of the context current on the task.
    pub fn copy_under(&mut self, t: Task, child: u64) {
        let ts = self.tick();
        if self.blind {
            return;
        }
        self.c.py_copy(1, t.tid, PyCopy { parent: t.py_context, child: addr(child) }, ts, ts);
    }
    pub fn submit(&mut self, t: Task, item: u64) {
        let ts = self.tick();
        if self.blind {
            return;
        }
        self.c.py_submit(t, addr(item), ts);
    }
    pub fn take(&mut self, tid: u32, item: u64) {
        let ts = self.tick();
        if self.blind {
            return;
        }
        self.c.py_take(1, tid, addr(item), ts);
    }
    /// Gives the loop something to send later, under a number of its own or `behind` what has it already.
    pub fn write(&mut self, t: Task, number: u64, behind: bool) {
        let ts = self.tick();
        if self.blind {
            return;
        }
        self.c.py_write(t, given(t.tid, number).py_context, behind, ts);
    }
    pub fn call(&mut self, t: Task) -> CallRef {
        let (t, ts) = (self.told(t), self.tick());
        self.c.call(t, ts)
    }
    pub fn respond(&mut self, t: Task, s: SpanRef) {
        let (t, ts) = (self.told(t), self.tick());
        self.c.response_written(t, s, ts);
    }
    /// The answer to a request that nobody saw come.
    pub fn unasked(&mut self, t: Task) {
        let (t, ts) = (self.told(t), self.tick());
        self.c.unasked(t, ts);
    }
    pub fn finish(&mut self, t: Task, s: SpanRef) {
        self.respond(t, s);
        let ts = self.now;
        self.c.request_done(s, ts);
    }
    pub fn thread(&mut self, creator: Task, tid: u32) {
        let ts = self.tick();
        let fork = Fork { child_tgid: 1, child_tid: tid, py_context: creator.py_context, thread: true };
        self.c.fork(creator, fork, ts);
    }
    pub fn process(&mut self, creator: Task, tgid: u32) {
        let ts = self.tick();
        let fork = Fork { child_tgid: tgid, child_tid: tgid, py_context: creator.py_context, thread: false };
        self.c.fork(creator, fork, ts);
    }
    pub fn origin(&mut self, call: CallRef) -> Settlement {
        let now = self.now;
        self.c.origin(call, now)
    }
    /// As at the end: every deadline has passed.
    pub fn late(&mut self, call: CallRef) -> Option<Origin> {
        self.now += 60_000 * MS;
        match self.origin(call) {
            Settlement::Settled(o) => o,
            Settlement::Open => panic!("open after its deadline"),
        }
    }
}

pub fn is(span: SpanRef, method: Method) -> Settlement {
    Settlement::Settled(Some(Origin { span, method }))
}

pub const NONE: Settlement = Settlement::Settled(None);

#[test]
fn requests_that_nothing_leads_to_any_more_are_forgotten() {
    let (mut w, mut p) = (World::new(), World::python());
    for w in [&mut w, &mut p] {
        for n in 0..5 {
            let s = w.read(at(1, 0), n);
            w.call(at(1, 0));
            w.finish(at(1, 0), s);
        }
    }
    assert_eq!(w.c.requests.len(), 0);
    assert_eq!(p.c.requests.len(), 5, "a copy may still lead to one of them");
}

#[test]
fn a_thread_that_serves_one_request_at_a_time_is_exact_once_it_answered() {
    let mut w = World::python();
    let a = w.read(at(1, 0), 1);
    let call = w.call(at(1, 0));
    assert_eq!(w.origin(call), Settlement::Open, "a second request may still show an event loop");
    w.recv(at(1, 0), 9);
    w.finish(at(1, 0), a);
    assert_eq!(w.origin(call), is(a, Method::Thread));
    let after = w.call(at(1, 0));
    assert_eq!(w.origin(after), NONE, "nothing is served any more");
}

#[test]
fn one_request_at_a_time_proves_nothing_of_an_unknown_runtime() {
    let mut w = World::new();
    // Node: a timer's call on the loop's thread while it serves its only request looks just like the request's own.
    for _ in 0..10 {
        let a = w.read(at(1, 0), 1);
        let call = w.call(at(1, 0));
        w.thread(at(1, 0), 7);
        let created = w.call(at(7, 0));
        w.finish(at(1, 0), a);
        assert_eq!(w.origin(call), NONE);
        assert_eq!(w.origin(created), NONE);
    }
}

#[test]
fn the_only_request_in_flight_is_guessed_only_while_the_process_never_called_by_itself() {
    let mut w = World::new();
    let one = |w: &mut World, idle: Ns| {
        w.now += idle;
        let a = w.read(at(1, 0), 1);
        let call = w.call(at(1, 0));
        w.finish(at(1, 0), a);
        (w.origin(call), is(a, Method::SingleInFlight))
    };
    let now = w.now;
    w.c.exec(1, now);
    let (first, _) = one(&mut w, 10);
    assert_eq!(first, NONE, "nobody knows yet what it does alone");
    let (second, guess) = one(&mut w, MS);
    assert_eq!(second, guess);
    w.now += MS;
    let timer = w.call(at(1, 0));
    assert_eq!(w.origin(timer), NONE);
    for _ in 0..3 {
        assert_eq!(one(&mut w, 10 * MS).0, NONE, "it has a timer");
    }
}

#[test]
fn a_timer_seen_before_the_first_request_or_while_a_guess_waits_counts() {
    let mut w = World::new();
    let timer = w.call(at(1, 0));
    assert_eq!(w.origin(timer), NONE);
    for _ in 0..3 {
        w.now += MS;
        let a = w.read(at(1, 0), 1);
        let call = w.call(at(1, 0));
        w.finish(at(1, 0), a);
        assert_eq!(w.origin(call), NONE);
    }
}

#[test]
fn threads_that_are_loops_are_not_believed_however_often_they_served_one_request_each() {
    let mut w = World::new();
    let side_by_side = |w: &mut World| {
        let (a, b) = (w.read(at(1, 0), 1), w.read(at(2, 0), 2));
        let call = w.call(at(1, 0));
        w.finish(at(1, 0), a);
        w.finish(at(2, 0), b);
        w.origin(call)
    };
    let (a, b) = (w.read(at(3, 0), 1), w.read(at(3, 0), 2));
    w.finish(at(3, 0), a);
    w.finish(at(3, 0), b);
    for _ in 0..10 {
        assert_eq!(side_by_side(&mut w), NONE);
    }
}

#[test]
fn an_event_loop_voids_the_thread_also_for_earlier_calls() {
    let mut w = World::new();
    let a = w.read(at(1, 0), 1);
    let early = w.call(at(1, 0));
    let b = w.read(at(1, 0), 2);
    let late = w.call(at(1, 0));
    w.finish(at(1, 0), a);
    w.finish(at(1, 0), b);
    assert_eq!(w.origin(late), NONE);
    assert_eq!(w.origin(early), NONE);
}

#[test]
fn threads_of_an_unknown_runtime_are_believed_under_concurrency_only_after_proof() {
    let mut w = World::new();
    let mut settled = Vec::new();
    for _ in 0..5 {
        let (a, b) = (w.read(at(1, 0), 1), w.read(at(2, 0), 2));
        let (ca, cb) = (w.call(at(1, 0)), w.call(at(2, 0)));
        w.finish(at(1, 0), a);
        w.finish(at(2, 0), b);
        settled.push((w.origin(ca) == is(a, Method::Thread), w.origin(cb) == is(b, Method::Thread)));
    }
    assert_eq!(settled[0], (false, false));
    assert_eq!(settled[4], (true, true));
}

#[test]
fn a_runtime_that_moves_requests_between_threads_is_never_linked_by_thread() {
    let mut w = World::new();
    let (a, b) = (w.read(at(1, 0), 1), w.read(at(2, 0), 2));
    let call = w.call(at(1, 0));
    w.finish(at(2, 0), a);
    w.finish(at(1, 0), b);
    assert_eq!(w.origin(call), NONE);
}

#[test]
fn a_thread_created_for_a_request_works_for_it_until_another_request_comes() {
    let mut w = World::python();
    let a = w.read(at(1, 0), 1);
    w.thread(at(1, 0), 7);
    let first = w.call(at(7, 0));
    w.finish(at(1, 0), a);
    let background = w.call(at(7, 0));
    assert_eq!(w.origin(first), is(a, Method::Clone));
    assert_eq!(w.origin(background), is(a, Method::Clone));
    let b = w.read(at(1, 0), 1);
    let pooled = w.call(at(7, 0));
    w.finish(at(1, 0), b);
    assert_ne!(w.late(pooled).map(|o| o.span), Some(a), "a pool's thread may work for the next request");
}

#[test]
fn a_program_started_by_a_request_calls_for_it() {
    let mut w = World::python();
    let a = w.read(at(1, 0), 1);
    w.process(at(1, 0), 50);
    let now = w.now;
    w.c.exec(50, now);
    let call = w.call(Task { tgid: 50, tid: 50, py_context: 0 });
    w.finish(at(1, 0), a);
    assert_eq!(w.origin(call), is(a, Method::Clone));
}

#[test]
fn a_thread_created_while_two_requests_were_open_may_work_for_either() {
    let mut w = World::new();
    let a = w.read(at(1, 0), 1);
    let b = w.read(at(2, 0), 2);
    w.thread(at(1, 0), 7);
    let call = w.call(at(7, 0));
    w.finish(at(1, 0), a);
    w.finish(at(2, 0), b);
    assert_eq!(w.late(call), None);
}

#[test]
fn evidence_that_never_comes_ends_with_the_deadline() {
    let mut w = World::new();
    let before = w.read(at(1, 0), 1);
    w.finish(at(1, 0), before);
    w.now += MS;
    let _a = w.read(at(1, 0), 1);
    let call = w.call(at(1, 0));
    let inferred = w.late(call).map(|o| o.method);
    assert_eq!(inferred, Some(Method::SingleInFlight));
    assert_eq!(w.c.stats().timed_out, 1);
}

#[test]
fn a_reused_process_id_starts_afresh() {
    let mut w = World::python();
    let a = w.read(at(1, 10), 1);
    w.copy(1, 10, 11);
    w.c.exit(1);
    w.c.python(1, true, 0);
    let call = w.call(at(1, 11));
    assert_eq!(w.origin(call), NONE);
    assert_ne!(w.late(call).map(|o| o.span), Some(a));
}
