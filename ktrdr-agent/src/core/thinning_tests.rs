//! Connections that are left out for a while: what is shown stays true, and what is not shown is said.

use ktrdr_ebpf_common::thinning::{ALL, left_out};

use super::load::Load;
use super::scenario::{Host, Pipe};
use crate::core::{Core, CoreConfig, Output};
use crate::event::ShellEvent;
use crate::event::shell::{ProcessMeta, Thinned};
use crate::trace::model::{Span, SpanKind, Status, Value};

const API: u32 = 100;
const CLI: u32 = 300;
const AT: &str = "127.0.0.1:8000";
const ELSEWHERE: &str = "127.0.0.1:9000";

fn host() -> Host {
    let mut h = Host::new();
    h.process(API, "api");
    h.process(CLI, "cli");
    h.listen(API, AT);
    h.listen(API, ELSEWHERE);
    h
}

fn leave_out(h: &mut Host, share: u32) {
    h.shell(ShellEvent::Thinned(Thinned { ports: vec![(8000, share)] }));
}

fn get(h: &mut Host, p: &mut Pipe) {
    h.request(p, b"GET /api/v1/symbols HTTP/1.1\r\nHost: x\r\n\r\n");
}

fn ok(h: &mut Host, p: &mut Pipe) {
    h.response(p, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
}

fn text<'a>(s: &'a Span, key: &str) -> Option<&'a str> {
    s.attributes.get(key).and_then(Value::as_str)
}

/// Bytes of connections that are gone: `moved + gaps = parsed + skipped + lost`.
fn balanced(h: &Host) -> bool {
    let e = h.core.counts().engine;
    e.moved + e.bytes.gaps == e.bytes.parsed + e.bytes.skipped + e.bytes.lost
}

fn forgotten(h: &Host) -> usize {
    h.outputs.iter().filter(|o| matches!(o, Output::Forget(_))).count()
}

