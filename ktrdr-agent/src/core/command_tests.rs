//! The core on commands: which calls hang below which process.

use super::scenario::{Host, Pipe};
use super::{Core, CoreConfig};
use crate::event::ShellEvent;
use crate::event::shell::PythonStatus;
use crate::trace::model::{Span, SpanKind, Status, Value};

const API: u32 = 100;
const IB: u32 = 200;
const SHELL: u32 = 300;
const CLI: u32 = 301;

fn host() -> Host {
    let mut h = Host::new();
    h.process(API, "ktrdr-api");
    h.process(IB, "ktrdr-ib-host-service");
    h.listen(API, "127.0.0.1:8000");
    h.listen(IB, "127.0.0.1:5001");
    h
}

fn request(h: &mut Host, p: &mut Pipe) {
    h.request(p, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
}

fn response(h: &mut Host, p: &mut Pipe) {
    h.response(p, b"HTTP/1.1 204 No Content\r\n\r\n");
}

/// A call from connect to answer.
fn call(h: &mut Host, from: u32, to: u32, addr: &str) {
    let mut p = h.connect(from, to, addr);
    request(h, &mut p);
    response(h, &mut p);
    h.close(&p, 0);
}

fn text<'a>(s: &'a Span, key: &str) -> &'a str {
    s.attributes.get(key).and_then(|v| v.as_str()).unwrap_or("")
}

fn command(spans: &[Span]) -> &Span {
    let found: Vec<&Span> = spans.iter().filter(|s| s.kind == SpanKind::Internal).collect();
    assert_eq!(found.len(), 1, "{spans:#?}");
    found[0]
}

fn of<'a>(spans: &'a [Span], service: &str, kind: SpanKind) -> &'a Span {
    spans.iter().find(|s| s.resource.service == service && s.kind == kind).unwrap()
}

#[test]
fn a_short_program_that_calls_is_the_root_of_its_calls() {
    let mut h = host();
    h.exec(CLI, SHELL, "curl", "curl -u me:hunter2 http://127.0.0.1:8000/a", false);
    let exec = h.now;
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    request(&mut h, &mut p);
    // Work of the API is placed although the command goes on.
    call(&mut h, API, IB, "127.0.0.1:5001");
    response(&mut h, &mut p);
    h.exit(CLI, 3 << 8);
    let end = h.now;
    let spans = h.spans();
    let root = command(&spans);
    assert_eq!((root.name.as_str(), root.start, root.end), ("curl", exec, end));
    assert_eq!(root.parent_span_id, None);
    assert_eq!(root.attributes.get("process.exit.code"), Some(&Value::Int(3)));
    assert_eq!(root.attributes.get("process.pid"), Some(&Value::Int(CLI.into())));
    assert_eq!(text(root, "process.executable.name"), "curl");
    assert_eq!(root.status, Status::Error("exited with status 3".to_owned()));
    assert_eq!(text(root, "error.type"), "exit_status");
    let args = format!("{:?}", root.attributes.get("process.command_args"));
    assert!(args.contains("me:REDACTED") && !args.contains("hunter2"), "{args}");
    let client = of(&spans, "curl", SpanKind::Client);
    assert_eq!(client.parent_span_id, Some(root.span_id));
    assert_eq!(
        (text(client, "ktrdr.link.method"), text(client, "ktrdr.link.certainty")),
        ("process", "exact")
    );
    assert!(spans.iter().all(|s| s.trace_id == root.trace_id), "{spans:#?}");
    assert_eq!(spans.len(), 5);
}

#[test]
fn a_program_that_goes_on_leaves_its_calls_as_they_were() {
    let mut h = host();
    h.exec(CLI, SHELL, "poller", "poller", false);
    call(&mut h, CLI, API, "127.0.0.1:8000");
    call(&mut h, CLI, API, "127.0.0.1:8000");
    // They wait, no longer than two seconds; what the first one caused does not.
    h.pass(1000);
    let early = h.spans();
    assert_eq!(early.iter().map(|s| s.kind).collect::<Vec<_>>(), [SpanKind::Server]);
    h.pass(600);
    let spans: Vec<Span> = early.into_iter().chain(h.spans()).collect();
    assert_eq!(spans.len(), 4);
    let roots: Vec<_> = spans.iter().filter(|s| s.kind == SpanKind::Client).collect();
    assert!(roots.iter().all(|s| s.parent_span_id.is_none()) && roots[0].trace_id != roots[1].trace_id);
    // Later ones do not wait any more.
    call(&mut h, CLI, API, "127.0.0.1:8000");
    assert_eq!(h.spans().len(), 2);
    h.exit(CLI, 0);
    assert_eq!(h.spans(), vec![]);
}

