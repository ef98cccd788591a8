//! The store's bounds and look-ups, and conversations over its socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::{AskError, ask};
use super::jaeger::TraceQuery;
use super::protocol::{MAX_REQUEST, Request, answer};
use super::server::{ServeError, Server};
use super::{Answers, Filter, Finds, Limits, NotFound, Spans, Store, from_files};
use crate::explain::{Kind, Listing, Report};
use crate::export::console::json;
use crate::export::{Item, fixture};
use crate::settings::Settings;
use crate::trace::logs::{LogRecord, Severity};
use crate::trace::model::{Span, SpanId, SpanKind, TraceId};

fn limits(spans: usize) -> Limits {
    Limits { bytes: 1 << 30, spans, spans_per_trace: 100 }
}

/// A call without children in a trace of its own.
fn lone(n: u64, failed: bool, path: &str) -> Item {
    let service = fixture::service("ktrdr-api");
    let mut span = fixture::span(1, 1, 0, &service, SpanKind::Client, "GET /x", (n, n + 1));
    let mut id = [0u8; 16];
    id[..8].copy_from_slice(&(n + 1).to_be_bytes());
    span.trace_id = TraceId(id);
    span.attributes.set("url.path", path.to_owned());
    span.attributes.set("http.response.status_code", if failed { 500_i64 } else { 200_i64 });
    if failed {
        span.attributes.set("error.type", "500");
        span.status = crate::trace::model::Status::Error(String::new());
    }
    Arc::new(span)
}

fn filled() -> Store {
    let store = Store::new(limits(1000));
    fixture::download().iter().for_each(|s| store.add(s));
    store
}

const OPERATION: &str = "op_training_20251113_101500_0a1b2c3d";

#[test]
fn the_newest_go_in_and_the_oldest_healthy_ones_go_out() {
    let store = Store::new(limits(80));
    store.add(&lone(0, true, "/bad"));
    store.add(&lone(1, false, &format!("/api/v1/operations/{OPERATION}")));
    (2..500).for_each(|n| store.add(&lone(n, false, "/good")));
    assert_eq!(store.size(), (80, 80));
    assert!(store.explain("last error").is_ok(), "an error outlives what is healthy");
    assert!(store.explain(OPERATION).is_ok(), "so does an operation");
    let first = lone(2, false, "").trace_id.to_string();
    assert!(store.explain(&first).unwrap_err().message.contains("no trace"));
    // Errors alone are bounded too.
    (500..1000).for_each(|n| store.add(&lone(n, true, "/bad")));
    let (traces, spans) = store.size();
    assert!(traces == spans && spans <= 80, "{traces} {spans}");
    assert!(store.explain(&lone(999, true, "").trace_id.to_string()).is_ok());
}

#[test]
fn bytes_are_bounded() {
    let store = Store::new(Limits { bytes: 100_000, spans: 1 << 20, spans_per_trace: 1 << 20 });
    for n in 0..1000 {
        let mut span = (*lone(n, n % 3 == 0, "/x")).clone();
        span.attributes.set("long", "x".repeat(10_000));
        store.add(&Arc::new(span));
    }
    assert!(store.size().1 <= 10, "{:?}", store.size());
}

#[test]
fn an_endless_trace_keeps_its_beginning_and_says_so() {
    let store = Store::new(limits(1000));
    let id = lone(7, false, "").trace_id;
    for n in 0..500u64 {
        let mut span: Span = (*lone(n, false, "/x")).clone();
        (span.trace_id, span.span_id) = (id, SpanId((n + 1).to_be_bytes()));
        store.add(&Arc::new(span));
    }
    let report = store.explain(&id.to_string()).unwrap();
    assert_eq!(report.spans, 100);
    assert!(report.gaps.iter().any(|g| g.starts_with("400 spans are no longer kept")), "{:?}", report.gaps);
}

