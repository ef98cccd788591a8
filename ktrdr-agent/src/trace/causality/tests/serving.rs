//! A task for each connection, which serves that connection's requests itself (asyncio's streams, sanic).

use super::super::*;
use super::scenario::{NONE, World, at, is};

const READER: u64 = 1_000;
const SERVING: u64 = 2_000;

/// Connections 0 to 2, opened under our eyes, each with its reader's context and its task's; and a task that serves nobody.
fn server() -> World {
    let mut w = World::python();
    w.copy(1, 1, BACKGROUND);
    w.opened = Some(w.tick());
    for conn in 0..3 {
        w.copy(1, 2, READER + conn);
        w.copy(1, 2, SERVING + conn);
    }
    w
}

const BACKGROUND: u64 = 3;

/// Two connections had requests, answered under contexts of their own, so it is not the loop who writes.
fn proven() -> World {
    let mut w = server();
    for conn in 0..2 {
        let s = read(&mut w, conn);
        w.finish(at(1, SERVING + conn), s);
    }
    w
}

fn read(w: &mut World, conn: u64) -> SpanRef {
    w.read(at(1, READER + conn), conn)
}

#[test]
fn calls_are_known_when_the_task_answers() {
    let mut w = proven();
    for _ in 0..10 {
        let (a, b) = (read(&mut w, 0), read(&mut w, 1));
        let calls = [0, 1].map(|n| w.call(at(1, SERVING + n)));
        w.copy(1, SERVING, 50);
        let child = w.call(at(1, 50));
        w.finish(at(1, SERVING), a);
        assert_eq!(w.origin(calls[0]), is(a, Method::PythonContext), "the other request is not waited for");
        assert_eq!(w.origin(child), is(a, Method::PythonContext));
        let after = w.call(at(1, 50));
        w.finish(at(1, SERVING + 1), b);
        assert_eq!(w.origin(calls[1]), is(b, Method::PythonContext));
        assert_eq!(w.origin(after), is(a, Method::PythonContext));
    }
}

/// The first request's task is older than that, as a loop's own context is.
#[test]
fn what_others_copy_after_a_read_is_not_the_requests() {
    let mut w = server();
    for conn in [0, 1, 0] {
        let s = read(&mut w, conn);
        w.copy(1, BACKGROUND, 60);
        let call = w.call(at(1, 60));
        let own = w.call(at(1, SERVING + conn));
        w.finish(at(1, SERVING + conn), s);
        assert_eq!(w.late(call), None);
        assert_eq!(w.origin(own), is(s, Method::PythonContext));
    }
}

#[test]
fn another_connections_task_copies_for_its_own_request() {
    let mut w = proven();
    let a = read(&mut w, 0);
    let b = read(&mut w, 1);
    w.copy(1, SERVING, 70);
    let call = w.call(at(1, 70));
    w.finish(at(1, SERVING + 1), b);
    w.finish(at(1, SERVING), a);
    assert_eq!(w.origin(call), is(a, Method::PythonContext));
}

/// Its client went away: nothing says that the call was not still the work of the first request.
#[test]
fn of_a_request_that_is_never_answered_nothing_is_known() {
    let mut w = proven();
    let a = read(&mut w, 0);
    w.finish(at(1, SERVING), a);
    let before = w.call(at(1, SERVING));
    assert_eq!(w.origin(before), is(a, Method::PythonContext), "work after the response");
    let b = read(&mut w, 0);
    let call = w.call(at(1, SERVING));
    assert_eq!(w.origin(call), Settlement::Open);
    let ts = w.tick();
    w.c.request_done(b, ts);
    assert_eq!(w.origin(call), NONE);
    assert_eq!(w.c.gap(call), Some(Gap::Unconfirmed));
}

#[test]
fn a_request_that_came_before_the_last_was_answered_is_the_next_one_then() {
    let mut w = server();
    let first = read(&mut w, 0);
    w.finish(at(1, SERVING), first);
    let (a, b) = (read(&mut w, 0), read(&mut w, 0));
    let call = w.call(at(1, SERVING));
    w.finish(at(1, SERVING), a);
    let next = w.call(at(1, SERVING));
    let ts = w.tick();
    w.c.request_done(b, ts);
    assert_eq!(w.origin(call), is(a, Method::PythonContext));
    assert_eq!(w.late(next), None);
}

/// Until a second connection's task has answered, it may be the loop's own context, and a call another request's.
#[test]
fn the_first_of_them_is_believed_when_no_other_request_can_say_more() {
    let mut w = server();
    let (a, b) = (read(&mut w, 0), read(&mut w, 1));
    let call = w.call(at(1, SERVING));
    w.finish(at(1, SERVING), a);
    assert_eq!(w.origin(call), Settlement::Open);
    w.finish(at(1, SERVING + 1), b);
    assert_eq!(w.origin(call), is(a, Method::PythonContext));
}

#[test]
fn what_a_task_began_for_a_request_stays_its_own() {
    let mut w = proven();
    let first = read(&mut w, 0);
    w.copy(1, SERVING, 90);
    w.finish(at(1, SERVING), first);
    w.copy(1, SERVING, 91);
    for _ in 0..100 {
        let s = read(&mut w, 0);
        w.finish(at(1, SERVING), s);
    }
    for ctx in [90, 91] {
        let call = w.call(at(1, ctx));
        assert_eq!(w.origin(call), is(first, Method::PythonContext));
    }
}

/// Contexts of which nobody sees the making take addresses of others, those of a connection's opening among them.
#[test]
fn one_that_answers_on_several_connections_serves_none() {
    let mut w = server();
    let a = read(&mut w, 0);
    w.finish(at(1, SERVING), a);
    let b = read(&mut w, 1);
    w.finish(at(1, SERVING), b);
    let c = read(&mut w, 2);
    let call = w.call(at(1, SERVING));
    assert_eq!(w.origin(call), Settlement::Open);
    let ts = w.tick();
    w.c.request_done(c, ts);
    assert_eq!(w.late(call), None);
}
