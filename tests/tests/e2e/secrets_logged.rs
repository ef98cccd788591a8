//! Secrets in what a service logs are in none of the outputs of a running agent: spans, log records and metrics over
//! gRPC, the live socket, and the tools of a language model.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use ktrdr_tests::agent::{Options, binary, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{Process, output, python, python_program, root};
use ktrdr_tests::servers::listening;
use ktrdr_tests::wait;
use serde_json::{Value, json};

/// In the order in which `leaking_app.py` logs them. Each says how.
const SECRETS: &[&str] = &[
    "s3cr3tInALoggedHeader0",
    "s3cr3tInALoggedObject0",
    "s3cr3tInALoggedPair0",
    "s3cr3tInALoggedTraceback0",
    "s3cr3tInALoggedUrl0",
    "s3cr3tThatWasPrinted0",
];

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// It says something, and no secret.
fn checked(what: &str, bytes: &[u8]) {
    assert!(!bytes.is_empty(), "{what} is empty");
    for secret in SECRETS {
        assert!(!holds(bytes, secret), "{secret} is in {what}:\n{}", String::from_utf8_lossy(bytes));
    }
}

/// Calls a tool of `ktrdr-agent mcp`; the text of its answer.
fn tool(socket: &str, name: &str, arguments: &Value) -> String {
    let mut mcp = Command::new(binary());
    mcp.args(["mcp", "--socket", socket]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut mcp = mcp.spawn().unwrap();
    let (mut input, mut answers) = (mcp.stdin.take().unwrap(), BufReader::new(mcp.stdout.take().unwrap()));
    let about = json!({"name": "test", "version": "1"});
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about});
    for message in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": name, "arguments": arguments}}),
    ] {
        writeln!(input, "{message}").unwrap();
    }
    let answer = loop {
        let mut line = String::new();
        assert!(answers.read_line(&mut line).unwrap() > 0, "no answer of {name}");
        let answer: Value = serde_json::from_str(&line).unwrap();
        if answer["id"] == 2 {
            break answer;
        }
    };
    drop(input);
    mcp.wait().unwrap();
    assert!(!answer["result"]["isError"].as_bool().unwrap_or(false), "{name}: {answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn secrets_that_a_service_logs_are_in_no_output() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, receiver) = (free_port(), free_port());
    let (secrets, received) = (dir.path().join("secrets.json"), dir.path().join("received"));
    std::fs::write(&secrets, json!(SECRETS).to_string()).unwrap();
    let mut any = Command::new(python());
    any.arg(root().join("tests/receivers/any.py")).arg(receiver.to_string()).arg(&received);
    let any: Process = listening(any, receiver, dir.path());
    let socket = dir.path().join("explain.sock").to_string_lossy().into_owned();
    let endpoint = format!("http://127.0.0.1:{receiver}");
    let agent = Options::ports(&[port])
        .args(&["--otlp-protocol", "grpc", "--otlp-endpoint", &endpoint])
        .env("KTRDR_AGENT_EXPLAIN__SOCKET", &socket)
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .start();
    let mut command = python_program("leaking_app.py");
    command.arg(port.to_string()).arg(&secrets);
    let server = listening(command, port, dir.path());
    for _ in 0..3 {
        output(Command::new("curl").args(["-s", &format!("http://127.0.0.1:{port}/login")]));
    }
    agent.wait_for_spans(6);

    // A live agent: everything it can be asked for.
    let explain = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["explain", "--socket", &socket]).args(arguments);
        let said = output(&mut command);
        [said.stdout, said.stderr].concat()
    };
    let logged = wait::until("records in the answer", || {
        let report: Value = serde_json::from_slice(&explain(&["last", "error", "--json"])).ok()?;
        (report["logs"].as_array()?.len() >= 3).then_some(report)
    });
    checked("the answer", logged.to_string().as_bytes());
    assert!(logged.to_string().contains("REDACTED"), "{logged}");
    checked("the screen", &explain(&["last", "error"]));
    checked("the list", &explain(&["--list"]));
    let trace = logged["trace_ids"][0].as_str().unwrap();
    for (name, arguments) in [
        ("explain", json!({"query": "last error"})),
        ("recent", json!({})),
        ("find_traces", json!({"errors_only": true})),
        ("get_trace", json!({"trace_id": trace})),
    ] {
        let said = tool(&socket, name, &arguments);
        checked(&format!("the tool {name}"), said.as_bytes());
        assert!(name != "get_trace" || said.contains("login failed"), "{said}");
    }

    // What it leaves behind, and what it sent.
    drop(server);
    let finished = agent.stop();
    checked("the lines of spans and log records", finished.text.as_bytes());
    checked("the agent's log", finished.log.as_bytes());
    let logs = finished.text.lines().filter(|l| l.starts_with("{\"log\":")).count();
    assert!(logs >= 15 && finished.text.contains("REDACTED"), "{}", finished.text);
    drop(any);
    let received = std::fs::read(&received).unwrap();
    checked("what was sent over gRPC", &received);
    for method in ["trace.v1.TraceService", "logs.v1.LogsService", "metrics.v1.MetricsService"] {
        assert!(holds(&received, method), "nothing came for {method}");
    }
    assert!(holds(&received, "login failed") && holds(&received, "REDACTED"));
    // They were there.
    let output = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .filter(|f| f.path().extension().is_some_and(|e| e == "log"));
    let written: Vec<u8> = output.flat_map(|f| std::fs::read(f.path()).unwrap()).collect();
    assert!(SECRETS.iter().all(|s| holds(&written, s)), "the service logs no secrets");
}
