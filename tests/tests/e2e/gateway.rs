//! The real clients of the IB Gateway against the simulated one: every message that a client sends is one span on
//! each side, and says what the client and the gateway say.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ktrdr_tests::agent::{Finished, Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{Process, python, root, run};
use ktrdr_tests::span::{Span, brief};
use serde_json::Value;

use crate::libraries::clean;

/// A client of each library makes these calls, one after the other.
const CALLS: &[&str] = &[
    "time",
    "details:AAPL",
    "head:AAPL",
    "history:AAPL",
    // 11 kB, more than is captured of a transfer.
    "hourly:AAPL",
    "pair:EURUSD",
    "ticks:AAPL",
    "details:NOPE",
    // Not the last: its cancellation is answered, too.
    "history:SILENT",
    "history:PACING",
    "history:LOST",
];
/// Names of the calls' own requests, in the same order.
const NAMES: &[&str] = &[
    "IB reqCurrentTime",
    "IB reqContractDetails AAPL STK",
    "IB reqHeadTimeStamp AAPL STK",
    "IB reqHistoricalData AAPL STK 1 day",
    "IB reqHistoricalData AAPL STK 1 hour",
    "IB reqHistoricalData EUR.USD CASH 1 day",
    "IB reqMktData AAPL STK",
    "IB reqContractDetails NOPE STK",
    "IB reqHistoricalData SILENT STK 1 day",
    "IB reqHistoricalData PACING STK 1 day",
    "IB reqHistoricalData LOST STK 1 day",
];

fn file(name: &str) -> std::path::PathBuf {
    root().join("tests/gateway").join(name)
}

fn gateway(port: u16, dir: &Path, more: &[&str]) -> Process {
    let mut command = Command::new(python());
    command
        .arg(file("gateway.py"))
        .args(["--port", &port.to_string(), "--log"])
        .arg(dir.join("gateway.jsonl"));
    command.args(more);
    let mut process = Process::start(command, dir);
    // The test reads the line that says it listens from the process's own log: asking the port would be a session.
    let log = dir.to_owned();
    process.wait_until("the gateway listens", || {
        std::fs::read_dir(&log).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("listening"))
        })
    });
    process
}

fn client(library: &str, port: u16, id: u32, calls: &[&str]) -> Vec<Value> {
    let mut command = Command::new(python());
    command
        .arg(file("client.py"))
        .args([library, &port.to_string(), "--client-id", &id.to_string()])
        .args(calls);
    lines(&run(&mut command))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the gateway noted: one line per message it got (and one for the handshake).
fn asked(dir: &Path) -> Vec<Value> {
    lines(&std::fs::read_to_string(dir.join("gateway.jsonl")).unwrap())
}

fn of<'a>(spans: &'a [Span], kind: &str, client: u32, name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|s| {
        s.kind == kind && s.name == name && s.int("connection.client_id") == Some(i64::from(client))
    });
    match (found.next(), found.next()) {
        (Some(span), None) => span,
        (first, _) => {
            panic!("{} spans {kind} {name}:\n{}", if first.is_some() { "many" } else { "no" }, brief(spans))
        }
    }
}

fn observed(frames: &str) {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _gateway = gateway(port, dir.path(), &["--farms", "4", "--frames", frames]);
    let agent = Options::ports(&[port]).start();
    let said =
        [(3, "ib_async"), (4, "ib_insync")].map(|(id, library)| (id, client(library, port, id, CALLS)));
    let messages = asked(dir.path()).len();
    agent.wait_for_spans(messages * 2);
    let finished = agent.stop();
    for kind in ["client", "server"] {
        let n = finished.spans.iter().filter(|s| s.kind == kind).count();
        assert_eq!(n, messages, "{kind} spans for messages:\n{}", brief(&finished.spans));
    }
    for (id, said) in &said {
        assert_eq!(said.len(), CALLS.len() + 1, "{said:?}");
        for (line, name) in said[1..].iter().zip(NAMES) {
            for kind in ["client", "server"] {
                compare(of(&finished.spans, kind, *id, name), line);
            }
        }
    }
    books(&finished, messages);
}

