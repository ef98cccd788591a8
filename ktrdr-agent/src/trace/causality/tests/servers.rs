//! Python servers as they behave on the wire and in their contexts (recorded from live ones).

use super::super::*;
use super::scenario::{NONE, World, at, given, is, own};
use crate::event::MS;

/// uvicorn on asyncio: connection `c` is read under its own context, the task is a copy of it.
fn asyncio(w: &mut World, conn: u64, task: u64) -> SpanRef {
    let s = w.read(at(1, 1_000 + conn), conn);
    w.copy(1, 1_000 + conn, task);
    s
}

/// uvicorn on uvloop: read under no context, then the server's context (2) copies.
fn uvloop(w: &mut World, conn: u64, task: u64) -> SpanRef {
    let s = w.read(at(1, 0), conn);
    w.copy(1, 2, task);
    s
}

fn prove(w: &mut World, serve: fn(&mut World, u64, u64) -> SpanRef) {
    for conn in 1..3 {
        let s = serve(w, conn, 100 + conn);
        w.finish(at(1, 100 + conn), s);
    }
}

#[test]
fn the_first_calls_wait_for_the_response_later_ones_do_not() {
    for serve in [asyncio as fn(&mut World, u64, u64) -> SpanRef, uvloop] {
        let mut w = World::python();
        let a = serve(&mut w, 1, 50);
        let call = w.call(at(1, 50));
        assert_eq!(w.origin(call), Settlement::Open);
        w.finish(at(1, 50), a);
        assert_eq!(w.origin(call), is(a, Method::PythonContext));
        prove(&mut w, serve);
        let b = serve(&mut w, 7, 51);
        let c = serve(&mut w, 8, 52);
        let (cb, cc) = (w.call(at(1, 51)), w.call(at(1, 52)));
        assert_eq!(w.origin(cb), is(b, Method::PythonContext));
        assert_eq!(w.origin(cc), is(c, Method::PythonContext));
        assert_eq!(w.c.stats().disagreed, 0);
    }
}

#[test]
fn gathered_children_and_worker_threads_inherit() {
    let mut w = World::python();
    prove(&mut w, asyncio);
    let a = asyncio(&mut w, 1, 50);
    w.copy(1, 50, 60);
    w.copy(1, 60, 61);
    let b = asyncio(&mut w, 2, 51);
    w.copy(1, 51, 62);
    let calls = [w.call(at(1, 60)), w.call(at(9, 61)), w.call(at(9, 62))];
    assert_eq!(calls.map(|c| w.origin(c)), [a, a, b].map(|s| is(s, Method::PythonContext)));
}

#[test]
fn work_after_the_response_keeps_its_origin() {
    for serve in [asyncio as fn(&mut World, u64, u64) -> SpanRef, uvloop] {
        let mut w = World::python();
        prove(&mut w, serve);
        let a = serve(&mut w, 1, 50);
        w.copy(1, 50, 60);
        w.finish(at(1, 50), a);
        let call = w.call(at(1, 60));
        assert_eq!(w.origin(call), is(a, Method::PythonContext));
    }
}

#[test]
fn a_reused_address_is_a_new_context() {
    let mut w = World::python();
    prove(&mut w, asyncio);
    let a = asyncio(&mut w, 1, 50);
    w.finish(at(1, 50), a);
    let b = asyncio(&mut w, 2, 50);
    let call = w.call(at(1, 50));
    assert_eq!(w.origin(call), is(b, Method::PythonContext));
}

#[test]
fn a_keep_alive_connection_whose_context_descends_from_a_request_is_reset_by_the_next_read() {
    let mut w = World::python();
    prove(&mut w, asyncio);
    let a = asyncio(&mut w, 1, 50);
    // resume_reading() in the request's task registers the reader anew, in a copy of the task's context.
    w.copy(1, 50, 1_001);
    w.finish(at(1, 50), a);
    let b = asyncio(&mut w, 1, 51);
    let call = w.call(at(1, 51));
    assert_eq!(w.origin(call), is(b, Method::PythonContext));
}

