//! nginx: static files (sendfile, without a buffer to look into) and as a proxy (a server and a client at once). Other
//! proxies, and a service that calls others, on the runtime with the least to tell them apart by.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ktrdr_tests::agent::{Options, can_observe, skipped};
use ktrdr_tests::compare;
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{Process, output, program, python_program, run};
use ktrdr_tests::servers::{Server, go_service, haproxy, nginx};
use ktrdr_tests::span::{Span, brief};
use ktrdr_tests::truth::Truth;

const SIZES: [usize; 5] = [0, 1, 1000, 100_000, 3_000_000];

/// Files of these sizes, with a plan that fetches them.
fn files(dir: &std::path::Path) -> String {
    let mut plan = Vec::new();
    for library in ["httpx", "httpx-async", "requests", "aiohttp", "http.client", "fetch", "node"] {
        for (n, size) in SIZES.iter().enumerate() {
            let file = dir.join(format!("files/c/{library}/{n}"));
            std::fs::create_dir_all(&file).unwrap();
            std::fs::write(file.join("file"), vec![b'f'; *size]).unwrap();
        }
    }
    for _ in SIZES {
        plan.push(serde_json::json!({"method": "GET", "path": "file"}));
    }
    // One that is not there, and one whose body is not wanted.
    plan.push(serde_json::json!({"method": "GET", "path": "missing"}));
    let text = serde_json::to_string(&plan).unwrap();
    let path = dir.join("files-plan.json");
    std::fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn static_files_of_nginx() {
    if !can_observe() {
        return;
    }
    for hook in ["socket", "syscall"] {
        let dir = tempfile::tempdir().unwrap();
        let plan = files(dir.path());
        let port = free_port();
        let _nginx = nginx(port, &dir.path().join("files"), None, dir.path());
        let agent = Options::ports(&[port]).args(&["--hook", hook]).start();
        let base = format!("http://127.0.0.1:{port}");
        let libraries = "httpx,httpx-async,requests,aiohttp,http.client";
        let mut said = run(python_program("clients.py").args([&base, libraries, &plan]));
        said += &run(Command::new("node").arg(program("node_client.js")).args([&base, &plan]));
        let truths = Truth::parse_all(&said);
        assert_eq!(truths.len(), 7 * 6);
        agent.wait_for_spans(truths.len() * 2);
        let finished = agent.stop();
        compare::same(&truths, &finished.spans);
        // What went out by sendfile was counted and not seen, and its span says so.
        let big = |s: &&Span| s.is_server() && s.response_size() == Some(3_000_000);
        for span in finished.spans.iter().filter(big) {
            assert_eq!(
                span.attributes.get("ktrdr.capture.no_buffer"),
                Some(&true.into()),
                "{}",
                span.brief()
            );
        }
        assert_eq!(finished.spans.iter().filter(big).count(), 7);
    }
}

#[test]
fn a_proxy_is_a_server_and_a_client() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    let _server = Server::UvicornH11.start(upstream, dir.path());
    let _nginx = nginx(port, dir.path(), Some(upstream), dir.path());
    let agent = Options::ports(&[port, upstream]).start();
    let base = format!("http://127.0.0.1:{port}");
    let mut said = run(python_program("clients.py").args([&base, "httpx,requests"]));
    said += &run(python_program("curl_client.py").arg(&base));
    let truths = Truth::parse_all(&said);
    agent.wait_for_spans(truths.len() * 4);
    let finished = agent.stop();
    assert_eq!(finished.spans.len(), truths.len() * 4, "{}", brief(&finished.spans));
    // Before the proxy it is the same as without one.
    let (outer, inner): (Vec<Span>, Vec<Span>) =
        finished.spans.into_iter().partition(|s| s.int("server.port") == Some(port.into()));
    compare::same(&truths, &outer);
    assert_eq!(inner.len(), truths.len() * 2, "{}", brief(&inner));
    let asked = |path: &str| outer.iter().find(|s| s.is_server() && s.path() == Some(path));
    for truth in &truths {
        let of = |kind: &str| inner.iter().find(|s| s.kind == kind && s.path() == Some(&truth.path));
        let (Some(client), Some(server)) = (of("client"), of("server")) else {
            panic!("{} behind the proxy in\n{}", truth.path, brief(&inner));
        };
        for span in [client, server] {
            assert_eq!(span.status_code(), Some(truth.status), "{}", span.brief());
            // nginx passes a chunked body on in its own chunks, which arrive in transfers longer than the capture:
            // its size may be unknown, but not wrong.
            let known = span.attributes.contains_key("http.request.body.size");
            assert!(known || truth.path.ends_with("/9/echo") || truth.sent == 0, "{}", span.brief());
            assert!(!known || span.request_size() == truth.sent, "{}", span.brief());
            assert_eq!(span.response_size(), Some(truth.received), "{}", span.brief());
        }
        assert_eq!(server.parent_span_id.as_ref(), Some(&client.span_id), "{}", server.brief());
        // What the proxy sends says what it was asked.
        let above = asked(&truth.path).map(|s| &s.span_id);
        assert_eq!(client.parent_span_id.as_ref(), above, "{}", client.brief());
        assert_eq!(client.text("ktrdr.link.certainty"), Some("inferred"), "{}", client.brief());
    }
}

