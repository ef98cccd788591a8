//! Registrations, dispatches and health answers in, what is known of workers out.

use super::*;
use crate::trace::model::{Attributes, Resource};

fn span(path: &str, port: u16, code: i64, at: Ns) -> Span {
    let mut a = Attributes::new();
    a.set("url.full", format!("http://127.0.0.1:{port}{path}"));
    a.set("server.address", "127.0.0.1");
    a.set("server.port", port);
    a.set("http.response.status_code", code);
    Span {
        trace_id: Default::default(),
        span_id: Default::default(),
        parent_span_id: None,
        kind: SpanKind::Client,
        name: format!("POST {path}"),
        start: at,
        end: at + 1,
        wall_offset_ns: 0,
        status: if code >= 400 { Status::Error(String::new()) } else { Status::Unset },
        attributes: a,
        events: Vec::new(),
        links: Vec::new(),
        resource: Arc::new(Resource { service: "ktrdr-api".into(), attributes: Attributes::new() }),
    }
}

fn play(w: &mut Workers, path: &str, port: u16, code: i64, at: Ns, body: (&str, &str), op: &str) -> Span {
    let mut s = span(path, port, code, at);
    let fields = (Fields::of(body.0.as_bytes()), Fields::of(body.1.as_bytes()));
    w.observe(&mut s, &fields.0, &fields.1, Some(op));
    s
}

fn registered() -> Workers {
    let mut w = Workers::default();
    for (id, port) in [("training-worker-1", 5005), ("training-worker-2", 5006)] {
        let body = format!(
            r#"{{"worker_id":"{id}","worker_type":"training","endpoint_url":"http://127.0.0.1:{port}"}}"#
        );
        play(&mut w, "/api/v1/workers/register", 8000, 200, 1, (&body, ""), "");
    }
    w
}

fn said(s: &Span) -> (String, String, Option<Value>, Option<Value>) {
    let t = |k: &str| text(s, k).unwrap_or_default().to_owned();
    let n = |k: &str| s.attributes.get(k).cloned();
    (
        t("worker.selected_id"),
        t("worker.selection_status"),
        n("worker.total_workers"),
        n("worker.available_workers"),
    )
}

fn want(id: &str, status: &str, total: i64, free: i64) -> (String, String, Option<Value>, Option<Value>) {
    (id.into(), status.into(), Some(Value::Int(total)), Some(Value::Int(free)))
}

#[test]
fn a_dispatch_says_who_was_asked_and_how_many_were_free() {
    let mut w = registered();
    let first = play(&mut w, "/training/start", 5005, 200, 10, ("", ""), "op_a_123456");
    assert_eq!(said(&first), want("training-worker-1", "selected", 2, 2));
    // The server's end of the same call says the same.
    let again = play(&mut w, "/training/start", 5005, 200, 10, ("", ""), "op_a_123456");
    assert_eq!(said(&again), want("training-worker-1", "selected", 2, 2));
    let refused = play(&mut w, "/training/start", 5005, 503, 20, ("", ""), "op_b_123456");
    assert_eq!(said(&refused), want("training-worker-1", "busy", 2, 1));
    assert_eq!(text(&refused, "worker.current_operation"), Some("op_a_123456"));
    assert!(text(&again, "worker.current_operation").is_none(), "it took this one");
    let next = play(&mut w, "/training/start", 5006, 200, 30, ("", ""), "op_b_123456");
    assert_eq!(said(&next), want("training-worker-2", "selected", 2, 1));
    w.ended("op_a_123456");
    let third = play(&mut w, "/training/start", 5005, 200, 40, ("", ""), "op_c_123456");
    assert_eq!(said(&third), want("training-worker-1", "selected", 2, 1));
}

