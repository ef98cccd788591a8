//! Requests that nobody sees, because their connections are left out.

use super::super::state::SETTLE_NS;
use super::super::*;
use super::scenario::{NONE, World, at, is, own};
use crate::event::MS;

fn asyncio(w: &mut World, conn: u64, task: u64) -> SpanRef {
    let s = w.read(at(1, 1_000 + conn), conn);
    w.copy(1, 1_000 + conn, task);
    s
}

/// The same on a connection that is left out.
fn asyncio_unseen(w: &mut World, conn: u64, task: u64) {
    w.unseen(at(1, 1_000 + conn), conn);
    w.copy(1, 1_000 + conn, task);
}

fn proven() -> World {
    let mut w = World::python();
    for conn in 1..3 {
        let s = asyncio(&mut w, conn, 100 + conn);
        w.finish(at(1, 100 + conn), s);
    }
    w
}

fn left_out(w: &mut World, call: CallRef) -> bool {
    w.origin(call) == NONE && w.c.gap(call) == Some(Gap::LeftOut)
}

#[test]
fn a_thread_may_have_served_another_meanwhile() {
    let mut w = World::python();
    let a = w.read(at(1, 0), 1);
    let before = w.call(at(1, 0));
    w.finish(at(1, 0), a);
    let b = w.read(at(1, 0), 1);
    let during = w.call(at(1, 0));
    w.partial(true);
    assert!(left_out(&mut w, during), "what is still to come of it is not seen");
    assert_eq!(w.origin(before), is(a, Method::Thread), "all of it was seen");
    w.finish(at(1, 0), b);
    let c = w.read(at(1, 0), 1);
    let after = w.call(at(1, 0));
    w.finish(at(1, 0), c);
    assert!(left_out(&mut w, after));
}

#[test]
fn threads_begin_anew_some_time_after_nothing_is_left_out_any_more() {
    let mut w = World::python();
    w.partial(true);
    let long = w.read(at(2, 0), 2);
    w.partial(false);
    let one = |w: &mut World| {
        let a = w.read(at(1, 0), 1);
        let call = w.call(at(1, 0));
        w.finish(at(1, 0), a);
        (w.origin(call), is(a, Method::Thread))
    };
    assert_eq!(one(&mut w).0, NONE, "requests that were read unseen go on");
    w.now += SETTLE_NS;
    let (found, thread) = one(&mut w);
    assert_eq!(found, thread);
    let late = w.call(at(2, 0));
    w.finish(at(2, 0), long);
    assert!(left_out(&mut w, late), "another may have been in flight on its thread since");
}

#[test]
fn requests_that_stay_on_their_threads_prove_nothing_among_some_that_nobody_sees() {
    let mut w = World::new();
    let side_by_side = |w: &mut World| {
        let (a, b) = (w.read(at(1, 0), 1), w.read(at(2, 0), 2));
        let call = w.call(at(1, 0));
        w.finish(at(1, 0), a);
        w.finish(at(2, 0), b);
        (w.origin(call), is(a, Method::Thread))
    };
    w.partial(true);
    for _ in 0..10 {
        side_by_side(&mut w);
    }
    w.partial(false);
    w.now += SETTLE_NS;
    assert_eq!(side_by_side(&mut w).0, NONE, "a runtime of which nothing is known");
    for _ in 0..3 {
        side_by_side(&mut w);
    }
    let (found, thread) = side_by_side(&mut w);
    assert_eq!(found, thread, "until it has proven it");
}