#[test]
fn a_task_that_starts_between_read_and_handler_does_not_take_the_request() {
    let mut w = World::python();
    // aiohttp: the connection's task (context 200) is woken later; a background task (300) copies first.
    let a = w.read(at(1, 1_001), 1);
    w.copy(1, 300, 301);
    w.copy(1, 200, 201);
    let background = w.call(at(1, 301));
    let mine = w.call(at(1, 201));
    w.finish(at(1, 201), a);
    assert_eq!(w.origin(mine), is(a, Method::PythonContext));
    assert_ne!(w.late(background).map(|o| o.span), Some(a));
}

#[test]
fn a_fresh_context_is_settled_by_the_response() {
    let mut w = World::python();
    for n in 0..3 {
        let a = w.read(at(1, 0), 1);
        let b = w.read(at(1, 0), 2);
        let (ca, cb) = (w.call(at(1, 70 + n)), w.call(at(1, 80 + n)));
        assert_eq!(w.origin(ca), Settlement::Open);
        w.finish(at(1, 80 + n), b);
        w.finish(at(1, 70 + n), a);
        assert_eq!(w.origin(ca), is(a, Method::PythonContext));
        assert_eq!(w.origin(cb), is(b, Method::PythonContext));
    }
}

#[test]
fn a_fresh_context_at_the_address_of_a_finished_copy_is_not_taken_for_it() {
    let mut w = World::python();
    let a = w.read(at(1, 0), 1);
    let b = w.read(at(1, 0), 2);
    // `a` runs in fresh context 70 and gathers in a copy (71), which ends; `b`'s fresh context takes its address.
    w.copy(1, 70, 71);
    let child = w.call(at(1, 71));
    let other = w.call(at(1, 71));
    w.finish(at(1, 70), a);
    w.finish(at(1, 71), b);
    let origins = [child, other].map(|c| w.late(c).map(|o| o.span));
    assert_ne!(origins[1], Some(a), "wrong edge");
}

#[test]
fn pipelined_requests_on_one_connection_do_not_inherit() {
    let mut w = World::python();
    prove(&mut w, asyncio);
    let a = asyncio(&mut w, 1, 50);
    let b = w.read(at(1, 1_001), 1);
    w.finish(at(1, 50), a);
    // uvicorn starts the queued request from the task of the one before.
    w.copy(1, 50, 51);
    let call = w.call(at(1, 51));
    assert_eq!(w.origin(call), Settlement::Open, "work after the response, or the queued request?");
    w.finish(at(1, 51), b);
    assert_eq!(w.origin(call), is(b, Method::PythonContext));
}

#[test]
fn contradicting_evidence_gives_no_origin() {
    let mut w = World::python();
    let a = asyncio(&mut w, 1, 50);
    let b = asyncio(&mut w, 2, 51);
    let call = w.call(at(1, 50));
    // The other request's response comes from the task bound to this one.
    w.finish(at(1, 50), b);
    w.finish(at(1, 50), a);
    assert_eq!(w.late(call), None);
    assert_eq!(w.c.gap(call), Some(Gap::Contradiction));
    assert_eq!(w.c.stats().disagreed, 1);
}

#[test]
fn a_startup_task_has_no_origin_even_when_one_request_is_open() {
    let mut w = World::python();
    w.copy(1, 5, 40);
    w.copy(1, 40, 41);
    prove(&mut w, uvloop);
    let a = uvloop(&mut w, 1, 50);
    let call = w.call(at(1, 41));
    w.finish(at(1, 50), a);
    assert_ne!(w.late(call).map(|o| o.span), Some(a));
    assert_eq!(w.c.gap(call), None, "it is known to serve no request");
}

#[test]
fn a_synchronous_python_server_is_exact_by_thread() {
    let mut w = World::python();
    // http.server, gunicorn sync: none, or the thread's one context, for every connection.
    let (none, one) = (at(1, 0), own(1, 900));
    // The first use of a context variable gives the thread one.
    for (conn, before, after) in [(1, none, none), (2, none, one), (3, one, one), (4, one, one)] {
        let a = w.read(before, conn);
        let other = w.read(at(2, 0), conn + 100);
        let call = w.call(after);
        w.finish(after, a);
        w.finish(at(2, 0), other);
        assert_eq!(w.late(call).map(|o| o.span), Some(a));
    }
}

