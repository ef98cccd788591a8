//! Attributes against the semantic conventions, head by head.

use super::attributes::Describe;
use super::head::{Read, request, response};
use crate::protocol::driver::context;
use crate::protocol::{Request, Response, Role};
use crate::trace::model::{Attributes, Status, Value};

fn asked(role: Role, dup: bool, head: &str) -> Request {
    let mut context = context(role);
    context.semconv_dup = dup;
    let Read::Whole(parsed) = request(head.as_bytes(), &[]) else { panic!("no head: {head}") };
    Describe::new(&context).request(&parsed)
}

fn answered(role: Role, head: &str) -> Response {
    let Read::Whole(parsed) = response(head.as_bytes(), &[]) else { panic!("no head: {head}") };
    Describe::new(&context(role)).response(&parsed)
}

/// One `key=value` per line, sorted.
fn lines(attributes: &Attributes) -> Vec<String> {
    let mut lines: Vec<String> = attributes
        .iter()
        .map(|a| match &a.value {
            Value::Int(n) => format!("{}={n}", a.key),
            value => format!("{}={}", a.key, value.as_str().unwrap_or("?")),
        })
        .collect();
    lines.sort();
    lines
}

const GET: &str = "GET /api/v1/operations/op_training_20251113_120000_ab12cd34?cursor=1&token=s3cret HTTP/1.1\r\n\
    Host: localhost:8000\r\nUser-Agent: python-httpx/0.28.1\r\n\r\n";

#[test]
fn a_server_span() {
    let request = asked(Role::Server, false, GET);
    assert_eq!(request.name, "GET /api/v1/operations/{id}");
    assert_eq!(
        lines(&request.attributes),
        [
            "client.address=10.0.0.9",
            "http.request.method=GET",
            "network.peer.address=10.0.0.9",
            "network.peer.port=40000",
            "network.protocol.version=1.1",
            "server.address=localhost",
            "server.port=8000",
            "url.path=/api/v1/operations/op_training_20251113_120000_ab12cd34",
            "url.query=cursor=1&token=REDACTED",
            "url.scheme=http",
            "user_agent.original=python-httpx/0.28.1",
        ]
    );
}

#[test]
fn a_client_span() {
    let request = asked(Role::Client, false, GET);
    assert_eq!(request.name, "GET /api/v1/operations/{id}");
    assert_eq!(
        lines(&request.attributes),
        [
            "http.request.method=GET",
            "network.peer.address=127.0.0.1",
            "network.peer.port=8000",
            "network.protocol.version=1.1",
            "server.address=localhost",
            "server.port=8000",
            "url.full=http://localhost:8000/api/v1/operations/op_training_20251113_120000_ab12cd34?cursor=1&token=REDACTED",
            "url.template=/api/v1/operations/{id}",
        ]
    );
}

#[test]
fn old_names_beside_the_new_ones() {
    let server = asked(Role::Server, true, GET).attributes;
    for (old, value) in [
        ("http.method", "GET"),
        ("http.scheme", "http"),
        ("http.target", "/api/v1/operations/op_training_20251113_120000_ab12cd34?cursor=1&token=REDACTED"),
        ("net.host.name", "localhost"),
        ("http.user_agent", "python-httpx/0.28.1"),
        ("http.client_ip", "10.0.0.9"),
        ("http.flavor", "1.1"),
        ("net.sock.peer.addr", "10.0.0.9"),
    ] {
        assert_eq!(server.get(old).and_then(Value::as_str), Some(value), "{old}");
    }
    let client = asked(Role::Client, true, "GET /a HTTP/1.1\r\nHost: h:81\r\n\r\n").attributes;
    assert_eq!(client.get("http.url").and_then(Value::as_str), Some("http://h:81/a"));
    assert_eq!(client.get("net.peer.name").and_then(Value::as_str), Some("h"));
    assert_eq!(client.get("net.peer.port"), Some(&81u16.into()));
    assert_eq!(client.get("http.target"), None);
}

