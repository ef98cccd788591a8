//! The core on log records: each finds the span it was written in, however long that one waits for its own place.

use super::scenario::{Host, Pipe};
use super::{CoreConfig, Output};
use crate::event::shell::PythonStatus;
use crate::event::{MS, ShellEvent};
use crate::trace::logs::{LogRecord, Unlinked};
use crate::trace::model::{Span, SpanKind, Status, Value};

const API: u32 = 100;
const CLI: u32 = 301;
const SHELL: u32 = 300;
const ADDRESS: &str = "127.0.0.1:8000";

/// A service whose threads serve one request each.
fn host() -> Host {
    let mut h = Host::new();
    h.process(API, "ktrdr-api");
    h.listen(API, ADDRESS);
    h.shell(ShellEvent::Python(PythonStatus { tgid: API, exact: true, ..PythonStatus::default() }));
    h.exec(CLI, SHELL, "load", "load", false);
    h
}

fn line(n: usize) -> Vec<u8> {
    format!("2026-11-22 09:26:24,275 | WARNING | app | request /{n}\n").into_bytes()
}

fn request(h: &mut Host, n: usize) -> Pipe {
    let mut p = h.connect(CLI, API, ADDRESS);
    h.request(&mut p, format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    p
}

fn response(h: &mut Host, p: &mut Pipe) {
    h.response(p, b"HTTP/1.1 204 No Content\r\n\r\n");
    h.close(p, 0);
}

fn logs(h: &mut Host) -> Vec<LogRecord> {
    let log = |o: Output| match o {
        Output::Log(record) => Some(*record),
        _ => None,
    };
    std::mem::take(&mut h.outputs).into_iter().filter_map(log).collect()
}

/// Each record is on the server's span of the request that it names.
fn all_right(spans: &[Span], logs: &[LogRecord], expected: usize) {
    let path = |s: &Span| s.attributes.get("url.path").and_then(|v| v.as_str()).map(str::to_owned);
    assert_eq!(logs.len(), expected);
    for record in logs {
        let named = record.body.strip_prefix("request ").map(str::to_owned);
        let at = |s: &&Span| s.kind == SpanKind::Server && path(s) == named;
        let span = spans.iter().find(at).unwrap();
        assert_eq!(
            (record.trace_id, record.span_id),
            (Some(span.trace_id), Some(span.span_id)),
            "{record:?}"
        );
    }
}

/// Whether the caller is a command is known at its end; the spans wait for that, and so do the lines.
#[test]
fn lines_written_for_a_command_wait_as_long_as_their_span() {
    let mut h = host();
    for n in 0..10 {
        let mut p = request(&mut h, n);
        h.write(API, API, 2, &line(n));
        response(&mut h, &mut p);
        h.pass(150);
    }
    h.exit(CLI, 0);
    let spans = h.spans();
    assert!(spans.iter().any(|s| s.kind == SpanKind::Internal), "it was a command");
    all_right(&spans, &logs(&mut h), 10);
}

#[test]
fn lines_written_for_a_program_that_goes_on_come_with_its_calls() {
    let mut h = host();
    let mut spans = Vec::new();
    for n in 0..10 {
        let mut p = request(&mut h, n);
        h.write(API, API, 2, &line(n));
        response(&mut h, &mut p);
        h.pass(300);
    }
    spans.extend(h.spans());
    all_right(&spans, &logs(&mut h), 10);
}

/// A long write is several records of the kernel side, and one line's worth of evidence.
#[test]
fn a_long_write_is_its_writer_s() {
    let mut h = host();
    let mut p = request(&mut h, 0);
    let text = [b"ERROR:    ", &vec![b'x'; 40_000][..], b"\n"].concat();
    h.write(API, API, 2, &text);
    response(&mut h, &mut p);
    h.exit(CLI, 0);
    let spans = h.spans();
    let server = spans.iter().find(|s| s.kind == SpanKind::Server).unwrap();
    let logs = logs(&mut h);
    assert_eq!(logs.iter().map(|r| r.span_id).collect::<Vec<_>>(), [Some(server.span_id)]);
}

/// A request that logs without end: its first lines wait for its end, the others say why they do not.
#[test]
fn lines_that_wait_for_evidence_are_bounded_and_say_so() {
    const LINES: usize = 5_000;
    let mut h = host();
    let mut p = request(&mut h, 0);
    for _ in 0..LINES {
        h.write(API, API, 2, &line(0));
    }
    response(&mut h, &mut p);
    // Known at once, now that it has ended: the room is free again.
    let mut p = request(&mut h, 1);
    h.write(API, API, 2, &line(1));
    response(&mut h, &mut p);
    h.exit(CLI, 0);
    let spans = h.spans();
    let logs = logs(&mut h);
    let too_many = |r: &&LogRecord| {
        r.attributes.get("ktrdr.log.unlinked").and_then(|v| v.as_str()) == Some(Unlinked::TooMany.name())
    };
    let refused = logs.iter().filter(too_many).count();
    let linked: Vec<LogRecord> = logs.iter().filter(|r| r.span_id.is_some()).cloned().collect();
    assert_eq!((logs.len(), linked.len() + refused), (LINES + 1, LINES + 1));
    assert!((1..LINES / 2).contains(&refused), "{refused}");
    all_right(&spans, &linked, LINES + 1 - refused);
    let counts = h.core.counts().logs;
    assert_eq!(counts.unlinked[Unlinked::TooMany as usize], refused as u64);
    assert_eq!(counts.linked, linked.len() as u64);
}

/// Masks are longer than the short secrets they stand for; the bound is the record's all the same.
#[test]
fn masking_makes_no_record_longer_than_its_bound() {
    let mut h = Host::with(CoreConfig { max_record: 4_096, ..CoreConfig::default() });
    h.process(API, "ktrdr-api");
    h.listen(API, ADDRESS);
    h.write(API, API, 2, &[b"ERROR:    ", &b"password=1 ".repeat(370)[..], b"\n"].concat());
    h.pass(100);
    let logs = logs(&mut h);
    assert_eq!(logs.len(), 1);
    assert!(logs[0].body.len() <= 4_096 && !logs[0].body.contains("=1"), "{}", logs[0].body.len());
    assert!(logs[0].attributes.get("ktrdr.log.cut_bytes").is_some());
}

fn server(spans: &[Span]) -> &Span {
    spans.iter().find(|s| s.kind == SpanKind::Server).unwrap()
}

/// Written in the request, known to be an exception only long after: the span waits for it.
#[test]
fn a_span_waits_for_a_traceback_that_is_not_whole_yet() {
    let mut h = host();
    let mut p = request(&mut h, 0);
    h.write(API, API, 2, b"Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n");
    h.response(&mut p, b"HTTP/1.1 204 No Content\r\n\r\n");
    h.pass(200);
    h.write(API, API, 2, b"    g()\nValueError: no such symbol\n");
    h.exit(CLI, 0);
    let spans = h.spans();
    let span = server(&spans);
    let [event] = span.events.as_slice() else { panic!("{:?}", span.events) };
    assert_eq!(event.attributes.get("exception.type").and_then(Value::as_str), Some("ValueError"));
    assert_eq!(span.status, Status::Error("ValueError: no such symbol".to_owned()));
}

#[test]
fn what_never_ends_holds_no_span_for_ever() {
    let mut h = host();
    let mut p = request(&mut h, 0);
    h.write(API, API, 2, b"Traceback (most recent call last):\n");
    h.response(&mut p, b"HTTP/1.1 204 No Content\r\n\r\n");
    h.exit(CLI, 0);
    let end = h.now;
    let mut left = None;
    while left.is_none() && h.now < end + 10_000 * MS {
        h.write(API, API, 2, b"  File \"a.py\", line 1, in f\n");
        h.pass(100);
        left = h.so_far().iter().any(|s| s.kind == SpanKind::Server).then_some(h.now - end);
    }
    assert!(left.is_some_and(|after| (1_500 * MS..2_500 * MS).contains(&after)), "{left:?}");
}
