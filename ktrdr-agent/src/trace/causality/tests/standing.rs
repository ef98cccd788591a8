//! Requests that may be under way on connections that were there before the agent.

use super::super::*;
use super::scenario::{World, at, given, is};

const READER: u64 = 1_000;
const WORKER: u64 = 50;
/// Under which a loop sends.
const LOOP: u64 = 4;

/// asyncio: a copy of the reader's context for each request.
fn asyncio(w: &mut World, conn: u64, task: u64) -> SpanRef {
    let s = w.read(at(1, READER + conn), conn);
    w.copy(1, READER + conn, task);
    s
}

/// A request from its beginning to its end, answered by its own task.
fn another(w: &mut World, conn: u64) {
    let s = asyncio(w, conn, 200 + conn);
    w.finish(at(1, 200 + conn), s);
}

/// Contexts are followed of a process that works for a request that nobody saw come, and for one that was seen, under `task`.
fn under_load(task: u64) -> (World, SpanRef, CallRef) {
    let mut w = World::blind();
    w.stood();
    let seen = w.read(at(1, READER), 1);
    w.follow();
    let call = w.call(at(1, task));
    another(&mut w, 5);
    another(&mut w, 6);
    w.finish(at(1, task), seen);
    (w, seen, call)
}

#[test]
fn a_call_waits_for_what_nobody_saw_come() {
    let (mut w, seen, call) = under_load(WORKER);
    assert_eq!(w.origin(call), Settlement::Open, "it may be a worker's, and the call for the other one");
    w.unasked(at(1, 90));
    w.c.stands_no_more(1);
    assert_eq!(w.origin(call), is(seen, Method::PythonContext), "another task answered that");
}

#[test]
fn a_worker_shows_when_it_answers_what_nobody_saw_come() {
    let (mut w, _, call) = under_load(WORKER);
    w.unasked(at(1, WORKER));
    w.c.stands_no_more(1);
    assert_eq!(w.late(call), None);
    assert_eq!(w.c.gap(call), Some(Gap::ContextUnseen));
}

#[test]
fn most_old_connections_are_idle_and_stay_so() {
    let (mut w, seen, call) = under_load(WORKER);
    assert_eq!(w.late(call), Some(Origin { span: seen, method: Method::PythonContext }));
}

#[test]
fn at_the_end_of_the_stream_they_have_not_shown() {
    let (mut w, _, call) = under_load(WORKER);
    w.c.ends();
    assert_eq!(w.late(call), None);
    assert_eq!(w.c.gap(call), Some(Gap::RequestUnseen));
}

/// Contexts are made unseen: that nobody else claims this one says something when all have answered.
#[test]
fn so_it_is_where_addresses_are_not_to_be_trusted() {
    for worker in [true, false] {
        let mut w = World::blind();
        w.stood();
        w.follow();
        let call = |w: &mut World| {
            let s = w.read(at(1, READER + 1), 1);
            w.copy(1, READER + 1, 60);
            let call = w.call(at(1, WORKER));
            w.finish(at(1, WORKER), s);
            (s, call)
        };
        let (first, early) = call(&mut w);
        assert_eq!(w.origin(early), Settlement::Open);
        w.unasked(at(1, if worker { WORKER } else { 90 }));
        w.c.stands_no_more(1);
        assert_eq!(w.late(early).map(|o| o.span), (!worker).then_some(first));
        let (second, later) = call(&mut w);
        assert_eq!(w.origin(later), is(second, Method::PythonContext), "nothing else is under way");
    }
}

/// What is there when the first request is read may be what others left that were read before anybody looked. A context that
/// is made unseen takes such a one's address, and its response is not the loop's for that.
#[test]
fn a_context_from_before_the_first_request_may_be_an_earlier_ones() {
    for began in [true, false] {
        let mut w = if began { World::python() } else { World::blind() };
        if !began {
            w.follow();
        }
        w.copy(1, 3, 70);
        let s = w.read(at(1, 0), 1);
        // Somebody else's.
        w.copy(1, 8, 80);
        let call = w.call(at(1, 80));
        w.finish(at(1, 70), s);
        assert_eq!(w.late(call).map(|o| o.span), began.then_some(s));
    }
}

