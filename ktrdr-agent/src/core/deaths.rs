//! What the end of a process cut off: the calls it made, those it served, and their callers' calls.

use super::Core;
use crate::event::Ns;
use crate::protocol::Role;
use crate::trace::causality::SpanRef;
use crate::trace::deaths::Restarts;
use crate::trace::listeners::ago;
use crate::trace::model::{Attributes, Span, SpanEvent, Status, Value};
use crate::trace::processes::{End, Process};
use crate::trace::spans::OnConn;

/// Reasons for which a call remains incomplete that the end of a process may stand behind.
const BROKEN: [&str; 5] =
    ["connection_closed", "connection_reset", "connection_timeout", "peer_closed", "cancelled"];

impl Core {
    /// A process ended that may have been a service's.
    pub(super) fn service_ended(&mut self, tgid: u32, ts: Ns) {
        if let Some(p) = self.processes.get(tgid) {
            self.deaths.ended(tgid, p.meta.ppid, &p.meta.service, ts);
        }
    }

    /// Says of a call that remained without an answer, or without the end of one, whose end cut it off.
    pub(super) fn tell_ends(&mut self, call: SpanRef, span: &mut Span, on: &OnConn, tgid: u32) {
        let broken = |key: &str| {
            let why = span.attributes.get(key).and_then(|v| v.as_str());
            why.is_some_and(|why| BROKEN.contains(&why))
        };
        if !broken("ktrdr.incomplete") && !broken("error.type") {
            return;
        }
        let during = span.start..=span.end;
        let within = |p: &Process| p.end.filter(|end| during.contains(&end.ts));
        if let Some(p) = self.processes.get(tgid)
            && let Some(end) = within(p)
        {
            own(span, on, p, end);
            return;
        }
        if on.role == Role::Server {
            return;
        }
        let peer = self.assembler.other_process(call);
        let peer = peer.or_else(|| self.listeners.last_owner_at(on.tuple.netns, on.tuple.remote));
        let peer = peer.and_then(|tgid| self.processes.get(tgid)).filter(|p| !p.meta.excluded);
        let Some((p, end)) = peer.and_then(|p| Some((p, within(p)?))) else { return };
        let before = span.end.saturating_sub(end.ts);
        let command = p.command();
        span.attributes.set("ktrdr.peer.pid", p.meta.tgid);
        span.attributes.set("ktrdr.peer.exit", end.to_string());
        if let Status::Error(text) = &mut span.status {
            let when = if before < 1_000_000 { "right".to_owned() } else { ago(before) };
            text.push_str(&format!("; pid {} `{command}` {end} {when} before", p.meta.tgid));
        }
        span.attributes.set("ktrdr.peer.command", command);
        happened(span, p, end);
        self.tell_restarts(span);
    }

    /// Says of a 404 to who asked for an operation that another process of that service knew it, and what became of that one:
    /// an operation that is kept in memory is lost with it.
    pub(super) fn tell_unknown(&self, call: SpanRef, (role, tgid): (Role, u32), id: &str, span: &mut Span) {
        let text = |key: &str| span.attributes.get(key).and_then(|v| v.as_str());
        let path = text("url.path").or_else(|| text("url.full")).unwrap_or_default();
        // What else is asked of it (its metrics, say) may be missing by itself.
        let itself =
            path.split(['?', '#']).next().is_some_and(|path| path.trim_end_matches('/').ends_with(id));
        if span.attributes.get("http.response.status_code") != Some(&Value::Int(404)) || !itself {
            return;
        }
        let serving = if role == Role::Server { Some(tgid) } else { self.assembler.other_process(call) };
        let Some((pid, service)) = serving.and_then(|pid| Some((pid, self.processes.service(pid)?))) else {
            return;
        };
        let known = self.operations.known_to(id, service).filter(|(knew, _)| *knew != pid);
        let Some((knew, at)) = known else { return };
        // Another process may have its number by now.
        let Some(p) = self.processes.get(knew).filter(|p| p.meta.start_ns <= at) else { return };
        let command = p.command();
        let said = match p.end.filter(|end| end.ts <= span.start) {
            Some(end) => {
                let before = ago(span.start - end.ts);
                span.attributes.set("ktrdr.operation.known_to.exit", end.to_string());
                format!(
                    "the operation was lost with pid {knew} `{command}`, which knew it and {end} {before} before; pid \
                     {pid} has taken its place"
                )
            }
            None => {
                format!("pid {knew} `{command}` of {service} knew the operation, and pid {pid} was asked")
            }
        };
        span.attributes.set("ktrdr.operation.known_to.pid", knew);
        if let Status::Error(text) = &mut span.status
            && text.is_empty()
        {
            *text = said;
        }
    }

    /// Says of a failed call that its callee ends again and again.
    pub(super) fn tell_restarts(&self, span: &mut Span) {
        let Some(peer) = span.attributes.get("peer.service").and_then(|v| v.as_str()) else { return };
        let Some(Restarts { times, within }) = self.deaths.of(peer, span.end) else { return };
        let words = format!("{peer} has ended {times} times within {}", ago(within));
        if let Status::Error(text) = &mut span.status {
            // The number of the attempt stands last.
            let at = text.rfind(" (attempt ").unwrap_or(text.len());
            text.insert_str(at, &format!("; {words}"));
        }
        span.attributes.set("ktrdr.peer.restarts", times as u64);
    }
}

/// The process of the span itself ended in the middle of it.
fn own(span: &mut Span, on: &OnConn, p: &Process, end: End) {
    happened(span, p, end);
    // An answer that had begun is what it was.
    if let Status::Error(text) = &mut span.status
        && span.attributes.get("http.response.status_code").is_none()
    {
        let after = ago(end.ts.saturating_sub(span.start));
        let (me, pid) = (&p.meta.service, p.meta.tgid);
        let peer = span.attributes.get("peer.service").and_then(|v| v.as_str()).unwrap_or("the server");
        *text = match on.role {
            Role::Client => {
                format!("{me} (pid {pid}) {end} before {peer} at {} answered, after {after}", on.tuple.remote)
            }
            Role::Server => {
                format!("{me} (pid {pid}) {end} before it answered {}, after {after}", on.tuple.remote)
            }
        };
        span.attributes.set("error.type", "process_ended");
        // Its sockets were closed later, some of them much later.
        span.end = end.ts;
    }
}

fn happened(span: &mut Span, p: &Process, end: End) {
    let mut a = Attributes::with_capacity(6);
    a.push("service.name", p.meta.service.clone());
    a.push("process.pid", p.meta.tgid);
    end.tell(&mut a);
    if !p.last_lines.is_empty() {
        a.push("ktrdr.process.last_lines", p.last_lines.clone());
    }
    span.events.push(SpanEvent { ts: end.ts, name: "process.ended".into(), attributes: a });
}
