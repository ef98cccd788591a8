//! What is under way, for those who ask before it has ended: calls that wait for their answer, operations that run.

use super::Core;
use crate::engine::conn::Conn;
use crate::event::{Ns, Tuple};
use crate::protocol::Role;
use crate::trace::causality::SpanRef;
use crate::trace::ids;
use crate::trace::model::{Attributes, Span, SpanId, SpanKind, Status, TraceId};

/// A call open for less is no news, and what tells its place may still come.
const MIN_OPEN: Ns = 1_000_000_000;
/// Calls shown, the longest open first; of more, the picture is one of overload and not of single calls.
const MAX_OPEN: usize = 512;
/// Operations shown.
const MAX_RUNNING: usize = 256;

/// An open call, taken from the engine.
struct Waiting {
    span: SpanRef,
    role: Role,
    name: String,
    attributes: Attributes,
    start: Ns,
    tgid: u32,
    tuple: Tuple,
}

impl Waiting {
    fn of(conn: &Conn) -> Option<Self> {
        let x = conn.pairing.oldest()?;
        Some(Self {
            span: x.span,
            role: conn.role?,
            name: x.request.name.clone(),
            attributes: x.request.attributes.clone(),
            start: x.start.ts,
            tgid: x.start.task.tgid,
            tuple: conn.tuple,
        })
    }
}

impl Core {
    /// Spans of what is under way now, marked `ktrdr.open`; their end is now. Changes nothing that is said later, but
    /// for places in traces that are known already.
    pub fn under_way(&mut self) -> Vec<Span> {
        let now = self.now;
        let old_enough = |w: &Waiting| now.saturating_sub(w.start) >= MIN_OPEN;
        let mut waiting: Vec<Waiting> = self
            .engine
            .ids()
            .into_iter()
            .filter_map(|id| Waiting::of(self.engine.get(id)?))
            .filter(old_enough)
            .collect();
        waiting.sort_by_key(|w| (w.start, w.span));
        waiting.truncate(MAX_OPEN);
        let mut spans: Vec<Span> = waiting.into_iter().filter_map(|w| self.open_call(w)).collect();
        spans.extend(self.open_commands(MAX_OPEN));
        for (op, end) in self.operations.untold(MAX_RUNNING) {
            let mut span = op.span(end.unwrap_or(now), self.wall_offset_ns);
            (span.trace_id, span.span_id) = ids::operation(self.assembler.id_seed(), &op.id);
            if let Some((trace, parent)) = op.created_by.and_then(|(by, ..)| self.assembler.placed(by)) {
                span.trace_id = trace;
                span.parent_span_id = Some(parent);
            }
            if end.is_none() {
                span.attributes.set("ktrdr.open", true);
            }
            spans.push(span);
        }
        spans
    }

    fn open_call(&mut self, w: Waiting) -> Option<Span> {
        if self.processes.get(w.tgid).is_some_and(|p| p.meta.excluded) {
            return None;
        }
        let peer = super::facts!(self).peer(w.tuple.netns, w.tuple.remote);
        let mut span = Span {
            trace_id: TraceId::default(),
            span_id: SpanId::default(),
            parent_span_id: None,
            kind: if w.role == Role::Client { SpanKind::Client } else { SpanKind::Server },
            name: w.name,
            start: w.start,
            end: self.now,
            wall_offset_ns: self.wall_offset_ns,
            status: Status::Unset,
            attributes: w.attributes,
            events: Vec::new(),
            links: Vec::new(),
            resource: self.processes.resource_of(w.tgid),
        };
        if let (Role::Client, Some(peer)) = (w.role, peer) {
            span.attributes.set("peer.service", peer);
        }
        span.attributes.set("ktrdr.open", true);
        self.assembler.place_open(w.span, self.now, &mut self.causality, &mut span).then_some(span)
    }
}