#[test]
fn polls_of_one_operation_do_not_push_out_the_rest() {
    let store = Store::new(limits(1000));
    store.add(&lone(0, true, "/bad"));
    (1..5000).for_each(|n| store.add(&lone(n, false, &format!("/operations/{OPERATION}"))));
    assert_eq!(store.size().0, 1 + 32 + 96);
    let report = store.explain(OPERATION).unwrap();
    assert_eq!((report.spans, report.verdict.kind), (128, Kind::Ok));
    assert_eq!(report.operation.unwrap().kind.as_deref(), Some("training"));
    assert!(report.gaps[0].contains("no longer kept"), "{:?}", report.gaps);
}

#[test]
fn a_million_operations_are_bounded() {
    let store = Store::new(limits(100));
    for n in 0..20_000u64 {
        store.add(&lone(n, false, &format!("/operations/op_x_{n:08x}")));
    }
    assert!(store.size().1 <= 100);
    assert!(store.explain("op_x_00000000").is_err());
    assert!(store.explain(&format!("op_x_{:08x}", 19_999)).is_ok());
}

#[test]
fn things_are_found_by_what_people_have_at_hand() {
    let store = filled();
    store.add(&lone(9, false, &format!("/api/v1/operations/{OPERATION}/metrics")));
    let trace = fixture::download()[0].trace_id.to_string();
    for query in [&trace, &trace.to_uppercase(), &trace[..8], "last error", "last-error", "Last Error"] {
        let report = store.explain(query).unwrap();
        assert_eq!((report.verdict.kind, report.trace_ids[0].as_str()), (Kind::Refused, &*trace), "{query}");
    }
    for query in [OPERATION, "0a1b2c3d", "training_20251113"] {
        assert_eq!(store.explain(query).unwrap().operation.unwrap().id, OPERATION, "{query}");
    }
    assert_eq!(store.explain("metrics").unwrap().spans, 1, "a part of a path");
    let error = store.explain("op_training_20251113_101500_0a1b2c3e").unwrap_err();
    assert_eq!(error.suggestions, [OPERATION]);
    for query in ["", " ", "zzz", "ab", &"f".repeat(32), &"ü".repeat(5000)] {
        assert!(store.explain(query).unwrap_err().message.len() < 400, "{query}");
    }
}

#[test]
fn a_listing_shows_operations_and_errors_newest_first() {
    let store = filled();
    store.add(&lone(100, false, &format!("/api/v1/operations/{OPERATION}")));
    store.add(&lone(200, false, "/healthy"));
    store.add(&lone(9_000, true, "/bad"));
    let list = store.list(20);
    let rows: Vec<_> = list.rows.iter().map(|r| (r.kind, r.id.len())).collect();
    assert_eq!(rows, [(Kind::HttpError, 32), (Kind::Refused, 32), (Kind::Ok, OPERATION.len())]);
    assert_eq!(store.list(1).rows.len(), 1);
    assert!(Store::new(limits(1)).list(0).rows.is_empty());
}

/// An answer that blames its request, by itself in a trace.
fn not_found(n: u64) -> Item {
    let mut span = (*lone(n, true, "/nope")).clone();
    span.attributes.set("http.response.status_code", 404_i64);
    span.attributes.set("error.type", "404");
    // Its caller was content with it.
    span.parent_span_id = None;
    span.kind = SpanKind::Client;
    Arc::new(span)
}

#[test]
fn answers_that_blame_the_request_do_not_hide_what_failed() {
    let store = Store::new(limits(2_000));
    store.add(&lone(1, true, "/bad"));
    (2..1_000).for_each(|n| store.add(&not_found(n)));
    let bad = lone(1, true, "").trace_id.to_string();
    let listed = store.list(50);
    assert!(listed.rows.iter().any(|r| r.id == bad), "{listed:?}");
    assert!(store.explain(&bad).is_ok_and(|r| r.verdict.kind == Kind::HttpError));
}

#[test]
fn a_path_is_found_with_what_is_below_it() {
    let store = Store::new(limits(100));
    store.add(&lone(1, true, "/api/orders/7"));
    store.add(&lone(2, false, "/api/orders/8"));
    store.add(&lone(3, false, "/api/ordersheet"));
    let found = |path: &str| store.explain(path).map(|r| r.trace_ids);
    let id = |n| vec![lone(n, false, "").trace_id.to_string()];
    assert_eq!(found("/api/orders").unwrap(), id(1), "rather one that failed");
    assert_eq!(found("/api/orders/8").unwrap(), id(2));
    assert_eq!(found("/api/ordersheet").unwrap(), id(3));
    assert!(found("/api/order").unwrap_err().message.contains("no call to `/api/order` is kept"));
}