#[test]
fn what_is_in_flight_when_its_connection_is_left_out_was_not_seen_to_its_end_and_is_no_failure() {
    let mut h = host();
    let mut waiting = h.connect(CLI, API, AT);
    let mut halfway = h.connect(CLI, API, AT);
    let mut untouched = h.connect(CLI, API, ELSEWHERE);
    get(&mut h, &mut waiting);
    get(&mut h, &mut halfway);
    h.response(&mut halfway, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes!");
    get(&mut h, &mut untouched);
    leave_out(&mut h, ALL);
    let left = h.now;
    assert_eq!(forgotten(&h), 4, "both ends of both");
    ok(&mut h, &mut untouched);
    h.close(&waiting, 104);
    h.close(&halfway, 104);
    let spans = h.spans();
    assert_eq!(spans.len(), 6);
    for s in &spans {
        assert_eq!((&s.status, s.attributes.get("error.type")), (&Status::Unset, None), "{s:?}");
        let out = s.attributes.get("server.port") == Some(&Value::Int(8000)) || s.end == left;
        assert_eq!(text(s, "ktrdr.incomplete"), out.then_some("left_out"), "{s:?}");
    }
    let joined = |s: &&Span| text(s, "ktrdr.link.method") == Some("connection");
    assert_eq!(spans.iter().filter(joined).count(), 3, "both ends as ever");
    h.shell(ShellEvent::End);
    let counts = h.core.counts();
    assert!(balanced(&h) && counts.engine.bytes.lost == 0, "{counts:?}");
}

#[test]
fn a_body_without_an_end_has_not_ended_because_nobody_looks() {
    let mut h = host();
    let mut p = h.connect(CLI, API, AT);
    get(&mut h, &mut p);
    h.response(&mut p, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the connection ends");
    // Half a head, in hand at both ends.
    let mut begun = h.connect(CLI, API, AT);
    h.request(&mut begun, b"GET /half HTT");
    leave_out(&mut h, ALL);
    let spans = h.spans();
    assert_eq!(spans.len(), 2, "{spans:?}");
    for s in &spans {
        assert_eq!((text(s, "ktrdr.incomplete"), &s.status), (Some("left_out"), &Status::Unset));
        assert_eq!(s.attributes.get("http.response.body.size"), None, "not known");
    }
    assert!(balanced(&h) && h.core.counts().engine.bytes.lost == 0, "{:?}", h.core.counts().engine);
}

#[test]
fn what_still_comes_of_it_is_dropped_and_counted_with_and_without_addresses() {
    let mut h = host();
    let mut p = h.connect(CLI, API, AT);
    get(&mut h, &mut p);
    leave_out(&mut h, ALL);
    h.addressed = false;
    ok(&mut h, &mut p);
    h.addressed = true;
    get(&mut h, &mut p);
    let counts = h.core.counts();
    assert_eq!((counts.left_out, counts.unknown_conn), (4, 0));
    assert_eq!(h.core.connections(), 0);
    assert!(balanced(&h) && counts.engine.bytes.lost == 0, "{:?}", counts.engine);
    assert_eq!(h.spans().len(), 2, "those that were in flight");
}

#[test]
fn a_connection_that_comes_back_in_mid_stream_is_followed_like_an_older_one() {
    let mut h = host();
    let mut p = h.connect(CLI, API, AT);
    get(&mut h, &mut p);
    leave_out(&mut h, ALL);
    ok(&mut h, &mut p);
    get(&mut h, &mut p);
    h.shell(ShellEvent::Thinned(Thinned::default()));
    // The answer to a request that nobody saw.
    ok(&mut h, &mut p);
    get(&mut h, &mut p);
    ok(&mut h, &mut p);
    h.close(&p, 0);
    let mut spans = h.spans();
    spans.sort_by_key(|s| s.start);
    let whole: Vec<_> = spans.iter().filter(|s| text(s, "ktrdr.incomplete").is_none()).collect();
    assert_eq!((spans.len(), whole.len()), (4, 2), "{spans:#?}");
    assert_eq!(whole[1].parent_span_id, Some(whole[0].span_id));
    assert!(whole.iter().all(|s| s.attributes.get("http.response.status_code") == Some(&Value::Int(200))));
    assert!(balanced(&h), "{:?}", h.core.counts().engine);
}

#[test]
fn connects_are_told_of_all_connections() {
    let config = crate::core::CoreConfig { metrics: true, ..Default::default() };
    let mut h = Host::with(config);
    h.process(API, "api");
    h.process(CLI, "cli");
    h.listen(API, AT);
    leave_out(&mut h, ALL);
    let p = h.connect(CLI, API, AT);
    h.close(&p, 0);
    h.unlisten(API, AT);
    h.fail(CLI, AT, 111);
    assert_eq!(h.core.connections(), 0, "none is followed");
    let spans = h.spans();
    assert_eq!(spans.len(), 1);
    assert!(matches!(&spans[0].status, Status::Error(text) if text.contains("refused")), "{spans:?}");
    assert_eq!(
        spans[0].attributes.get("ktrdr.connect.attempt"),
        Some(&Value::Int(1)),
        "the first that failed"
    );
    let now = h.now;
    let snapshot = h.core.snapshot(now).unwrap();
    let connects = snapshot.points.iter().filter(|p| p.id == crate::metrics::Id::Connects);
    assert_eq!(connects.count(), 2, "one that stood, and one that was refused");
}

#[test]
fn the_load_is_told_by_the_ports_of_services() {
    let mut h = host();
    h.core.take_load();
    let mut a = h.connect(CLI, API, AT);
    let mut b = h.connect(CLI, API, ELSEWHERE);
    get(&mut h, &mut a);
    ok(&mut h, &mut a);
    get(&mut h, &mut b);
    let load = h.core.take_load();
    assert_eq!(load, Load { by_port: vec![(8000, 4), (9000, 2)], other: 6 }, "three changes of state each");
    leave_out(&mut h, ALL);
    get(&mut h, &mut a);
    h.pass(50);
    assert_eq!(h.core.take_load(), Load { by_port: vec![], other: 2 }, "what is left out has no port");
    assert_eq!(h.core.take_load(), Load::default());
}

#[test]
fn of_who_is_not_known_to_be_client_or_server_the_lower_port_is_taken() {
    let mut h = Host::new();
    let mut p = h.older(CLI, API, ELSEWHERE);
    h.request(&mut p, b"\x00\x01\x02");
    assert_eq!(h.core.take_load(), Load { by_port: vec![(9000, 2)], other: 0 });
}

/// The end of a connection of the agent's that is left out is not told; who gets its port next is not the agent.
#[test]
fn who_has_a_port_of_the_agents_later_is_observed() {
    const AGENT: u32 = 1;
    let mut h = host();
    leave_out(&mut h, ALL);
    let own = h.connect(AGENT, API, AT);
    h.shell(ShellEvent::Thinned(Thinned::default()));
    let mut p = h.connect_again(&own, CLI);
    get(&mut h, &mut p);
    ok(&mut h, &mut p);
    let spans = h.spans();
    let kinds: Vec<SpanKind> = spans.iter().map(|s| s.kind).collect();
    assert_eq!(kinds.len(), 2, "{spans:?}");
}

#[test]
fn spans_on_a_thinned_port_say_how_much_of_it_is_observed() {
    let mut h = host();
    let mut p = h.connect(CLI, API, AT);
    let mut other = h.connect(CLI, API, ELSEWHERE);
    // As little as leaves this one observed.
    let share =
        (0..ALL).rev().find(|s| !left_out(8000, p.client_port(), |port| if port == 8000 { *s } else { 0 }));
    leave_out(&mut h, share.unwrap());
    for pipe in [&mut p, &mut other] {
        get(&mut h, pipe);
        ok(&mut h, pipe);
    }
    let spans = h.spans();
    let said: Vec<_> = spans.iter().filter_map(|s| s.attributes.get("ktrdr.observed.share")).collect();
    let observed = f64::from(ALL - share.unwrap()) / f64::from(ALL);
    let Some(Value::Float(told)) = said.first() else { panic!("{spans:#?}") };
    assert!((told - observed).abs() <= 0.00005 && (told * 1e4).fract().abs() < 1e-6, "{told} of {observed}");
    assert_eq!((spans.len(), said.len()), (4, 2), "both ends of the one on that port");
    leave_out(&mut h, 0);
    get(&mut h, &mut p);
    ok(&mut h, &mut p);
    assert!(h.spans().iter().all(|s| s.attributes.get("ktrdr.observed.share").is_none()));
}

/// A service serves a request; it calls.
fn served(h: &mut Host, call: &[u8]) -> Vec<Span> {
    const BACK: u32 = 200;
    const BACK_AT: &str = "127.0.0.1:7000";
    h.process(BACK, "back");
    h.listen(BACK, BACK_AT);
    let mut p = h.connect(CLI, API, ELSEWHERE);
    h.request(&mut p, ASKED);
    let mut back = h.connect(API, BACK, BACK_AT);
    h.request(&mut back, call);
    ok(h, &mut back);
    ok(h, &mut p);
    h.spans()
}

const ASKED: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\nUser-Agent: curl/8\r\nX-Request-ID: 7b0c31f2-1\r\n\r\n";

fn call_of<'a>(spans: &'a [Span], service: &str) -> &'a Span {
    spans.iter().find(|s| s.resource.service == service && s.kind == SpanKind::Client).unwrap()
}