#[test]
fn urls_in_all_forms() {
    for (head, url, address, port) in [
        ("GET /a HTTP/1.1\r\nHost: h\r\n\r\n", Some("http://h/a"), "h", 80),
        ("GET /a HTTP/1.1\r\nHost: h:80\r\n\r\n", Some("http://h/a"), "h", 80),
        ("GET /a HTTP/1.1\r\nHost: [::1]:5001\r\n\r\n", Some("http://[::1]:5001/a"), "::1", 5001),
        ("GET /a HTTP/1.0\r\n\r\n", Some("http://127.0.0.1:8000/a"), "127.0.0.1", 8000),
        (
            "GET http://u:p@h:81/a?sig=x HTTP/1.1\r\nHost: other\r\n\r\n",
            Some("http://h:81/a?sig=REDACTED"),
            "h",
            81,
        ),
        ("GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n", Some("https://h/"), "h", 443),
        ("OPTIONS * HTTP/1.1\r\nHost: h:81\r\n\r\n", Some("http://h:81"), "h", 81),
        ("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n", None, "db", 5432),
        ("GET /a HTTP/1.1\r\nHost: \r\n\r\n", Some("http://127.0.0.1:8000/a"), "127.0.0.1", 8000),
    ] {
        let attributes = asked(Role::Client, false, head).attributes;
        assert_eq!(attributes.get("url.full").and_then(Value::as_str), url, "{head}");
        assert_eq!(attributes.get("server.address").and_then(Value::as_str), Some(address), "{head}");
        assert_eq!(attributes.get("server.port"), Some(&Value::Int(port)), "{head}");
    }
}

#[test]
fn methods_nobody_knows() {
    let request = asked(Role::Server, false, "FROB /a HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(request.name, "HTTP /a");
    assert_eq!(request.attributes.get("http.request.method"), Some(&"_OTHER".into()));
    assert_eq!(request.attributes.get("http.request.method_original").and_then(Value::as_str), Some("FROB"));
}

#[test]
fn behind_a_proxy() {
    let head = "GET /a HTTP/1.1\r\nHost: api.example\r\nX-Forwarded-For: 203.0.113.7, 10.0.0.1\r\n\
        X-Forwarded-Proto: https\r\n\r\n";
    let attributes = asked(Role::Server, false, head).attributes;
    assert_eq!(attributes.get("client.address").and_then(Value::as_str), Some("203.0.113.7"));
    assert_eq!(attributes.get("network.peer.address").and_then(Value::as_str), Some("10.0.0.9"));
    assert_eq!(attributes.get("url.scheme"), Some(&"https".into()));
    assert_eq!(attributes.get("server.port"), Some(&Value::Int(443)));
}

#[test]
fn trace_context_and_bodies() {
    let traced = |fields: &str| asked(Role::Server, false, &format!("POST /a HTTP/1.1\r\n{fields}\r\n"));
    let parent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let context = traced(parent).trace_context.expect("valid");
    assert_eq!(context.span_id.to_string(), "00f067aa0ba902b7");
    assert!(traced(&[parent, parent].concat()).trace_context.is_none(), "two are none");
    assert!(traced("").trace_context.is_none());
    assert!(traced("Content-Type: application/json; charset=utf-8\r\n").want_body);
    assert!(traced("Content-Type: application/problem+json\r\n").want_body);
    assert!(!traced("Content-Type: text/html\r\n").want_body);
}

#[test]
fn statuses_by_role() {
    let head = |code: u16| format!("HTTP/1.1 {code} Reason\r\nContent-Type: application/json\r\n\r\n");
    for (role, code, failed) in [
        (Role::Server, 200, false),
        (Role::Server, 404, false),
        (Role::Server, 500, true),
        (Role::Client, 302, false),
        (Role::Client, 404, true),
        (Role::Client, 503, true),
    ] {
        let response = answered(role, &head(code));
        let error = failed.then(|| Value::from(code.to_string()));
        assert_eq!(response.attributes.get("error.type"), error.as_ref(), "{role:?} {code}");
        assert_eq!(response.status, if failed { Status::Error(String::new()) } else { Status::Unset });
        assert_eq!(response.attributes.get("http.response.status_code"), Some(&code.into()));
        assert!(response.want_body);
    }
}
