//! JSON-RPC calls over HTTP, from bytes to spans.

use super::scenario::Host;
use crate::trace::model::{Span, SpanKind, Status};

const CLIENT: u32 = 100;
const SERVER: u32 = 200;

fn http(head: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{head}\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The spans of one call: the client's and the server's.
fn call(request: &str, kind: &str, response: &str) -> [Span; 2] {
    let mut h = Host::new();
    h.process(CLIENT, "client");
    h.process(SERVER, "server");
    h.listen(SERVER, "127.0.0.1:8000");
    let mut p = h.connect(CLIENT, SERVER, "127.0.0.1:8000");
    h.request(&mut p, &http("POST /mcp HTTP/1.1\r\nMcp-Session-Id: s1", "application/json", request));
    h.response(&mut p, &http("HTTP/1.1 200 OK", kind, response));
    let spans = h.spans();
    let of = |kind| spans.iter().find(|s| s.kind == kind).unwrap().clone();
    [of(SpanKind::Client), of(SpanKind::Server)]
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    span.attributes.get(key).and_then(|v| v.as_str())
}

#[test]
fn a_tool_call_answered_by_an_event_stream() {
    let request = r#"{"method":"tools/call","params":{"name":"add","arguments":{"a":1,"password":"hunter2"}},"jsonrpc":"2.0","id":3}"#;
    let response = ": ping\r\n\r\nevent: message\r\ndata: {\"method\":\"notifications/progress\",\"params\":{},\"jsonrpc\":\"2.0\"}\r\n\r\n\
        event: message\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"no\"}],\"isError\":true}}\r\n\r\n";
    for span in call(request, "text/event-stream", response) {
        assert_eq!(span.name, "tools/call add");
        assert_eq!(text(&span, "gen_ai.tool.name"), Some("add"));
        assert_eq!(text(&span, "gen_ai.tool.call.arguments"), Some(r#"{"a":1,"password":"REDACTED"}"#));
        assert_eq!(text(&span, "mcp.session.id"), Some("s1"));
        assert_eq!(text(&span, "error.type"), Some("tool_error"));
        assert_eq!(span.status, Status::Error("no".into()));
        assert_eq!(text(&span, "http.request.method"), Some("POST"));
    }
}

#[test]
fn an_error_inside_a_200_is_an_error() {
    let request = r#"{"jsonrpc":"2.0","id":"x","method":"sum","params":[1]}"#;
    let response = r#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":"x"}"#;
    for (response, failed) in [
        (response, true),
        (&response.replace("\"x\"", "null"), true),
        (&response.replace("\"x\"", "2"), false),
    ] {
        for span in call(request, "application/json", response) {
            // The header says that it is MCP, whatever the method.
            assert_eq!((span.name.as_str(), text(&span, "mcp.method.name")), ("sum", Some("sum")));
            let code = text(&span, "rpc.response.status_code");
            assert_eq!(code, failed.then_some("-32601"), "an answer to another request is none to this one");
        }
    }
}

#[test]
fn each_message_of_a_batch_is_an_event() {
    let request = r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},{"jsonrpc":"2.0","method":"notifications/initialized"},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"x"}}]"#;
    let response = r#"[{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"Unknown tool"}},{"jsonrpc":"2.0","id":1,"result":{}}]"#;
    for span in call(request, "application/json", response) {
        assert_eq!(span.name, "POST /mcp");
        let methods: Vec<_> = span
            .events
            .iter()
            .filter(|e| e.name == "jsonrpc.message")
            .map(|e| {
                let of = |key: &str| e.attributes.get(key).and_then(|v| v.as_str()).map(str::to_owned);
                (of("mcp.method.name").unwrap(), of("error.type"))
            })
            .collect();
        let want =
            [("tools/list", None), ("notifications/initialized", None), ("tools/call", Some("-32602"))];
        assert_eq!(methods, want.map(|(m, e)| (m.to_owned(), e.map(str::to_owned))));
        assert_eq!(span.status, Status::Error("Unknown tool".into()));
        assert_eq!(text(&span, "error.type"), Some("-32602"));
    }
}

#[test]
fn a_trace_context_in_the_parameters_is_the_callers() {
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}}"#;
    let [client, server] = call(request, "application/json", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert_eq!(client.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(client.parent_span_id.unwrap().to_string(), "00f067aa0ba902b7");
    assert_eq!((server.trace_id, server.parent_span_id), (client.trace_id, Some(client.span_id)));
}

#[test]
fn hostile_bodies_leave_an_ordinary_call() {
    let deep = format!("{{\"jsonrpc\":\"2.0\",\"method\":{}", "[".repeat(3000));
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "m".repeat(3000));
    for (request, name) in [
        (deep.as_str(), "POST /mcp"),
        (&long, "POST /mcp"),
        (r#"{"method":"#, "POST /mcp"),
        (r#"[[],{},1,{"method":1}]"#, "POST /mcp"),
        (r#"{"jsonrpc":"2.0","id":{"a":[]},"method":"tools/call","params":7}"#, "tools/call"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"method":"m"}}"#, "POST /mcp"),
    ] {
        for response in ["", "data", "{", "[]", "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":"] {
            for span in call(request, "application/json", response) {
                assert_eq!(
                    (span.name.as_str(), &span.status),
                    (name, &Status::Unset),
                    "{request} {response}"
                );
            }
        }
    }
}
