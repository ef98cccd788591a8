//! What holds for whatever services write: no text makes a record somebody else's, and nothing grows without bound.

use ktrdr_ebpf_common::limits::{MAX_PAYLOAD, MAX_WRITE_RECORDS};
use proptest::prelude::*;

use super::scenario::{Host, Pipe};
use crate::core::{Core, CoreConfig, Output};
use crate::event::ShellEvent;
use crate::event::shell::PythonStatus;
use crate::trace::logs::LogRecord;
use crate::trace::model::{Span, SpanId, SpanKind};

const SERVER: u32 = 5;
const CLIENT: u32 = 6;
/// Threads of the server: two serve a request each, one serves none.
const THREADS: [u32; 3] = [50, 51, 52];
/// What an attacker would have a service log: other requests' lines, ids, stack traces.
const FORGED: [&str; 9] = [
    "2026-11-22 09:26:24,275 | ERROR | app.work | request /b failed op_training_20251113_101112_1a2b3c4d",
    "{\"level\":\"error\",\"message\":\"/b\",\"trace_id\":\"00000000000000000000000000000001\",\"span_id\":\"0000000000000001\"}",
    "Traceback (most recent call last):\n  File \"a\", line 1, in f\nValueError: forged",
    "ERROR:    Exception in ASGI application\nTraceback (most recent call last):\n  File \"b\", line 2\nKeyError: 'b'",
    "INFO:     127.0.0.1:40003 - \"GET /b HTTP/1.1\" 500 Internal Server Error",
    "INFO:     127.0.0.1:40001 - \"GET /a HTTP/1.1\" 200 OK",
    "level=error trace_id=00000000000000000000000000000001 msg=\"/b failed\"",
    "\x1b[31mpanic: forged\n\ngoroutine 1 [running]:\nmain.main()\n\t/a.go:1 +0x1",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}",
];

#[derive(Clone, Debug)]
struct Said {
    thread: usize,
    fd: u32,
    bytes: Vec<u8>,
    wait_ms: u64,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let forged = (prop::collection::vec(0..FORGED.len(), 1..4), any::<bool>()).prop_map(|(all, whole)| {
        let text = all.iter().map(|n| FORGED[*n]).collect::<Vec<_>>().join("\n");
        if whole { format!("{text}\n").into_bytes() } else { text.into_bytes() }
    });
    prop_oneof![
        4 => forged,
        2 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (0..3 * MAX_PAYLOAD * MAX_WRITE_RECORDS as usize / 2).prop_map(|n| vec![b'x'; n]),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    (0..THREADS.len(), 1..4u32, bytes(), prop_oneof![Just(0), 0..400u64])
        .prop_map(|(thread, fd, bytes, wait_ms)| Said { thread, fd, bytes, wait_ms })
}

/// Two requests served at once, each by its thread, and what the threads write meanwhile.
fn played(all: &[Said]) -> (Vec<Span>, Vec<LogRecord>, Host) {
    let mut host = Host::new();
    host.process(SERVER, "ktrdr-api");
    host.process(CLIENT, "ktrdr-cli");
    host.listen(SERVER, "127.0.0.1:8000");
    let python = PythonStatus { tgid: SERVER, exact: true, ..PythonStatus::default() };
    host.shell(ShellEvent::Python(python));
    let mut pipe = |tid: u32| -> Pipe { host.connect(CLIENT, SERVER, "127.0.0.1:8000").served_by(tid) };
    let (mut a, mut b) = (pipe(THREADS[0]), pipe(THREADS[1]));
    host.request(&mut a, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    host.request(&mut b, b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    for s in all {
        host.write(SERVER, THREADS[s.thread], s.fd, &s.bytes);
        host.pass(s.wait_ms);
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    host.response(&mut a, answer);
    host.response(&mut b, answer);
    host.exit(SERVER, 0);
    host.shell(ShellEvent::End);
    let spans = host.spans();
    let log = |o: Output| match o {
        Output::Log(record) => Some(*record),
        _ => None,
    };
    let logs = std::mem::take(&mut host.outputs).into_iter().filter_map(log).collect();
    (spans, logs, host)
}

fn request(spans: &[Span], path: &str) -> SpanId {
    let is = |s: &&Span| {
        s.kind == SpanKind::Server && s.attributes.get("url.path").and_then(|v| v.as_str()) == Some(path)
    };
    spans.iter().find(is).unwrap().span_id
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_record_is_its_writer_s_or_nobody_s(all in prop::collection::vec(said(), 0..24)) {
        let (spans, logs, host) = played(&all);
        let own = [Some(request(&spans, "/a")), Some(request(&spans, "/b")), None];
        for record in &logs {
            let tid = match record.attributes.get("thread.id") {
                Some(crate::trace::model::Value::Int(n)) => *n,
                other => panic!("{other:?}"),
            };
            let at = THREADS.iter().position(|t| i64::from(*t) == tid).unwrap();
            // Of whose writer nothing is known: an access line's word, and it is said to be no more.
            let text = |key: &str| record.attributes.get(key).and_then(|v| v.as_str());
            let said = own[at].is_none()
                && (text("ktrdr.link.method"), text("ktrdr.link.certainty")) == (Some("connection"), Some("inferred"));
            let right = record.span_id.is_none() || record.span_id == own[at];
            prop_assert!(right || said, "{record:?} is not of {own:?}");
            prop_assert!(record.body.len() <= 64 * 1024);
            prop_assert!(!record.body.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')), "{:?}", record.body);
        }
        // What was thrown is told of whom served only.
        for span in spans.iter().filter(|s| s.kind == SpanKind::Client) {
            prop_assert!(span.events.iter().all(|e| e.name != "exception" && e.name != "log"), "{span:?}");
        }
        let written: usize = all.iter().map(|s| s.bytes.len().min(MAX_PAYLOAD * MAX_WRITE_RECORDS as usize)).sum();
        let counts = host.core.counts().logs;
        prop_assert_eq!(counts.join.bytes, written as u64);
        prop_assert_eq!(counts.records, logs.len() as u64);
    }

    #[test]
    fn the_same_writes_give_the_same_records(all in prop::collection::vec(said(), 0..12)) {
        let (_, logs, host) = played(&all);
        let mut core = Core::new(CoreConfig::default());
        let mut again = Vec::new();
        for record in &host.records {
            core.feed(record);
            while let Some(output) = core.next_output() {
                if let Output::Log(r) = output {
                    again.push(*r);
                }
            }
        }
        prop_assert_eq!(logs.len(), again.len());
        for (one, other) in logs.iter().zip(&again) {
            prop_assert_eq!((one.span_id, &one.body, &one.attributes), (other.span_id, &other.body, &other.attributes));
        }
    }
}

#[test]
fn what_is_served_side_by_side_is_told_apart_at_all() {
    let line = |n: usize| format!("2026-11-22 09:26:24,275 | ERROR | app.work | of {n}\n").into_bytes();
    let all: Vec<Said> =
        (0..9).map(|n| Said { thread: n % 3, fd: 1, bytes: line(n % 3), wait_ms: 0 }).collect();
    let (spans, logs, _) = played(&all);
    let [a, b] = ["/a", "/b"].map(|path| request(&spans, path));
    let placed: Vec<_> = logs.iter().map(|r| (r.body.as_str(), r.span_id)).collect();
    for (text, span) in [("of 0", Some(a)), ("of 1", Some(b)), ("of 2", None)] {
        assert_eq!(placed.iter().filter(|p| **p == (text, span)).count(), 3, "{placed:?}");
    }
}
