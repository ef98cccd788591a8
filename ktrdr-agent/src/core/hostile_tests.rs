//! Bodies that want to hurt: nothing of them may stop the agent, fill its memory, or touch what is said of others.

use proptest::prelude::*;

use super::scenario::Host;
use crate::trace::model::{Span, SpanKind, Value};

const API: u32 = 100;
const CLI: u32 = 300;
/// What the documented ids need: `op_backtesting_20251113_123456_0123abcd` has 39.
const LONGEST_ID: usize = 128;

fn host() -> Host {
    let mut h = Host::new();
    h.process(API, "ktrdr-api");
    h.process(CLI, "ktrdr-cli");
    h.listen(API, "127.0.0.1:8000");
    h
}

fn message(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{head}\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn id(span: &Span) -> Option<&str> {
    span.attributes.get("operation.id").and_then(Value::as_str)
}

fn op(n: u32) -> String {
    format!("op_training_20261122_141909_{n:08x}")
}

fn start(n: u32) -> Vec<u8> {
    let body = format!(r#"{{"success":true,"operation_id":"{}","status":"started"}}"#, op(n));
    message("HTTP/1.1 200 OK", body.as_bytes())
}

/// Pieces that a body is made of: what parsers stumble over, and ids where none belongs.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = |s: &str| s.as_bytes().to_vec();
    prop_oneof![
        Just(b"[".repeat(5_000)),
        Just(b"{\"operation_id\":".repeat(300)),
        Just(text(r#"{"operation_id":"op_a_20261122_141909_00000001","operation_id":{"operation_id":7}}"#)),
        Just(text(r#""operation_id":["op_training_20261122_141909_94615973","#)),
        Just([b"{\"task_id\":\"op_x_".to_vec(), vec![b'9'; 10_000], b"\"}".to_vec()].concat()),
        Just(b"{\"operation_id\":\"op_training_\xff\xfe_141909_94615973\"}".to_vec()),
        Just(text(r#"{"operation_id":"op_training_20261122_141909_9461\u0000\ud800\"\\"}"#)),
        Just(text(r#"{"success":false,"error":{"error":{"code":1e999999,"message":null}}}"#)),
        Just(text(r#"{"status":"failed","progress":{"percentage":-1e308}}"#)),
        Just(text(&format!("{{\"error_message\":\"{}\"}}", "\u{202e}<script>".repeat(2_000)))),
        proptest::collection::vec(any::<u8>(), 0..200),
        "[\\[\\]{}\",:0-9a-z_\\\\ ]{0,80}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hostile_body_touches_nothing_else(
        bodies in proptest::collection::vec(proptest::collection::vec(piece(), 0..4), 1..6),
        cut in 0..2_000usize,
    ) {
        let mut h = host();
        let mut p = h.connect(CLI, API, "127.0.0.1:8000");
        for pieces in &bodies {
            let body = pieces.concat();
            h.request(&mut p, &message("POST /api/v1/trainings/start HTTP/1.1", &body));
            let answer = message("HTTP/1.1 200 OK", &body);
            // Longer than what is captured.
            let captured = answer.len().saturating_sub(cut);
            h.response_captured(&mut p, &answer, captured.max(200).min(answer.len()));
        }
        h.request(&mut p, &message("POST /api/v1/trainings/start HTTP/1.1", b"{}"));
        h.response(&mut p, &start(1));
        let spans = h.spans();
        let calls: Vec<&Span> = spans.iter().filter(|s| s.kind != SpanKind::Internal).collect();
        prop_assert_eq!(calls.len(), 2 * (bodies.len() + 1), "one span at each end, whatever is in them");
        let good = calls.iter().filter(|s| id(s) == Some(op(1).as_str())).count();
        prop_assert_eq!(good, 2, "the good call has its own operation");
        for span in &spans {
            if let Some(id) = id(span) {
                prop_assert!(id.len() <= LONGEST_ID && id.is_ascii(), "{:?}", id);
            }
            for a in span.attributes.iter() {
                let (key, value) = (&a.key, &a.value);
                prop_assert!(value.as_str().is_none_or(|v| v.len() <= 8_192), "{} is too long", key);
            }
        }
    }
}

#[test]
fn more_operations_than_are_remembered_end_each_once_and_leave_the_rest_right() {
    // More than twice what is remembered.
    const MANY: u32 = 10_000;
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    let mut ended = std::collections::BTreeMap::new();
    let mut count = |spans: Vec<Span>| {
        for s in spans.iter().filter(|s| s.kind == SpanKind::Internal) {
            *ended.entry(id(s).unwrap_or_default().to_owned()).or_insert(0) += 1;
        }
    };
    for n in 0..MANY {
        h.request(&mut p, &message("POST /api/v1/trainings/start HTTP/1.1", b"{}"));
        h.response(&mut p, &start(n));
        if n % 1_000 == 0 {
            assert!(h.core.operations.len() <= 4_096, "bounded");
            count(h.spans());
        }
    }
    // Somebody else's, at the end of it all.
    h.request(&mut p, &message(&format!("GET /api/v1/operations/{} HTTP/1.1", op(MANY)), b""));
    let body = format!(
        r#"{{"success":true,"data":{{"operation_id":"{}","status":"failed","error_message":"no data"}}}}"#,
        op(MANY)
    );
    h.response(&mut p, &message("HTTP/1.1 200 OK", body.as_bytes()));
    let last = h.spans();
    let told = last.iter().find(|s| s.kind == SpanKind::Internal && id(s) == Some(op(MANY).as_str()));
    assert_eq!(told.and_then(|s| s.attributes.get("operation.error")?.as_str()), Some("no data"));
    count(last);
    h.core.end();
    h.pass(0);
    count(h.spans());
    assert_eq!(ended.len(), MANY as usize + 1);
    assert!(ended.values().all(|n| *n == 1), "no operation ends twice");
}