#[test]
fn a_load_generator_does_not_wait_for_its_end() {
    let mut h = host();
    h.exec(CLI, SHELL, "wrk", "wrk http://127.0.0.1:8000/a", false);
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    for _ in 0..1_000 {
        request(&mut h, &mut p);
        response(&mut h, &mut p);
    }
    // Well before what a command's calls may wait.
    let spans = h.spans();
    assert_eq!(spans.len(), 2_000, "both ends of all calls");
    assert!(spans.iter().filter(|s| s.kind == SpanKind::Client).all(|s| s.parent_span_id.is_none()));
    h.exit(CLI, 0);
    assert!(h.spans().is_empty(), "it was none");
}

#[test]
fn services_and_what_is_older_than_the_agent_are_no_commands() {
    let mut h = host();
    h.process(CLI, "older");
    call(&mut h, CLI, API, "127.0.0.1:8000");
    h.exit(CLI, 0);
    h.exec(400, SHELL, "service", "ktrdr serve", true);
    h.listen(400, "127.0.0.1:9000");
    call(&mut h, 400, API, "127.0.0.1:8000");
    h.exit(400, 1 << 8);
    // One that reads requests from a socket that it was given.
    h.exec(500, SHELL, "worker", "worker", false);
    let mut p = h.connect(CLI, 500, "127.0.0.1:9001");
    request(&mut h, &mut p);
    call(&mut h, 500, API, "127.0.0.1:8000");
    response(&mut h, &mut p);
    h.exit(500, 0);
    let spans = h.spans();
    assert!(spans.iter().all(|s| s.kind != SpanKind::Internal), "{spans:#?}");
    assert_eq!(spans.len(), 8);
}

#[test]
fn a_named_command_is_one_from_its_start_and_whatever_it_does() {
    let mut h = host();
    h.exec(CLI, SHELL, "ktrdr-cli", "ktrdr data load", true);
    call(&mut h, CLI, API, "127.0.0.1:8000");
    h.pass(5000);
    // Its calls are out before it has ended.
    let calls = h.spans();
    assert_eq!(calls.len(), 2);
    let open = h.core.under_way();
    assert_eq!((open.len(), open[0].name.as_str()), (1, "ktrdr data"));
    h.fork(CLI, 302);
    call(&mut h, 302, API, "127.0.0.1:8000");
    h.exec(303, CLI, "curl", "curl http://x/", false);
    call(&mut h, 303, API, "127.0.0.1:8000");
    h.exit(303, 0);
    h.exit(CLI, 9);
    let spans = h.spans();
    let root = spans.iter().find(|s| s.name == "ktrdr data").unwrap();
    assert_eq!(root.status, Status::Error("was killed by SIGKILL".to_owned()));
    assert_eq!((text(root, "error.type"), text(root, "ktrdr.process.signal")), ("SIGKILL", "SIGKILL"));
    assert_eq!(root.attributes.get("process.exit.code"), None);
    assert_eq!((open[0].span_id, open[0].trace_id), (root.span_id, root.trace_id));
    assert_eq!(of(&calls, "ktrdr-cli", SpanKind::Client).parent_span_id, Some(root.span_id));
    // The forked child's call is its own, the executed child a command below it.
    let below = |id| spans.iter().filter(|s| s.parent_span_id == Some(id)).collect::<Vec<_>>();
    assert_eq!(below(root.span_id).len(), 2, "{spans:#?}");
    let curl = spans.iter().find(|s| s.name == "curl").unwrap();
    assert_eq!((curl.parent_span_id, text(curl, "ktrdr.link.method")), (Some(root.span_id), "process"));
    assert_eq!(below(curl.span_id).len(), 1);
    assert!(spans.iter().all(|s| s.trace_id == root.trace_id));
    // Without any call.
    h.exec(CLI, SHELL, "ktrdr-cli", "ktrdr --help", true);
    h.exit(CLI, 0);
    assert_eq!(command(&h.spans()).status, Status::Unset);
}