#[test]
fn who_was_created_meanwhile_may_work_for_a_request_that_nobody_sees() {
    let mut w = World::python();
    let before = w.read(at(1, 0), 1);
    w.thread(at(1, 0), 7);
    w.finish(at(1, 0), before);
    w.partial(true);
    let pooled = w.call(at(7, 0));
    assert!(left_out(&mut w, pooled), "a pool's thread may work for the next request");
    let a = w.read(at(1, 0), 1);
    w.process(at(1, 0), 50);
    let now = w.now;
    w.c.exec(50, now);
    let program = Task { tgid: 50, tid: 50, py_context: 0 };
    let call = w.call(program);
    w.finish(at(1, 0), a);
    assert!(left_out(&mut w, call));
    w.partial(false);
    w.now += SETTLE_NS;
    let call = w.call(program);
    assert!(left_out(&mut w, call), "as ever: who created it does not change");
    // Of who serves nobody, and was started by nobody who does, nothing is in doubt.
    w.partial(true);
    let call = w.call(Task { tgid: 60, tid: 60, py_context: 0 });
    assert_eq!((w.origin(call), w.c.gap(call)), (NONE, None));
}

#[test]
fn a_program_started_by_a_server_whose_requests_nobody_sees_is_in_doubt_too() {
    let mut w = World::new();
    w.c.serves(1);
    w.partial(true);
    w.process(at(1, 0), 50);
    let now = w.now;
    w.c.exec(50, now);
    let call = w.call(Task { tgid: 50, tid: 50, py_context: 0 });
    assert!(left_out(&mut w, call));
}

#[test]
fn the_only_request_that_is_seen_is_not_the_only_one_in_flight() {
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
    one(&mut w, MS);
    let (found, guess) = one(&mut w, MS);
    assert_eq!(found, guess);
    w.partial(true);
    assert_eq!(one(&mut w, MS).0, NONE);
    // No request in flight, as it seems: that it calls by itself is not known either.
    w.call(at(1, 0));
    w.partial(false);
    w.now += SETTLE_NS;
    assert_eq!(one(&mut w, 0).0, NONE, "it has not been watched long enough");
    let (found, guess) = one(&mut w, MS);
    assert_eq!(found, guess);
}

#[test]
fn copies_still_give_contexts_to_requests_that_are_seen() {
    let mut w = proven();
    w.partial(true);
    let a = asyncio(&mut w, 1, 50);
    asyncio_unseen(&mut w, 8, 51);
    w.copy(1, 50, 60);
    w.copy(1, 51, 61);
    let (mine, other) = (w.call(at(9, 60)), w.call(at(9, 61)));
    assert_eq!(w.origin(mine), is(a, Method::PythonContext));
    assert!(left_out(&mut w, other));
    w.finish(at(1, 50), a);
    let background = w.call(at(1, 60));
    assert_eq!(w.origin(background), is(a, Method::PythonContext), "work after the response");
}

/// uvloop: the server's context copies for all.
#[test]
fn a_copy_after_a_read_that_nobody_sees_is_not_for_the_request_before() {
    let mut w = World::python();
    let serve = |w: &mut World, conn: u64, task: u64| {
        let s = w.read(at(1, 9), conn);
        w.copy(1, 2, task);
        s
    };
    for conn in 1..3 {
        let s = serve(&mut w, conn, 100 + conn);
        w.finish(at(1, 100 + conn), s);
    }
    w.partial(true);
    let a = serve(&mut w, 1, 50);
    w.unseen(at(1, 9), 8);
    w.copy(1, 2, 51);
    let (mine, other) = (w.call(at(1, 50)), w.call(at(1, 51)));
    w.finish(at(1, 50), a);
    assert_eq!(w.origin(mine), is(a, Method::PythonContext));
    assert!(left_out(&mut w, other));
}

/// A queue's worker answers for all, which shows by the answers of all.
#[test]
fn who_answered_a_request_may_work_for_another() {
    let mut w = proven();
    w.copy(1, 2, 77);
    w.partial(true);
    let a = w.read(at(1, 1_001), 1);
    w.unseen(at(1, 1_008), 8);
    let call = w.call(at(1, 77));
    w.finish(at(1, 77), a);
    assert!(left_out(&mut w, call));
    // Nor does work go on for who was answered, where a request was seen to be answered under another's context.
    let b = asyncio(&mut w, 2, 50);
    w.finish(at(1, 50), b);
    let after = w.call(at(1, 50));
    assert!(left_out(&mut w, after));
}

