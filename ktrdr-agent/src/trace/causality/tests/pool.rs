//! Pools of Python threads: what they run belongs to whoever submitted it.

use super::super::*;
use super::scenario::{NONE, World, at, is, own};
use crate::event::MS;

/// A loop's thread that has proven how it copies contexts, and a request that is served under `ctx`.
fn served(w: &mut World, conn: u64, ctx: u64) -> SpanRef {
    let reader = 10_000 + conn;
    w.copy(1, 2, reader);
    let span = w.read(at(1, reader), conn);
    w.copy(1, reader, ctx);
    span
}

fn world() -> World {
    let mut w = World::python();
    for n in 0..2 {
        let span = served(&mut w, 900 + n, 40 + n);
        w.finish(at(1, 40 + n), span);
    }
    w.now += MS;
    w
}

#[test]
fn what_a_pools_thread_does_belongs_to_whoever_submitted_what_it_took_last() {
    let mut w = world();
    let (a, b) = (served(&mut w, 1, 50), served(&mut w, 2, 51));
    w.submit(at(1, 51), 70);
    w.submit(at(1, 50), 71);
    w.take(21, 71);
    w.take(20, 70);
    let calls = [w.call(at(20, 0)), w.call(own(21, 9)), w.call(own(20, 8))];
    assert_eq!(calls.map(|c| w.origin(c)), [b, a, b].map(|s| is(s, Method::PythonExecutor)));
    w.finish(at(1, 50), a);
    let after = w.call(own(21, 9));
    assert_eq!(w.origin(after), is(a, Method::PythonExecutor), "it goes on after the response");
    w.submit(at(1, 51), 71);
    w.take(21, 71);
    let next = w.call(own(21, 9));
    assert_eq!(w.origin(next), is(b, Method::PythonExecutor), "the same thread, and an address used again");
}

#[test]
fn contexts_copied_from_the_threads_own_descend_from_the_item_of_their_time() {
    let mut w = world();
    let (a, b) = (served(&mut w, 1, 50), served(&mut w, 2, 51));
    w.submit(at(1, 50), 70);
    w.submit(at(1, 51), 71);
    w.take(20, 70);
    // A loop of its own, as `asyncio.run` makes one, and a task's task.
    w.copy_under(own(20, 9), 60);
    w.copy(20, 60, 61);
    let (first, second) = (w.call(at(20, 60)), w.call(at(20, 61)));
    w.take(20, 71);
    w.copy_under(own(20, 9), 62);
    let other = w.call(at(20, 62));
    // What the first item left behind on another thread.
    let left = w.call(at(1, 61));
    assert_eq!([first, second, left].map(|c| w.origin(c)), [is(a, Method::PythonExecutor); 3]);
    assert_eq!(w.origin(other), is(b, Method::PythonExecutor));
}

#[test]
fn work_hands_on_work() {
    let mut w = world();
    let a = served(&mut w, 1, 50);
    let _b = served(&mut w, 2, 51);
    w.submit(at(1, 50), 70);
    w.take(20, 70);
    w.submit(own(20, 9), 71);
    w.take(21, 71);
    let call = w.call(at(21, 0));
    assert_eq!(w.origin(call), is(a, Method::PythonExecutor));
}

#[test]
fn what_nobody_asked_for_has_no_parent_whoever_created_the_thread() {
    let mut w = world();
    let a = served(&mut w, 1, 50);
    w.submit(at(1, 50), 70);
    w.thread(at(1, 50), 20);
    w.take(20, 70);
    let first = w.call(at(20, 0));
    assert_eq!(w.origin(first), is(a, Method::PythonExecutor));
    // A poller that was there before any request; and an item put before anybody looked.
    w.submit(at(1, 2), 71);
    w.take(20, 71);
    let pollers = w.call(at(20, 0));
    let _b = served(&mut w, 2, 51);
    w.take(20, 72);
    let unknown = w.call(at(20, 0));
    assert_eq!([pollers, unknown].map(|c| w.late(c)), [None, None]);
}

#[test]
fn a_thread_that_reads_a_request_serves_that_and_not_who_gave_it_the_connection() {
    let mut w = World::python();
    let mut found = Vec::new();
    for n in 0..6 {
        w.now += MS;
        // The main thread gives a connection to the pool while a request is in flight there.
        w.submit(own(1, 1), 70);
        w.take(20, 70);
        let a = w.read(own(20, 9), 1);
        w.submit(own(1, 1), 71);
        w.take(21, 71);
        let b = w.read(own(21, 8), 2);
        let calls = [w.call(own(20, 9)), w.call(own(21, 8))];
        w.finish(own(20, 9), a);
        w.finish(own(21, 8), b);
        found.push((n, calls.map(|c| w.late(c).map(|o| o.span)), [a, b].map(Some)));
    }
    for (n, found, truth) in found {
        assert!(found.iter().zip(&truth).all(|(f, t)| f.is_none() || f == t), "{n}: {found:?}, {truth:?}");
    }
}

#[test]
fn a_server_that_was_started_in_a_pool_serves_as_any_other() {
    let mut w = World::python();
    w.submit(own(1, 1), 70);
    w.take(20, 70);
    let served = |w: &mut World, conn: u64, ctx: u64| {
        let reader = 10_000 + conn;
        w.copy_under(own(20, 9), reader);
        let span = w.read(at(20, reader), conn);
        w.copy(20, reader, ctx);
        span
    };
    for n in 0..2 {
        let span = served(&mut w, 900 + n, 40 + n);
        w.finish(at(20, 40 + n), span);
    }
    let (a, b) = (served(&mut w, 1, 50), served(&mut w, 2, 51));
    let calls = [w.call(at(20, 51)), w.call(at(20, 50))];
    assert_eq!(calls.map(|c| w.origin(c)), [is(b, Method::PythonContext), is(a, Method::PythonContext)]);
}

#[test]
fn a_guess_is_not_handed_on() {
    let mut w = World::python();
    w.now += MS;
    let a = w.read(own(5, 7), 1);
    w.submit(own(1, 1), 70);
    w.take(20, 70);
    let _b = w.read(own(6, 7), 2);
    let call = w.call(own(20, 9));
    assert_ne!(w.late(call).map(|o| o.span), Some(a), "the only one then, and not now");
}

#[test]
fn after_a_loss_nobody_knows_what_the_pools_threads_run() {
    let mut w = world();
    let a = served(&mut w, 1, 50);
    w.submit(at(1, 50), 70);
    w.submit(at(1, 50), 71);
    w.take(20, 70);
    let before = w.call(at(20, 0));
    assert_eq!(w.origin(before), is(a, Method::PythonExecutor));
    let now = w.tick();
    w.c.lost(now);
    let running = w.call(at(20, 0));
    w.take(20, 71);
    let taken = w.call(at(20, 0));
    assert_eq!([running, taken].map(|c| w.origin(c)), [NONE, NONE]);
}

#[test]
fn an_item_that_is_told_twice_is_one() {
    let mut w = world();
    let a = served(&mut w, 1, 50);
    w.submit(at(1, 50), 70);
    w.take(20, 70);
    w.take(20, 70);
    let call = w.call(at(20, 0));
    assert_eq!(w.origin(call), is(a, Method::PythonExecutor));
}
