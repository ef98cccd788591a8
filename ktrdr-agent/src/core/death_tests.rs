//! The core on processes that end in the middle of calls.

use ktrdr_ebpf_common::flags;

use super::scenario::{Host, Pipe};
use crate::trace::model::{Attributes, Span, SpanKind, Status, Value};

const API: u32 = 100;
const IB: u32 = 200;
const CLI: u32 = 300;
const GATEWAY: u32 = 400;
const KILLED: u32 = 9;

fn host() -> Host {
    let mut h = Host::new();
    h.process(API, "ktrdr-api");
    h.process(IB, "ktrdr-ib-host-service");
    h.process(CLI, "ktrdr-cli");
    h.process(GATEWAY, "gateway");
    h.listen(API, "127.0.0.1:8000");
    h.listen(IB, "127.0.0.1:5001");
    h.listen(GATEWAY, "127.0.0.1:4002");
    h
}

fn request(h: &mut Host, p: &mut Pipe) {
    h.request(p, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
}

fn text<'a>(s: &'a Span, key: &str) -> &'a str {
    s.attributes.get(key).and_then(|v| v.as_str()).unwrap_or("")
}

fn of<'a>(spans: &'a [Span], service: &str, kind: SpanKind) -> &'a Span {
    spans.iter().find(|s| s.resource.service == service && s.kind == kind).unwrap()
}

fn tells(s: &Span) -> bool {
    s.events.iter().any(|e| e.name == "process.ended")
}

fn message(s: &Span) -> &str {
    match &s.status {
        Status::Error(text) => text,
        Status::Unset => "",
    }
}

#[test]
fn a_death_in_the_middle_is_on_all_that_it_cut_off() {
    let mut h = host();
    let mut to_ib = h.connect(API, IB, "127.0.0.1:5001");
    request(&mut h, &mut to_ib);
    let mut to_gateway = h.connect(IB, GATEWAY, "127.0.0.1:4002");
    request(&mut h, &mut to_gateway);
    h.pass(2000);
    h.exit(IB, KILLED);
    let death = h.now;
    h.close(&to_ib, 104);
    h.pass(1000);
    h.close(&to_gateway, 0);
    let spans = h.spans();
    let caller = of(&spans, "ktrdr-api", SpanKind::Client);
    assert_eq!(text(caller, "error.type"), "connection_reset");
    assert_eq!(text(caller, "ktrdr.peer.exit"), "was killed by SIGKILL");
    assert_eq!(caller.attributes.get("ktrdr.peer.pid"), Some(&Value::Int(IB.into())));
    assert!(message(caller).contains(
        "the connection was reset after 2 s; pid 200 `ktrdr-ib-host-service` was killed by SIGKILL"
    ));
    let served = of(&spans, "ktrdr-ib-host-service", SpanKind::Server);
    let called = of(&spans, "ktrdr-ib-host-service", SpanKind::Client);
    for (span, end) in
        [(served, "before it answered 127.0.0.1:"), (called, "before gateway at 127.0.0.1:4002 answered")]
    {
        assert_eq!((text(span, "error.type"), span.end), ("process_ended", death));
        assert!(
            message(span).starts_with("ktrdr-ib-host-service (pid 200) was killed by SIGKILL"),
            "{}",
            message(span)
        );
        assert!(message(span).contains(end), "{}", message(span));
    }
    for span in [caller, served, called] {
        let event = span.events.iter().find(|e| e.name == "process.ended").unwrap();
        assert_eq!(event.ts, death);
        assert_eq!(event.attributes.get("process.pid"), Some(&Value::Int(IB.into())));
        assert_eq!(event.attributes.get("ktrdr.process.signal").and_then(Value::as_str), Some("SIGKILL"));
    }
    // The gateway's end of it is its caller's doing, and no death.
    assert_eq!(of(&spans, "gateway", SpanKind::Server).events, vec![]);
}

