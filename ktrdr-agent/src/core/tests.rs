//! The core on scenarios of two and three processes.

use ktrdr_ebpf_common::{PyCopyBody, kind};
use zerocopy::IntoBytes as _;

use super::scenario::Host;
use crate::event::MS;
use crate::event::shell::{PythonStatus, ShellEvent, tick};
use crate::trace::model::{Span, SpanKind, Status};

const API: u32 = 100;
const IB: u32 = 200;
const CLI: u32 = 300;

fn host() -> Host {
    let mut h = Host::new();
    h.process(API, "ktrdr-api");
    h.process(IB, "ktrdr-ib-host-service");
    h.process(CLI, "ktrdr-cli");
    h.listen(API, "127.0.0.1:8000");
    h
}

fn one<'a>(spans: &'a [Span], service: &str, kind: SpanKind) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|s| s.resource.service == service && s.kind == kind).collect();
    assert_eq!(found.len(), 1, "{service} {kind:?} in {spans:#?}");
    found[0]
}

fn text<'a>(s: &'a Span, key: &str) -> &'a str {
    s.attributes.get(key).and_then(|v| v.as_str()).unwrap_or("")
}

#[test]
fn both_ends_of_a_call_are_parent_and_child() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    h.request(&mut p, b"GET /api/v1/symbols HTTP/1.1\r\nHost: localhost:8000\r\n\r\n");
    h.response(&mut p, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    h.response(&mut p, b"[]");
    let spans = h.spans();
    assert_eq!(spans.len(), 2);
    let (client, server) =
        (one(&spans, "ktrdr-cli", SpanKind::Client), one(&spans, "ktrdr-api", SpanKind::Server));
    assert_eq!(client.parent_span_id, None);
    assert_eq!(server.parent_span_id, Some(client.span_id));
    assert_eq!(server.trace_id, client.trace_id);
    assert!(client.start <= server.start && server.end <= client.end);
    assert_eq!(text(client, "peer.service"), "ktrdr-api");
    assert_eq!(text(server, "ktrdr.link.method"), "connection");
    let exchange = |s: &Span| s.attributes.get("ktrdr.exchange.id").cloned();
    assert!(exchange(server).is_some() && exchange(server) == exchange(client));
}

#[test]
fn a_refused_connect_says_why() {
    let mut h = host();
    h.listen(IB, "127.0.0.1:5001");
    h.unlisten(IB, "127.0.0.1:5001");
    h.exit(IB, 1 << 8);
    h.fail(API, "127.0.0.1:5001", 111);
    let spans = h.spans();
    let s = one(&spans, "ktrdr-api", SpanKind::Client);
    let Status::Error(sentence) = &s.status else { panic!("no error") };
    assert!(
        sentence.starts_with(
            "ktrdr-api could not connect to ktrdr-ib-host-service at 127.0.0.1:5001: connection refused, \
             nothing is listening on port 5001 (pid 200 `ktrdr-ib-host-service` listened until "
        ) && sentence.ends_with("and exited with status 1)"),
        "{sentence}"
    );
    assert_eq!(text(s, "error.type"), "connection_refused");
}