#[test]
fn what_rests_on_seeing_all_requests_tells_nothing_and_the_call_says_so() {
    let same: &[u8] = b"GET /a HTTP/1.1\r\nHost: b\r\nUser-Agent: curl/8\r\n\r\n";
    let id: &[u8] = b"GET /b HTTP/1.1\r\nHost: b\r\nX-Request-ID: 7b0c31f2-1\r\n\r\n";
    for (call, method) in [(same, "same-request"), (id, "request-id")] {
        let mut h = host();
        // It has one thread, so that what it read last is what it works on.
        let meta = ProcessMeta { tgid: API, service: "api".into(), threads: 1, ..ProcessMeta::default() };
        h.shell(ShellEvent::Process(meta));
        let how = |spans: &[Span]| text(call_of(spans, "api"), "ktrdr.link.method").map(str::to_owned);
        assert_eq!(how(&served(&mut h, call)).as_deref(), Some(method));
        leave_out(&mut h, ALL);
        let spans = served(&mut h, call);
        let s = call_of(&spans, "api");
        assert_eq!((s.parent_span_id, text(s, "ktrdr.link.missing")), (None, Some("left-out")), "{s:#?}");
        leave_out(&mut h, 0);
        let spans = served(&mut h, call);
        let s = call_of(&spans, "api");
        assert_eq!(s.parent_span_id, None, "what was read unseen goes on");
        h.pass(31_000);
        assert_eq!(how(&served(&mut h, call)).as_deref(), Some(method));
    }
}

