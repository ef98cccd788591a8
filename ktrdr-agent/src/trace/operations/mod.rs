//! Operations: KTRDR's unit of work, recognised by their ids wherever these appear. Each becomes a span of its own
//! from its creation to the terminal status seen in any reply.

mod bodies;
pub mod body;
pub mod ids;
mod operation;
mod reading;
pub mod rules;
pub mod workers;

use std::sync::Arc;

use hashlink::LruCache;
use smallvec::SmallVec;

use super::causality::SpanRef;
use super::ids::ExchangeId;
use super::model::{Attributes, Span, SpanKind, Status, Value};
use crate::event::{MS, Ns};
use crate::protocol::Role;
use bodies::Bodies;
use body::{Fields, failure};
pub use operation::Operation;
use operation::terminal;
pub use reading::Reading;
use reading::Readings;
use rules::{Rules, is_header};
use workers::Workers;

/// Operations remembered, about 2 kB each; the one unseen for longest is finished as it is. KTRDR keeps a hundred.
const MAX_OPERATIONS: usize = 4096;
/// How long an operation that ended waits for what is still said of it, and for its creator's place in a trace.
const SETTLE_NS: Ns = 150 * MS;
/// How often operations are looked at for progress that stands still.
const WATCH_NS: Ns = 1000 * MS;
/// How long an operation that ended waits for a service that has not said so yet.
const WORD_NS: Ns = 5000 * MS;

/// A finished call as this module looks at it.
pub struct Call<'a> {
    /// Its span.
    pub span: SpanRef,
    /// Which end.
    pub role: Role,
    /// Its exchange.
    pub exchange: ExchangeId,
    /// The port of the service that is called.
    pub port: u16,
    /// Request body, as far as it was kept.
    pub request: &'a [u8],
    /// Response body, as far as it was kept.
    pub response: &'a [u8],
}

/// All operations under way.
pub struct Operations {
    open: LruCache<Arc<str>, Operation, foldhash::fast::FixedState>,
    rules: Rules,
    bodies: Bodies,
    readings: Readings,
    workers: Workers,
    ending: Vec<(Ns, Arc<str>)>,
    given_up_now: Vec<(Operation, Ns)>,
    next_watch: Ns,
    /// Operations given up because too many were under way.
    pub given_up: u64,
}

impl Operations {
    /// None known; `rules` tell failures inside successful replies.
    pub fn new(rules: Rules) -> Self {
        Self {
            open: LruCache::with_hasher(MAX_OPERATIONS, foldhash::fast::FixedState::default()),
            rules,
            bodies: Bodies::default(),
            readings: Readings::default(),
            workers: Workers::default(),
            ending: Vec::new(),
            given_up_now: Vec::new(),
            next_watch: 0,
            given_up: 0,
        }
    }

