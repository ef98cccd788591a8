//! Recent traces over HTTP: Jaeger's clients, and a browser.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ktrdr_tests::agent::{Agent, Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{output, program, python, root, run};
use ktrdr_tests::raw::Listener;
use ktrdr_tests::servers::Server;
use ktrdr_tests::span::Span;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const TOKEN: &str = "a token for this test";
/// A path that is markup, were it taken as such.
const MARKUP: &str = "/<img/src=x/onerror=alert(1)>";

/// Where set-up puts what only tests need.
fn tools() -> std::path::PathBuf {
    let tools = root().join("target/tools");
    assert!(tools.exists(), "{} is missing: `cargo xtask setup` makes it", tools.display());
    tools
}

/// An agent that saw a good call, a refused one, and one with markup in its path.
struct Scene {
    agent: Agent,
    url: String,
    spans: Vec<Span>,
    _server: ktrdr_tests::process::Process,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn play() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (port, nobody, ui, odd) = (free_port(), free_port(), free_port(), Listener::new());
        let server = Server::UvicornH11.start(port, dir.path());
        let listen = format!("127.0.0.1:{ui}");
        let agent = Options::ports(&[port, nobody, odd.port()])
            .args(&["--no-socket", "--ui-listen", &listen])
            .env("KTRDR_AGENT_UI__TOKEN", TOKEN)
            .start();
        let call = |port: u16| {
            let url = format!("http://127.0.0.1:{port}/c/1/1/status/200");
            output(Command::new("curl").args(["--silent", "--output", "/dev/null", &url]))
        };
        assert!(call(port).status.success());
        assert!(!call(nobody).status.success());
        agent.wait_for_spans(3);
        // Last, so that its trace is the newest.
        let served = odd.serve(|mut peer| {
            peer.receive_head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        });
        let mut client = odd.connect();
        client.send(format!("GET {MARKUP} HTTP/1.1\r\nHost: t\r\n\r\n"));
        client.receive_head();
        served.join().unwrap();
        let spans = agent.wait_for_spans(5);
        Self { agent, url: format!("http://{listen}"), spans, _server: server, _dir: dir }
    }

    fn get<T: DeserializeOwned>(&self, target: &str) -> T {
        let token = format!("Authorization: Bearer {TOKEN}");
        let url = format!("{}{target}", self.url);
        let text = run(Command::new("curl").args(["--silent", "--fail", "--header", &token, &url]));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{target}: {e}: {text}"))
    }
}

