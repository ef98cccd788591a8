//! Operations and workers while they run: what is said before anything has ended.

use std::sync::Arc;

use ktrdr_ebpf_common::thinning::ALL;

use super::CoreConfig;
use super::scenario::{Host, Pipe};
use crate::event::ShellEvent;
use crate::event::shell::Thinned;
use crate::explain::{Case, Kind, explain};
use crate::trace::model::{Span, SpanKind, Value};
use crate::trace::operations::rules::Rules;

const API: u32 = 100;
const CLI: u32 = 300;
const WORKER: u32 = 400;
const OP: &str = "op_training_20261122_141909_94615973";

fn host(rules: Rules) -> Host {
    let mut h = Host::with(CoreConfig { operations: rules, ..CoreConfig::default() });
    h.process(API, "ktrdr-api");
    h.process(CLI, "ktrdr-cli");
    h.process(WORKER, "ktrdr-training-worker-5005");
    h.listen(API, "127.0.0.1:8000");
    h.listen(WORKER, "127.0.0.1:5005");
    h
}

fn message(head: &str, body: &str) -> Vec<u8> {
    let kind = "Content-Type: application/json";
    format!("{head}\r\nHost: 127.0.0.1:5005\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn call(h: &mut Host, p: &mut Pipe, request: &[u8], answer: &str) {
    h.request(p, request);
    h.response(p, &message("HTTP/1.1 200 OK", answer));
}

fn status(op: &str, status: &str, percent: f64) -> String {
    format!(
        r#"{{"success":true,"data":{{"operation_id":"{op}","status":"{status}","progress":{{"percentage":{percent}}}}}}}"#
    )
}

fn poll(h: &mut Host, p: &mut Pipe, word: &str, percent: f64) {
    let request = format!("GET /api/v1/operations/{OP} HTTP/1.1\r\nHost: x\r\n\r\n");
    call(h, p, request.as_bytes(), &status(OP, word, percent));
}

fn text<'a>(s: &'a Span, key: &str) -> &'a str {
    s.attributes.get(key).and_then(Value::as_str).unwrap_or("")
}

fn verdict(spans: &[Span]) -> (Kind, String) {
    let spans = spans.iter().cloned().map(Arc::new).collect();
    let case = Case { query: OP.into(), operation: Some(OP.into()), spans, ..Case::default() };
    let report = explain(&case);
    (report.verdict.kind, report.verdict.sentence)
}

#[test]
fn an_end_is_known_at_once_although_others_may_still_speak_of_it() {
    let mut h = host(Rules::default());
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    poll(&mut h, &mut p, "running", 10.0);
    h.pass(300);
    assert!(h.core.under_way().iter().any(|s| text(s, "operation.status") == "running"));
    poll(&mut h, &mut p, "completed", 100.0);
    let open = h.core.under_way();
    let op = open.iter().find(|s| s.kind == SpanKind::Internal).unwrap();
    assert_eq!(text(op, "operation.status"), "completed");
    assert!(op.attributes.get("ktrdr.open").is_none(), "it has ended");
    // Once it is told it is not told again.
    h.pass(6_000);
    assert!(h.core.under_way().iter().all(|s| s.kind != SpanKind::Internal));
}

