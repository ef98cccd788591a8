//! Processes that pass bytes on between two connections: one trace goes through them, and none goes astray.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{Process, python_program, run};
use ktrdr_tests::servers::{Server, listening};
use ktrdr_tests::span::{Span, brief};
use ktrdr_tests::truth::Truth;

/// One after the other on a kept connection, and all at once on connections of their own.
const LIBRARIES: &str = "requests,httpx-concurrent";

/// Calls through the relay; each path with its spans, each below the one before it.
fn through(relay: impl Fn(u16, u16, &Path) -> Process, spans_each: usize) -> BTreeMap<String, Vec<Span>> {
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    let _server = Server::UvicornH11.start(upstream, dir.path());
    let agent = Options::ports(&[port, upstream]).start();
    let _relay = relay(port, upstream, dir.path());
    let said = run(python_program("clients.py").args([&format!("http://127.0.0.1:{port}"), LIBRARIES]));
    let truths = Truth::parse_all(&said);
    assert!(truths.len() > 10, "{said}");
    agent.wait_for_spans(truths.len() * spans_each);
    let finished = agent.stop();
    let mut paths = BTreeMap::new();
    for truth in &truths {
        let mut left: Vec<&Span> = finished.spans.iter().filter(|s| s.path() == Some(&truth.path)).collect();
        let mut chain: Vec<Span> = Vec::new();
        while let Some(at) =
            left.iter().position(|s| s.parent_span_id == chain.last().map(|l| l.span_id.clone()))
        {
            chain.push(left.swap_remove(at).clone());
        }
        assert!(
            left.is_empty() && chain.len() == spans_each,
            "{} in\n{}",
            truth.path,
            brief(&finished.spans)
        );
        paths.insert(truth.path.clone(), chain);
    }
    paths
}

fn chained(spans: &[Span], methods: &[&str]) {
    for (pair, method) in spans.windows(2).zip(methods) {
        assert_eq!(pair[1].trace_id, pair[0].trace_id, "{}", brief(spans));
        assert_eq!(pair[1].text("ktrdr.link.method"), Some(*method), "{}", brief(spans));
        assert_eq!(pair[1].text("ktrdr.link.certainty"), Some("exact"), "{}", brief(spans));
    }
}

#[test]
fn a_relay_that_reads_and_writes_is_two_spans_of_the_trace() {
    if !can_observe() {
        return;
    }
    let socat = |port: u16, upstream: u16, dir: &Path| {
        let mut command = Command::new("socat");
        command.arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=128"));
        command.arg(format!("TCP:127.0.0.1:{upstream}"));
        listening(command, port, dir)
    };
    for spans in through(socat, 4).values() {
        chained(spans, &["connection", "relay", "connection"]);
    }
}

#[test]
fn a_relay_that_splices_is_crossed() {
    if !can_observe() {
        return;
    }
    let splicing = |port: u16, upstream: u16, dir: &Path| {
        let mut command = python_program("splicing_relay.py");
        command.args([port.to_string(), upstream.to_string()]);
        listening(command, port, dir)
    };
    for spans in through(splicing, 2).values() {
        chained(spans, &["relay"]);
    }
}