/// Many requests that say the same, at once, through a proxy with few threads and few kept connections. Which is which is
/// in a field that the agent is told to show, and that it does not judge by. How many of the proxy's calls hang below their
/// own request, and how many below none; a wrong one is a defect.
fn equal_requests_at_once(proxy: impl Fn(u16, u16, &Path) -> Option<Process>) -> Option<(usize, usize)> {
    if !can_observe() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    let _server = Server::Node.start(upstream, dir.path());
    let _proxy = proxy(port, upstream, dir.path())?;
    let shown = ("KTRDR_AGENT_OPERATIONS__HEADERS", "X-Truth");
    let agent = Options::ports(&[port, upstream]).env(shown.0, shown.1).start();
    let mut wrk = Command::new("wrk");
    wrk.args(["-t", "1", "-c", "24", "-d", "1s", "-s"]).arg(program("numbered.lua"));
    // The answer takes a while, so that many are in flight.
    let said = run(wrk.arg(format!("http://127.0.0.1:{port}/c/1/1/slow/20")));
    let requests: usize =
        said.split(" requests in ").next().unwrap().split_whitespace().last().unwrap().parse().unwrap();
    agent.wait_for_spans(requests * 4);
    let finished = agent.stop();
    let number = |s: &Span| s.attributes.get("http.request.header.x-truth").cloned();
    // By where it goes: proxies leave the `Host` as it is, or do not.
    let of_proxy = |s: &&Span| s.is_client() && s.int("network.peer.port") == Some(upstream.into());
    let calls: Vec<&Span> = finished.spans.iter().filter(of_proxy).filter(|s| number(s).is_some()).collect();
    let answered = calls.iter().filter(|s| s.status_code() == Some(200)).count();
    assert!(answered >= requests.min(100), "{said}");
    let (mut right, mut alone) = (0, 0);
    for call in &calls {
        let Some(parent) = &call.parent_span_id else {
            alone += 1;
            continue;
        };
        let above = finished.spans.iter().find(|s| s.is_server() && s.span_id == *parent).unwrap();
        assert_eq!(number(above), number(call), "{}\n{}", above.brief(), call.brief());
        right += 1;
    }
    Some((right, alone))
}

#[test]
fn equal_requests_at_once_keep_apart_behind_nginx() {
    let nginx = |port, upstream, dir: &Path| Some(nginx(port, dir, Some(upstream), dir));
    let Some((_, alone)) = equal_requests_at_once(nginx) else { return };
    assert_eq!(alone, 0);
}

/// It reads what came in on several connections and then works on it, so that of equal requests nothing may tell which is
/// which. Different ones are told apart.
#[test]
fn requests_at_once_are_never_mixed_up_behind_haproxy() {
    if equal_requests_at_once(|port, upstream, dir| Some(haproxy(port, upstream, dir))).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    let _server = Server::Node.start(upstream, dir.path());
    let _proxy = haproxy(port, upstream, dir.path());
    let agent = Options::ports(&[port, upstream]).start();
    const ASKED: usize = 100;
    let mut curl = Command::new("curl");
    curl.args(["-s", "--parallel", "--parallel-immediate", "--parallel-max", "24"]);
    run(curl.args((0..ASKED).map(|n| format!("http://127.0.0.1:{port}/c/{n}/1/slow/20"))));
    agent.wait_for_spans(4 * ASKED);
    let finished = agent.stop();
    let of_proxy = |s: &&Span| s.is_client() && s.int("network.peer.port") == Some(upstream.into());
    for call in finished.spans.iter().filter(of_proxy) {
        let Some(parent) = &call.parent_span_id else { panic!("{} is alone", call.brief()) };
        let above = finished.spans.iter().find(|s| s.is_server() && s.span_id == *parent).unwrap();
        assert_eq!(above.path(), call.path());
    }
}