#[test]
fn a_pool_threads_own_context_at_the_address_of_a_finished_copy_is_not_taken_for_it() {
    let mut w = World::python();
    prove(&mut w, asyncio);
    let a = asyncio(&mut w, 1, 50);
    w.copy(1, 50, 60);
    w.finish(at(1, 50), a);
    // 60 is freed; the interpreter makes a pool thread's own context there.
    let (_b, _c) = (asyncio(&mut w, 2, 51), asyncio(&mut w, 3, 52));
    let call = w.call(own(20, 60));
    assert_eq!(w.origin(call), NONE);
}

#[test]
fn a_pools_new_thread_with_a_loop_of_its_own_works_for_its_creator_until_others_come() {
    let mut w = World::python();
    prove(&mut w, asyncio);
    let a = asyncio(&mut w, 1, 50);
    w.thread(at(1, 50), 20);
    w.finish(at(1, 50), a);
    w.copy_under(own(20, 60), 61);
    let first = w.call(at(20, 61));
    assert_eq!(w.origin(first), is(a, Method::Clone));
    // Whose work a reused thread does, its creation does not tell.
    let b = asyncio(&mut w, 2, 51);
    w.finish(at(1, 51), b);
    w.copy_under(own(20, 60), 62);
    let second = w.call(at(20, 62));
    assert_eq!(w.late(second), None);
}

#[test]
fn attached_to_under_load_it_does_not_doubt_what_comes_later() {
    let mut w = World::new();
    // Read before the probe was attached: the copy was not seen, its task runs at an unknown address.
    let early = w.read(at(1, 1_001), 1);
    w.c.python(1, true, w.now + 1);
    let before = w.call(at(1, 90));
    w.finish(at(1, 90), early);
    assert_eq!(w.late(before).map(|o| o.span), None);
    assert_eq!(w.c.gap(before), Some(Gap::ContextUnseen));
    prove(&mut w, asyncio);
    let a = asyncio(&mut w, 2, 50);
    w.finish(at(1, 50), a);
    let background = w.call(at(1, 50));
    assert_eq!(w.origin(background), is(a, Method::PythonContext));
}

/// uvicorn on uvloop 0.22: what tasks write is written later, under a context that the loop made at its start (4).
fn queued(w: &mut World, conn: u64, task: u64) -> SpanRef {
    uvloop(w, conn, task)
}

#[test]
fn a_loop_that_writes_for_its_tasks_says_nothing_of_them() {
    let mut w = World::python();
    w.copy(1, 2, 4);
    let a = queued(&mut w, 1, 50);
    w.finish(at(1, 4), a);
    // A client that writes by itself (httpx) is linked, one whose bytes are queued (aiohttp) cannot be.
    for conn in 2..6 {
        let (b, c) = (queued(&mut w, conn, 51), queued(&mut w, conn + 100, 52));
        let (direct, other) = (w.call(at(1, 51)), w.call(at(1, 52)));
        let later = w.call(at(1, 4));
        w.finish(at(1, 4), c);
        w.finish(at(1, 4), b);
        assert_eq!(w.late(direct).map(|o| o.span), Some(b));
        assert_eq!(w.late(other).map(|o| o.span), Some(c));
        assert_eq!(w.late(later), None);
    }
}

/// The loop made its context before anybody looked, and nothing was written under it before the first response.
#[test]
fn a_loop_that_shows_itself_by_its_second_response_takes_back_what_the_first_seemed_to_say() {
    let mut w = World::python();
    let (a, b) = (queued(&mut w, 1, 50), queued(&mut w, 2, 51));
    let (first, second) = (w.call(at(1, 50)), w.call(at(1, 51)));
    w.respond(at(1, 4), a);
    let background = w.call(at(1, 50));
    w.respond(at(1, 4), b);
    let now = w.now;
    w.c.request_done(a, now);
    w.c.request_done(b, now);
    assert_eq!(w.origin(first), is(a, Method::PythonContext));
    assert_eq!(w.origin(background), is(a, Method::PythonContext));
    assert_eq!(w.origin(second), is(b, Method::PythonContext));
}

