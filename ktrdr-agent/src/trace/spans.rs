//! Builds spans (all but their place in a trace) from finished exchanges and failed connects.

use std::net::SocketAddr;

use super::connects::{self, Failed, Failure};
use super::departed::Departed;
use super::ids::ExchangeId;
use super::listeners::{self, Evidence, Listeners};
use super::model::{Attributes, BoxedSpan, Span, SpanEvent, SpanId, SpanKind, Status, TraceId};
use super::processes::Processes;
use super::refusal::Refusal;
use crate::engine::conn::{Conn, Connected};
use crate::engine::pairing::Exchange;
use crate::event::{Ns, Task, Tuple};
use crate::protocol::Role;

/// What the builders may look at.
pub struct Facts<'a> {
    /// Processes.
    pub processes: &'a mut Processes,
    /// Listeners.
    pub listeners: &'a Listeners,
    /// Names of services by port, for peers nobody is seen to be.
    pub port_names: &'a [(u16, String)],
    /// Wall clock minus boot clock.
    pub wall_offset_ns: i64,
}

impl Facts<'_> {
    /// The service at an address: who listens there, did last, or is known to use the port.
    pub fn peer(&self, netns: u32, addr: SocketAddr) -> Option<String> {
        let owner = self.listeners.last_owner_at(netns, addr);
        owner
            .and_then(|t| self.processes.service(t))
            .map(str::to_owned)
            .or_else(|| self.port_name(addr.port()))
    }

    /// The service configured for a port.
    fn port_name(&self, port: u16) -> Option<String> {
        self.port_names.iter().find(|(p, _)| *p == port).map(|(_, n)| n.clone())
    }

    fn draft(&mut self, tgid: u32, kind: SpanKind, name: String, start: Ns, end: Ns) -> BoxedSpan {
        Box::new(Span {
            trace_id: TraceId::default(),
            span_id: SpanId::default(),
            parent_span_id: None,
            kind,
            name,
            start,
            end: end.max(start),
            wall_offset_ns: self.wall_offset_ns,
            status: Status::Unset,
            attributes: Attributes::new(),
            events: Vec::new(),
            links: Vec::new(),
            resource: self.processes.resource_of(tgid),
        })
    }
}

/// What the connection adds to an exchange.
#[derive(Clone, Copy, Debug)]
pub struct OnConn {
    /// Addresses.
    pub tuple: Tuple,
    /// Which end.
    pub role: Role,
    /// When it was opened, if that was seen.
    pub opened: Option<Ns>,
    /// The connect, if this was the first call on it.
    pub connected: Option<Connected>,
    /// Transfers without a user buffer were seen.
    pub no_buffer: bool,
}

impl OnConn {
    /// What the connection `conn` adds to its next exchange.
    pub fn of(conn: &Conn) -> Option<Self> {
        let role = conn.role?;
        let (opened, connected) = (conn.opened, conn.connected);
        Some(Self { tuple: conn.tuple, role, opened, connected, no_buffer: conn.no_buffer })
    }

    /// The port of the service that is called.
    pub fn service_port(&self) -> u16 {
        match self.role {
            Role::Client => self.tuple.remote.port(),
            Role::Server => self.tuple.local.port(),
        }
    }
}

/// The span of an exchange.
pub fn exchange(x: Exchange, id: ExchangeId, on: &OnConn, facts: &mut Facts<'_>) -> BoxedSpan {
    let kind = match on.role {
        Role::Client => SpanKind::Client,
        Role::Server => SpanKind::Server,
    };
    let task = x.start.task;
    let request = *x.request;
    let mut s = facts.draft(task.tgid, kind, request.name, x.start.ts, x.end);
    s.attributes = request.attributes;
    let answered = x.response.is_some();
    if let Some(r) = x.response {
        s.attributes.extend(r.attributes);
        s.status = r.status;
    }
    s.events = x.events;
    // Keys that no protocol uses: nothing to search for.
    s.attributes.push("thread.id", task.tid);
    s.attributes.push("ktrdr.exchange.id", id);
    if on.role == Role::Client
        && let Some(peer) = facts.peer(on.tuple.netns, on.tuple.remote)
    {
        s.attributes.set("peer.service", peer);
    }
    if let Some(c) = on.connected {
        s.attributes.push("ktrdr.connect.duration_ms", ms(c.end.saturating_sub(c.start)));
        let mut a = Attributes::new();
        a.set("ktrdr.connect.duration_ms", ms(c.end.saturating_sub(c.start)));
        s.events.insert(0, SpanEvent { ts: c.end, name: "connected".into(), attributes: a });
    }
    if let Some(first) = x.response_start {
        s.attributes.push("ktrdr.response.first_byte_ms", ms(first.ts.saturating_sub(x.start.ts)));
    }
    if on.no_buffer {
        s.attributes.push("ktrdr.capture.no_buffer", true);
    }
    if let Some(why) = x.incomplete {
        s.attributes.push("ktrdr.incomplete", why);
        if !answered {
            no_response(&mut s, why, on, facts);
        } else if let Some(cut) = x.cut {
            half_a_response(&mut s, cut, on, facts);
        }
    }
    s
}

