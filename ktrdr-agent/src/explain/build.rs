//! Hand-made traces for tests.

use std::sync::Arc;

use super::Case;
use crate::trace::model::{Attributes, Link, Resource, Span, SpanId, SpanKind, Status, TraceId, Value};

/// 2026-01-02T03:04:05Z, so that snapshots do not change.
pub const EPOCH_NS: i64 = 1_767_323_045_000_000_000;
const MS: u64 = 1_000_000;

/// Makes spans; ids are numbers in order of making, from 1.
#[derive(Default)]
pub struct Build {
    pub spans: Vec<Span>,
    trace: u64,
}

/// A span's number.
pub type Id = u64;

pub fn trace_id(n: u64) -> TraceId {
    let mut bytes = [0u8; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    TraceId(bytes)
}

pub fn span_id(n: u64) -> SpanId {
    SpanId(n.to_be_bytes())
}

impl Build {
    /// The spans to come belong to another trace.
    pub fn next_trace(&mut self) -> &mut Self {
        self.trace += 1;
        self
    }

    pub fn span(&mut self, parent: Id, kind: SpanKind, service: &str, name: &str, ms: (u64, u64)) -> Id {
        let id = self.spans.len() as u64 + 1;
        let mut attributes = Attributes::new();
        attributes.set("service.name", service.to_owned());
        self.spans.push(Span {
            trace_id: trace_id(self.trace + 1),
            span_id: span_id(id),
            parent_span_id: (parent != 0).then(|| span_id(parent)),
            kind,
            name: name.to_owned(),
            start: ms.0 * MS,
            end: ms.1 * MS,
            wall_offset_ns: EPOCH_NS,
            status: Status::Unset,
            attributes: Attributes::new(),
            events: Vec::new(),
            links: Vec::new(),
            resource: Arc::new(Resource { service: service.to_owned(), attributes }),
        });
        id
    }

    pub fn get(&mut self, id: Id) -> &mut Span {
        &mut self.spans[id as usize - 1]
    }

    pub fn set(&mut self, id: Id, key: &'static str, value: impl Into<Value>) -> &mut Self {
        self.get(id).attributes.set(key, value);
        self
    }

    pub fn fail(&mut self, id: Id, error: &str, message: &str) -> &mut Self {
        self.set(id, "error.type", error.to_owned());
        self.get(id).status = Status::Error(message.to_owned());
        self
    }

    /// The client's end of an HTTP call; `code` 0 = no answer.
    pub fn client(
        &mut self,
        parent: Id,
        from: &str,
        to: (&str, u16),
        name: &str,
        ms: (u64, u64),
        code: i64,
    ) -> Id {
        let id = self.span(parent, SpanKind::Client, from, name, ms);
        let (method, path) = name.split_once(' ').unwrap_or(("GET", name));
        self.set(id, "http.request.method", method.to_owned());
        self.set(id, "url.full", format!("http://127.0.0.1:{}{path}", to.1));
        self.set(id, "server.address", "127.0.0.1").set(id, "server.port", to.1);
        self.set(id, "peer.service", to.0.to_owned());
        self.answer(id, code, 400);
        id
    }

    /// The server's end of an HTTP call.
    pub fn server(&mut self, parent: Id, service: &str, name: &str, ms: (u64, u64), code: i64) -> Id {
        let id = self.span(parent, SpanKind::Server, service, name, ms);
        let (method, path) = name.split_once(' ').unwrap_or(("GET", name));
        self.set(id, "http.request.method", method.to_owned()).set(id, "url.path", path.to_owned());
        self.set(id, "ktrdr.link.method", "connection").set(id, "ktrdr.link.certainty", "exact");
        self.answer(id, code, 500);
        id
    }

    fn answer(&mut self, id: Id, code: i64, failed_from: i64) {
        if code > 0 {
            self.set(id, "http.response.status_code", code);
        }
        if code >= failed_from {
            self.set(id, "error.type", code.to_string());
            self.get(id).status = Status::Error(String::new());
        }
    }

    /// Both ends of a call; returns the server's.
    pub fn call(
        &mut self,
        parent: Id,
        from: &str,
        to: (&str, u16),
        name: &str,
        ms: (u64, u64),
        code: i64,
    ) -> Id {
        let client = self.client(parent, from, to, name, ms, code);
        self.server(client, to.0, name, (ms.0 + 1, ms.1.saturating_sub(1).max(ms.0 + 1)), code)
    }

    /// A connect that was refused.
    pub fn refused(&mut self, parent: Id, from: &str, to: (&str, u16), at: u64, attempt: i64) -> Id {
        let id = self.span(parent, SpanKind::Client, from, &format!("connect {}", to.0), (at, at));
        let text = format!(
            "{from} could not connect to {} at 127.0.0.1:{}: connection refused, nothing is listening on port {} \
             (pid 4711 `python main.py` listened until 12 s ago and exited with status 1){}",
            to.0,
            to.1,
            to.1,
            if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() }
        );
        self.fail(id, "connection_refused", &text);
        self.set(id, "server.address", "127.0.0.1").set(id, "server.port", to.1);
        self.set(id, "network.peer.address", "127.0.0.1").set(id, "peer.service", to.0.to_owned());
        self.set(id, "ktrdr.connect.attempt", attempt).set(id, "ktrdr.listener.state", "listener_gone");
        self.set(id, "ktrdr.listener.pid", 4711_i64).set(id, "ktrdr.listener.command", "python main.py");
        id
    }

    /// A call that got no answer: `timeout`, `connection_reset`, `peer_closed`.
    pub fn unanswered(
        &mut self,
        parent: Id,
        from: &str,
        to: (&str, u16),
        name: &str,
        ms: (u64, u64),
        why: &str,
    ) -> Id {
        let id = self.client(parent, from, to, name, ms, 0);
        let text = format!("{from} got no response from {} at 127.0.0.1:{}: {why}", to.0, to.1);
        self.fail(id, why, &text);
        id
    }

    /// The span is work done after `of` had answered.
    pub fn after(&mut self, id: Id, of: Id) -> &mut Self {
        let mut attributes = Attributes::new();
        attributes.set("ktrdr.link.kind", "work_after_response");
        let trace_id = self.get(of).trace_id;
        let span = self.get(id);
        span.parent_span_id = None;
        span.links.push(Link { trace_id, span_id: span_id(of), attributes });
        self
    }

    /// A command; `code` is what it exited with, -9 a signal that killed it.
    pub fn command(&mut self, service: &str, name: &str, ms: (u64, u64), code: i64) -> Id {
        let id = self.span(0, SpanKind::Internal, service, name, ms);
        self.of_process(id, 4242);
        self.set(id, "process.command_args", vec![name.to_owned()]);
        match code {
            0 => self.set(id, "process.exit.code", 0_i64),
            1.. => self.set(id, "process.exit.code", code).fail(
                id,
                "exit_status",
                &format!("exited with status {code}"),
            ),
            _ => self.set(id, "ktrdr.process.signal", "SIGKILL").fail(id, "SIGKILL", "was killed by SIGKILL"),
        };
        id
    }

    /// The span is a process's.
    pub fn of_process(&mut self, id: Id, pid: i64) -> &mut Self {
        Arc::make_mut(&mut self.get(id).resource).attributes.set("process.pid", pid);
        self
    }

    /// The call ended because its own process did.
    pub fn ended(&mut self, id: Id, pid: i64) -> &mut Self {
        let service = self.get(id).resource.service.clone();
        let text = format!("{service} (pid {pid}) was killed by SIGKILL before it answered");
        self.of_process(id, pid).fail(id, "process_ended", &text)
    }

    /// An operation's own span.
    pub fn operation(&mut self, parent: Id, id: &str, status: &str, ms: (u64, u64)) -> Id {
        let kind = super::knowledge::operation_type(id).unwrap_or("training").to_owned();
        let span = self.span(parent, SpanKind::Internal, "ktrdr-api", &format!("operation {kind}"), ms);
        self.set(span, "operation.id", id.to_owned()).set(span, "operation.type", kind);
        self.set(span, "operation.status", status.to_owned());
        if status == "failed" {
            self.set(span, "operation.error", "All connection attempts failed");
            self.fail(span, "operation_failed", "All connection attempts failed");
        }
        span
    }

    pub fn case(&self) -> Case {
        Case { query: "test".to_owned(), spans: self.arcs(), ..Case::default() }
    }

    pub fn arcs(&self) -> Vec<Arc<Span>> {
        self.spans.iter().cloned().map(Arc::new).collect()
    }
}
