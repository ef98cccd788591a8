//! `ktrdr-agent mcp`, spoken to as a client does: lines of JSON-RPC on its standard input and output.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use ktrdr_agent::explain::{Listing, Report};
use ktrdr_agent::store::jaeger::TraceQuery;
use ktrdr_agent::store::server::Server;
use ktrdr_agent::store::{Answers, Finds, NotFound, Spans};
use serde_json::{Value, json};

/// An agent that knows nothing, and repeats what it was asked.
struct Agent;

impl Answers for Agent {
    fn explain(&self, query: &str) -> Result<Report, NotFound> {
        let message = format!("nothing is known about `{query}`");
        Err(NotFound { message, suggestions: vec!["op_training_1".to_owned()] })
    }
    fn list(&self, limit: usize) -> Listing {
        Listing { traces: limit, ..Listing::default() }
    }
    fn find(&self, query: &TraceQuery) -> Finds {
        Finds { schema: format!("{query:?}"), traces: Vec::new() }
    }
    fn spans(&self, trace: &str) -> Result<Spans, NotFound> {
        Ok(Spans { trace_id: trace.to_owned(), ..Spans::default() })
    }
}

struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    id: u64,
}

impl Client {
    fn start(socket: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ktrdr-agent"))
            .args(["mcp", "--socket"])
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut client = Self { child, input, output, id: 0 };
        let about = json!({"name": "test", "version": "1"});
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about});
        let answer = client.ask("initialize", hello);
        assert_eq!(answer["result"]["serverInfo"]["name"], "ktrdr-agent", "{answer}");
        assert!(answer["result"]["instructions"].as_str().unwrap().contains("explain"));
        client.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    fn say(&mut self, message: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        self.say(&json!({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params}));
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], self.id, "{answer}");
        answer
    }

    /// The text of a tool's result, and whether it is an error.
    fn call(&mut self, tool: &str, arguments: Value) -> (String, bool) {
        let answer = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        let result = &answer["result"];
        let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (text, result["isError"] == true)
    }
}

#[test]
fn a_model_asks_and_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let agent = Server::start(&socket, Arc::new(Agent)).unwrap();
    let mut client = Client::start(&socket);
    let tools = client.ask("tools/list", json!({}));
    let tools = tools["result"]["tools"].as_array().unwrap();
    let names: Vec<&str> = tools.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["explain", "recent", "find_traces", "get_trace"]);
    for tool in tools {
        assert_eq!(tool["annotations"]["readOnlyHint"], true);
        assert_eq!(tool["inputSchema"]["type"], "object");
    }
    let (text, failed) = client.call("explain", json!({"query": "op_x"}));
    assert!(failed && text.contains("`op_x`") && text.contains("op_training_1"), "{text}");
    let (text, failed) = client.call("recent", json!({"limit": 7}));
    assert!(!failed && text.contains("\"traces\":7"), "{text}");
    let wanted =
        json!({"service": "a b&c", "attribute": "operation.id=op_1", "errors_only": true, "limit": 3});
    let (text, failed) = client.call("find_traces", wanted);
    assert!(!failed, "{text}");
    for part in ["a b&c", "operation.id", "op_1", "error", "limit: 3"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (text, _) = client.call("get_trace", json!({"trace_id": "abcdef"}));
    assert!(text.contains("abcdef"), "{text}");
    // What a call cannot mean is said.
    for (tool, arguments, word) in [
        ("explain", json!({}), "query"),
        ("explain", json!({"query": 5}), "text"),
        ("recent", json!({"limit": "many"}), "whole number"),
        ("find_traces", json!({"colour": "red"}), "colour"),
        ("find_traces", json!({"attribute": "x"}), "key=value"),
        ("restart", json!({}), "explain"),
    ] {
        let answer = client.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        assert!(answer["error"]["message"].as_str().is_some_and(|m| m.contains(word)), "{tool}: {answer}");
    }
    drop(agent);
    let (text, failed) = client.call("recent", json!({}));
    assert!(failed && text.contains("no agent is running"), "{text}");
    client.input.take();
    assert!(client.child.wait().unwrap().success(), "it ends with its input");
}
