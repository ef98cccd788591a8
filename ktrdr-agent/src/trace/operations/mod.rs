//! Operations: KTRDR's unit of work, recognised by their ids wherever these appear. Each becomes a span of its own
//! from its creation to the terminal status seen in any reply.

pub mod body;
pub mod ids;

use std::sync::Arc;

use hashlink::LruCache;

use super::assembly::About;
use super::causality::SpanRef;
use super::ids::ExchangeId;
use super::model::{Attributes, Resource, Span, SpanEvent, SpanKind, Status};
use crate::event::{MS, Ns};
use crate::protocol::Role;
use body::{FailureRule, Fields, failure};

/// Operations remembered, about 2 kB each; the one unseen for longest is finished as it is. KTRDR keeps a hundred.
const MAX_OPERATIONS: usize = 4096;
/// Status and progress events per operation: a training of hours polled every 0.3 s must stay readable.
const MAX_EVENTS: usize = 64;
/// Progress is worth an event when it moved by this many percent.
const PROGRESS_STEP: f64 = 5.0;
/// How long an operation that ended waits for what is still said of it, and for its creator's place in a trace.
const SETTLE_NS: Ns = 150 * MS;
/// Services whose word on an operation's status is kept, to compare them.
const MAX_REPORTERS: usize = 8;

/// A finished call as this module looks at it.
pub struct Call<'a> {
    /// Its span.
    pub span: SpanRef,
    /// Which end.
    pub role: Role,
    /// Its exchange.
    pub exchange: ExchangeId,
    /// Request body, as far as it was kept.
    pub request: &'a [u8],
    /// Response body, as far as it was kept.
    pub response: &'a [u8],
    /// Name of the service at the other end of a client's call.
    pub peer: Option<&'a str>,
}

/// An operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its id.
    pub id: Arc<str>,
    /// `operation.type`, if known.
    pub kind: Option<String>,
    /// Last status seen.
    pub status: Option<String>,
    /// When it was first seen.
    pub start: Ns,
    /// When it was last spoken of.
    pub last: Ns,
    /// The call that created it.
    pub created_by: Option<(SpanRef, ExchangeId, Role)>,
    /// Who created it, or spoke of it first.
    pub resource: Arc<Resource>,
    /// The symbols it is about, as [`About`] has them.
    pub symbols: Vec<Box<str>>,
    /// What a start request said.
    pub attributes: Attributes,
    /// Status changes and progress.
    pub events: Vec<SpanEvent>,
    /// Error message.
    pub error: Option<String>,
    /// Times its status was asked for.
    pub polls: u64,
    ended: Option<Ns>,
    progress: Option<f64>,
    progress_at: Ns,
    reporters: Vec<(String, String)>,
}

/// All operations under way.
pub struct Operations {
    open: LruCache<Arc<str>, Operation, foldhash::fast::FixedState>,
    rules: Vec<FailureRule>,
    ending: Vec<(Ns, Arc<str>)>,
    given_up_now: Vec<(Operation, Ns)>,
    /// Operations given up because too many were under way.
    pub given_up: u64,
}

/// Words for a terminal status, as KTRDR's replies give them.
fn terminal(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled" | "canceled")
}

/// `started` and `queued` are what start replies say of a running or waiting operation.
fn status_word(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "pending" | "queued" => "pending",
        "running" | "started" | "in_progress" => "running",
        "completed" | "complete" => "completed",
        "failed" => "failed",
        "cancelled" | "canceled" => "cancelled",
        _ => return None,
    })
}

impl Operations {
    /// None known; `rules` tell failures inside successful replies.
    pub fn new(rules: Vec<FailureRule>) -> Self {
        Self {
            open: LruCache::with_hasher(MAX_OPERATIONS, foldhash::fast::FixedState::default()),
            rules,
            ending: Vec::new(),
            given_up_now: Vec::new(),
            given_up: 0,
        }
    }

