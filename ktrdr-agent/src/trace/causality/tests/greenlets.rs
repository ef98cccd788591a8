//! Threads that switch between greenlets.

use super::super::*;
use super::scenario::{NONE, World, at, is, own};

/// A greenlet's context; 0: none yet.
fn g(ctx: u64) -> Task {
    if ctx == 0 { at(1, 0) } else { own(1, ctx) }
}

/// A service with gevent.
fn gevent() -> World {
    let mut w = World::python();
    w.c.greenlets(1);
    w
}

/// A greenlet's first request, and what it called for.
fn first(w: &mut World, conn: u64, ctx: u64) -> (SpanRef, CallRef) {
    let s = w.read(g(0), conn);
    let call = w.call(g(ctx));
    w.finish(g(ctx), s);
    (s, call)
}

#[test]
fn who_reads_and_answers_a_connections_next_request_works_for_it() {
    let mut w = gevent();
    for conn in 1..4 {
        let (_, call) = first(&mut w, conn, 10 + conn);
        assert_eq!(w.late(call), None, "its context may have been another's");
        assert_eq!(w.c.gap(call), Some(Gap::ContextUnseen));
    }
    let open: Vec<_> = (1..4).map(|conn| (conn, w.read(g(10 + conn), conn))).collect();
    let calls: Vec<_> = open.iter().map(|(conn, s)| (*s, w.call(g(10 + conn)))).collect();
    let poll = w.call(g(99));
    let none = w.call(g(0));
    for (conn, s) in open {
        w.finish(g(10 + conn), s);
    }
    for (s, call) in calls {
        assert_eq!(w.origin(call), is(s, Method::PythonContext));
    }
    assert_eq!([poll, none].map(|c| w.late(c)), [None; 2]);
}

/// Nobody said that there are greenlets (eventlet): the contexts do.
#[test]
fn two_contexts_of_a_threads_own_are_greenlets() {
    let mut w = World::python();
    first(&mut w, 1, 11);
    first(&mut w, 2, 12);
    for (conn, ctx) in [(1, 11), (2, 12)] {
        let s = w.read(g(ctx), conn);
        w.finish(g(ctx), s);
    }
    let (a, b) = (w.read(g(11), 1), w.read(g(12), 2));
    let calls = [w.call(g(12)), w.call(g(11))];
    w.finish(g(11), a);
    w.finish(g(12), b);
    assert_eq!(calls.map(|c| w.origin(c)), [b, a].map(|s| is(s, Method::PythonContext)));
}

/// One request in flight, and a background greenlet calls, before two contexts were seen.
#[test]
fn a_thread_that_may_have_greenlets_does_not_tell_whose_a_call_is() {
    for (read, background, answer) in [(0, 0, 5), (0, 9, 5), (0, 9, 0), (5, 0, 5), (5, 9, 5)] {
        let mut w = World::python();
        let s = w.read(g(read), 1);
        let call = w.call(g(background));
        w.finish(g(answer), s);
        let told = w.late(call).filter(|o| o.method.exact());
        assert_eq!(told, None, "{read} {background} {answer}");
    }
    // Without any context it takes to know that there may be greenlets.
    for (known, found) in [(true, false), (false, true)] {
        let mut w = if known { gevent() } else { World::python() };
        let s = w.read(g(0), 1);
        let call = w.call(g(0));
        w.finish(g(0), s);
        assert_eq!(w.late(call).is_some(), found);
    }
}

#[test]
fn greenlets_that_make_their_context_at_once_are_believed_when_many_did() {
    let mut w = gevent();
    let mut linked = Vec::new();
    for conn in 0..40 {
        // The one before has ended, and this one has its address.
        let (s, call) = first(&mut w, conn, 11);
        linked.push(w.origin(call) == is(s, Method::PythonGreenlet));
    }
    assert_eq!(linked.iter().position(|l| *l), Some(16));
    assert!(linked[16..].iter().all(|l| *l));
    // The rest of a request comes when another one has called under that address, and ended.
    let s = w.read(g(0), 100);
    let other = w.call(g(11));
    w.recv(g(0), 100);
    let call = w.call(g(11));
    w.finish(g(11), s);
    assert_eq!([other, call].map(|c| w.origin(c)), [NONE, is(s, Method::PythonGreenlet)]);
}

/// Two requests in flight at one time, answered under one address: the second's greenlet had waited for it.
#[test]
fn greenlets_that_wait_before_they_make_their_context_are_never_believed_again() {
    let mut w = gevent();
    for conn in 0..40 {
        first(&mut w, conn, 11);
    }
    let (a, b) = (w.read(g(0), 100), w.read(g(0), 101));
    let calls = [w.call(g(11)), w.call(g(11))];
    w.finish(g(11), a);
    w.finish(g(11), b);
    assert_eq!(calls.map(|c| w.origin(c)), [NONE; 2]);
    let (_, later) = first(&mut w, 102, 11);
    assert_eq!(w.origin(later), NONE);
    // Nor where a call under the address was nobody's.
    let mut w = gevent();
    w.call(g(11));
    for conn in 0..40 {
        let (_, call) = first(&mut w, conn, 11);
        assert_eq!(w.origin(call), NONE);
    }
}

#[test]
fn a_greenlet_that_takes_turns_with_connections_works_for_none_of_them() {
    let mut w = gevent();
    for conn in [1, 2, 1, 2, 1] {
        let s = w.read(g(11), conn);
        w.finish(g(11), s);
    }
    let s = w.read(g(11), 1);
    let call = w.call(g(11));
    w.finish(g(11), s);
    assert_eq!(w.late(call), None);
}

#[test]
fn who_hands_its_requests_over_is_not_known_by_its_address() {
    let mut w = gevent();
    first(&mut w, 1, 11);
    let handed = w.read(g(11), 1);
    w.finish(g(20), handed);
    let s = w.read(g(11), 1);
    let call = w.call(g(11));
    w.finish(g(11), s);
    assert_eq!(w.late(call), None);
}

/// What a task copied of a greenlet's context is its own, and not of the request that was read last on the thread.
#[test]
fn a_copy_of_a_greenlets_context_belongs_where_that_does() {
    let mut w = gevent();
    first(&mut w, 1, 11);
    let a = w.read(g(11), 1);
    let b = w.read(g(0), 2);
    w.copy_under(g(11), 50);
    let call = w.call(at(1, 50));
    let others = w.call(g(12));
    w.finish(g(11), a);
    w.finish(g(12), b);
    assert_eq!(w.origin(call), is(a, Method::PythonContext));
    assert_eq!(w.late(others), None);
}

#[test]
fn a_thread_id_that_is_used_again_is_another_thread() {
    let mut w = World::python();
    for ctx in [10, 20] {
        w.thread(at(1, 0), 7);
        let s = w.read(own(7, ctx), 1);
        let call = w.call(own(7, ctx));
        w.finish(own(7, ctx), s);
        assert_eq!(w.origin(call), is(s, Method::Thread));
    }
}