/// uvicorn 0.39 before Python 3.11: the handler enters a context that is no copy, at the address of one that is gone.
#[test]
fn a_context_at_the_address_of_one_that_is_gone_may_be_another_request_s() {
    let mut w = World::python();
    let serve = |w: &mut World, fresh: u64, task: u64| {
        let s = w.read(at(1, 1_001), 1);
        w.copy(1, fresh, task);
        s
    };
    for n in 0..3 {
        let s = serve(&mut w, 80 + n, 90 + n);
        w.finish(at(1, 90 + n), s);
    }
    w.partial(true);
    let a = serve(&mut w, 50, 51);
    w.copy(1, 51, 52);
    let mine = w.call(at(1, 51));
    // The timer's context is gone, and the next request is served at its address.
    w.unseen(at(1, 1_008), 8);
    w.copy(1, 52, 53);
    let other = w.call(at(1, 53));
    w.finish(at(1, 51), a);
    assert_eq!(w.origin(mine), is(a, Method::PythonContext));
    assert!(left_out(&mut w, other));
}

#[test]
fn what_was_known_of_contexts_begins_anew_afterwards() {
    let mut w = proven();
    w.partial(true);
    let a = asyncio(&mut w, 1, 50);
    let open = w.call(at(1, 51));
    w.partial(false);
    let call = w.call(at(1, 50));
    assert!(left_out(&mut w, call));
    assert!(left_out(&mut w, open));
    w.finish(at(1, 50), a);
    let b = asyncio(&mut w, 1, 60);
    let call = w.call(at(1, 60));
    assert_eq!(w.origin(call), is(b, Method::PythonContext), "as soon as one is copied");
}

#[test]
fn a_request_whose_connection_is_left_out_in_its_middle_goes_on() {
    let mut w = proven();
    let a = asyncio(&mut w, 1, 50);
    w.partial(true);
    let ts = w.tick();
    w.c.request_left(a, ts);
    let call = w.call(at(1, 50));
    assert_eq!(w.origin(call), is(a, Method::PythonContext));
    // Its task copies right after another request was read: the copy is its own.
    let b = w.read(at(1, 0), 2);
    w.copy(1, 50, 51);
    let call = w.call(at(1, 51));
    w.finish(at(1, 51), b);
    assert_ne!(w.late(call).map(|o| o.span), Some(b));
}

/// What a session's own task does for messages is not known by their order, nor work for the request that began it.
#[test]
fn messages_of_a_session_are_nobody_s_while_some_are_not_seen() {
    let mut w = proven();
    let began = asyncio(&mut w, 1, 50);
    w.copy(1, 50, 70);
    w.respond(at(1, 50), began);
    w.c.session(began, 7);
    let message = |w: &mut World, task: u64| {
        let m = asyncio(w, 2, 60 + task);
        let ts = w.tick();
        w.c.message(1, Delivered { span: m, session: 7, method: 1, notification: false, ts });
        w.copy(1, 70, task);
        let call = w.call(at(1, task));
        w.finish(at(1, 60 + task), m);
        (call, m)
    };
    message(&mut w, 71);
    let (call, m) = message(&mut w, 72);
    assert_eq!(w.origin(call), is(m, Method::MessageOrder));
    w.partial(true);
    let (call, _) = message(&mut w, 73);
    assert!(left_out(&mut w, call));
}

#[test]
fn a_thread_s_own_context_is_in_doubt_like_the_thread() {
    let mut w = World::python();
    let a = w.read(own(1, 9), 1);
    w.partial(true);
    let call = w.call(own(1, 9));
    w.finish(own(1, 9), a);
    assert!(left_out(&mut w, call));
}