#[test]
fn a_refused_connect_is_told_after_the_end_and_still_the_commands() {
    let mut h = host();
    h.exec(CLI, SHELL, "curl", "curl http://[::1]:7000/", false);
    h.fail(CLI, "[::1]:7000", 111);
    h.exit(CLI, 7 << 8);
    let spans = h.spans();
    let root = command(&spans);
    assert_eq!(root.attributes.get("process.exit.code"), Some(&Value::Int(7)));
    assert_eq!(of(&spans, "curl", SpanKind::Client).parent_span_id, Some(root.span_id));
}

#[test]
fn a_command_run_for_a_request_stands_below_it() {
    let mut h = host();
    // Of a Python process it is known that its threads serve one request at a time.
    h.shell(ShellEvent::Python(PythonStatus { tgid: API, exact: true, ..PythonStatus::default() }));
    let mut p = h.connect(500, API, "127.0.0.1:8000");
    request(&mut h, &mut p);
    h.fork(API, CLI);
    h.exec(CLI, API, "ktrdr-cli", "ktrdr data load", true);
    call(&mut h, CLI, IB, "127.0.0.1:5001");
    h.exit(CLI, 0);
    response(&mut h, &mut p);
    let spans = h.spans();
    let (root, api) = (command(&spans), of(&spans, "ktrdr-api", SpanKind::Server));
    assert_eq!((root.parent_span_id, text(root, "ktrdr.link.method")), (Some(api.span_id), "clone"));
    assert_eq!(of(&spans, "ktrdr-cli", SpanKind::Client).parent_span_id, Some(root.span_id));
}

#[test]
fn a_command_that_is_cut_off_shows_what_is_known() {
    // Killed with a call open: the socket closes a moment after the process.
    let mut h = host();
    h.exec(CLI, SHELL, "curl", "curl http://x/", false);
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    request(&mut h, &mut p);
    h.exit(CLI, 9);
    h.pass(700);
    h.close(&p, 0);
    let spans = h.spans();
    assert_eq!(of(&spans, "curl", SpanKind::Client).parent_span_id, Some(command(&spans).span_id));
    // The agent stops before it has ended.
    h.exec(CLI, SHELL, "ktrdr-cli", "ktrdr data load", true);
    h.exec(400, SHELL, "curl", "curl http://x/", false);
    call(&mut h, CLI, API, "127.0.0.1:8000");
    call(&mut h, 400, API, "127.0.0.1:8000");
    h.shell(ShellEvent::End);
    let spans = h.spans();
    assert_eq!(text(command(&spans), "ktrdr.incomplete"), "agent_stopped");
    assert_eq!(spans.len(), 5);
    assert_eq!(of(&spans, "curl", SpanKind::Client).parent_span_id, None, "it may have gone on");
}

#[test]
fn narrowed_ports_and_the_switch_are_heeded() {
    let mut h = Host::with(CoreConfig { ports: vec![8000], ..CoreConfig::default() });
    h.listen(API, "127.0.0.1:8000");
    h.exec(CLI, SHELL, "ktrdr-cli", "ktrdr data load", true);
    call(&mut h, CLI, IB, "127.0.0.1:5001");
    h.exit(CLI, 0);
    assert_eq!(h.spans(), vec![]);
    let mut h = Host::with(CoreConfig { commands: false, ..CoreConfig::default() });
    h.exec(CLI, SHELL, "ktrdr-cli", "ktrdr data load", true);
    call(&mut h, CLI, API, "127.0.0.1:8000");
    h.exit(CLI, 0);
    assert_eq!(h.spans().len(), 2);
}

#[test]
fn a_replay_gives_the_same() {
    let mut h = host();
    for pid in 600..650 {
        h.exec(pid, SHELL, "curl", "curl http://x/", pid % 3 == 0);
        call(&mut h, pid, API, "127.0.0.1:8000");
        h.exit(pid, 0);
    }
    let first = h.spans();
    let mut core = Core::new(CoreConfig {
        port_names: vec![(5001, "ktrdr-ib-host-service".into())],
        ..CoreConfig::default()
    });
    let mut again = Vec::new();
    for record in &h.records {
        core.feed(record);
        while let Some(o) = core.next_output() {
            if let super::Output::Span(s) = o {
                again.push(*s);
            }
        }
    }
    assert_eq!(first, again);
    assert_eq!(first.len(), 150);
}