/// A worker gives its loop something for one request, and behind it something for another that was read since.
#[test]
fn what_was_written_behind_may_be_for_a_request_that_came_meanwhile() {
    for meanwhile in [true, false] {
        let mut w = World::python();
        let a = asyncio(&mut w, 1, 61);
        let b = (!meanwhile).then(|| asyncio(&mut w, 2, 62));
        w.write(at(1, WORKER), 1, false);
        let b = b.unwrap_or_else(|| asyncio(&mut w, 2, 62));
        w.write(at(1, WORKER), 1, true);
        let call = w.call(given(1, 1));
        w.write(at(1, WORKER), 2, false);
        w.finish(given(1, 2), a);
        w.write(at(1, 62), 3, false);
        w.finish(given(1, 3), b);
        assert_eq!(w.late(call).map(|o| o.span), (!meanwhile).then_some(a));
    }
}

/// A worker works for two, and one of them is left out before it is answered.
#[test]
fn a_request_that_was_left_does_not_say_whose_the_worker_was() {
    for left in [true, false] {
        let mut w = World::python();
        another(&mut w, 9);
        let (a, b) = (asyncio(&mut w, 1, 61), asyncio(&mut w, 2, 62));
        let call = w.call(at(1, WORKER));
        w.finish(at(1, WORKER), a);
        assert_eq!(w.origin(call), Settlement::Open);
        if left {
            w.partial(true);
            let now = w.now;
            w.c.request_left(b, now);
        } else {
            w.finish(at(1, 62), b);
        }
        assert_eq!(w.late(call).map(|o| o.span), (!left).then_some(a));
        assert_eq!(w.c.gap(call), left.then_some(Gap::LeftOut));
    }
}

/// A loop that sends later, and a worker that answered a request which nobody saw come. What was written before contexts were
/// followed is sent when they are, and does not tell.
#[test]
fn what_was_sent_without_a_writer_may_have_been_the_workers() {
    for (told, sent_by) in [(Some(WORKER), WORKER), (Some(91), 91), (None, WORKER), (None, 91)] {
        let mut w = World::blind();
        w.stood();
        let seen = w.read(at(1, 0), 1);
        w.follow();
        w.copy(1, 3, 90);
        w.write(at(1, 90), 1, false);
        w.call(given(1, 1));
        let call = w.call(at(1, WORKER));
        // The records are the same whoever wrote it, if they do not tell.
        match told {
            Some(writer) => {
                w.write(at(1, writer), 2, false);
                w.unasked(given(1, 2));
            }
            None => w.unasked(at(1, LOOP)),
        }
        w.c.stands_no_more(1);
        another(&mut w, 5);
        for (conn, number) in [(6, 3), (7, 4)] {
            let s = asyncio(&mut w, conn, 200 + conn);
            w.write(at(1, 200 + conn), number, false);
            w.finish(given(1, number), s);
        }
        w.write(at(1, WORKER), 9, false);
        w.finish(given(1, 9), seen);
        let known = told.is_some() && sent_by != WORKER;
        assert_eq!(w.late(call).map(|o| o.span), known.then_some(seen), "{told:?}");
    }
}

/// One that was over before the request was read does not matter, whoever wrote it.
#[test]
fn what_was_sent_without_a_writer_says_nothing_of_requests_read_later() {
    for (first, found) in [(true, true), (false, false)] {
        let mut w = World::blind();
        w.follow();
        w.write(at(1, 90), 1, false);
        w.call(given(1, 1));
        let before = if first { Some(asyncio(&mut w, 2, 62)) } else { None };
        if let Some(before) = before {
            w.finish(at(1, LOOP), before);
        }
        let s = asyncio(&mut w, 1, 61);
        let other = (!first).then(|| asyncio(&mut w, 2, 62));
        // A context that is older than our sight: as far as is known, addresses may be stale.
        let call = w.call(at(1, WORKER));
        if let Some(other) = other {
            w.finish(at(1, LOOP), other);
        }
        w.write(at(1, WORKER), 2, false);
        w.finish(given(1, 2), s);
        assert_eq!(w.late(call).map(|o| o.span), found.then_some(s));
    }
}
