//! One operation: what was said of it, as a span.

use std::sync::Arc;

use smallvec::SmallVec;

use super::body::Fields;
use super::{Call, SpanRef};
use crate::event::{MS, Ns};
use crate::protocol::Role;
use crate::trace::assembly::About;
use crate::trace::ids::ExchangeId;
use crate::trace::model::{Attributes, Resource, Span, SpanEvent, SpanKind, Status, Value};

/// Status and progress events per operation: a training of hours polled every 0.3 s must stay readable.
const MAX_EVENTS: usize = 64;
/// Progress is worth an event when it moved by this many percent.
const PROGRESS_STEP: f64 = 5.0;
/// Services whose word on an operation's status is kept, to compare them.
const MAX_REPORTERS: usize = 8;
/// Workers named per operation.
const MAX_REFUSED: usize = 8;
/// Ports remembered per operation: of those that serve it, and of who passes its status on.
const MAX_PORTS: usize = 4;
/// A service that learns of an end by asking has asked by then; KTRDR's clients ask three times a second.
const UNHEARD_NS: Ns = 2000 * MS;

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
    pub(super) ended: Option<Ns>,
    pub(super) progress: Option<f64>,
    /// What it is doing, in its own words.
    pub(super) step: Option<String>,
    pub(super) progress_at: Ns,
    pub(super) reporters: Vec<(String, String, Ns)>,
    /// By service, the process that answered about it last, and when.
    pub(super) known_to: Vec<(String, u32, Ns)>,
    /// Worker that took it, with its type.
    pub(super) worker: Option<(Arc<str>, String)>,
    /// Workers that refused it.
    pub(super) refused: Vec<String>,
    pub(super) stuck: bool,
    /// Ports on which its status was told.
    pub(super) ports: SmallVec<[u16; MAX_PORTS]>,
    /// When something may have been said there last that nobody saw.
    pub(super) unseen: Option<Ns>,
}

