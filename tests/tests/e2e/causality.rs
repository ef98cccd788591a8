//! A service whose calls carry the id of the request that caused them: each hangs below that one, or below none.
//! `cargo xtask bench causality` has more of them, at more requests in flight.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{Process, python, root, run};
use ktrdr_tests::servers::listening;
use ktrdr_tests::span::{Span, brief};

/// One of the programs of the causality tests.
pub(super) fn program(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(root().join("tests/causality").join(name));
    command
}

/// The service that is called: it answers after 1 to 9 ms.
pub(super) fn backend(port: u16, dir: &Path) -> Process {
    let mut command = program("backend.py");
    command.arg(port.to_string());
    listening(command, port, dir)
}

/// Asks for `/CASE/IN_FLIGHT-n`, so many at a time.
pub(super) fn load(port: u16, case: &str, in_flight: u32, total: u32) {
    let numbers = [in_flight, total].map(|n| n.to_string());
    run(program("load.py").args([&port.to_string(), case]).args(numbers));
}

/// The calls to `upstream`: those with the parent that their path names, `/x/CASE/ID/N` of `/CASE/ID`, and those with none.
///
/// # Panics
/// One has another parent.
pub(super) fn calls(spans: &[Span], upstream: u16) -> (Vec<&Span>, Vec<&Span>) {
    let served: BTreeMap<&str, &Span> =
        spans.iter().filter(|s| s.is_server()).map(|s| (s.span_id.as_str(), s)).collect();
    let calls = spans.iter().filter(|s| s.is_client() && s.int("server.port") == Some(upstream.into()));
    let (right, none): (Vec<&Span>, Vec<&Span>) = calls.partition(|c| c.parent_span_id.is_some());
    for call in &right {
        let of = call.path().and_then(|p| p.strip_prefix("/x")?.rsplit_once('/').map(|(of, _)| of));
        let parent = call.parent_span_id.as_deref().and_then(|id| served.get(id)?.path());
        assert_eq!(parent, of, "{}", call.brief());
    }
    (right, none)
}

/// Each request of a case makes so many calls: all have their parent, and it is known in this way. Those of its poller have none.
fn all_known(server: [&str; 2], cases: &[(&str, usize)], how: &str) {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    let _backend = backend(upstream, dir.path());
    let mut app = program("app.py");
    app.args(server).args([port, upstream].map(|p| p.to_string()));
    let agent = Options::ports(&[port, upstream]).start();
    let _app = listening(app, port, dir.path());
    for (case, _) in cases {
        load(port, case, 1, 10);
        load(port, case, 20, 100);
    }
    let of = |case: &str, s: &Span| s.path().is_some_and(|p| p.starts_with(&format!("/x/{case}/")));
    agent.wait_for("all calls", |spans| {
        cases
            .iter()
            .all(|(case, each)| spans.iter().filter(|s| s.is_client() && of(case, s)).count() == 110 * each)
    });
    let finished = agent.stop();
    let (right, none) = calls(&finished.spans, upstream);
    for (case, each) in cases {
        let right: Vec<&&Span> = right.iter().filter(|s| of(case, s)).collect();
        assert_eq!(right.len(), 110 * each, "{case}: {}", brief(&finished.spans));
        let exact = |s: &Span| {
            s.text("ktrdr.link.method") == Some(how) && s.text("ktrdr.link.certainty") == Some("exact")
        };
        assert!(right.iter().all(|s| exact(s)), "{case}: {}", brief(&finished.spans));
    }
    assert!(none.iter().all(|s| of("poll", s)), "{}", brief(&finished.spans));
}

/// The service runs a part of each request in threads of a pool, which copies no contexts; so does its poller.
#[test]
fn what_threads_of_a_pool_do_belongs_to_whoever_submitted_it() {
    let cases = [("executor", 1), ("own-loop", 2), ("submit", 2)];
    all_known(["fastapi", "asyncio"], &cases, "python-executor");
}

#[test]
fn also_under_uvloop() {
    all_known(["fastapi", "uvloop"], &[("executor", 1), ("submit", 2)], "python-executor");
}

/// What aiohttp's client and server write, uvloop 0.22 sends under a context of its own.
#[test]
fn what_uvloop_sends_later_belongs_to_whoever_wrote_it() {
    all_known(["fastapi", "uvloop"], &[("aiohttp", 2)], "python-context");
    all_known(["aiohttp", "uvloop"], &[("async", 2), ("gather", 2)], "python-context");
}

#[test]
fn and_of_a_server_with_a_thread_per_connection() {
    all_known(["threads", "none"], &[("pool", 1)], "python-executor");
}