#[test]
fn a_listing_can_be_narrowed() {
    let store = filled();
    let mut span = (*lone(100, false, &format!("/api/v1/operations/{OPERATION}"))).clone();
    span.attributes.set("operation.type", "training");
    span.attributes.set("data.symbol", "AAPL,MSFT");
    span.attributes.set("worker.selected_id", "training-worker-1");
    store.add(&Arc::new(span));
    store.add(&lone(9_000, true, "/bad"));
    let shown = |filter: Filter| store.list_of(20, &filter).rows.iter().map(|r| r.kind).collect::<Vec<_>>();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(shown(Filter::default()).len(), 3);
    assert_eq!(shown(Filter { errors: true, ..Filter::default() }), [Kind::HttpError, Kind::Refused]);
    for filter in [
        Filter { kind: some("training"), ..Filter::default() },
        Filter { symbol: some("msft"), ..Filter::default() },
        Filter { service: some("training-worker-1"), ..Filter::default() },
    ] {
        assert_eq!(shown(filter), [Kind::Ok]);
    }
    assert_eq!(
        shown(Filter { service: some("ktrdr-ib-host-service"), ..Filter::default() }),
        [Kind::Refused]
    );
    for nothing in [
        Filter { kind: some("training"), errors: true, ..Filter::default() },
        Filter { symbol: some("AAP"), ..Filter::default() },
        // The spans are of a time long gone.
        Filter { since_s: Some(60), ..Filter::default() },
    ] {
        assert_eq!(shown(nothing), []);
    }
}

#[test]
fn open_spans_are_asked_of_a_live_agent_only() {
    let store = Arc::new(filled());
    assert!(!store.open_spans_wanted());
    store.add(&lone(50, false, &format!("/api/v1/operations/{OPERATION}")));
    store.goes_live();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let loops = {
        let (store, stop) = (store.clone(), stop.clone());
        std::thread::spawn(move || {
            // As the agent's loop: it looks in each of its turns.
            while !stop.load(Ordering::SeqCst) {
                if store.open_spans_wanted() {
                    let mut open = (*lone(100, false, &format!("/api/v1/operations/{OPERATION}"))).clone();
                    open.end = open.start + 5_000_000_000;
                    open.attributes.set("ktrdr.open", true);
                    open.attributes.set("operation.id", OPERATION);
                    store.open_spans(vec![open]);
                }
                std::thread::yield_now();
            }
        })
    };
    // A question that a busy machine does not answer in time goes without; it may be asked again.
    let mut asked = (0..100).map(|_| store.explain(OPERATION).unwrap());
    let report = asked.find(|r| r.spans == 2).expect("the loop answers");
    stop.store(true, Ordering::SeqCst);
    loops.join().unwrap();
    assert_eq!(report.verdict.kind, Kind::Waiting, "{report:#?}");
    assert!(report.verdict.sentence.contains("has been waiting"), "{}", report.verdict.sentence);
}

#[test]
fn losses_at_that_time_are_told() {
    let store = filled();
    let at = fixture::download()[0].start_wall_ns();
    store.lost(at, &[("ring full".to_owned(), 3)]);
    store.lost(at + 500_000_000, &[("ring full".to_owned(), 4)]);
    store.lost(at + 60_000_000_000, &[("ring full".to_owned(), 100)]);
    let gaps = store.explain("last error").unwrap().gaps;
    assert!(gaps[0].contains("lost 7 × ring full"), "{gaps:?}");
}