/// Words for a terminal status, as KTRDR's replies give them.
pub(super) fn terminal(status: &str) -> bool {
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

impl Operation {
    pub(super) fn created(&mut self, call: &Call<'_>, span: &Span, request: &Fields) {
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

    /// A process of a service answered about it.
    pub(super) fn known(&mut self, who: &Resource, ts: Ns) {
        let Some(Value::Int(pid)) = who.attributes.get("process.pid") else { return };
        let Ok(pid) = u32::try_from(*pid) else { return };
        if let Some((_, last, at)) = self.known_to.iter_mut().find(|(service, ..)| *service == who.service) {
            (*last, *at) = (pid, ts);
        } else if self.known_to.len() < MAX_REPORTERS {
            self.known_to.push((who.service.clone(), pid, ts));
        }
    }

    /// A reply about it, at a time, on a port.
    pub(super) fn heard(
        &mut self,
        reply: &Fields,
        object: &str,
        reporter: Option<String>,
        (ts, port): (Ns, u16),
    ) {
        if self.ports.len() < MAX_PORTS && !self.ports.contains(&port) {
            self.ports.push(port);
        }
        let status = reply.below(object, "status").and_then(|f| status_word(&f.text));
        if let Some(status) = status {
            if let Some(who) = reporter {
                if let Some((_, s, at)) = self.reporters.iter_mut().find(|(w, ..)| *w == who) {
                    (*s, *at) = (status.to_owned(), ts);
                } else if self.reporters.len() < MAX_REPORTERS {
                    self.reporters.push((who, status.to_owned(), ts));
                }
            }
            if self.status.as_deref() != Some(status) && !self.status.as_deref().is_some_and(terminal) {
                self.status = Some(status.to_owned());
                let mut a = Attributes::new();
                a.set("operation.status", status);
                self.event(ts, "operation.status", a);
            }
        }
        let step = reply.below(object, "current_step");
        if let Some(step) = step.filter(|s| !s.text.is_empty()) {
            self.step = Some(step.text.clone());
        }
        let percent =
            reply.below(object, "percentage").or_else(|| reply.below(object, "progress_percentage"));
        if let Some(p) = percent.and_then(|f| f.number) {
            let moved = self.progress.is_none_or(|old| (p - old).abs() >= PROGRESS_STEP);
            if self.progress != Some(p) {
                self.progress_at = ts;
                self.stuck = false;
            }
            if moved {
                self.progress = Some(p);
                let mut a = Attributes::new();
                a.set("progress.percentage", p);
                if let Some(step) = step {
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

    pub(super) fn event(&mut self, ts: Ns, name: &'static str, attributes: Attributes) {
        // Room for the terminal status stays.
        if self.events.len() < MAX_EVENTS - 1 || self.status.as_deref().is_some_and(terminal) {
            self.events.push(SpanEvent { ts, name: name.into(), attributes });
        }
    }

    /// Services that disagree about the status: "ktrdr-api says running, ktrdr-training-worker-5005 says completed". Where one
    /// may have said something else that nobody saw, nothing.
    pub fn disagreement(&self) -> Option<String> {
        if self.unseen.is_some() {
            return None;
        }
        let (_, first, _) = self.reporters.first()?;
        if self.reporters.iter().all(|(_, s, _)| s == first) {
            return None;
        }
        Some(self.reporters.iter().map(|(w, s, _)| format!("{w} says {s}")).collect::<Vec<_>>().join(", "))
    }

    /// Whether a service still spoke of it as under way a while after another had said that it has ended.
    fn unheard(&self) -> bool {
        let ended = self.reporters.iter().filter(|(_, s, _)| terminal(s)).map(|(.., at)| *at).min();
        let late = |ended: Ns| {
            self.reporters.iter().any(|(_, s, at)| !terminal(s) && *at >= ended.saturating_add(UNHEARD_NS))
        };
        ended.is_some_and(late)
    }

    /// Whether somebody has yet to say that it ended.
    pub(super) fn awaits_word(&self) -> bool {
        self.reporters.iter().any(|(_, s, _)| !terminal(s)) && !self.unheard()
    }

    pub(super) fn dispatched(&mut self, span: &Span, took: Option<Arc<str>>) {
        let text = |key: &str| span.attributes.get(key).and_then(|v| v.as_str());
        if let Some(id) = took {
            self.worker = Some((id, text("worker.type").unwrap_or_default().to_owned()));
        } else if let Some(id) = text("worker.selected_id")
            && self.refused.len() < MAX_REFUSED
            && !self.refused.iter().any(|r| r == id)
        {
            self.refused.push(id.to_owned());
        }
    }

    /// When its progress moved last; `None` if that may not have been seen.
    pub(super) fn moved(&self) -> Option<Ns> {
        Some(self.progress_at).filter(|at| self.unseen.is_none_or(|unseen| *at > unseen))
    }

    pub(super) fn watch(&mut self, now: Ns, after: Ns) {
        let running = self.ended.is_none() && self.status.as_deref() == Some("running");
        // Who is not asked about says nothing: its silence is no standstill.
        let asked = now.saturating_sub(self.last) < after;
        // It may have moved as long as not all was seen.
        let still = now.saturating_sub(self.progress_at.max(self.unseen.unwrap_or(0)));
        if !running || self.stuck || self.progress.is_none() || still < after || !asked {
            return;
        }
        self.stuck = true;
        let mut a = Attributes::new();
        a.set("progress.percentage", self.progress.unwrap_or_default());
        a.set("ktrdr.operation.still_ms", still / MS);
        self.event(now, "operation.stuck", a);
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
            if let Some(moved) = self.moved() {
                attributes
                    .set("ktrdr.operation.last_progress_ms_before_end", (end - moved.min(end)) / 1_000_000);
            }
        }
        if let Some(step) = &self.step {
            attributes.set("progress.current_step", step.clone());
        }
        if self.stuck {
            attributes.set("ktrdr.operation.stuck", true);
        }
        if let Some((id, kind)) = &self.worker {
            attributes.set("worker.selected_id", id.to_string());
            attributes.set("worker.type", kind.clone());
        }
        if !self.refused.is_empty() {
            attributes.set("worker.refused_ids", self.refused.clone());
        }
        // It may have said so since.
        if self.unseen.is_none() && self.unheard() {
            attributes.set("ktrdr.operation.unheard", true);
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