/// What the client saw of a call, and its span.
fn compare(span: &Span, line: &Value) {
    let call = line["call"].as_str().unwrap();
    let code = line["errors"].as_array().unwrap().iter().find_map(|e| {
        let ours = e[0].as_i64() == span.int("ib.request.id");
        ours.then(|| e[1].as_i64().unwrap())
    });
    let line_of = || format!("{line}\n{}\n{:?}", span.brief(), span.attributes);
    if call == "history:SILENT" {
        assert_eq!((span.incomplete(), span.status.as_str()), (Some("cancelled"), "error"), "{}", line_of());
        assert!(span.duration_ms >= 1400.0, "{}", line_of());
        return;
    }
    assert_eq!(span.int("ib.error.code"), code, "{}", line_of());
    assert_eq!(span.status == "error", code.is_some(), "{}", line_of());
    assert_eq!(span.incomplete(), None, "{}", line_of());
    match call.split(':').next().unwrap() {
        "history" | "hourly" | "pair" if code.is_none() => {
            assert_eq!(span.int("ib.bars_received"), line["result"].as_i64(), "{}", line_of());
            let duration = if call == "hourly:AAPL" { "7 D" } else { "1 M" };
            assert_eq!(span.text("ib.duration"), Some(duration), "{}", line_of());
        }
        "details" if code.is_none() => {
            assert_eq!(span.int("ib.items_received"), line["result"].as_i64(), "{}", line_of());
        }
        _ => {}
    }
}

fn books(finished: &Finished, messages: usize) {
    let stats = finished.stats.as_ref().unwrap();
    assert_eq!((stats.bytes.lost, stats.requests_given_up), (0, 0), "{stats:?}");
    assert_eq!(stats.bytes.moved, stats.bytes.parsed + stats.bytes.skipped, "{stats:?}");
    assert!(messages > 2 * (CALLS.len() + 8), "{messages}");
    assert!(!finished.text.contains("1234567"), "an account number left the agent");
}

#[test]
fn every_request_of_the_real_clients() {
    observed("whole");
}

#[test]
fn frames_split_anywhere() {
    observed("split");
}

#[test]
fn frames_joined() {
    observed("merged");
}

#[test]
fn a_client_id_in_use_is_the_error_of_the_session() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _gateway = gateway(port, dir.path(), &["--taken", "9"]);
    let agent = Options::ports(&[port]).start();
    let said = client("ib_async", port, 9, &[]);
    assert!(said[0].get("raised").is_some(), "{said:?}");
    agent.wait_for("startApi", |s| s.iter().filter(|s| s.name == "IB startApi").count() == 2);
    let finished = agent.stop();
    for span in finished.spans.iter().filter(|s| s.name == "IB startApi") {
        assert_eq!(span.int("ib.error.code"), Some(326), "{}", brief(&finished.spans));
        assert_eq!(span.text("ib.error.severity"), Some("fatal"));
        assert!(span.status_message.contains("same client id"), "{}", span.status_message);
    }
    clean(&finished);
}

/// A client that goes on when it is told to.
struct Pausing(Child);

impl Pausing {
    fn start(port: u16, calls: &[&str]) -> Self {
        let mut command = Command::new(python());
        command.arg(file("client.py")).args(["ib_async", &port.to_string(), "--client-id", "5"]).args(calls);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("pausing") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "the client ended before its pause");
        }
        child.stdout = Some(said.into_inner());
        Self(child)
    }

    fn go_on(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut rest = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        assert!(self.0.wait().unwrap().success(), "{rest}");
    }
}

impl Drop for Pausing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_session_older_than_the_agent() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _gateway = gateway(port, dir.path(), &[]);
    let client = Pausing::start(port, &["time", "pause", "history:AAPL", "details:AAPL", "time"]);
    let agent = Options::ports(&[port]).start();
    client.go_on();
    let names =
        ["IB reqHistoricalData AAPL STK 1 day", "IB reqContractDetails AAPL STK", "IB reqCurrentTime"];
    agent.wait_for_spans(2 * names.len());
    let finished = agent.stop();
    for kind in ["client", "server"] {
        let seen: Vec<_> =
            finished.spans.iter().filter(|s| s.kind == kind).map(|s| s.name.as_str()).collect();
        assert_eq!(seen, names, "{kind}:\n{}", brief(&finished.spans));
    }
    assert!(finished.spans.iter().all(|s| s.incomplete().is_none()), "{}", brief(&finished.spans));
    clean(&finished);
}

#[test]
fn a_reset_names_itself() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _gateway = gateway(port, dir.path(), &[]);
    let agent = Options::ports(&[port]).start();
    client("ib_async", port, 6, &["history:RESET"]);
    let name = "IB reqHistoricalData RESET STK 1 day";
    agent.wait_for("the request", |s| s.iter().filter(|s| s.name == name).count() == 2);
    let finished = agent.stop();
    let span = of(&finished.spans, "client", 6, name);
    assert_eq!(span.text("error.type"), Some("connection_reset"), "{}", brief(&finished.spans));
    assert_eq!(span.status, "error");
}