/// What a relay read and what it sent on is alike, and so may be what it read unseen.
#[test]
fn connections_through_a_relay_are_not_taken_for_one_unless_they_were_before() {
    const RELAY: u32 = 200;
    const FRONT: &str = "127.0.0.1:7000";
    let through = |h: &mut Host, from: &mut Pipe, to: &mut Pipe| {
        get(h, from);
        get(h, to);
        ok(h, to);
        ok(h, from);
    };
    let mut h = host();
    h.process(RELAY, "relay");
    h.listen(RELAY, FRONT);
    let open = |h: &mut Host| (h.connect(CLI, RELAY, FRONT), h.connect(RELAY, API, ELSEWHERE));
    let (mut from, mut to) = open(&mut h);
    through(&mut h, &mut from, &mut to);
    let method = |spans: &[Span]| text(call_of(spans, "relay"), "ktrdr.link.method").map(str::to_owned);
    assert_eq!(method(&h.spans()).as_deref(), Some("relay"));
    leave_out(&mut h, ALL);
    through(&mut h, &mut from, &mut to);
    assert_eq!(method(&h.spans()).as_deref(), Some("relay"), "as was known before");
    let (mut from, mut to) = open(&mut h);
    through(&mut h, &mut from, &mut to);
    assert_eq!(method(&h.spans()), None);
    leave_out(&mut h, 0);
    h.pass(31_000);
    let (mut from, mut to) = open(&mut h);
    through(&mut h, &mut from, &mut to);
    assert_eq!(method(&h.spans()).as_deref(), Some("relay"));
}

/// The access line of a request that nobody saw is not that of the one before on the same connection.
#[test]
fn an_access_line_of_a_request_that_nobody_saw_is_nobodys() {
    let mut h = host();
    let mut p = h.connect(CLI, API, AT);
    let line = format!("127.0.0.1:{} - \"GET /api/v1/symbols HTTP/1.1\" 200 OK\n", p.client_port());
    let line = format!("INFO:     {line}");
    let placed = |h: &mut Host| {
        h.pass(200);
        let logs: Vec<_> = std::mem::take(&mut h.outputs);
        logs.into_iter()
            .filter_map(|o| if let Output::Log(r) = o { Some(r.span_id.is_some()) } else { None })
            .collect::<Vec<_>>()
    };
    get(&mut h, &mut p);
    ok(&mut h, &mut p);
    h.write(API, API, 1, line.as_bytes());
    assert_eq!(placed(&mut h), [true]);
    leave_out(&mut h, ALL);
    h.write(API, API, 1, line.as_bytes());
    assert_eq!(placed(&mut h), [false]);
    // Written before the next one was read, and looked at after.
    leave_out(&mut h, 0);
    h.pass(31_000);
    h.write(API, API, 1, line.as_bytes());
    get(&mut h, &mut p);
    assert_eq!(placed(&mut h), [false]);
}

#[test]
fn the_same_records_give_the_same_spans() {
    let mut h = host();
    let mut p = h.connect(CLI, API, AT);
    for share in [ALL, 0, ALL / 2, ALL, 0] {
        get(&mut h, &mut p);
        leave_out(&mut h, share);
        ok(&mut h, &mut p);
        get(&mut h, &mut p);
        ok(&mut h, &mut p);
    }
    let first = h.spans();
    let mut core = Core::new(CoreConfig::default());
    let mut again = Vec::new();
    for record in &h.records {
        core.feed(record);
        while let Some(o) = core.next_output() {
            if let Output::Span(s) = o {
                again.push(*s);
            }
        }
    }
    assert!(!first.is_empty());
    assert_eq!(format!("{first:?}"), format!("{again:?}"));
}