/// Its requests move between threads, so that of equal ones nothing tells which is which.
#[test]
fn equal_requests_at_once_are_never_mixed_up_behind_go() {
    let quiet = |port, upstream, dir: &Path| go_service(port, upstream, true, dir);
    if equal_requests_at_once(quiet).is_none() && can_observe() {
        skipped("a proxy in Go: there is no go");
    }
}

/// A service in Go that asks others for each request, from the request's goroutine and from another one, and by itself all
/// the time, or not. Which request a call is for is in its query.
#[test]
fn calls_of_a_service_in_go_are_never_mixed_up() {
    if can_observe() {
        [false, true].into_iter().for_each(calls_of_go);
    }
}

fn calls_of_go(quiet: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    let _server = Server::Node.start(upstream, dir.path());
    let Some(_go) = go_service(port, upstream, quiet, dir.path()) else {
        return skipped("a service in Go: there is no go");
    };
    let agent = Options::ports(&[port, upstream]).start();
    // One after the other, then some, then many at once.
    let mut jobs = 0..;
    for at_once in ["1", "4", "32"] {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--parallel", "--parallel-immediate", "--parallel-max", at_once]);
        curl.args(jobs.by_ref().take(60).map(|n| format!("http://127.0.0.1:{port}/job/{n}")));
        run(&mut curl);
    }
    let of = |s: &Span| s.text("url.full").and_then(|url| Some(url.split_once("?of=")?.1.to_owned()));
    let done = |spans: &[Span]| {
        spans.iter().filter(|s| s.is_client() && of(s).is_some_and(|of| of != "none")).count()
    };
    agent.wait_for("all calls", |spans| done(spans) >= 3 * 180);
    let finished = agent.stop();
    let servers: BTreeMap<&str, &Span> =
        finished.spans.iter().filter(|s| s.is_server()).map(|s| (s.span_id.as_str(), s)).collect();
    for (call, of) in finished.spans.iter().filter(|s| s.is_client()).filter_map(|s| Some((s, of(s)?))) {
        if let Some(parent) = &call.parent_span_id {
            let path = servers.get(parent.as_str()).and_then(|s| s.path());
            assert_eq!(path, Some(format!("/job/{of}").as_str()), "{}", call.brief());
        }
    }
}

#[test]
fn a_proxy_whose_service_is_down_says_which() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    let _nginx = nginx(port, dir.path(), Some(upstream), dir.path());
    let agent = Options::ports(&[port, upstream]).start();
    const ASKED: usize = 10;
    let url = format!("http://127.0.0.1:{port}/c/down");
    for _ in 0..ASKED {
        let said = output(Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", &url]));
        assert_eq!(said.stdout, b"502");
    }
    agent.wait_for_spans(3 * ASKED);
    let finished = agent.stop();
    assert_eq!(finished.spans.len(), 3 * ASKED, "{}", brief(&finished.spans));
    let mut linked = 0;
    for refused in finished.spans.iter().filter(|s| s.name.starts_with("connect")) {
        assert_eq!(refused.text("error.type"), Some("connection_refused"));
        let within = |s: &&Span| s.start_time <= refused.start_time && refused.end_time <= s.end_time;
        let server = finished.spans.iter().filter(|s| s.is_server()).find(within).unwrap();
        assert_eq!((server.status_code(), server.text("error.type")), (Some(502), Some("502")));
        // nginx serves many at once on one thread: with one request under way, and only after it was seen to make no
        // call by itself for a while, there is no doubt whose it is.
        if let Some(parent) = &refused.parent_span_id {
            assert_eq!(parent, &server.span_id, "{}", brief(&finished.spans));
            linked += 1;
        }
    }
    assert!(linked >= ASKED / 2, "{linked} of {ASKED}: {}", brief(&finished.spans));
}