    /// Operations under way.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Operations that have not ended: type, last status, and when their progress last moved or they were created.
    pub fn under_way(&self) -> impl Iterator<Item = (&Operation, Ns)> {
        let open = self.open.iter().map(|(_, op)| op);
        open.filter(|op| op.ended.is_none()).map(|op| (op, op.progress_at))
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Looks at a finished call: tags its span, and learns what it says. Returns the operation it belongs to.
    pub fn observe(&mut self, call: &Call<'_>, span: &mut Span) -> Option<Arc<str>> {
        let request = Fields::of(call.request);
        let response = Fields::of(call.response);
        self.business_error(&response, span);
        let id = self.id_of(span, &request, &response)?;
        let kind = response
            .below("", "operation_type")
            .map(|f| f.text.clone())
            .or_else(|| ids::kind(&id).map(str::to_owned));
        tag(span, &id, kind.as_deref());
        let poll = span.name.starts_with("GET ") && in_url(span).is_some();
        // Who is told the id in the request (a worker) did not create the operation.
        let created = !poll
            && span.name.starts_with("POST ")
            && response.ids().any(|(_, i)| *i == *id)
            && !request.ids().any(|(_, i)| *i == *id);
        let op = self.entry(&id, kind, span);
        op.last = span.end;
        if created {
            op.created(call, span, &request);
        }
        // A failed reply about an operation is no word on its status.
        let about = response.ids().find(|(_, i)| *i == &*id).map(|(object, _)| object.to_owned());
        if let Some(object) = about {
            let reporter = match call.role {
                Role::Server => Some(span.resource.service.clone()),
                Role::Client => call.peer.map(str::to_owned),
            };
            // Each reply is seen at both ends; the client's word is taken only where the server is not observed.
            if poll && (call.role == Role::Server || op.polls == 0) {
                op.polls += 1;
            }
            op.heard(&response, &object, reporter, span.end);
        }
        if op.ended.is_none() && op.status.as_deref().is_some_and(terminal) {
            op.ended = Some(span.end);
            self.ending.push((span.end, id.clone()));
        }
        Some(id)
    }

    /// The id in what is known when a request was read, for calls made while it is served.
    pub fn early(path: &str, request: &Fields) -> Option<Arc<str>> {
        ids::in_path(path).or_else(|| request.ids().next().map(|(_, id)| id)).map(Arc::from)
    }

    /// The call that created an operation, and the symbols it was to be about.
    pub fn created_by(&self, id: &str) -> Option<(SpanRef, &[Box<str>])> {
        let op = self.open.peek(id)?;
        op.created_by.map(|(by, ..)| (by, op.symbols.as_slice()))
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
        let (due, wait): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ending)
            .into_iter()
            .partition(|(end, _)| now >= end.saturating_add(SETTLE_NS));
        self.ending = wait;
        for (end, id) in due {
            if let Some(op) = self.open.peek_mut(&id) {
                all.push((op.clone(), end));
                op.events = Vec::new();
            }
        }
        all
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
        let Some(e) = (span.status == Status::Unset).then(|| failure(response, &self.rules)).flatten() else {
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
    fn id_of(&self, span: &Span, request: &Fields, response: &Fields) -> Option<Arc<str>> {
        let header = span.attributes.get("operation.id").and_then(|v| v.as_str());
        let id = header.or_else(|| in_url(span)).or_else(|| request.ids().next().map(|(_, id)| id)).or_else(
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
            progress_at: span.end,
            reporters: Vec::new(),
        });
        op.kind = op.kind.take().or(kind);
        op
    }
}

impl Operation {
    fn created(&mut self, call: &Call<'_>, span: &Span, request: &Fields) {
        let better = match self.created_by {
            None => true,
            // The serving end of the creating call is the closest.
            Some((_, exchange, role)) => {
                exchange == call.exchange && role == Role::Client && call.role == Role::Server
            }
        };
        if !better {
            return;
        }
        self.created_by = Some((call.span, call.exchange, call.role));
        self.start = self.start.min(span.start);
        self.resource = span.resource.clone();
        self.symbols = About::request(&Attributes::new(), request.symbols(), false).symbols;
        if !self.symbols.is_empty() {
            self.attributes.set("data.symbol", request.symbols().collect::<Vec<_>>().join(","));
        }
        for (key, name) in [
            ("timeframe", "data.timeframe"),
            ("strategy", "training.strategy"),
            ("strategy_name", "training.strategy"),
        ] {
            if let Some(f) = request.below("", key) {
                self.attributes.set(name, f.text.clone());
            }
        }
    }

