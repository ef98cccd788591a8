//! Requests that were read before the contexts of their process were followed.

use super::super::*;
use super::scenario::{NONE, World, at, is, own};
use crate::event::MS;

const READER: u64 = 1_000;

/// asyncio: a copy of the reader's context for each request.
fn asyncio(w: &mut World, conn: u64, task: u64) -> SpanRef {
    let s = w.read(at(1, READER + conn), conn);
    w.copy(1, READER + conn, task);
    s
}

/// Contexts are followed, while this many requests are in flight on connections of their own: those of task 100 and so on.
fn under_load(requests: u64) -> (World, Vec<SpanRef>) {
    let mut w = World::blind();
    let early = (0..requests).map(|n| asyncio(&mut w, n, 100 + n)).collect();
    w.follow();
    (w, early)
}

/// A request from its beginning to its end, answered by its own task.
fn another(w: &mut World, conn: u64) {
    let s = asyncio(w, conn, 200 + conn);
    w.finish(at(1, 200 + conn), s);
}

#[test]
fn the_response_tells_whose_the_context_has_been_all_along() {
    let (mut w, early) = under_load(2);
    let calls = [0, 1].map(|n| w.call(at(1, 100 + n)));
    // A child's are the request's, too, and what goes on after the response.
    w.copy(1, 100, 150);
    let child = w.call(at(9, 150));
    let lines = [0, 1].map(|n| {
        let ts = w.tick();
        w.c.written(at(1, 100 + n), ts)
    });
    w.finish(at(1, 100), early[0]);
    let after = w.call(at(1, 100));
    another(&mut w, 5);
    assert_eq!(w.origin(calls[0]), Settlement::Open, "the other one may yet be answered there");
    w.finish(at(1, 101), early[1]);
    for (n, call) in [(0, calls[0]), (1, calls[1]), (0, child), (0, after)] {
        assert_eq!(w.origin(call), is(early[n], Method::PythonContext));
    }
    let now = w.now;
    for (n, line) in lines.into_iter().enumerate() {
        let origin = Some(Origin { span: early[n], method: Method::PythonContext });
        assert_eq!(w.c.ask_again(line, now), Written::Known(origin));
    }
}

#[test]
fn calls_wait_for_the_next_requests_to_show_that_tasks_answer() {
    let (mut w, early) = under_load(1);
    let call = w.call(at(1, 100));
    let next = asyncio(&mut w, 5, 205);
    w.finish(at(1, 100), early[0]);
    assert_eq!(w.origin(call), Settlement::Open);
    w.finish(at(1, 205), next);
    assert_eq!(w.origin(call), is(early[0], Method::PythonContext));
}

#[test]
fn a_worker_that_answers_on_several_connections_works_for_nobody_in_particular() {
    let (mut w, early) = under_load(2);
    const WORKER: u64 = 50;
    let call = w.call(at(1, WORKER));
    another(&mut w, 5);
    w.finish(at(1, WORKER), early[0]);
    w.finish(at(1, WORKER), early[1]);
    assert_eq!(w.late(call), None);
}

/// The first request was under way before anybody looked.
#[test]
fn who_answers_what_nobody_saw_come_may_have_worked_for_that() {
    for seen in [true, false] {
        let (mut w, early) = under_load(1);
        let call = w.call(at(1, 50));
        another(&mut w, 5);
        if !seen {
            w.unasked(at(1, 50));
        }
        let b = asyncio(&mut w, 6, 206);
        w.finish(at(1, 50), early[0]);
        w.finish(at(1, 206), b);
        let found = w.late(call).map(|o| o.span);
        assert_eq!(found, seen.then_some(early[0]));
        assert_eq!(w.c.gap(call), (!seen).then_some(Gap::ContextUnseen));
    }
}

#[test]
fn what_a_loop_wrote_says_nothing_of_its_calls() {
    let (mut w, early) = under_load(2);
    const LOOP: u64 = 4;
    let call = w.call(at(1, LOOP));
    for span in early {
        w.finish(at(1, LOOP), span);
    }
    for conn in 5..8 {
        let s = w.read(at(1, 0), conn);
        w.copy(1, 2, 200 + conn);
        w.finish(at(1, LOOP), s);
    }
    assert_eq!(w.late(call), None);
}

/// The task's context was copied before, and what is copied now is another task's.
#[test]
fn a_copy_after_a_read_that_was_before_is_not_bound_to_it() {
    let (mut w, early) = under_load(1);
    w.copy(1, 3, 60);
    let call = w.call(at(1, 60));
    another(&mut w, 5);
    w.finish(at(1, 100), early[0]);
    assert_eq!(w.late(call), None);
}

#[test]
fn a_thread_s_own_context_is_the_thread_s() {
    let (mut w, early) = under_load(2);
    let call = w.call(own(1, 9));
    another(&mut w, 5);
    w.finish(own(1, 9), early[0]);
    w.finish(at(1, 101), early[1]);
    assert_eq!(w.origin(call), NONE);
}

/// Whoever looks at processes is ahead of the stream: that contexts are followed is known before what was done until then.
#[test]
fn a_loop_does_not_show_before_contexts_are_followed() {
    for blind in [true, false] {
        let mut w = World::blind();
        let since = w.now + if blind { 1_000 * MS } else { 0 };
        w.c.python(1, true, since);
        w.stood();
        // The loop goes on with what it was asked before the agent came.
        let a = w.read(at(1, 0), 1);
        let call = w.call(at(1, 0));
        w.finish(at(1, 0), a);
        assert_eq!(w.origin(call), if blind { NONE } else { is(a, Method::Thread) });
    }
}