/// An answer's frame, and below it the fields and types that Grafana's data source reads (`pkg/tsdb/jaeger/types`).
#[derive(Deserialize)]
struct Frame<T> {
    data: Vec<T>,
    errors: Value,
    total: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    #[serde(rename = "traceID")]
    trace_id: String,
    processes: BTreeMap<String, Process>,
    spans: Vec<TraceSpan>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    service_name: String,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TraceSpan {
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(rename = "processID")]
    process_id: String,
    operation_name: String,
    start_time: i64,
    duration: i64,
    logs: Vec<Log>,
    references: Vec<Reference>,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
struct Log {
    timestamp: i64,
    fields: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(rename = "type")]
    kind: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Edge {
    parent: String,
    child: String,
    call_count: u64,
}

#[test]
fn what_grafana_asks_is_answered_in_the_types_it_reads() {
    if !can_observe() {
        return;
    }
    let scene = Scene::play();
    let services: Frame<String> = scene.get("/api/services");
    let seen: BTreeSet<&str> = scene.spans.iter().map(|s| s.service.as_str()).collect();
    assert_eq!(services.data.iter().map(String::as_str).collect::<BTreeSet<_>>(), seen);
    assert!(services.errors.is_null() && services.total == services.data.len());
    let operations: Frame<String> = scene.get("/api/services/curl/operations");
    assert!(!operations.data.is_empty());

    let traces: Frame<Trace> = scene.get("/api/traces?service=curl&limit=20&lookback=1h");
    assert_eq!(traces.data.len(), 2, "a good call and a refused one");
    let mut ids = BTreeSet::new();
    for trace in &traces.data {
        assert!(trace.warnings.is_none());
        for span in &trace.spans {
            let ours = scene.spans.iter().find(|s| s.span_id == span.span_id).unwrap();
            assert_eq!(
                (ours.name.as_str(), ours.trace_id.as_str()),
                (span.operation_name.as_str(), trace.trace_id.as_str())
            );
            assert_eq!(trace.processes[&span.process_id].service_name, ours.service);
            let parent =
                span.references.iter().find(|r| r.ref_type == "CHILD_OF").map(|r| r.span_id.as_str());
            assert_eq!(parent, ours.parent_span_id.as_deref());
            assert!(span.start_time > 1_700_000_000_000_000 && span.duration >= 0);
            let tags = span.tags.iter().chain(span.logs.iter().flat_map(|l| &l.fields));
            for tag in tags.chain(&trace.processes[&span.process_id].tags) {
                let fits = match tag.kind.as_str() {
                    "string" => tag.value.is_string(),
                    "int64" => tag.value.is_i64() || tag.value.is_u64(),
                    "float64" => tag.value.is_number(),
                    "bool" => tag.value.is_boolean(),
                    _ => false,
                };
                assert!(fits, "{} is a {}: {}", tag.key, tag.kind, tag.value);
            }
            assert!(span.logs.iter().all(|l| l.timestamp > 1_700_000_000_000_000));
            ids.insert(span.span_id.as_str());
        }
        let one: Frame<Trace> = scene.get(&format!("/api/traces/{}", trace.trace_id));
        assert_eq!(one.data[0].spans.len(), trace.spans.len());
    }
    assert_eq!(ids.len(), 3);
    let edges: Frame<Edge> = scene.get("/api/dependencies");
    assert!(edges.data.iter().any(|e| e.parent == "curl" && !e.child.is_empty() && e.call_count >= 1));
    let _ = scene.agent.stop();
}

#[test]
fn a_jaeger_client_of_others_reads_the_same_traces() {
    if !can_observe() {
        return;
    }
    let scene = Scene::play();
    let mut client = Command::new(python());
    client.arg(program("jaeger_client.py")).args([&scene.url, TOKEN, "curl"]);
    // A directory of its own: its versions are not those of the services observed.
    client.env("PYTHONPATH", tools().join("jaeger-client"));
    let read: Value = serde_json::from_str(&run(&mut client)).unwrap();
    let mut names: Vec<&str> = scene.spans.iter().map(|s| s.service.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(read["services"], Value::from(names));
    let traces = read["traces"].as_array().unwrap();
    assert_eq!(traces.len(), 2, "{read}");
    let spans = traces.iter().flat_map(|t| t["spans"].as_array().unwrap());
    assert_eq!(spans.count(), 3, "{read}");
    let failed: Vec<&str> = traces
        .iter()
        .filter(|t| t["errors_count"].as_u64().unwrap() > 0)
        .map(|t| t["trace_id"].as_str().unwrap())
        .collect();
    assert_eq!(failed.len(), 1, "{read}");
    assert_eq!(read["failed"], Value::from(failed));
    assert!(read["dependencies"].as_array().unwrap().iter().any(|d| d["parent"] == "curl"), "{read}");
    let _ = scene.agent.stop();
}

#[test]
fn the_page_asks_for_the_token_shows_the_verdict_and_never_takes_text_for_markup() {
    if !can_observe() {
        return;
    }
    let scene = Scene::play();
    let mut browser = Command::new("node");
    browser.arg(program("page.js")).args([&format!("{}/", scene.url), TOKEN]);
    browser.env("NODE_PATH", tools().join("node_modules"));
    let shown: Value = serde_json::from_str(&run(&mut browser)).unwrap();
    assert_eq!(shown["errors"], Value::Array(Vec::new()));
    assert_eq!(shown["before"], Value::Array(Vec::new()), "without the token there is nothing");
    // The refused connect with its verdict, and three traces.
    let list = shown["list"].as_array().unwrap();
    assert_eq!(list.len(), 4, "{shown}");
    assert!(list[0].as_str().unwrap().contains("refused"), "{shown}");
    assert!(shown["hash"].as_str().unwrap().starts_with("#/trace/"), "{shown}");
    assert!(!shown["spans"].as_array().unwrap().is_empty(), "{shown}");
    assert!(!shown["verdict"].as_str().unwrap().is_empty(), "{shown}");
    let elements: Vec<&str> =
        shown["elements"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for element in &elements {
        let known = ["SECTION", "SPAN", "DIV", "P", "UL", "LI", "H2", "DL", "DT", "DD", "SMALL"];
        assert!(known.contains(element), "the page made {element} of what a service said");
    }
    let _ = scene.agent.stop();
}