/// An API that keeps operations in memory, and another process in its place.
#[test]
fn an_operation_that_ended_with_its_process_is_said_to_be_lost() {
    const NEXT: u32 = 101;
    const OTHER: u32 = 102;
    for ended in [true, false] {
        let mut h = host(Rules::default());
        let mut p = h.connect(CLI, API, "127.0.0.1:8000");
        let start = message("POST /api/v1/trainings/start HTTP/1.1", r#"{"symbol":"AAPL"}"#);
        call(&mut h, &mut p, &start, &status(OP, "running", 0.0));
        if ended {
            h.close(&p, 0);
            h.unlisten(API, "127.0.0.1:8000");
            h.exit(API, 15);
        }
        h.pass(3_000);
        let next = if ended { NEXT } else { OTHER };
        h.process(next, "ktrdr-api");
        h.listen(next, "127.0.0.1:8000");
        let mut p = h.connect(CLI, next, "127.0.0.1:8000");
        let asked = format!("GET /api/v1/operations/{OP} HTTP/1.1\r\nHost: x\r\n\r\n");
        h.request(&mut p, asked.as_bytes());
        h.response(&mut p, &message("HTTP/1.1 404 Not Found", r#"{"detail":"no such operation"}"#));
        let spans = h.spans();
        let (kind, sentence) = verdict(&spans);
        let unknown: Vec<_> =
            spans.iter().filter(|s| s.attributes.get("ktrdr.operation.known_to.pid").is_some()).collect();
        assert_eq!(unknown.len(), 2, "both ends: {spans:#?}");
        if ended {
            assert_eq!(kind, Kind::OperationLost);
            let lost = "the operation was lost with pid 100 `ktrdr-api`, which knew it and was killed by SIGTERM 3 s before; \
                        pid 101 has taken its place (ktrdr-api answered 404 to GET /api/v1/operations/";
            assert!(sentence.starts_with(lost), "{sentence}");
            assert!(sentence.ends_with(" from ktrdr-cli)"), "{sentence}");
        } else {
            assert_eq!(kind, Kind::HttpError);
            assert!(
                sentence
                    .ends_with("pid 100 `ktrdr-api` of ktrdr-api knew the operation, and pid 102 was asked"),
                "{sentence}"
            );
        }
    }
}

/// What else is asked of an operation may be missing by itself, and so may one that nobody knew.
#[test]
fn a_404_is_no_loss_where_nothing_was_lost() {
    let mut h = host(Rules::default());
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    poll(&mut h, &mut p, "running", 10.0);
    h.close(&p, 0);
    h.exit(API, 15);
    h.process(101, "ktrdr-api");
    h.listen(101, "127.0.0.1:8000");
    let mut p = h.connect(CLI, 101, "127.0.0.1:8000");
    for path in [format!("{OP}/metrics"), "op_training_20261122_141909_00000000".to_owned()] {
        h.request(&mut p, format!("GET /api/v1/operations/{path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        h.response(&mut p, &message("HTTP/1.1 404 Not Found", "{}"));
    }
    let spans = h.spans();
    assert!(spans.iter().all(|s| s.attributes.get("ktrdr.operation.known_to.pid").is_none()), "{spans:#?}");
}

#[test]
fn an_operation_that_stands_still_is_said_to_be_stuck_while_it_runs() {
    let mut h = host(Rules { stuck_after: 2_000_000_000, ..Rules::default() });
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    for n in 0..12 {
        poll(&mut h, &mut p, "running", if n < 3 { 10.0 * f64::from(n) } else { 25.0 });
        h.pass(300);
    }
    let open = h.core.under_way();
    let op = open.iter().find(|s| s.kind == SpanKind::Internal).unwrap();
    assert_eq!(op.attributes.get("ktrdr.operation.stuck"), Some(&Value::Bool(true)));
    assert_eq!(op.events.iter().filter(|e| e.name == "operation.stuck").count(), 1, "{:#?}", op.events);
    let (kind, sentence) = verdict(&open);
    assert_eq!(kind, Kind::Stuck);
    assert!(sentence.contains("stands at"), "{sentence}");
    // It moves again.
    poll(&mut h, &mut p, "running", 80.0);
    h.pass(100);
    let open = h.core.under_way();
    assert!(open.iter().all(|s| s.attributes.get("ktrdr.operation.stuck").is_none()), "{open:#?}");
    assert_ne!(verdict(&open).0, Kind::Stuck);
}

#[test]
fn nobody_asking_is_no_standstill() {
    let mut h = host(Rules { stuck_after: 2_000_000_000, ..Rules::default() });
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    poll(&mut h, &mut p, "running", 10.0);
    h.pass(10_000);
    let open = h.core.under_way();
    assert!(open.iter().all(|s| s.attributes.get("ktrdr.operation.stuck").is_none()), "{open:#?}");
}

#[test]
fn a_call_that_waits_is_shown_before_its_answer() {
    let mut h = host(Rules::default());
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    h.request(
        &mut p,
        format!("GET /api/v1/operations/{OP} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n").as_bytes(),
    );
    h.pass(500);
    assert!(h.core.under_way().is_empty(), "half a second is no news");
    h.pass(23_000);
    let open = h.core.under_way();
    assert_eq!(open.len(), 2, "{open:#?}");
    let server = open.iter().find(|s| s.kind == SpanKind::Server).unwrap();
    let client = open.iter().find(|s| s.kind == SpanKind::Client).unwrap();
    assert_eq!((server.trace_id, server.parent_span_id), (client.trace_id, Some(client.span_id)));
    let (kind, sentence) = verdict(&open);
    assert_eq!(kind, Kind::Waiting);
    assert!(sentence.starts_with("ktrdr-cli has been waiting for ktrdr-api:8000 for 23."), "{sentence}");
    // The answer comes: the finished spans have the ids that were said before.
    h.response(&mut p, &message("HTTP/1.1 200 OK", &status(OP, "running", 1.0)));
    let spans = h.spans();
    for open in &open {
        assert!(spans.iter().any(|s| s.span_id == open.span_id && s.trace_id == open.trace_id));
    }
}

#[test]
fn a_service_that_has_not_heard_of_the_end_is_named() {
    let mut h = host(Rules::default());
    let mut api = h.connect(CLI, API, "127.0.0.1:8000");
    let mut worker = h.connect(CLI, WORKER, "127.0.0.1:5005");
    poll(&mut h, &mut api, "running", 50.0);
    poll(&mut h, &mut worker, "completed", 100.0);
    h.pass(3_000);
    poll(&mut h, &mut api, "running", 50.0);
    h.pass(3_000);
    let spans = h.spans();
    let (kind, sentence) = verdict(&spans);
    assert_eq!(kind, Kind::Unheard, "{sentence}");
    assert!(
        sentence.contains("ktrdr-api says running")
            && sentence.contains("ktrdr-training-worker-5005 says completed"),
        "{sentence}"
    );
}

#[test]
fn services_that_agree_in_the_end_are_no_news() {
    let mut h = host(Rules::default());
    let mut api = h.connect(CLI, API, "127.0.0.1:8000");
    let mut worker = h.connect(API, WORKER, "127.0.0.1:5005");
    poll(&mut h, &mut api, "running", 50.0);
    poll(&mut h, &mut worker, "completed", 100.0);
    poll(&mut h, &mut api, "completed", 100.0);
    let spans = h.spans();
    let op = spans.iter().find(|s| s.kind == SpanKind::Internal).expect("it is told at once");
    assert_eq!(op.attributes.get("ktrdr.operation.disagreement"), None);
    assert_eq!(verdict(&spans).0, Kind::Ok);
}

#[test]
fn a_dispatch_and_its_operation_name_the_worker() {
    let mut h = host(Rules::default());
    let mut register = h.connect(WORKER, API, "127.0.0.1:8000");
    let body = r#"{"worker_id":"training-worker-1","worker_type":"training","endpoint_url":"http://127.0.0.1:5005"}"#;
    call(&mut h, &mut register, &message("POST /api/v1/workers/register HTTP/1.1", body), "{}");
    let mut p = h.connect(API, WORKER, "127.0.0.1:5005");
    let start = message("POST /training/start HTTP/1.1", &format!(r#"{{"task_id":"{OP}"}}"#));
    call(&mut h, &mut p, &start, &format!(r#"{{"success":true,"operation_id":"{OP}","status":"started"}}"#));
    h.request(
        &mut p,
        &message("POST /training/start HTTP/1.1", r#"{"task_id":"op_training_20261122_141910_00000001"}"#),
    );
    h.response(&mut p, b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    poll(&mut h, &mut p, "completed", 100.0);
    h.shell(crate::event::ShellEvent::End);
    let spans = h.spans();
    let dispatches: Vec<&Span> =
        spans.iter().filter(|s| s.name == "POST /training/start" && s.kind == SpanKind::Client).collect();
    let said: Vec<_> = dispatches
        .iter()
        .map(|s| {
            (
                text(s, "worker.selected_id"),
                text(s, "worker.selection_status"),
                s.attributes.get("worker.available_workers"),
            )
        })
        .collect();
    let (one, none) = (Value::Int(1), Value::Int(0));
    assert_eq!(
        said,
        [("training-worker-1", "selected", Some(&one)), ("training-worker-1", "busy", Some(&none))]
    );
    let op = |id: &str| {
        spans.iter().find(|s| s.kind == SpanKind::Internal && text(s, "operation.id") == id).unwrap()
    };
    assert_eq!(text(op(OP), "worker.selected_id"), "training-worker-1");
    let refused = op("op_training_20261122_141910_00000001").attributes.get("worker.refused_ids");
    assert_eq!(refused, Some(&Value::from(vec!["training-worker-1".to_owned()])));
    assert!(h.core.workers().iter().all(|w| &*w.id == "training-worker-1"));
}

#[test]
fn ids_in_headers_tag_their_calls() {
    let mut h = host(Rules { headers: vec!["x-job".into(), "baggage".into()], ..Rules::default() });
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    for head in ["X-Job: nightly-7", "Baggage: a=b,operation.id=op-xyz-789", "X-Other: op-abc-123456"] {
        call(&mut h, &mut p, format!("GET /x HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n").as_bytes(), "{}");
    }
    let spans = h.spans();
    let mut ids: Vec<_> = spans
        .iter()
        .filter(|s| s.kind == SpanKind::Server)
        .map(|s| (s.start, text(s, "operation.id")))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids.iter().map(|(_, id)| *id).collect::<Vec<_>>(), ["nightly-7", "op-xyz-789", ""]);
}

/// Where not all is seen of what is said of it, its progress may have moved, and who spoke of it may have spoken since.
#[test]
fn what_may_have_been_said_unseen_is_no_standstill_and_no_disagreement() {
    let mut h = host(Rules { stuck_after: 2_000_000_000, ..Rules::default() });
    let mut api = h.connect(CLI, API, "127.0.0.1:8000");
    let mut worker = h.connect(API, WORKER, "127.0.0.1:5005");
    poll(&mut h, &mut api, "running", 10.0);
    let thinned = |ports| ShellEvent::Thinned(Thinned { ports });
    h.shell(thinned(vec![(8000, ALL)]));
    // Named by others meanwhile, without a word on its progress.
    for _ in 0..30 {
        let request =
            message("POST /api/v1/operations/note HTTP/1.1", &format!(r#"{{"operation_id":"{OP}"}}"#));
        call(&mut h, &mut worker, &request, "{}");
        h.pass(100);
    }
    let stuck = |s: &Span| s.attributes.get("ktrdr.operation.stuck").is_some();
    assert!(!h.core.under_way().iter().any(stuck));
    poll(&mut h, &mut worker, "completed", 100.0);
    h.pass(6_000);
    let spans = h.spans();
    let op = spans.iter().find(|s| s.kind == SpanKind::Internal).unwrap();
    assert_eq!(text(op, "operation.status"), "completed");
    for claim in ["ktrdr.operation.disagreement", "ktrdr.operation.unheard", "ktrdr.operation.stuck"] {
        assert_eq!(op.attributes.get(claim), None, "{claim}");
    }
}

/// A worker whose answer nobody looked at any more may have taken the job.
#[test]
fn a_dispatch_that_was_not_seen_to_its_end_says_nothing_of_the_worker() {
    let mut h = host(Rules::default());
    let mut p = h.connect(API, WORKER, "127.0.0.1:5005");
    let dispatch = message("POST /training/start HTTP/1.1", &format!(r#"{{"task_id":"{OP}"}}"#));
    call(&mut h, &mut p, &dispatch, &format!(r#"{{"operation_id":"{OP}","status":"started"}}"#));
    h.request(&mut p, &dispatch);
    h.shell(ShellEvent::Thinned(Thinned { ports: vec![(5005, ALL)] }));
    let spans = h.spans();
    let left = |s: &&Span| text(s, "ktrdr.incomplete") == "left_out";
    assert_eq!(spans.iter().filter(left).count(), 2);
    assert!(spans.iter().filter(left).all(|s| text(s, "worker.selection_status").is_empty()), "{spans:#?}");
    assert!(h.core.workers().iter().all(|w| !w.lost));
}