    fn heard(&mut self, reply: &Fields, object: &str, reporter: Option<String>, ts: Ns) {
        let status = reply.below(object, "status").and_then(|f| status_word(&f.text));
        if let Some(status) = status {
            if let Some(who) = reporter {
                if let Some((_, s)) = self.reporters.iter_mut().find(|(w, _)| *w == who) {
                    *s = status.to_owned();
                } else if self.reporters.len() < MAX_REPORTERS {
                    self.reporters.push((who, status.to_owned()));
                }
            }
            if self.status.as_deref() != Some(status) && !self.status.as_deref().is_some_and(terminal) {
                self.status = Some(status.to_owned());
                let mut a = Attributes::new();
                a.set("operation.status", status);
                self.event(ts, "operation.status", a);
            }
        }
        let percent =
            reply.below(object, "percentage").or_else(|| reply.below(object, "progress_percentage"));
        if let Some(p) = percent.and_then(|f| f.number) {
            let moved = self.progress.is_none_or(|old| (p - old).abs() >= PROGRESS_STEP);
            if self.progress != Some(p) {
                self.progress_at = ts;
            }
            if moved {
                self.progress = Some(p);
                let mut a = Attributes::new();
                a.set("progress.percentage", p);
                if let Some(step) = reply.below(object, "current_step") {
                    a.set("progress.current_step", step.text.clone());
                }
                self.event(ts, "operation.progress", a);
            }
        }
        let said = |key: &str| reply.below(object, key).map(|f| f.text.as_str());
        let error = said("error_message").or_else(|| said("error"));
        // A reply that tells only that it failed often has its reason beside the object.
        let beside = || ["/error", "/error_message", "/message"].iter().find_map(|p| reply.get(p));
        let error = error.or_else(|| if status == Some("failed") { beside() } else { None });
        if let Some(e) = error.filter(|e| !e.is_empty()) {
            self.error = Some(e.to_owned());
        }
    }

    fn event(&mut self, ts: Ns, name: &'static str, attributes: Attributes) {
        // Room for the terminal status stays.
        if self.events.len() < MAX_EVENTS - 1 || self.status.as_deref().is_some_and(terminal) {
            self.events.push(SpanEvent { ts, name: name.into(), attributes });
        }
    }

    /// Services that disagree about the status: "ktrdr-api says running, ktrdr-training-worker-5005 says completed".
    pub fn disagreement(&self) -> Option<String> {
        let (_, first) = self.reporters.first()?;
        if self.reporters.iter().all(|(_, s)| s == first) {
            return None;
        }
        Some(self.reporters.iter().map(|(w, s)| format!("{w} says {s}")).collect::<Vec<_>>().join(", "))
    }

    /// The span, but for its ids.
    pub fn span(&self, end: Ns, wall_offset_ns: i64) -> Span {
        let kind = self.kind.clone().unwrap_or_else(|| "unknown".to_owned());
        let mut attributes = self.attributes.clone();
        attributes.set("operation.id", self.id.to_string());
        attributes.set("operation.type", kind.clone());
        attributes.set("operation.status", self.status.clone().unwrap_or_else(|| "unknown".to_owned()));
        if let Some(p) = self.progress {
            attributes.set("progress.percentage", p);
            attributes.set(
                "ktrdr.operation.last_progress_ms_before_end",
                (end - self.progress_at.min(end)) / 1_000_000,
            );
        }
        attributes.set("ktrdr.operation.polls", self.polls);
        if let Some(d) = self.disagreement() {
            attributes.set("ktrdr.operation.disagreement", d);
        }
        let status = match self.status.as_deref() {
            Some("failed") => {
                let text = self
                    .error
                    .clone()
                    .unwrap_or_else(|| "the operation failed; no reply said why".to_owned());
                attributes.set("operation.error", text.clone());
                attributes.set("error.type", "operation_failed");
                Status::Error(text)
            }
            _ => Status::Unset,
        };
        Span {
            trace_id: Default::default(),
            span_id: Default::default(),
            parent_span_id: None,
            kind: SpanKind::Internal,
            name: format!("operation {kind}"),
            start: self.start,
            end: end.max(self.start),
            wall_offset_ns,
            status,
            attributes,
            events: self.events.clone(),
            links: Vec::new(),
            resource: self.resource.clone(),
        }
    }
}

/// Sets the operation's attributes on a span.
pub fn tag(span: &mut Span, id: &str, kind: Option<&str>) {
    span.attributes.set("operation.id", id.to_owned());
    if let Some(kind) = kind {
        span.attributes.set("operation.type", kind.to_owned());
    }
}

/// The id in the URL of a call.
fn in_url(span: &Span) -> Option<&str> {
    ["url.path", "url.full"].iter().find_map(|k| ids::in_path(span.attributes.get(k)?.as_str()?))
}
