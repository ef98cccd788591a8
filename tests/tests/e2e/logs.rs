//! Log lines of a real service, on the trace of the request that they name.

use std::collections::BTreeMap;

use ktrdr_tests::agent::{Finished, Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{python_program, run};
use ktrdr_tests::servers::listening;
use serde_json::Value;

/// Asks for each path, so many at a time.
const ASK: &str = "
import asyncio, sys, httpx
async def main(base, at_once, paths):
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        async def one(path):
            async with gate:
                await client.get(base + path)
        await asyncio.gather(*map(one, paths))
asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
";

/// Requests side by side before those that are judged: that a request is the only one in flight proves nothing of a
/// line, and this server is older than the agent, so how its loop writes is known once two requests have overlapped.
const WARM_UP: usize = 20;

fn observe(hook: &str, at_once: usize, paths: &[String]) -> Option<Finished> {
    if !can_observe() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = python_program("logging_app.py");
    command.arg(port.to_string()).arg(dir.path().join("app.log"));
    let server = listening(command, port, dir.path());
    let agent =
        Options::ports(&[port]).args(&["--hook", hook]).env("KTRDR_AGENT_LOGS__RATE", "64MiB").start();
    let ask = |at_once: usize, paths: &[String]| {
        let mut ask = std::process::Command::new(ktrdr_tests::process::python());
        ask.args(["-c", ASK, &format!("http://127.0.0.1:{port}"), &at_once.to_string()]).args(paths);
        run(&mut ask);
    };
    let warm_up: Vec<String> = (0..WARM_UP).map(|i| format!("/work/warm-up-{i}")).collect();
    ask(WARM_UP, &warm_up);
    ask(at_once, paths);
    agent.wait_for_spans((WARM_UP + paths.len()) * 2);
    // Its end ends what it left half written.
    drop(server);
    Some(agent.stop())
}

fn records(finished: &Finished) -> Vec<Value> {
    let lines = finished.text.lines().filter(|l| l.starts_with("{\"log\":"));
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn body(record: &Value) -> &str {
    record["log"]["body"].as_str().unwrap()
}

/// What became of the records of one run that name one of these requests: (on its span, on none). On another's: never.
fn correlated(finished: &Finished, paths: &[String]) -> (usize, usize) {
    let servers = finished.spans.iter().filter(|s| s.is_server());
    let path_of: BTreeMap<&str, &str> =
        servers.filter_map(|s| Some((s.span_id.as_str(), s.path()?))).collect();
    let (mut right, mut none) = (0, 0);
    let records = records(finished);
    for (record, path) in records.iter().filter_map(|r| Some((r, body(r).strip_prefix("request ")?))) {
        match record["span_id"].as_str() {
            None => none += usize::from(paths.iter().any(|p| p == path)),
            Some(id) => {
                assert_eq!(path_of.get(id), Some(&path), "a record on a wrong span: {record}");
                right += usize::from(paths.iter().any(|p| p == path));
            }
        }
        assert_eq!(record["attributes"]["log.logger"], "app.work", "{record}");
    }
    (right, none)
}

#[test]
fn records_are_on_the_trace_of_the_request_they_name_and_count_once() {
    let paths: Vec<String> =
        (0..60).map(|i| format!("/{}/{i}", if i % 3 == 0 { "thread" } else { "work" })).collect();
    for hook in ["auto", "syscall"] {
        let Some(finished) = observe(hook, 20, &paths) else { return };
        // The console's and the file's are one: two of each /work, one of each /thread.
        assert_eq!(correlated(&finished, &paths), (100, 0), "{hook}: (right, without a trace)");
    }
}

#[test]
fn exceptions_are_on_their_span_once() {
    let mut paths: Vec<String> = (0..60).map(|i| format!("/work/{i}")).collect();
    paths.extend((0..3).flat_map(|i| [format!("/fail/{i}"), format!("/caught/{i}")]));
    let Some(finished) = observe("auto", 10, &paths) else { return };
    let all = records(&finished);
    for i in 0..3 {
        for (path, kind, message) in [
            (format!("/fail/{i}"), "ValueError", format!("no {i}")),
            (format!("/caught/{i}"), "ZeroDivisionError", "division by zero".to_owned()),
        ] {
            let span = finished.spans.iter().find(|s| s.is_server() && s.path() == Some(&path)).unwrap();
            let of_it = |r: &&Value| {
                r["attributes"]["exception.message"] == message.as_str()
                    && r["span_id"] == span.span_id.as_str()
            };
            let record = all.iter().find(of_it);
            let record = record.unwrap_or_else(|| panic!("{path}: no record tells of it: {all:?}"));
            assert!(!span.events.is_empty(), "{path}: ended at {}, told by {record}", span.end_time);
            let failed = ("error", &format!("{kind}: {message}"));
            assert_eq!((span.status.as_str(), &span.status_message), failed);
            let [event] = span.events.as_slice() else { panic!("{path}: {:?}", span.events) };
            assert_eq!(event.name, "exception");
            assert_eq!(event.attributes["exception.type"], kind);
            assert_eq!(event.attributes["exception.message"], message);
            let stack = event.attributes["exception.stacktrace"].as_str().unwrap();
            assert!(stack.contains("Traceback"), "{stack}");
        }
    }
}

#[test]
fn hostile_output_harms_nothing_and_nobody_is_blamed() {
    let mut paths: Vec<String> = (0..6).map(|i| format!("/work/{i}")).collect();
    paths.push("/hostile".to_owned());
    let Some(finished) = observe("auto", 1, &paths) else { return };
    let records = records(&finished);
    let hostile = finished.spans.iter().find(|s| s.is_server() && s.path() == Some("/hostile")).unwrap();
    let forged = records.iter().find(|r| body(r) == "request /work/forged").unwrap();
    let writer = forged["span_id"].as_str();
    assert!(writer.is_none_or(|id| id == hostile.span_id), "the forged line is its writer's: {forged}");
    assert!(records.iter().any(|r| body(r).contains("invalid \u{fffd} utf-8")), "{records:?}");
    assert!(records.iter().all(|r| body(r).len() <= 64 * 1024));
    // What the same thread writes next goes on in that line.
    assert!(records.iter().any(|r| body(r).starts_with("half a line without an end")));
    let logs = &finished.stats.as_ref().unwrap().logs;
    assert!(logs["binary_lines"] >= 1, "{logs:?}");
    let kernel = &finished.stats.as_ref().unwrap().kernel;
    assert!(logs["cut_bytes"] + logs["uncaptured_bytes"] + kernel["write_bytes_over_rate"] > 5_000_000);
}