#[test]
fn health_says_who_is_busy_with_what() {
    let mut w = registered();
    let busy = r#"{"worker_status":"busy","current_operation":"op_x_123456"}"#;
    play(&mut w, "/health", 5006, 200, 10, ("", busy), "");
    let worker = w.iter().find(|w| &*w.id == "training-worker-2").unwrap();
    assert_eq!(worker.busy.as_ref().map(|(op, _)| &**op), Some("op_x_123456"));
    assert_eq!(said(&play(&mut w, "/training/start", 5005, 200, 20, ("", ""), "")).3, Some(Value::Int(1)));
    play(&mut w, "/health", 5006, 200, 30, ("", r#"{"worker_status":"idle","current_operation":null}"#), "");
    assert!(w.iter().find(|w| &*w.id == "training-worker-2").unwrap().busy.is_none());
    // What is no worker's health says nothing.
    play(&mut w, "/health", 5001, 200, 40, ("", r#"{"healthy":true}"#), "");
    assert_eq!(w.iter().count(), 2);
}

#[test]
fn a_worker_older_than_the_agent_is_named_by_its_service_and_any_number_is_bounded() {
    let mut w = Workers::default();
    let s = play(&mut w, "/backtests/start", 5003, 200, 10, ("", ""), "op_y_123456");
    assert_eq!(said(&s), want("127.0.0.1:5003", "selected", 1, 1));
    for n in 0..20_000u32 {
        let body =
            format!(r#"{{"worker_id":"w{n}","worker_type":"t","endpoint_url":"http://10.0.0.1:{n}"}}"#);
        play(&mut w, "/workers/register", 8000, 200, 20, (&body, ""), "");
    }
    assert_eq!(w.iter().count(), MAX_WORKERS);
    let long = format!(r#"{{"worker_id":"{}","endpoint_url":"http://h:1"}}"#, "x".repeat(500));
    play(&mut w, "/workers/register", 8000, 200, 20, (&long, ""), "");
    assert!(w.iter().all(|w| w.id.len() <= MAX_TEXT));
}

#[test]
fn a_registration_counts_where_it_was_taken_and_says_whose_worker_it_is() {
    let mut w = Workers::default();
    let body = r#"{"worker_id":"w1","worker_type":"training","endpoint_url":"http://127.0.0.1:5005"}"#;
    let refused = play(&mut w, "/api/v1/workers/register", 8000, 422, 1, (body, ""), "");
    assert_eq!(text(&refused, "worker.registration_status"), Some("rejected"));
    assert_eq!(w.iter().count(), 0);
    for kind in [SpanKind::Server, SpanKind::Client] {
        let mut s = span("/api/v1/workers/register", 8000, 200, 10);
        (s.kind, s.resource) =
            (kind, Arc::new(Resource { service: format!("{kind:?}"), ..Resource::default() }));
        w.observe(&mut s, &Fields::of(body.as_bytes()), &Fields::of(b""), None);
        assert_eq!(text(&s, "worker.registration_status"), Some("registered"));
    }
    let registry = |w: &Workers| w.iter().next().unwrap().registry.as_ref().map(|r| r.service.clone());
    assert_eq!(registry(&w).as_deref(), Some("Server"), "the client's end, told last, does not know better");
    assert_eq!(w.alive(10).count(), 1);
    assert_eq!(w.alive(SILENT_NS + 12).count(), 0);
}

#[test]
fn a_worker_is_idle_busy_or_lost() {
    let mut w = registered();
    play(&mut w, "/training/start", 5005, 200, 10, ("", ""), "op_a_123456");
    let mut connect = span("/", 5006, 200, 11);
    w.unreachable(&mut connect);
    let states = |w: &Workers, at| {
        let mut all: Vec<_> = w.alive(at).map(|w| (w.id.to_string(), w.state(at).name())).collect();
        all.sort();
        all
    };
    let of = |a, b| vec![("training-worker-1".to_owned(), a), ("training-worker-2".to_owned(), b)];
    assert_eq!(states(&w, 20), of("busy", "lost"));
    w.ended("op_a_123456");
    assert_eq!(states(&w, 20), of("idle", "lost"));
}
