use super::*;
use crate::export::fixture::{call, download, refused, service, span};
use crate::trace::model::{Span, SpanId, SpanKind, Status};
use std::sync::Arc;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn style(width: usize) -> Style {
    Style { width, color: false, utc_offset: |_| 0 }
}

fn all(spans: impl IntoIterator<Item = Item>, style: &Style) -> String {
    let (mut human, mut out) = (Human::default(), String::new());
    spans.into_iter().for_each(|s| human.push(s, MS(0)));
    human.finish(MS(1), style, &mut out);
    out
}

fn items(spans: impl IntoIterator<Item = Span>) -> Vec<Item> {
    spans.into_iter().map(Arc::new).collect()
}

#[test]
fn the_refused_call_stands_below_the_request_that_made_it() {
    insta::assert_snapshot!(all(download(), &style(120)), @r"
12:15:06.512  ktrdr-cli → ktrdr-api                     POST /api/v1/data/acquire/download    ✗ 502        34.0 ms
12:15:06.520  └ ktrdr-api → ktrdr-ib-host-service:5001  connect                               ✗ refused    0.10 ms
                ktrdr-api could not connect to ktrdr-ib-host-service at 127.0.0.1:5001: connection refused, nothing is
                listening on port 5001 (pid 4711 `python main.py` listened until 12 s ago and exited with status 1)
              trace 01010101010101010101010101010101, 3 spans, 2 errors
");
}

#[test]
fn a_narrow_screen_is_never_overrun() {
    let text = all(download(), &style(80));
    assert!(text.lines().all(|l| text::width(l) <= 80), "{text}");
    insta::assert_snapshot!(text, @r"
12:15:06.512  ktrdr-cli → ktrdr-api                         ✗ 502        34.0 ms
                POST /api/v1/data/acquire/download
12:15:06.520  └ ktrdr-api → ktrdr-ib-host-service:5001      ✗ refused    0.10 ms
                connect
                ktrdr-api could not connect to ktrdr-ib-host-service at
                127.0.0.1:5001: connection refused, nothing is listening on port
                5001 (pid 4711 `python main.py` listened until 12 s ago and
                exited with status 1)
              trace 01010101010101010101010101010101, 3 spans, 2 errors
");
}

#[test]
fn colours_are_added_to_the_same_text() {
    let plain = all(download(), &style(120));
    let colored = all(download(), &Style { color: true, ..style(120) });
    let mut stripped = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        stripped.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    stripped.push_str(rest);
    assert_ne!(plain, colored);
    assert_eq!(plain, stripped);
}

#[test]
fn a_dispatch_with_odd_things_in_it() {
    let (api, w1, w2) = (service("ktrdr-api"), service("training-worker-1"), service("training-worker-2"));
    let [client, server] =
        call(2, 1, 0, &service("ktrdr-cli"), &api, "POST /api/v1/trainings", (0, 950), 200);
    let [mut c1, s1] = call(2, 3, 2, &api, &w1, "POST /training/start", (10, 20), 503);
    c1.status = Status::Error("training-worker-1 answered 503 Service Unavailable: busy".into());
    let [mut c2, mut s2] = call(2, 5, 2, &api, &w2, "POST /training/start", (30, 900), 200);
    c2.attributes.set("ktrdr.link.method", "single-in-flight");
    c2.attributes.set("ktrdr.link.certainty", "inferred");
    s2.end = s2.start + 300_000_000;
    let mut broken = span(2, 7, 6, &w2, SpanKind::Client, "GET", (40, 60));
    broken.attributes.set("server.address", "::1");
    broken.attributes.set("server.port", 9000_i64);
    broken.attributes.set("ktrdr.incomplete", "eof_in_body");
    broken.attributes.set("http.response.status_code", 404_i64);
    let mut again = refused(2, 8, 6, &w2);
    // Its sentence would say so, if it were one.
    again.attributes.set("ktrdr.connect.attempt", 3_i64);
    insta::assert_snapshot!(all(items([client, server, c1, s1, c2, s2, broken, again]), &style(130)), @r"
12:15:06.000  ktrdr-cli → ktrdr-api                               POST /api/v1/trainings                200           950 ms
12:15:06.010  └ ktrdr-api → training-worker-1                     POST /training/start                  ✗ 503        10.0 ms
                training-worker-1 answered 503 Service Unavailable: busy
12:15:06.030  └ ktrdr-api → training-worker-2                     POST /training/start                  200           870 ms
                parent inferred (single-in-flight); 300 ms in training-worker-2
12:15:06.040    └ training-worker-2 → [::1]:9000                  GET                                   404          20.0 ms
                  incomplete: eof in body
12:15:06.520    └ training-worker-2 → ktrdr-ib-host-service:5001  connect                               ✗ refused    0.10 ms
                  ktrdr-api could not connect to ktrdr-ib-host-service at 127.0.0.1:5001: connection refused, nothing is listening
                  on port 5001 (pid 4711 `python main.py` listened until 12 s ago and exited with status 1)
              trace 02020202020202020202020202020202, 8 spans, 2 errors
");
}

#[test]
fn polling_is_folded_into_one_line() {
    let (cli, api) = (service("ktrdr-cli"), service("ktrdr-api"));
    let root = span(6, 1, 0, &cli, SpanKind::Internal, "ktrdr train", (0, 9_000));
    let name = "GET /api/v1/operations/{id}";
    let polls = (0..20).flat_map(|n: u8| {
        let start = 100 + 300 * u64::from(n);
        call(6, 10 + 2 * n, 1, &cli, &api, name, (start, start + 10 + u64::from(n)), 200)
    });
    let failed = call(6, 200, 1, &cli, &api, name, (7_000, 7_010), 500);
    insta::assert_snapshot!(all(items([root].into_iter().chain(polls).chain(failed)), &style(120)), @r"
12:15:06.000  ktrdr-cli                           ktrdr train                                         9.00 s
12:15:06.100  └ ktrdr-cli → ktrdr-api             GET /api/v1/operations/{id}           200          10.0 ms
                20 times, the last at 12:15:11.800, the slowest 29.0 ms
12:15:13.000  └ ktrdr-cli → ktrdr-api             GET /api/v1/operations/{id}           ✗ 500        10.0 ms
              trace 06060606060606060606060606060606, 43 spans, 1 error
");
}

/// The server's end of a failed request waits for what is logged about it.
#[test]
fn a_failed_call_is_one_tree_with_its_server() {
    let (cli, api) = (service("curl"), service("shop"));
    let [client, server] = call(9, 1, 0, &cli, &api, "GET /down", (0, 40), 500);
    let connect = refused(9, 3, 2, &api);
    let mut human = Human::default();
    let mut out = String::new();
    human.push(Arc::new(connect), MS(0));
    human.push(Arc::new(client), MS(20));
    for ms in (20..260).step_by(20) {
        human.poll(MS(ms), &style(120), &mut out);
    }
    assert_eq!(out, "");
    human.push(Arc::new(server), MS(260));
    human.poll(MS(359), &style(120), &mut out);
    assert_eq!(out, "");
    human.poll(MS(360), &style(120), &mut out);
    assert!(out.contains("└ shop → ") && out.contains("3 spans, 2 errors"), "{out}");
    // One that is not observed does not hold it up for long.
    let [client, _] = call(8, 1, 0, &cli, &api, "GET /down", (0, 40), 500);
    out.clear();
    human.push(Arc::new(client), MS(1_000));
    human.poll(MS(1_349), &style(120), &mut out);
    assert_eq!(out, "");
    human.poll(MS(1_350), &style(120), &mut out);
    assert!(out.contains("1 span, 1 error"), "{out}");
}

#[test]
fn siblings_whose_parent_was_inferred_alike_say_so_once() {
    let mut spans: Vec<Span> = download().iter().take(1).map(|s| (**s).clone()).collect();
    let (root, trace) = (spans[0].span_id, spans[0].trace_id);
    for n in 0..4u8 {
        let mut child = spans[0].clone();
        (child.trace_id, child.span_id, child.parent_span_id) = (trace, SpanId([n + 100; 8]), Some(root));
        child.name = format!("IB request {n}");
        child.start += u64::from(n) + 1;
        child.status = Status::Unset;
        child.attributes = crate::trace::model::Attributes::new();
        let certain = n == 2;
        child.attributes.set("ktrdr.link.method", if certain { "thread" } else { "single-in-flight" });
        child.attributes.set("ktrdr.link.certainty", if certain { "exact" } else { "inferred" });
        spans.push(child);
    }
    let text = all(items(spans), &style(120));
    let notes: Vec<&str> = text.lines().map(str::trim).filter(|l| l.starts_with("parent inferred")).collect();
    let one = "parent inferred (single-in-flight)";
    assert_eq!(notes, [format!("{one}, and of the next 1").as_str(), one], "{text}");
}

#[test]
fn an_orphan_says_so() {
    let api = service("ktrdr-api");
    let orphan = span(3, 2, 1, &api, SpanKind::Server, "GET /health", (0, 1));
    let mut remote = span(4, 2, 1, &api, SpanKind::Server, "GET /health", (5, 6));
    remote.attributes.set("ktrdr.link.method", "traceparent");
    insta::assert_snapshot!(all(items([orphan, remote]), &style(110)), @r"
12:15:06.000  ktrdr-api                           GET /health                           -            1.00 ms
                its caller, span 0101010101010101, is not finished or was not seen

12:15:06.005  ktrdr-api                           GET /health                           -            1.00 ms
                called from elsewhere (traceparent), span 0101010101010101
");
}

#[test]
fn a_trace_is_printed_once_its_root_has_ended_and_it_is_quiet() {
    let (mut human, mut out, style) = (Human::default(), String::new(), style(110));
    let [child, server, client] = <[Item; 3]>::try_from(download()).unwrap();
    human.push(child, MS(0));
    assert_eq!(human.poll(MS(1900), &style, &mut out), 0, "the root is still open");
    human.push(server, MS(1950));
    human.push(client, MS(1960));
    assert_eq!(human.poll(MS(2059), &style, &mut out), 0, "more may come");
    assert_eq!(human.poll(MS(2060), &style, &mut out), 3);
    assert_eq!(human.held, 0);
}

#[test]
fn an_open_root_does_not_hide_a_failure_for_long_and_the_rest_follows() {
    let (mut human, mut out, style) = (Human::default(), String::new(), style(110));
    let [child, server, client] = <[Item; 3]>::try_from(download()).unwrap();
    human.push(child, MS(0));
    assert_eq!(human.poll(MS(2000), &style, &mut out), 1);
    human.push(server, MS(5000));
    human.push(client, MS(5000));
    assert_eq!(human.poll(MS(5100), &style, &mut out), 2);
    let api = service("ktrdr-api");
    human.push(Arc::new(span(1, 9, 2, &api, SpanKind::Client, "GET /late", (600, 700))), MS(6000));
    assert_eq!(human.poll(MS(6100), &style, &mut out), 1);
    insta::assert_snapshot!(out, @r"
12:15:06.520  ktrdr-api → ktrdr-ib-host-service:5001  connect                             ✗ refused    0.10 ms
                ktrdr-api could not connect to ktrdr-ib-host-service at 127.0.0.1:5001: connection refused,
                nothing is listening on port 5001 (pid 4711 `python main.py` listened until 12 s ago and
                exited with status 1)
                its caller, span 0202020202020202, is not finished or was not seen
              trace 01010101010101010101010101010101, 1 span, 1 error

later in trace 01010101010101010101010101010101, printed 3.10 s ago:
12:15:06.512  ktrdr-cli → ktrdr-api               POST /api/v1/data/acquire/download    ✗ 502        34.0 ms

later in trace 01010101010101010101010101010101, printed 1.00 s ago:
12:15:06.600  ktrdr-api                           GET /late                             -             100 ms
                below ktrdr-api POST /api/v1/data/acquire/download
");
}

#[test]
fn memory_is_bounded_and_nothing_is_lost() {
    let (mut human, mut out, style) = (Human::default(), String::new(), style(110));
    let api = service("ktrdr-api");
    let mut shown = 0;
    let total = MAX_HELD as u64 + 5_000;
    for n in 0..total {
        // Never a root, each in a trace of its own.
        let mut s = span(1, 1, 7, &api, SpanKind::Client, "GET /", (0, 1));
        s.trace_id.0[..8].copy_from_slice(&n.to_be_bytes());
        human.push(Arc::new(s), MS(0));
        if n % 100 == 0 {
            shown += human.poll(MS(1), &style, &mut out);
            assert!(human.held <= MAX_HELD);
        }
    }
    assert!(human.printed.len() <= MAX_PRINTED);
    shown += human.finish(MS(1), &style, &mut out);
    assert_eq!(shown, total);
    // One trace that never ends to grow.
    for n in 0..2 * MAX_TRACE as u64 {
        let mut s = span(9, 1, 7, &api, SpanKind::Client, "GET /", (0, 1));
        s.span_id.0.copy_from_slice(&n.to_be_bytes());
        human.push(Arc::new(s), MS(2));
        human.poll(MS(2), &style, &mut out);
        assert!(human.held <= MAX_TRACE);
    }
    assert!(human.printed.values().all(|p| p.names.len() <= MAX_NAMES));
}

#[test]
fn spans_that_are_each_others_parents_are_shown() {
    let api = service("ktrdr-api");
    let pair = |a, b| span(5, a, b, &api, SpanKind::Internal, &format!("loop {a}"), (0, 1));
    let text = all(items([pair(1, 2), pair(2, 1), pair(3, 3)]), &style(110));
    assert_eq!(text.matches("loop").count(), 3, "{text}");
}

#[test]
fn what_was_not_shown_is_said_once() {
    let (mut known, mut out) = (0, String::new());
    not_shown(0, &mut known, &mut out);
    assert_eq!(out, "");
    not_shown(5, &mut known, &mut out);
    not_shown(5, &mut known, &mut out);
    assert_eq!(
        out.lines().next(),
        Some("… 5 more spans were not shown: they came faster than they could be written")
    );
    assert_eq!(out.matches("not shown").count(), 1);
}

/// A poll of an operation through the API at the worker, with ids of its own.
fn poll(n: u8, operation: &str, at: u64) -> Vec<Item> {
    let (cli, api) = (service("ktrdr-cli"), service("ktrdr-api"));
    let mut spans = call(n, 1, 0, &cli, &api, "GET /api/v1/operations/{id}", (at, at + 10), 200);
    for s in &mut spans {
        s.attributes.set("http.request.method", "GET");
        s.attributes.set("operation.id", operation.to_owned());
    }
    items(spans)
}

#[test]
fn a_hundred_polls_are_two_lines_and_stand_before_what_follows() {
    let (mut human, mut out, mut told) = (Human::default(), String::new(), 0);
    let mut at = 0;
    for n in 1..=100 {
        at = u64::from(n) * 50;
        poll(n, "op_1", at).into_iter().for_each(|s| human.push(s, MS(at)));
        told += human.poll(MS(at + 49), &style(120), &mut out);
        told += human.poll(MS(at + 110), &style(120), &mut out);
    }
    // Another question about the operation: what was asked before stands before it.
    let mut other =
        call(101, 1, 0, &service("ktrdr-cli"), &service("ktrdr-api"), "DELETE /op", (at, at + 1), 200);
    other.iter_mut().for_each(|s| s.attributes.set("operation.id", "op_1".to_owned()));
    items(other).into_iter().for_each(|s| human.push(s, MS(at)));
    told += human.poll(MS(at + 200), &style(120), &mut out);
    told += human.finish(MS(at + 200), &style(120), &mut out);
    assert_eq!(told, 202, "every span counts as shown");
    insta::assert_snapshot!(out, @r"
12:15:06.050  ktrdr-cli → ktrdr-api               GET /api/v1/operations/{id}           200          10.0 ms

12:15:06.100  ktrdr-cli → ktrdr-api               GET /api/v1/operations/{id}           200          10.0 ms
                99 times, the last at 12:15:11.000, the slowest 10.0 ms

12:15:11.000  ktrdr-cli → ktrdr-api               DELETE /op                            200          1.00 ms
");
}

#[test]
fn a_poll_that_fails_or_asks_about_another_operation_is_printed() {
    let (mut human, mut out) = (Human::default(), String::new());
    for (n, operation) in [(1, "op_1"), (2, "op_2"), (3, "op_1")] {
        let mut spans = poll(n, operation, u64::from(n));
        if n == 3 {
            Arc::make_mut(&mut spans[1]).status = Status::Error("no such operation".into());
        }
        spans.into_iter().for_each(|s| human.push(s, MS(0)));
    }
    human.finish(MS(1), &style(120), &mut out);
    assert_eq!(out.matches("GET /api/v1/operations/{id}").count(), 3, "{out}");
    assert!(out.contains("no such operation"), "{out}");
}

#[test]
fn more_questions_than_are_remembered_lose_nothing() {
    let (mut human, mut out) = (Human::default(), String::new());
    for round in 0..2 {
        for n in 0..600_u64 {
            let now = MS(round * 600 + n);
            let spans = poll((n % 250) as u8, &format!("op_{n}"), n).into_iter();
            spans.for_each(|mut s| {
                let mut id = [round as u8; 16];
                id[..8].copy_from_slice(&n.to_be_bytes());
                Arc::make_mut(&mut s).trace_id = crate::trace::model::TraceId(id);
                human.push(s, now);
            });
            human.poll(now + MS(200), &style(120), &mut out);
        }
    }
    human.finish(MS(5000), &style(120), &mut out);
    assert_eq!(out.matches("GET /api/v1/operations/{id}").count(), 1200, "each was new or is told");
}
