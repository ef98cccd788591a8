//! Connections older than the agent: what of them says that no request is under way that nobody saw come.

use super::scenario::{Host, Pipe};
use crate::event::shell::{Accepted, PythonStatus, ShellEvent};
use crate::trace::model::{Span, SpanKind};

const WEB: u32 = 10;
const DB: u32 = 20;
const ASK: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
/// Of something that was there before, and answers a request: a task that nobody saw being made, or a worker.
const SOMEBODY: u64 = 0x100;

/// A service that had accepted a connection when the agent came. It calls for somebody; a request is answered under the same
/// context, and nothing else that was seen is under way.
fn attached() -> (Host, Pipe) {
    let mut h = Host::new();
    for (pid, service, port) in [(WEB, "web", 8000), (DB, "db", 9000)] {
        h.process(pid, service);
        h.listen(pid, &format!("127.0.0.1:{port}"));
    }
    let old = h.older(30, WEB, "127.0.0.1:8000");
    let local = "127.0.0.1:8000".parse().unwrap();
    let peers = vec![format!("127.0.0.1:{}", old.client_port()).parse().unwrap()];
    h.shell(ShellEvent::Accepted(Accepted { tgid: WEB, netns: 1, local, peers, more: false }));
    h.shell(ShellEvent::Python(PythonStatus { tgid: WEB, exact: true, ..PythonStatus::default() }));
    let mut asked = h.connect(31, WEB, "127.0.0.1:8000");
    let mut call = h.connect(WEB, DB, "127.0.0.1:9000");
    h.request(&mut asked, ASK);
    call.called_by(WEB, SOMEBODY);
    h.request(&mut call, b"GET /b HTTP/1.1\r\nHost: y\r\n\r\n");
    h.response(&mut call, OK);
    asked.served_under(SOMEBODY);
    h.response(&mut asked, OK);
    (h, old)
}

fn of_web(spans: &[Span], kind: SpanKind) -> Option<&Span> {
    spans.iter().find(|s| s.resource.service == "web" && s.kind == kind)
}

#[test]
fn a_call_waits_until_the_old_connection_has_shown_itself() {
    type Shown = fn(&mut Host, &mut Pipe);
    let shown: [(&str, Shown, bool); 5] = [
        ("nothing", |_, _| {}, false),
        ("its response, by another task", |h, old| respond(h, old, 0x900), true),
        ("another request", |h, old| h.request(old, ASK), true),
        ("its end", |h, old| h.close(old, 0), true),
        ("it was opened since", |h, old| _ = h.connect_again(old, 30), true),
    ];
    for (what, show, over) in shown {
        let (mut h, mut old) = attached();
        assert!(of_web(&h.spans(), SpanKind::Client).is_none(), "{what}");
        show(&mut h, &mut old);
        let mut spans = h.spans();
        assert_eq!(of_web(&spans, SpanKind::Client).is_some(), over, "{what}");
        h.shell(ShellEvent::End);
        spans.extend(h.spans());
        let call = of_web(&spans, SpanKind::Client).unwrap();
        assert_eq!(call.parent_span_id.is_some(), over, "{what}: {:?}", call.attributes);
        let missing = call.attributes.get("ktrdr.link.missing").and_then(|v| v.as_str());
        assert_eq!(missing, (!over).then_some("request-unseen"), "{what}");
    }
}

fn respond(h: &mut Host, old: &mut Pipe, context: u64) {
    old.served_under(context);
    h.response(old, OK);
}

#[test]
fn a_worker_that_answers_there_was_not_the_other_requests_own() {
    let (mut h, mut old) = attached();
    respond(&mut h, &mut old, SOMEBODY);
    let spans = h.spans();
    let call = of_web(&spans, SpanKind::Client).unwrap();
    assert_eq!(call.parent_span_id, None, "{:?}", call.attributes);
}

#[test]
fn idle_connections_are_not_waited_for_for_ever() {
    let (mut h, _) = attached();
    h.pass(31_000);
    let spans = h.spans();
    assert!(of_web(&spans, SpanKind::Client).is_some_and(|call| call.parent_span_id.is_some()));
}