/// A call on a pipe.
#[derive(Debug)]
pub struct PipeCall {
    /// Name of the span.
    pub name: String,
    /// What the messages say.
    pub attributes: Attributes,
    /// Status.
    pub status: Status,
    /// Which end.
    pub role: Role,
    /// Who wrote, or read, the request.
    pub task: Task,
    /// When.
    pub start: Ns,
    /// When the answer was written.
    pub end: Ns,
    /// Its identity.
    pub exchange: ExchangeId,
    /// Name of the server, on the client's end.
    pub peer: Option<String>,
    /// Why there is no answer, if there is none.
    pub incomplete: Option<&'static str>,
}

/// The span of a call on a pipe.
pub fn on_pipe(c: PipeCall, facts: &mut Facts<'_>) -> BoxedSpan {
    let kind = match c.role {
        Role::Client => SpanKind::Client,
        Role::Server => SpanKind::Server,
    };
    let mut s = facts.draft(c.task.tgid, kind, c.name, c.start, c.end);
    s.attributes = c.attributes;
    s.status = c.status;
    s.attributes.set("network.transport", "pipe");
    s.attributes.set("thread.id", c.task.tid);
    s.attributes.set("ktrdr.exchange.id", c.exchange);
    if let Some(peer) = c.peer {
        s.attributes.set("peer.service", peer);
    }
    if let Some(why) = c.incomplete {
        s.attributes.set("ktrdr.incomplete", why);
    }
    s
}

/// Why a call is not whole that was in flight when its connection was left out.
pub const LEFT_OUT: &str = "left_out";

/// Whether a call is not whole (`ktrdr.incomplete`) for a reason that is the agent's: what became of it is not known.
pub fn unseen(why: &str) -> bool {
    // What cannot be read may well be understood by who it is for.
    const UNREAD: [&str; 4] = ["response_lost", "response_unreadable", "order_lost", "too_many_open"];
    matches!(why, "agent_stopped" | LEFT_OUT) || UNREAD.contains(&why)
}

/// A call that ended without an answer.
fn no_response(s: &mut Span, why: &'static str, on: &OnConn, facts: &Facts<'_>) {
    let after = listeners::ago(s.end.saturating_sub(s.start));
    let me = s.resource.service.clone();
    let (kind, text) = match (on.role, why) {
        (_, why) if unseen(why) => return,
        (Role::Client, why) => {
            let peer = facts.peer(on.tuple.netns, on.tuple.remote).unwrap_or_else(|| "the server".to_owned());
            let what = match why {
                "connection_reset" => "the connection was reset".to_owned(),
                "peer_closed" => format!("{peer} closed the connection"),
                "connection_timeout" => "the connection timed out".to_owned(),
                "cancelled" => format!("{me} gave up and cancelled the request"),
                _ => format!("{me} gave up and closed the connection"),
            };
            let kind = if matches!(why, "connection_closed" | "cancelled") { "timeout" } else { why };
            (kind, format!("{me} got no response from {peer} at {}: {what} after {after}", on.tuple.remote))
        }
        (Role::Server, "cancelled") => {
            ("timeout", format!("{me} did not answer {}, which gave up after {after}", on.tuple.remote))
        }
        (Role::Server, why) => {
            (why, format!("{me} did not answer {}: the connection ended after {after}", on.tuple.remote))
        }
    };
    s.attributes.set("error.type", kind);
    s.status = Status::Error(text);
}

/// A call whose answer broke off. Only its client knows that for a failure: what it left to its server's end may be
/// all that it wanted (an event stream), and a server is not told why its client went. A failure that the status tells
/// comes first, as semantic conventions have it.
fn half_a_response(s: &mut Span, why: &'static str, on: &OnConn, facts: &Facts<'_>) {
    let broken = matches!(why, "peer_closed" | "connection_reset" | "connection_timeout");
    if on.role != Role::Client || !broken || matches!(s.status, Status::Error(_)) {
        return;
    }
    let peer = facts.peer(on.tuple.netns, on.tuple.remote).unwrap_or_else(|| "the server".to_owned());
    let what = match why {
        "connection_reset" => "the connection was reset".to_owned(),
        "connection_timeout" => "the connection timed out".to_owned(),
        _ => format!("{peer} closed the connection"),
    };
    let me = &s.resource.service;
    let after = listeners::ago(s.end.saturating_sub(s.start));
    let text = format!(
        "{me} got a part of the response only from {peer} at {}: {what} after {after}",
        on.tuple.remote
    );
    s.attributes.set("error.type", why);
    s.status = Status::Error(text);
}