#[test]
fn a_file_of_spans_gives_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut lines) = (dir.path().join("spans.jsonl"), Vec::new());
    fixture::download().iter().for_each(|s| json::line(s, &mut lines));
    lines.extend_from_slice(b"\n{\"half\": \xff\xfe\n");
    std::fs::write(&path, &lines).unwrap();
    let settings = Settings::default();
    let from_file_ =
        from_files(std::slice::from_ref(&path), &settings).unwrap().explain("last error").unwrap();
    assert_eq!(from_file_, filled().explain("last error").unwrap());
    for (text, want) in [("", "empty"), ("hello\n", "holds no spans"), ("KTRDRREC", "cannot replay")] {
        std::fs::write(&path, text).unwrap();
        let error = from_files(std::slice::from_ref(&path), &settings).err().unwrap().to_string();
        assert!(error.contains(want), "{error}");
    }
    assert!(
        from_files(&["/nonexistent".into()], &settings).err().unwrap().to_string().contains("cannot read")
    );
}

/// Answers nothing but "no"; counts the questions.
#[derive(Default)]
struct Fake(AtomicUsize);

impl Answers for Fake {
    fn explain(&self, query: &str) -> Result<Report, NotFound> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(NotFound { message: format!("no {query}"), suggestions: vec!["this".to_owned()] })
    }
    fn list(&self, limit: usize) -> Listing {
        Listing { traces: limit, ..Listing::default() }
    }
    fn find(&self, _: &TraceQuery) -> Finds {
        Finds::default()
    }
    fn spans(&self, trace: &str) -> Result<Spans, NotFound> {
        self.explain(trace).map(|_| Spans::default())
    }
}

fn request(op: &str, query: Option<&str>) -> Request {
    Request { v: 1, op: op.to_owned(), query: query.map(str::to_owned), limit: Some(7), ..Request::default() }
}

