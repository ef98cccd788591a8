//! Over real connections: what clients get, and what they do not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use serde_json::Value;

use super::traces;
use crate::export::fixture;
use crate::store::{Limits, Store};

/// A server with KTRDR's data download in it.
fn serve(token: Option<&str>) -> SocketAddr {
    let store = Arc::new(Store::new(Limits::live(1 << 20)));
    fixture::download().iter().for_each(|s| store.add(s));
    traces::start("127.0.0.1:0".parse().unwrap(), token.map(str::to_owned), store).unwrap()
}

/// Status, head and body of an answer.
fn ask(to: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn get(to: SocketAddr, target: &str, more: &str) -> (u16, String, String) {
    ask(to, &format!("GET {target} HTTP/1.1\r\nHost: {to}\r\n{more}\r\n"))
}

fn json(to: SocketAddr, target: &str) -> Value {
    let (status, head, body) = get(to, target, "");
    assert_eq!(status, 200, "{target}: {body}");
    assert!(head.contains("content-type: application/json"), "{head}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn jaegers_paths_and_the_agents_own_are_answered() {
    let to = serve(None);
    let services = json(to, "/api/services");
    assert!(services["data"].as_array().unwrap().contains(&"ktrdr-api".into()), "{services}");
    let found = json(to, "/ktrdr/find?service=ktrdr-api");
    let id = found["traces"][0]["trace_id"].as_str().unwrap();
    let trace = json(to, &format!("/api/traces/{id}"));
    assert_eq!(trace["data"][0]["traceID"], id);
    let report = json(to, &format!("/ktrdr/explain?query={id}"));
    assert_eq!(report["schema"], "ktrdr.explain/1");
    assert_eq!(report["verdict"]["kind"], "refused", "{report}");
    assert_eq!(json(to, "/ktrdr/list?limit=5")["rows"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_not_there_or_not_understood_is_said() {
    let to = serve(None);
    for (target, status) in [
        ("/nothing", 404),
        ("/ktrdr/nothing", 404),
        ("/ktrdr/explain", 400),
        ("/ktrdr/explain?query=op_training_20251113_101500_ffffffff", 404),
        ("/ktrdr/find?limit=none", 400),
        ("/api/traces?start=now", 400),
    ] {
        assert_eq!(get(to, target, "").0, status, "{target}");
    }
    let (status, head, _) =
        ask(to, &format!("POST /api/services HTTP/1.1\r\nHost: {to}\r\nContent-Length: 0\r\n\r\n"));
    assert!(status == 405 && head.contains("allow: get, head"), "{head}");
    let long = "x".repeat(64 * 1024);
    assert!(get(to, "/", &format!("X-Long: {long}\r\n")).0 >= 400);
}

#[test]
fn the_page_runs_its_own_script_and_nothing_else() {
    let to = serve(None);
    let (status, head, page) = get(to, "/", "");
    assert_eq!(status, 200);
    let policy = head.lines().find_map(|l| l.strip_prefix("content-security-policy: ")).unwrap();
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert!(nonce.len() == 32 && page.contains(&format!("<script nonce=\"{nonce}\">")), "{policy}");
    let (_, again, _) = get(to, "/", "");
    assert!(!again.contains(nonce), "a nonce serves one answer");
    // Nothing from elsewhere, no marks left to fill, and no way from text to markup.
    for bad in
        ["{{", "http://", "https://", "//cdn", "src=", "innerHTML", "outerHTML", "insertAdjacent", "eval("]
    {
        assert!(!page.contains(bad), "the page has {bad}");
    }
    assert!(head.contains("x-content-type-options: nosniff") && head.contains("cache-control: no-store"));
    // No data in it.
    assert!(!page.contains("ktrdr-api"));
}

#[test]
fn with_a_token_nothing_but_the_empty_page_is_shown_without_it() {
    let to = serve(Some("let-me-in"));
    assert_eq!(get(to, "/", "").0, 200);
    for target in ["/api/services", "/api/traces", "/ktrdr/list", "/ktrdr/explain?query=last", "/anything"] {
        let (status, head, body) = get(to, target, "");
        assert!(status == 401 && head.contains("www-authenticate: bearer"), "{target}: {head}");
        assert!(body.starts_with("ui.token is wanted") && !body.contains("ktrdr-"), "{body}");
        for wrong in ["Bearer let-me-ix", "Bearer let-me", "Bearer", "Basic let-me-in", "let-me-in"] {
            assert_eq!(get(to, target, &format!("Authorization: {wrong}\r\n")).0, 401, "{wrong}");
        }
    }
    for right in ["Bearer let-me-in", "bearer let-me-in"] {
        assert_eq!(get(to, "/api/services", &format!("Authorization: {right}\r\n")).0, 200);
    }
    // The token replaces the check of names: a proxy or a Service may use any.
    let by_name = "GET /api/services HTTP/1.1\r\nHost: node-1\r\nAuthorization: Bearer let-me-in\r\n\r\n";
    assert_eq!(ask(to, by_name).0, 200);
}

#[test]
fn a_page_from_elsewhere_cannot_read_traces_by_pointing_its_own_name_here() {
    let to = serve(None);
    for host in ["evil.example", "evil.example:16686", "localhost.evil.example"] {
        for target in ["/", "/api/traces", "/ktrdr/list"] {
            let (status, _, body) = ask(to, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert!(status == 403 && !body.contains("ktrdr-"), "{host}{target}: {body}");
        }
    }
    for host in ["localhost", &format!("localhost:{}", to.port()), "[::1]:1"] {
        let (status, head, _) = ask(to, &format!("GET /api/services HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(status == 200 && !head.contains("access-control-allow-origin"), "{host}");
    }
}