#[test]
fn a_connection_older_than_the_agent_is_read_from_its_next_message() {
    let mut h = host();
    let mut p = h.older(CLI, API, "127.0.0.1:8000");
    h.response(&mut p, b"rest of a body that nobody saw begin");
    h.request(&mut p, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    h.response(&mut p, b"HTTP/1.1 204 No Content\r\n\r\n");
    let spans = h.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    assert_eq!(one(&spans, "ktrdr-api", SpanKind::Server).name, "GET /a");
}

#[test]
fn many_requests_on_one_connection_stay_apart() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    for i in 0..50 {
        h.request(&mut p, format!("GET /item?i={i} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let body = "x".repeat(i);
        h.response(&mut p, format!("HTTP/1.1 200 OK\r\nContent-Length: {i}\r\n\r\n{body}").as_bytes());
    }
    let spans = h.spans();
    assert_eq!(spans.len(), 100);
    for s in spans.iter().filter(|s| s.kind == SpanKind::Server) {
        let i = text(s, "url.query").strip_prefix("i=").unwrap();
        assert_eq!(
            format!("{:?}", s.attributes.get("http.response.body.size").unwrap()),
            format!("Int({i})")
        );
    }
}

#[test]
fn a_lost_request_leaves_no_wrong_pair() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    for i in 0..6 {
        let request = format!("GET /{i} HTTP/1.1\r\nHost: x\r\n\r\n");
        if i == 2 {
            h.request_lost(&mut p, request.as_bytes())
        } else {
            h.request(&mut p, request.as_bytes())
        }
        h.response(&mut p, format!("HTTP/1.1 20{i} OK\r\nContent-Length: 0\r\n\r\n").as_bytes());
    }
    let spans = h.spans();
    assert!(spans.len() >= 8, "{}", spans.len());
    for s in spans {
        if let Some(status) = s.attributes.get("http.response.status_code") {
            let path = text(&s, "url.path").trim_start_matches('/').to_owned();
            let path = if path.is_empty() {
                text(&s, "url.full").rsplit('/').next().unwrap().to_owned()
            } else {
                path
            };
            assert_eq!(format!("{status:?}"), format!("Int(20{path})"));
        }
    }
}

#[test]
fn a_body_beyond_the_capture_is_still_counted() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    h.request(&mut p, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut response = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
    let head = response.len();
    response.extend(std::iter::repeat_n(b'x', 100_000));
    h.response_captured(&mut p, &response, head + 10);
    let spans = h.spans();
    let s = one(&spans, "ktrdr-cli", SpanKind::Client);
    assert_eq!(format!("{:?}", s.attributes.get("http.response.body.size").unwrap()), "Int(100000)");
    assert_eq!(s.attributes.get("ktrdr.incomplete"), None);
}

#[test]
fn a_server_that_hangs_up_is_an_error_of_the_call() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    h.request(&mut p, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    h.close(&p, 104);
    let spans = h.spans();
    let s = one(&spans, "ktrdr-cli", SpanKind::Client);
    assert_eq!(text(s, "error.type"), "connection_reset");
    assert!(
        matches!(&s.status, Status::Error(t) if t.contains("ktrdr-api at 127.0.0.1:8000: the connection was reset"))
    );
}

#[test]
fn half_a_response_is_an_error_of_its_client_unless_the_client_left() {
    for (errno, kind) in [(104, Some("connection_reset")), (0, None)] {
        let mut h = host();
        let mut p = h.connect(CLI, API, "127.0.0.1:8000");
        h.request(&mut p, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
        h.response(&mut p, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        h.close(&p, errno);
        let spans = h.spans();
        let s = one(&spans, "ktrdr-cli", SpanKind::Client);
        assert_eq!(text(s, "ktrdr.incomplete"), "eof_in_body");
        assert_eq!(s.attributes.get("error.type").and_then(|v| v.as_str()), kind);
        let said =
            "got a part of the response only from ktrdr-api at 127.0.0.1:8000: the connection was reset";
        assert_eq!(
            matches!(&s.status, Status::Error(t) if t.contains(said)),
            kind.is_some(),
            "{:?}",
            s.status
        );
    }
}

#[test]
fn closing_an_idle_connection_is_nothing() {
    let mut h = host();
    let p = h.connect(CLI, API, "127.0.0.1:8000");
    h.pass(1000);
    h.close(&p, 104);
    assert_eq!(h.spans(), vec![]);
}

#[test]
fn what_is_not_http_gives_no_spans() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    h.request(&mut p, &[0x16, 3, 1, 2, 0, 1, 0, 1]);
    h.response(&mut p, &[0x16, 3, 3, 0, 122]);
    h.close(&p, 0);
    assert_eq!(h.spans(), vec![]);
}

#[test]
fn an_answer_of_another_protocol_was_not_lost() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    h.request(&mut p, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    // SETTINGS and GOAWAY of HTTP/2, as a server answers that speaks nothing else.
    h.response(&mut p, b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\x01");
    h.close(&p, 0);
    let spans = h.spans();
    assert_eq!(spans.len(), 2);
    for span in &spans {
        assert_eq!(text(span, "ktrdr.incomplete"), "response_unreadable", "{span:?}");
        assert_eq!(span.status, Status::Unset);
    }
}

#[test]
fn the_same_records_give_the_same_spans() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    h.request(&mut p, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    h.response(&mut p, b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    h.fail(API, "127.0.0.1:5001", 111);
    let records = {
        h.pass(500);
        h.records.clone()
    };
    let first = h.spans();
    let mut again = Host::new();
    records.into_iter().skip(1).for_each(|r| again.feed(r));
    assert_eq!(format!("{first:?}"), format!("{:?}", again.spans()));
}

#[test]
fn an_operation_is_followed_from_its_start_to_its_failure() {
    const OP: &str = "op_data_load_20261122_134348_724f51d1";
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    let json = |status: &str, body: String| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let start = r#"{"symbol":"AAPL","timeframe":"1h"}"#;
    h.request(
        &mut p,
        format!(
            "POST /api/v1/data/acquire/download HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{start}",
            start.len()
        )
        .as_bytes(),
    );
    h.response(
        &mut p,
        json("200 OK", format!(r#"{{"success":true,"operation_id":"{OP}","status":"started"}}"#)).as_bytes(),
    );
    for (status, percent, error) in
        [("running", 0, "null"), ("running", 50, "null"), ("failed", 50, "\"no gateway\"")]
    {
        h.pass(300);
        h.request(&mut p, format!("GET /api/v1/operations/{OP} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let body = format!(
            r#"{{"success":true,"data":{{"operation_id":"{OP}","status":"{status}","progress":{{"percentage":{percent}}},"error_message":{error}}}}}"#
        );
        h.response(&mut p, json("200 OK", body).as_bytes());
    }
    let spans = h.spans();
    assert_eq!(spans.iter().filter(|s| text(s, "operation.id") == OP).count(), 9, "{spans:#?}");
    let op = one(&spans, "ktrdr-api", SpanKind::Internal);
    assert_eq!(op.name, "operation data_load");
    assert_eq!(op.status, Status::Error("no gateway".into()));
    assert_eq!(text(op, "data.symbol"), "AAPL");
    let names: Vec<_> = op.events.iter().map(|e| e.name.as_ref()).collect();
    assert_eq!(
        names,
        ["operation.status", "operation.progress", "operation.progress", "operation.status"],
        "{op:#?}"
    );
    let creator = spans.iter().find(|s| s.name.starts_with("POST") && s.kind == SpanKind::Server).unwrap();
    assert_eq!((op.parent_span_id, op.trace_id), (Some(creator.span_id), creator.trace_id));
    let poll = spans.iter().find(|s| s.name.starts_with("GET") && s.kind == SpanKind::Server).unwrap();
    assert_eq!(poll.links.len(), 1);
    assert_eq!((poll.links[0].trace_id, poll.links[0].span_id), (op.trace_id, op.span_id));
}

#[test]
fn a_failure_inside_a_200_is_an_error() {
    let mut h = host();
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    h.request(&mut p, b"GET /api/v1/symbols HTTP/1.1\r\nHost: x\r\n\r\n");
    let body = r#"{"success":false,"error":"IB Gateway not connected"}"#;
    h.response(
        &mut p,
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    let spans = h.spans();
    let s = one(&spans, "ktrdr-api", SpanKind::Server);
    assert_eq!(s.status, Status::Error("IB Gateway not connected".into()));
    assert_eq!(text(s, "error.type"), "business_error");
}

#[test]
fn a_dispatch_from_a_pool_thread_belongs_to_the_operations_trace() {
    const OP: &str = "op_training_20261122_141909_94615973";
    const WORKER: u32 = 400;
    let mut h = host();
    h.process(WORKER, "ktrdr-training-worker-5005");
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    let message = |head: &str, body: &str| {
        format!(
            "{head}\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    h.request(&mut p, &message("POST /api/v1/trainings/start HTTP/1.1", r#"{"strategy":"neuro"}"#));
    h.response(
        &mut p,
        &message("HTTP/1.1 200 OK", &format!(r#"{{"success":true,"task_id":"{OP}","status":"started"}}"#)),
    );
    h.pass(200);
    // The pool's thread is not the one that served the request, and nothing says who woke it.
    let mut w = h.connect_from(API, 101, WORKER, "127.0.0.1:5005");
    h.request(&mut w, &message("POST /training/start HTTP/1.1", &format!(r#"{{"task_id":"{OP}"}}"#)));
    h.response(
        &mut w,
        &message(
            "HTTP/1.1 200 OK",
            &format!(r#"{{"success":true,"operation_id":"{OP}","status":"started"}}"#),
        ),
    );
    h.pass(100);
    h.shell(crate::event::ShellEvent::End);
    let spans = h.spans();
    let creator = spans
        .iter()
        .find(|s| s.name == "POST /api/v1/trainings/start" && s.kind == SpanKind::Server)
        .unwrap();
    let dispatch =
        spans.iter().find(|s| s.name == "POST /training/start" && s.kind == SpanKind::Client).unwrap();
    let operation = one(&spans, "ktrdr-api", SpanKind::Internal);
    assert_eq!(operation.parent_span_id, Some(creator.span_id));
    assert_eq!(dispatch.trace_id, creator.trace_id);
    assert_eq!(dispatch.parent_span_id, None);
    assert!(dispatch.links.iter().any(|l| l.span_id == creator.span_id));
    assert_eq!(
        (text(dispatch, "ktrdr.link.method"), text(dispatch, "ktrdr.link.certainty")),
        ("operation-id", "inferred")
    );
}

#[test]
fn both_ends_of_a_translated_connection_are_joined_by_their_positions() {
    let mut h = host();
    h.process(30, "client");
    h.process(31, "server");
    let mut p = h.connect_translated(30, "10.9.0.9:80", "10.9.0.5:61000", 31, "10.9.0.1:8888");
    for path in ["/1", "/2"] {
        h.request(&mut p, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        h.pass(20);
        h.response(&mut p, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
    let spans = h.spans();
    assert_eq!(spans.len(), 4);
    for path in ["/1", "/2"] {
        let find = |kind| {
            spans
                .iter()
                .find(|s| {
                    s.kind == kind
                        && s.name.contains("GET")
                        && (text(s, "url.path") == path || text(s, "url.full").ends_with(path))
                })
                .unwrap()
        };
        let (client, server) = (find(SpanKind::Client), find(SpanKind::Server));
        assert_eq!(server.parent_span_id, Some(client.span_id), "{path}");
        assert_eq!(server.trace_id, client.trace_id);
        assert_eq!(text(server, "ktrdr.link.method"), "connection");
        assert_eq!(text(server, "ktrdr.exchange.positions"), text(client, "ktrdr.exchange.positions"));
        let exchange = |s: &Span| s.attributes.get("ktrdr.exchange.id").cloned();
        assert!(exchange(server).is_some() && exchange(server) != exchange(client));
    }
}

#[test]
fn equal_addresses_need_no_positions_and_other_positions_join_nothing() {
    let mut h = host();
    let mut a = h.connect_translated(30, "10.9.0.9:80", "10.9.0.5:61000", 31, "10.9.0.1:8888");
    let mut b = h.older(32, 33, "10.9.0.2:8888");
    h.request(&mut a, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    // Older than the agent: where its answer will begin is not known, so the number of its first byte, which is the
    // same, proves nothing.
    h.request(&mut b, b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    h.response(&mut a, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    h.response(&mut b, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for pair in h.spans().chunks(2) {
        assert_eq!(pair[0].trace_id, pair[1].trace_id);
    }
}

/// A copy has no time of its own. What the shell says of the time comes between records that are older, if the agent is behind.
#[test]
fn a_copy_was_made_when_the_records_before_it_were() {
    for ahead in [0, 50 * MS] {
        let mut h = Host::new();
        for (pid, service, port) in [(10, "web", 8000), (20, "db", 9000)] {
            h.process(pid, service);
            h.listen(pid, &format!("127.0.0.1:{port}"));
        }
        h.shell(ShellEvent::Python(PythonStatus { tgid: 10, exact: true, ..PythonStatus::default() }));
        let mut asked = h.connect(30, 10, "127.0.0.1:8000");
        let mut call = h.connect(10, 20, "127.0.0.1:9000");
        h.pass(100);
        h.request(&mut asked, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
        h.feed(tick(h.now + ahead));
        // Of a context that is no copy, under which the request is served.
        let copy = PyCopyBody { parent: 0x100, child: 0x200 };
        h.record_at(0, kind::PY_COPY, 0, (10, 10), copy.as_bytes());
        call.called_by(10, 0x200);
        h.request(&mut call, b"GET /b HTTP/1.1\r\nHost: y\r\n\r\n");
        h.response(&mut call, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        asked.served_under(0x100);
        h.response(&mut asked, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let spans = h.spans();
        let (server, client) = (one(&spans, "web", SpanKind::Server), one(&spans, "web", SpanKind::Client));
        assert_eq!(client.parent_span_id, Some(server.span_id), "{ahead}: {:?}", client.attributes);
    }
}
