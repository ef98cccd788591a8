//! What log records say of a span: exceptions and errors become its events, and an exception its status.

use std::sync::Arc;

use super::{Assembler, Placing};
use crate::event::{MS, Ns};
use crate::trace::causality::{Causality, SpanRef};
use crate::trace::logs::stack::Exception;
use crate::trace::model::{Attributes, Span, SpanEvent, SpanId, Status, TraceId};

/// Events per span: a request that fails in a loop says the same thing again and again.
const MAX_EVENTS: usize = 16;
/// Servers log why they answered 500 after they did: uvicorn, once its application has raised, and then Python reads the source
/// of every frame. The first time, and on a busy machine, that takes more than 100 ms.
const LATE_NS: Ns = 200 * MS;
/// How long a request that failed waits for that: a record is complete 30 ms after its last write, as is seen 10 ms later.
pub(super) const FAILED_NS: Ns = LATE_NS + 40 * MS;
/// How long a span waits after its end for an exception or an error that was seen written in it, until it is known to be
/// its own. That takes long where the service's contexts prove nothing by themselves and other requests go on: as long as
/// for [commands](super::commands), for the same reasons.
pub const HOLD_NS: Ns = 2_000 * MS;
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
            node.rare.get_or_insert_default().hint = Some(operation);
        }
    }

    /// Spans of which something is still to be told, instead of those before.
    pub fn hold(&mut self, mut spans: Vec<SpanRef>) {
        spans.sort_unstable();
        spans.dedup();
        self.held = spans;
    }

    /// Whether a span that has ended waits for what is still to be told of it.
    pub(super) fn is_held(&self, span: SpanRef, now: Ns) -> bool {
        let Some(end) = self.nodes.get(span).and_then(|n| n.end) else { return false };
        self.held.binary_search(&span).is_ok() && now < end.saturating_add(HOLD_NS)
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
        let said = node.rare.get_or_insert_default().said.get_or_insert_default();
        said.add(event);
        if let Some(e) = exception {
            said.error.get_or_insert_with(|| (e.kind.clone(), e.summary()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::NewSpan;
    use super::*;
    use crate::export::fixture;
    use crate::protocol::Role;
    use crate::trace::ids::ExchangeId;
    use crate::trace::model::SpanKind;

    const END: Ns = 1_000 * MS;

    /// A request that was answered at [`END`] with this status; its exception is told `late` after that.
    fn told(status: Status, late: Ns) -> (Ns, Span) {
        let (mut assembler, mut causality) = (Assembler::new(), Causality::new());
        assembler.await_logs();
        let span = SpanRef(1);
        assembler.begin(NewSpan {
            span,
            role: Role::Server,
            exchange: ExchangeId(7),
            positions: None,
            start: END - MS,
            tgid: 1,
            call: None,
            context: None,
            relay: None,
            passing: None,
        });
        let mut out = Vec::new();
        let mut draft = fixture::span(1, 1, 0, &fixture::service("api"), SpanKind::Server, "GET /", (0, 1));
        (draft.start, draft.end, draft.status, draft.events) = (END - MS, END, status, Vec::new());
        assembler.finish(span, Box::new(draft), &mut out);
        let e = Exception { kind: "ValueError".into(), message: "no".into(), stack: String::new() };
        for now in (END..END + 500 * MS).step_by(MS as usize) {
            if now == END + late {
                let event =
                    SpanEvent { ts: now, name: "exception".into(), attributes: exception_attributes(&e) };
                assembler.happened(span, event, Some(&e));
            }
            assembler.advance(now, &mut causality, &mut out);
            if let Some(s) = out.pop() {
                return (now - END, *s);
            }
        }
        panic!("it never left");
    }

    /// uvicorn logs why it answered 500 after it did; on a busy machine some time after.
    #[test]
    fn a_failed_request_waits_for_the_reason() {
        let failed = || Status::Error(String::new());
        for late in [5 * MS, LATE_NS] {
            let (left, span) = told(failed(), late);
            assert_eq!((left, span.events.len()), (FAILED_NS, 1));
            assert_eq!(span.status, Status::Error("ValueError: no".to_owned()));
        }
        assert_eq!(told(failed(), LATE_NS + MS).1.events, [], "work after the answer, for all that is known");
        // Of one that went well it is told, but changes nothing.
        let (left, span) = told(Status::Unset, 5 * MS);
        assert!(left < FAILED_NS && span.events.len() == 1 && span.status == Status::Unset, "{left}");
    }
}