/// The same where the first request was over before the second came.
#[test]
fn the_first_requests_calls_wait_for_a_second_response_to_show_the_loop() {
    let mut w = World::python();
    let first = queued(&mut w, 1, 50);
    let during = w.call(at(1, 50));
    w.finish(at(1, 4), first);
    let background = w.call(at(1, 50));
    assert_eq!([w.origin(during), w.origin(background)], [Settlement::Open; 2]);
    let (a, b) = (queued(&mut w, 1, 51), queued(&mut w, 2, 52));
    w.finish(at(1, 4), a);
    w.finish(at(1, 4), b);
    assert_eq!(w.origin(during), is(first, Method::PythonContext));
    assert_eq!(w.origin(background), is(first, Method::PythonContext));
    // One that answers on one connection only may be a task's whose making nobody saw.
    let mut w = World::python();
    let alone = queued(&mut w, 1, 50);
    let call = w.call(at(1, 50));
    w.finish(at(1, 4), alone);
    assert_eq!(w.late(call), None);
}

#[test]
fn a_call_that_a_loop_wrote_is_not_the_only_requests() {
    let mut w = World::python();
    w.copy(1, 2, 4);
    for conn in 1..5 {
        let a = queued(&mut w, 1, 50);
        let somebodys = w.call(at(1, 4));
        w.finish(at(1, 4), a);
        assert_eq!(w.late(somebodys), None, "{conn}");
    }
}

/// The same with a loop that is seen to be given what it sends: the writer is known, whoever has its context's address by the
/// time of the send.
#[test]
fn what_a_loop_was_given_is_its_writers() {
    let mut w = World::python();
    let (a, b) = (queued(&mut w, 1, 50), queued(&mut w, 2, 51));
    w.write(at(1, 50), 1, false);
    w.write(at(1, 51), 2, false);
    let calls = [w.call(given(1, 2)), w.call(given(1, 1))];
    w.write(at(1, 50), 3, false);
    w.write(at(1, 50), 3, true);
    // The first request's task is done, and the next one's context is where its was.
    let c = queued(&mut w, 3, 50);
    w.finish(given(1, 3), a);
    w.write(at(1, 50), 4, false);
    let next = w.call(given(1, 4));
    w.write(at(1, 51), 5, false);
    w.finish(given(1, 5), b);
    w.write(at(1, 50), 6, false);
    w.finish(given(1, 6), c);
    assert_eq!(
        [calls[0], calls[1], next].map(|call| w.origin(call)),
        [b, a, c].map(|s| is(s, Method::PythonContext))
    );
    assert_eq!(w.c.stats().disagreed, 0);
}

#[test]
fn of_what_several_gave_under_one_number_nothing_is_known() {
    let mut w = World::python();
    prove(&mut w, uvloop);
    let (a, b) = (uvloop(&mut w, 1, 50), uvloop(&mut w, 2, 51));
    for (number, second) in [(1, at(1, 51)), (2, at(1, 0)), (3, own(1, 900))] {
        w.write(at(1, 50), number, false);
        w.write(second, number, true);
        let call = w.call(given(1, number));
        assert_eq!((w.late(call), w.c.gap(call)), (None, Some(Gap::ContextUnseen)));
    }
    // What is behind something of which nothing is known, a number that nobody knows, and another thread's.
    w.write(at(1, 50), 4, true);
    w.write(at(1, 50), 5, false);
    for task in [given(1, 4), given(1, 6), given(2, 5)] {
        let call = w.call(task);
        assert_eq!(w.late(call), None, "{task:?}");
    }
    // The same bytes, told before records were lost.
    let now = w.tick();
    w.c.lost(now);
    let call = w.call(given(1, 5));
    assert_eq!(w.late(call), None);
    w.finish(at(1, 50), a);
    w.finish(at(1, 51), b);
}

