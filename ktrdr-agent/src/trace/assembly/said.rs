//! What log records say of a span: exceptions and errors become its events, and an exception its status.

use std::sync::Arc;

use super::{Assembler, Placing};
use crate::event::{MS, Ns};
use crate::trace::causality::{Causality, SpanRef};
use crate::trace::logs::stack::Exception;
use crate::trace::model::{Attributes, Span, SpanEvent, SpanId, Status, TraceId};

/// Events per span: a request that fails in a loop says the same thing again and again.
const MAX_EVENTS: usize = 16;
/// Servers log why they answered 500 after they did (uvicorn, once its application has raised).
const LATE_NS: Ns = 50 * MS;
/// `exception.stacktrace` on a span at most; the log record has all of it.
const MAX_STACK: usize = 16 * 1024;

/// Events that wait for their span's end.
#[derive(Debug, Default)]
pub struct Said {
    events: Vec<SpanEvent>,
    error: Option<(String, String)>,
}

/// Attributes of an exception (semantic conventions, "Exceptions on spans").
pub fn exception_attributes(e: &Exception) -> Attributes {
    let mut attributes = Attributes::with_capacity(3);
    attributes.push("exception.type", e.kind.clone());
    attributes.push("exception.message", e.message.clone());
    let mut end = e.stack.len().min(MAX_STACK);
    while !e.stack.is_char_boundary(end) {
        end -= 1;
    }
    attributes.push("exception.stacktrace", e.stack[..end].to_owned());
    attributes
}

impl Said {
    fn add(&mut self, event: SpanEvent) {
        let key = |e: &SpanEvent, k: &str| e.attributes.get(k).cloned();
        let same = |e: &SpanEvent| {
            e.name == event.name
                && ["exception.type", "exception.message", "log.message"]
                    .iter()
                    .all(|k| key(e, k) == key(&event, k))
        };
        if self.events.len() < MAX_EVENTS && !self.events.iter().any(same) {
            self.events.push(event);
        }
    }

    /// Puts it on the finished span.
    pub fn tell(self, span: &mut Span) {
        span.events.extend(self.events);
        span.events.sort_by_key(|e| e.ts);
        let Some((kind, text)) = self.error else { return };
        match &mut span.status {
            // The answer's status code says that it failed, the exception why.
            Status::Error(message) if message.is_empty() => *message = text,
            Status::Error(_) => {}
            Status::Unset => {
                span.attributes.set("error.type", kind);
                span.status = Status::Error(text);
            }
        }
    }
}

impl Assembler {
    /// Where a span is, as soon as that can be known: it need not have ended.
    pub fn locate(&mut self, span: SpanRef, now: Ns, causality: &mut Causality) -> Option<(TraceId, SpanId)> {
        match self.place(span, now, causality, 0) {
            Placing::At(place) => Some((place.trace_id, self.nodes.get(span)?.span_id)),
            Placing::In(trace_id) => Some((trace_id, self.nodes.get(span)?.span_id)),
            Placing::Wait => None,
        }
    }

    /// Whether a span that has no place yet may still get one.
    pub fn remembers(&self, span: SpanRef) -> bool {
        self.nodes.get(span).is_some()
    }

    /// The operation a span belongs to, as far as it is known by now.
    pub fn operation_at(&self, span: SpanRef) -> Option<Arc<str>> {
        self.operation_of(span)
    }

    /// The task that makes this call named an operation before.
    pub fn hint(&mut self, span: SpanRef, operation: Arc<str>) {
        if let Some(node) = self.nodes.get_mut(span) {
            node.hint = Some(operation);
        }
    }

    /// Something that happened in a span. Nothing, if the span has left already.
    pub fn happened(&mut self, span: SpanRef, event: SpanEvent, exception: Option<&Exception>) {
        let Some(node) = self.nodes.get_mut(span) else { return };
        if node.end.is_some() && node.finished.is_none() {
            return;
        }
        let late = node.end.map_or(0, |end| event.ts.saturating_sub(end));
        if late > LATE_NS {
            return;
        }
        // Work after the response says nothing of the request, unless the response itself tells of a failure.
        let failed = node.finished.as_ref().is_some_and(|s| s.status != Status::Unset);
        let exception = exception.filter(|_| late == 0 || failed);
        let said = node.said.get_or_insert_default();
        said.add(event);
        if let Some(e) = exception {
            said.error.get_or_insert_with(|| (e.kind.clone(), e.summary()));
        }
    }
}