#[test]
fn out_of_memory_is_said() {
    let mut h = host();
    let mut p = h.connect(API, IB, "127.0.0.1:5001");
    request(&mut h, &mut p);
    h.exit_with(IB, KILLED, flags::OUT_OF_MEMORY);
    h.close(&p, 0);
    let spans = h.spans();
    let served = of(&spans, "ktrdr-ib-host-service", SpanKind::Server);
    assert!(message(served).contains("was killed by SIGKILL (out of memory) before"), "{}", message(served));
    assert_eq!(served.events[0].attributes.get("ktrdr.process.out_of_memory"), Some(&Value::Bool(true)));
}

#[test]
fn an_end_before_or_after_the_call_is_no_evidence() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    request(&mut h, &mut p);
    h.close(&p, 104);
    h.exit(API, KILLED);
    let spans = h.spans();
    assert!(spans.iter().all(|s| !tells(s) && text(s, "ktrdr.peer.exit").is_empty()), "{spans:#?}");
    // An answered call is what it was.
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    request(&mut h, &mut p);
    h.response(&mut p, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
    h.exit(API, KILLED);
    h.close(&p, 0);
    assert!(h.spans().iter().all(|s| s.status == Status::Unset && !tells(s)));
}

#[test]
fn a_service_that_ends_again_and_again_is_said_to() {
    let mut h = host();
    h.unlisten(IB, "127.0.0.1:5001");
    h.exit(IB, 1 << 8);
    for pid in 201..203 {
        h.pass(1000);
        h.process(pid, "ktrdr-ib-host-service");
        h.listen(pid, "127.0.0.1:5001");
        h.unlisten(pid, "127.0.0.1:5001");
        h.exit(pid, 1 << 8);
    }
    h.fail(API, "127.0.0.1:5001", 111);
    h.fail(API, "127.0.0.1:5001", 111);
    let spans = h.spans();
    let first = of(&spans, "ktrdr-api", SpanKind::Client);
    assert!(
        message(first).ends_with("; ktrdr-ib-host-service has ended 3 times within 2 s"),
        "{}",
        message(first)
    );
    assert!(
        message(&spans[1]).ends_with("has ended 3 times within 2 s (attempt 2)"),
        "{}",
        message(&spans[1])
    );
    assert_eq!(first.attributes.get("ktrdr.peer.restarts"), Some(&Value::Int(3)));
}

#[test]
fn the_last_lines_of_who_ended_stand_beside_its_end() {
    let mut h = host();
    let mut p = h.connect(API, IB, "127.0.0.1:5001");
    request(&mut h, &mut p);
    for n in 0..5 {
        h.write(IB, IB, 2, format!("ERROR:    out of ideas, attempt {n}, password=hunter2\n").as_bytes());
    }
    // A line that was not ended is its last all the same.
    h.write(IB, IB, 2, &[b"Killed ", &b"x".repeat(2_000)[..]].concat());
    h.exit_with(IB, KILLED, flags::OUT_OF_MEMORY);
    h.close(&p, 104);
    h.unlisten(IB, "127.0.0.1:5001");
    h.fail(API, "127.0.0.1:5001", 111);
    h.pass(500);
    let spans = h.spans();
    let list = |a: &Attributes, key: &str| match a.get(key) {
        Some(Value::List(lines)) => lines.clone(),
        other => panic!("{key}: {other:?}"),
    };
    let caller = spans.iter().find(|s| s.kind == SpanKind::Client && s.name.starts_with("GET")).unwrap();
    let event = caller.events.iter().find(|e| e.name == "process.ended").unwrap();
    let lines = list(&event.attributes, "ktrdr.process.last_lines");
    assert_eq!(lines[..2], [3, 4].map(|n| format!("out of ideas, attempt {n}, password=REDACTED")));
    assert!(lines.len() == 3 && lines[2].starts_with("Killed xxx") && lines[2].len() == 240, "{lines:?}");
    let refused = spans.iter().find(|s| s.name.starts_with("connect")).unwrap();
    assert_eq!(list(&refused.attributes, "ktrdr.listener.last_lines"), lines);
}