/// One whose request answered unseen by it might have its context, where addresses may be stale.
#[test]
fn a_response_that_does_not_tell_its_writer_voids_elimination() {
    for told in [true, false] {
        let mut w = World::python();
        // Contexts that are no copies, one at the address of the other.
        let a = w.read(at(1, 0), 1);
        w.write(at(1, 70), 1, false);
        w.finish(given(1, 1), a);
        let (b, c) = (w.read(at(1, 0), 1), w.read(at(1, 0), 2));
        w.write(at(1, 70), 2, false);
        let call = w.call(given(1, 2));
        w.write(at(1, 80), 3, false);
        w.finish(given(1, 3), c);
        w.write(at(1, 70), 4, false);
        w.finish(if told { given(1, 4) } else { at(1, 4) }, b);
        let found = w.late(call).map(|o| o.span);
        assert_eq!(found, told.then_some(b), "{told}");
    }
}

#[test]
fn after_a_loss_no_context_is_what_it_was() {
    let mut w = World::python();
    prove(&mut w, asyncio);
    let a = asyncio(&mut w, 1, 50);
    let before = w.call(at(1, 50));
    assert_eq!(w.origin(before), is(a, Method::PythonContext));
    // The copy to 50 for another request is lost.
    let b = w.read(at(1, 1_002), 2);
    let waiting = w.call(at(1, 51));
    let now = w.tick();
    w.c.lost(now);
    let stale = w.call(at(1, 50));
    assert_ne!(w.late(stale).map(|o| o.span), Some(a));
    assert_eq!([waiting, stale].map(|c| w.c.gap(c)), [Gap::RecordsLost, Gap::ContextUnseen].map(Some));
    let c = asyncio(&mut w, 3, 52);
    let fresh = w.call(at(1, 52));
    assert_eq!(w.origin(fresh), is(c, Method::PythonContext));
    // The response of a request from before says nothing of how this process works.
    w.finish(at(1, 50), a);
    w.finish(at(1, 52), c);
    w.finish(at(1, 50), b);
    let background = w.call(at(1, 52));
    assert_eq!(w.origin(background), is(c, Method::PythonContext));
}

#[test]
fn what_a_service_calls_before_its_contexts_are_followed_says_nothing_of_its_pool() {
    let mut w = World::new();
    let startup = w.call(at(1, 9));
    assert_eq!(w.origin(startup), NONE);
    let now = w.tick();
    w.c.python(1, true, now);
    prove(&mut w, asyncio);
    w.now += MS;
    let a = asyncio(&mut w, 1, 50);
    let alone = w.call(at(20, 0));
    assert_eq!(w.origin(alone), is(a, Method::SingleInFlight));
}

#[test]
fn an_executor_without_context_is_inferred_alone_and_unlinked_in_company() {
    let mut w = World::python();
    prove(&mut w, asyncio);
    w.now += MS;
    let a = asyncio(&mut w, 1, 50);
    let alone = w.call(at(20, 0));
    assert_eq!(w.origin(alone), is(a, Method::SingleInFlight));
    let _b = asyncio(&mut w, 2, 51);
    let company = w.call(at(20, 0));
    assert_eq!(w.origin(company), NONE);
}

/// A task of one request copies right after another was read, whose own context that copy might be. It answers the first one
/// (a stream, hypercorn on trio), and goes on.
#[test]
fn a_copy_that_answers_what_it_was_copied_for_is_no_others() {
    let mut w = World::python();
    prove(&mut w, uvloop);
    let a = uvloop(&mut w, 7, 50);
    let b = w.read(at(1, 0), 8);
    w.copy(1, 50, 51);
    w.copy(1, 2, 60);
    w.respond(at(1, 51), a);
    let call = w.call(at(1, 51));
    let now = w.now;
    w.c.request_done(a, now);
    w.finish(at(1, 60), b);
    assert_eq!(w.origin(call), is(a, Method::PythonContext));
}