    /// Operations under way.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Operations that have not ended: type, last status, and when their progress last moved or they were created, unless that
    /// may not have been seen.
    pub fn under_way(&self) -> impl Iterator<Item = (&Operation, Option<Ns>)> {
        let open = self.open.iter().map(|(_, op)| op);
        open.filter(|op| op.ended.is_none()).map(|op| (op, op.moved()))
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What a body says, of which only a prefix may be at hand.
    pub fn fields(&mut self, body: &[u8]) -> Arc<Fields> {
        self.bodies.fields(body, &self.rules)
    }

    /// Looks at a finished call: tags its span, and learns what it says. Returns the operation it belongs to.
    pub fn observe(&mut self, call: &Call<'_>, span: &mut Span) -> Option<Arc<str>> {
        let request = self.fields(call.request);
        let response = self.fields(call.response);
        self.business_error(&response, span);
        let head = self.readings.of(&span.attributes, &self.rules);
        let id = self.id_of(&head, span, &request, &response);
        let worker = match head.of_worker {
            true => self.workers.observe(span, &request, &response, id.as_deref()),
            false => None,
        };
        let id = id?;
        let kind = response
            .below("", "operation_type")
            .map(|f| f.text.clone())
            .or_else(|| ids::kind(&id).map(str::to_owned));
        tag(span, &id, kind.as_deref());
        let poll = span.name.starts_with("GET ") && head.url.is_some();
        // Who is told the id in the request (a worker) did not create the operation.
        let created = !poll
            && span.name.starts_with("POST ")
            && response.ids().any(|(_, i)| *i == *id)
            && !request.ids().any(|(_, i)| *i == *id);
        let op = self.entry(&id, kind, span);
        op.last = span.end;
        op.dispatched(span, worker);
        if created {
            op.created(call, span, &request);
        }
        // A failed reply about an operation is no word on its status.
        let about = response.ids().find(|(_, i)| *i == &*id).map(|(object, _)| object.to_owned());
        if let Some(object) = about {
            let reporter = match call.role {
                Role::Server => Some(span.resource.service.clone()),
                Role::Client => {
                    span.attributes.get("peer.service").and_then(Value::as_str).map(str::to_owned)
                }
            };
            // Each reply is seen at both ends; the client's word is taken only where the server is not observed.
            if poll && (call.role == Role::Server || op.polls == 0) {
                op.polls += 1;
            }
            op.heard(&response, &object, reporter, (span.end, call.port));
            if call.role == Role::Server {
                op.known(&span.resource, span.end);
            }
        }
        if op.ended.is_none() && op.status.as_deref().is_some_and(terminal) {
            op.ended = Some(span.end);
            self.ending.push((span.end, id.clone()));
            self.workers.ended(&id);
        }
        Some(id)
    }

    /// What a request's head says.
    pub fn head(&mut self, a: &Attributes) -> Arc<Reading> {
        self.readings.of(a, &self.rules)
    }

    /// The id in what is known when a request was read, for calls made while it is served.
    pub fn early(&self, head: &Reading, request: &Fields) -> Option<Arc<str>> {
        let named = head.url.as_deref().or(head.header.as_deref());
        named.or_else(|| request.ids().next().map(|(_, id)| id)).map(Arc::from)
    }

    /// The call that created an operation, and the symbols it was to be about.
    pub fn created_by(&self, id: &str) -> Option<(SpanRef, &[Box<str>])> {
        let op = self.open.peek(id)?;
        op.created_by.map(|(by, ..)| (by, op.symbols.as_slice()))
    }

    /// The process of this service that answered about the operation last, and when.
    pub fn known_to(&self, id: &str, service: &str) -> Option<(u32, Ns)> {
        let op = self.open.peek(id)?;
        op.known_to.iter().find(|(known, ..)| known == service).map(|(_, pid, ts)| (*pid, *ts))
    }

    /// When an operation was said to have ended.
    pub fn ended(&self, id: &str) -> Option<Ns> {
        self.open.peek(id)?.ended
    }

    /// An exception was logged by whoever works on the operation. Said twice, it is one.
    pub fn threw(&mut self, id: &str, ts: Ns, attributes: Attributes) {
        let Some(op) = self.open.peek_mut(id).filter(|op| op.ended.is_none_or(|end| ts <= end)) else {
            return;
        };
        let of = |a: &Attributes| [a.get("exception.type").cloned(), a.get("exception.message").cloned()];
        if !op.events.iter().any(|e| e.name == "exception" && of(&e.attributes) == of(&attributes)) {
            op.event(ts, "exception", attributes);
        }
    }

    /// Operations that ended before `now`, with the time. They wait until the call that created them has been
    /// placed in its trace. Their ids stay known, so that late words about them begin no second span.
    pub fn finished(&mut self, now: Ns) -> Vec<(Operation, Ns)> {
        let mut all = std::mem::take(&mut self.given_up_now);
        if self.ending.is_empty() {
            return all;
        }
        let (due, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ending).into_iter().partition(|(end, id)| {
                let awaits = self.open.peek(id).is_some_and(Operation::awaits_word);
                now >= end.saturating_add(if awaits { WORD_NS } else { SETTLE_NS })
            });
        self.ending = wait;
        for (end, id) in due {
            if let Some(op) = self.open.peek_mut(&id) {
                all.push((op.clone(), end));
                op.events = Vec::new();
            }
        }
        all
    }

    /// The rules in use.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The workers.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// For connects that failed.
    pub fn workers_mut(&mut self) -> &mut Workers {
        &mut self.workers
    }

    /// Operations that have not ended, or whose end has not been told yet; the one heard of last first, at most so
    /// many. With the time of the end.
    pub fn untold(&self, most: usize) -> Vec<(Operation, Option<Ns>)> {
        let end_of = |id: &str| self.ending.iter().find(|(_, ending)| **ending == *id).map(|(end, _)| *end);
        let all = self.open.iter().rev().map(|(id, op)| (op, op.ended.and_then(|_| end_of(id))));
        let untold = all.filter(|(op, end)| op.ended.is_none() || end.is_some());
        untold.take(most).map(|(op, end)| (op.clone(), end)).collect()
    }

    /// Notes operations whose progress has not moved for too long. `left_out`: whether not all is seen of what is said on a port.
    pub fn watch(&mut self, now: Ns, left_out: &dyn Fn(u16) -> bool) {
        if now < self.next_watch {
            return;
        }
        self.next_watch = now.saturating_add(WATCH_NS);
        let after = self.rules.stuck_after;
        for (_, op) in self.open.iter_mut() {
            if op.ports.iter().any(|p| left_out(*p)) {
                (op.unseen, op.stuck) = (Some(now), false);
            }
            op.watch(now, after);
        }
    }

    /// All that is under way: the stream ends.
    pub fn drain(&mut self, now: Ns) -> Vec<(Operation, Ns)> {
        let mut all = self.finished(Ns::MAX);
        while let Some((_, op)) = self.open.remove_lru() {
            if op.ended.is_none() {
                all.push((op, now));
            }
        }
        all
    }

    fn business_error(&self, response: &Fields, span: &mut Span) {
        let Some(e) =
            (span.status == Status::Unset).then(|| failure(response, &self.rules.failures)).flatten()
        else {
            return;
        };
        span.attributes.set("error.type", "business_error");
        span.attributes.set("ktrdr.business_error.message", e.message.clone());
        if let Some(code) = e.code {
            span.attributes.set("ktrdr.business_error.code", code);
        }
        if span.kind == SpanKind::Client || span.kind == SpanKind::Server {
            span.status = Status::Error(e.message);
        }
    }

    /// The operation a call is about: named in a header, in the URL, in the request, or in the response.
    fn id_of(&self, head: &Reading, span: &Span, request: &Fields, response: &Fields) -> Option<Arc<str>> {
        // The answer may have headers, too.
        let header = match span.attributes.added().iter().any(is_header) {
            true => self.rules.in_headers(&span.attributes),
            false => head.header.as_deref(),
        };
        let id = header.or(head.url.as_deref()).or_else(|| request.ids().next().map(|(_, id)| id)).or_else(
            || {
                // A list of operations is about none of them.
                let mut all = response.ids().map(|(_, id)| id);
                let first = all.next()?;
                all.all(|id| id == first).then_some(first)
            },
        )?;
        Some(self.open.peek(id).map_or_else(|| Arc::from(id), |o| o.id.clone()))
    }

    fn entry(&mut self, id: &Arc<str>, kind: Option<String>, span: &Span) -> &mut Operation {
        if !self.open.contains_key(id)
            && self.open.len() >= MAX_OPERATIONS
            && let Some((_, old)) = self.open.remove_lru()
            && old.ended.is_none()
        {
            self.given_up += 1;
            let last = old.last;
            self.given_up_now.push((old, last));
        }
        let op = self.open.entry(id.clone()).or_insert_with(|| Operation {
            id: id.clone(),
            kind: None,
            status: None,
            start: span.start,
            last: span.end,
            created_by: None,
            resource: span.resource.clone(),
            symbols: Vec::new(),
            attributes: Attributes::new(),
            events: Vec::new(),
            error: None,
            polls: 0,
            ended: None,
            progress: None,
            step: None,
            progress_at: span.end,
            reporters: Vec::new(),
            known_to: Vec::new(),
            worker: None,
            refused: Vec::new(),
            stuck: false,
            ports: SmallVec::new(),
            unseen: None,
        });
        op.kind = op.kind.take().or(kind);
        op
    }
}

/// Sets the operation's attributes on a span.
pub fn tag(span: &mut Span, id: &str, kind: Option<&str>) {
    span.attributes.set("operation.id", id.to_owned());
    if let Some(kind) = kind {
        span.attributes.set("operation.type", kind.to_owned());
    }
}
