//! JSON-RPC in the bodies of an HTTP call: MCP's streamable HTTP, and what others do.

use xxhash_rust::xxh3::xxh3_64;

use super::describe::{answered, asked, is_mcp};
use super::message::{Body, Id, Message, event_data};
use crate::mask::Mask;
use crate::protocol::TraceContext;
use crate::trace::model::{Attributes, Span, SpanEvent, Status};

/// Messages of a batch that become events.
const MAX_EVENTS: usize = 32;

/// Whether a body may hold JSON-RPC: the first look, and for most bodies the last.
fn may_be(body: &[u8]) -> bool {
    let start = body.iter().find(|b| !b.is_ascii_whitespace());
    matches!(start, Some(b'{' | b'[')) && memchr::memmem::find(body, b"\"method\"").is_some()
}

/// A trace context that a request carries in its parameters.
pub fn context(request: &[u8]) -> Option<TraceContext> {
    if memchr::memmem::find(request, b"\"traceparent\"").is_none() || !may_be(request) {
        return None;
    }
    asked(Body::json(request).single()?, false, &Mask::default()).context
}

/// Of a body with a single request or notification: its method, hashed, and whether nothing is to answer it.
pub fn message(request: &[u8]) -> Option<(u64, bool)> {
    if !may_be(request) {
        return None;
    }
    let body = Body::json(request);
    let m = body.single().filter(|m| m.asks())?;
    Some((xxh3_64(m.method.as_deref()?.as_bytes()), m.id.is_none()))
}

/// Tells the span of an HTTP call what its bodies say, if they are JSON-RPC.
pub fn tell(span: &mut Span, request: &[u8], response: &[u8], mask: &Mask) {
    if !may_be(request) {
        return;
    }
    let calls = Body::json(request);
    if calls.messages.is_empty() {
        return;
    }
    let events = event_data(response);
    let mut answers = Body::json(response);
    answers.messages.extend(events.iter().flat_map(|e| Body::json(e).messages));
    let session = ["mcp.session.id", "mcp.protocol.version"];
    let mcp = session.iter().any(|key| span.attributes.get(key).is_some());
    match calls.single() {
        Some(m) => single(span, m, &answers, mcp, mask),
        None => batch(span, &calls, &answers, mcp, mask),
    }
}

fn single(span: &mut Span, m: &Message<'_>, answers: &Body<'_>, mcp: bool, mask: &Mask) {
    if !m.asks() {
        // A client's answer to what a server asked in another call.
        return;
    }
    let asked = asked(m, mcp, mask);
    if let Some(name) = asked.name {
        span.name = name;
    }
    span.attributes.extend(asked.attributes);
    if asked.mcp {
        span.attributes.set("network.transport", "tcp");
    }
    let Some(answer) = answers.answer_to(m.id).filter(|_| m.id.is_some()) else { return };
    let answered = answered(answer, mask);
    span.attributes.extend(answered.attributes);
    fail(span, answered.status);
}

/// A failure inside an HTTP answer; the HTTP status has said its part.
fn fail(span: &mut Span, status: Status) {
    let Status::Error(message) = status else { return };
    match &mut span.status {
        Status::Error(said) if !said.is_empty() => {}
        said => *said = Status::Error(message),
    }
}

/// Each message of a batch is an event; one that fails, fails the call.
fn batch(span: &mut Span, calls: &Body<'_>, answers: &Body<'_>, mcp: bool, mask: &Mask) {
    let mcp = mcp || calls.messages.iter().any(is_mcp);
    if mcp {
        span.attributes.set("network.transport", "tcp");
    } else {
        span.attributes.set("rpc.system.name", "jsonrpc");
    }
    span.attributes.set("ktrdr.jsonrpc.batch.size", calls.messages.len() as u64);
    let mut failed = None;
    for m in calls.messages.iter().filter(|m| m.asks()) {
        let mut a: Attributes = asked(m, mcp, mask).attributes;
        let own = |id: Id<'_>| answers.messages.iter().find(|r| r.answers() && r.id == Some(id));
        if let Some(answer) = m.id.and_then(own) {
            let answered = answered(answer, mask);
            if let Status::Error(message) = &answered.status {
                a.set("error.message", message.clone());
                failed
                    .get_or_insert((answered.attributes.get("error.type").cloned(), answered.status.clone()));
            }
            a.extend(answered.attributes);
        }
        if span.events.len() < MAX_EVENTS {
            span.events.push(SpanEvent { ts: span.start, name: "jsonrpc.message".into(), attributes: a });
        }
    }
    span.events.sort_by_key(|e| e.ts);
    if let Some((kind, status)) = failed {
        if let Some(kind) = kind.filter(|_| span.attributes.get("error.type").is_none()) {
            span.attributes.set("error.type", kind);
        }
        fail(span, status);
    }
}