#[test]
fn garbage_gets_an_error_that_says_why() {
    for (line, want) in [
        ("", "bad_request"),
        ("x", "bad_request"),
        ("{}", "bad_request"),
        ("[1,2]", "bad_request"),
        (r#"{"v":2,"op":"list"}"#, "version"),
        (r#"{"v":1,"op":"shutdown"}"#, "bad_request"),
        (r#"{"v":1,"op":"explain"}"#, "bad_request"),
        (r#"{"v":1,"op":"explain","query":5}"#, "bad_request"),
        (r#"{"v":1,"op":"explain","query":"q"}"#, "not_found"),
        (r#"{"v":1,"op":"spans"}"#, "bad_request"),
        (r#"{"v":1,"op":"spans","query":"q"}"#, "not_found"),
        (r#"{"v":1,"op":"find","query":"limit=no"}"#, "bad_request"),
    ] {
        let text = answer(&Fake::default(), line);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (value["ok"].as_bool(), value["error"]["code"].as_str()),
            (Some(false), Some(want)),
            "{line}"
        );
        assert_eq!(text.matches('\n').count(), 1);
    }
    let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
    assert!(
        answer(&Fake::default(), &deep).contains("bad_request"),
        "deep nesting is no way to end the agent"
    );
}

#[test]
fn a_conversation_over_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let missing = ask::<Listing>(&path, &request("list", None)).unwrap_err();
    assert!(missing.to_string().contains("no agent is running here"), "{missing}");

    let server = Server::start(&path, Arc::new(filled())).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the socket is left there");
    let report: Report = ask(&path, &request("explain", Some("last error"))).unwrap();
    assert_eq!(report, filled().explain("last error").unwrap());
    let list: Listing = ask(&path, &request("list", None)).unwrap();
    assert_eq!(list.rows.len(), 1);
    match ask::<Report>(&path, &request("explain", Some("nothing of the kind"))) {
        Err(AskError::Refused { code, message, .. }) => {
            assert_eq!(code, "not_found");
            assert!(message.contains("nothing of the kind"), "{message}");
        }
        other => panic!("{other:?}"),
    }

    let second = Server::start(&path, Arc::new(Fake::default())).err().unwrap();
    assert!(matches!(second, ServeError::Taken(_)), "{second}");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn clients_that_misbehave_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let fake = Arc::new(Fake::default());
    let _server = Server::start(&path, fake.clone()).unwrap();
    // One that says nothing and stays, one that leaves at once, one that talks without end, one that is binary.
    let _silent = UnixStream::connect(&path).unwrap();
    drop(UnixStream::connect(&path).unwrap());
    let read = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        // The server may stop reading before all is said.
        let _ = stream.write_all(bytes);
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    assert!(read(&vec![b'x'; MAX_REQUEST + 1]).contains("too long"));
    assert!(read(b"\xff\xfe\n").contains("not UTF-8"));
    assert!(read(b"{\"v\":1,\"op\":\"explain\",\"query\":\"\\u0000\"}\n").contains("not_found"));
    assert_eq!(fake.0.load(Ordering::SeqCst), 1);
    // More than may be served at a time: all get an answer, some that they are too many.
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut refused = 0;
    for mut stream in silent.into_iter().rev().take(12) {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        refused += usize::from(text.contains("too many clients"));
    }
    assert!(refused >= 12, "{refused}");
}

#[test]
fn a_socket_left_over_is_replaced_and_other_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "its owner was killed");
    drop(Server::start(&path, Arc::new(Fake::default())).unwrap());
    std::fs::write(&path, "precious").unwrap();
    let error = Server::start(&path, Arc::new(Fake::default())).err().unwrap();
    assert!(matches!(error, ServeError::NotASocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let nowhere = Server::start(Path::new("/nonexistent/dir/s"), Arc::new(Fake::default())).err().unwrap();
    assert!(nowhere.to_string().starts_with("/nonexistent/dir/s: No such file"), "{nowhere}");
}

#[test]
fn traces_are_found_by_what_they_contain_and_shown_whole() {
    let store = filled();
    let find = |query: &str| store.find(&TraceQuery::parse(query).unwrap()).traces;
    let all = find("");
    assert_eq!(all.len(), 1);
    let row = &all[0];
    assert!(row.services.iter().any(|s| s == "ktrdr-api") && row.failed > 0 && row.spans > 1, "{row:?}");
    assert!(row.error.as_deref().is_some_and(|e| e.contains("refused")), "{row:?}");
    assert_eq!(find("tag=error:true"), all);
    assert!(find("service=nobody").is_empty());
    let spans = store.spans(&row.trace_id).unwrap();
    assert_eq!((spans.spans.len(), spans.left_out), (row.spans, 0));
    assert!(store.spans("0123456789abcdef0123456789abcdef").unwrap_err().message.contains("no trace"));
    // A trace too long for an answer is cut, and says so.
    let store = Store::new(Limits { spans_per_trace: 10_000, ..limits(10_000) });
    let long = lone(1, false, &"x".repeat(1000));
    (0..1000).for_each(|_| store.add(&long));
    let spans = store.spans(&long.trace_id.to_string()).unwrap();
    assert_eq!(spans.spans.len() as u64 + spans.left_out, 1000);
    assert!(spans.left_out > 900, "{}", spans.left_out);
}

#[test]
fn what_was_logged_is_answered_with_the_trace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spans.jsonl");
    let mut lines = Vec::new();
    let spans = fixture::download();
    let mut record = LogRecord {
        ts: 521_000_000,
        wall_offset_ns: fixture::EPOCH_NS,
        severity: Severity::ERROR,
        severity_text: "ERROR".to_owned(),
        body: "Download failed".to_owned(),
        trace_id: Some(spans[0].trace_id),
        span_id: spans[0].parent_span_id,
        attributes: Default::default(),
        resource: fixture::service("ktrdr-api"),
    };
    json::log_line(&record, &mut lines);
    record.severity = Severity::INFO;
    json::log_line(&record, &mut lines);
    spans.iter().for_each(|s| json::line(s, &mut lines));
    std::fs::write(&path, &lines).unwrap();
    let store = from_files(std::slice::from_ref(&path), &Settings::default()).unwrap();
    let report = store.explain("last error").unwrap();
    let said: Vec<_> =
        report.logs.iter().map(|l| (l.message.as_str(), l.relation.as_str(), l.count)).collect();
    assert_eq!(said, [("Download failed", "cause", 1)]);
    let spans = store.spans(&report.trace_ids[0]).unwrap();
    assert_eq!((spans.spans.len(), spans.logs.len()), (3, 1));
}