/// The span of a failed connect.
pub fn failed_connect(f: &Failed, facts: &mut Facts<'_>) -> BoxedSpan {
    let c = &f.connect;
    let (kind, words) = connects::describe(f.failure);
    let found = facts.listeners.evidence(c.netns, c.remote, c.start);
    let peer = facts.peer(c.netns, c.remote);
    let shown = peer.clone().unwrap_or_else(|| c.remote.to_string());
    let mut s = facts.draft(c.task.tgid, SpanKind::Client, format!("connect {shown}"), c.start, f.end);
    let me = s.resource.service.clone();
    let target = match &peer {
        Some(name) => format!("{name} at {}", c.remote),
        None => c.remote.to_string(),
    };
    let mut text = format!("{me} could not connect to {target}: {words}");
    let (listeners, processes) = (facts.listeners, &*facts.processes);
    let refusal = Refusal { listeners, processes, asked: c.start, now: f.end };
    if f.failure == Failure::Errno(111) {
        text.push_str(", ");
        text.push_str(&refusal.explain(&found, c.remote));
    } else if kind == "connection_timeout" || kind == "host_unreachable" {
        let unreachable = kind == "host_unreachable";
        if !unreachable {
            text.push_str(&format!(" after {}", listeners::ago(f.end.saturating_sub(c.start))));
        }
        if let Some(although) = refusal.unanswered(&found, c.remote, unreachable) {
            text.push_str(", ");
            text.push_str(&although);
        }
    }
    if f.attempt > 1 {
        text.push_str(&format!(" (attempt {})", f.attempt));
    }
    let a = &mut s.attributes;
    a.set("error.type", kind);
    a.set("server.address", c.remote.ip().to_string());
    a.set("server.port", c.remote.port());
    a.set("network.peer.address", c.remote.ip().to_string());
    a.set("network.peer.port", c.remote.port());
    a.set("network.transport", "tcp");
    a.set("network.type", if c.remote.is_ipv4() { "ipv4" } else { "ipv6" });
    if let Some(peer) = peer {
        a.set("peer.service", peer);
    }
    a.set("thread.id", c.task.tid);
    if let Failure::Errno(e) = f.failure {
        a.set("ktrdr.connect.errno", e);
    }
    a.set("ktrdr.connect.attempt", f.attempt);
    evidence_attributes(a, &found.evidence, facts.processes);
    if let Some(place) = facts.listeners.listeners_place(&found) {
        a.set("ktrdr.listener.place", place);
    }
    for (ts, remote, failure) in &f.earlier {
        let mut e = Attributes::new();
        e.set("network.peer.address", remote.ip().to_string());
        e.set("network.peer.port", remote.port());
        e.set("error.type", connects::describe(*failure).0);
        s.start = s.start.min(*ts);
        s.events.push(SpanEvent { ts: *ts, name: "connect.address_failed".into(), attributes: e });
    }
    s.status = Status::Error(text);
    s
}

/// The evidence in a form that programs read.
fn evidence_attributes(a: &mut Attributes, evidence: &Evidence, processes: &Processes) {
    let (word, last) = match evidence {
        Evidence::Nothing => ("nothing_listening", None),
        Evidence::Beside(_, l) => ("other_namespace_only", Some(l)),
        Evidence::Remote => ("remote_host", None),
        Evidence::Several => ("several_namespaces", None),
        Evidence::Unknown => ("unknown", None),
        Evidence::Listening(l) => ("listening", Some(l)),
        Evidence::NotYet(l) => ("not_yet_listening", Some(l)),
        Evidence::OtherAddress(list) => ("other_address_only", list.first()),
        Evidence::Gone(l) | Evidence::Departed(Departed { listener: l, .. }, _) => ("listener_gone", Some(l)),
    };
    a.set("ktrdr.listener.state", word);
    let Some(l) = last else { return };
    if l.tgid != 0 {
        a.set("ktrdr.listener.pid", l.tgid);
    }
    a.set("ktrdr.listener.address", l.addr.to_string());
    if let Some(p) = processes.get(l.tgid) {
        a.set("ktrdr.listener.command", p.command());
        if let Some(end) = p.end {
            a.set("ktrdr.listener.exit", end.to_string());
            if !p.last_lines.is_empty() {
                a.set("ktrdr.listener.last_lines", p.last_lines.clone());
            }
        }
    }
}

/// Nanoseconds as milliseconds.
fn ms(ns: Ns) -> f64 {
    // Exact to a nanosecond for 104 days.
    #[allow(clippy::cast_precision_loss)]
    let ms = ns as f64 / 1e6;
    ms
}
