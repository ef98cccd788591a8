//! The workers, as their registrations, health answers and dispatches show them. What is known of them is said on the
//! calls that hand out work: which worker was asked, how many there were, how many were free.

use std::sync::Arc;

use hashlink::LruCache;

use super::body::Fields;
use crate::event::Ns;
use crate::trace::model::{Attributes, Resource, Span, SpanKind, Status, Value};
use crate::trace::spans::unseen;

/// Workers remembered; the one unheard of for longest is forgotten. KTRDR runs tens.
const MAX_WORKERS: usize = 1024;
/// A worker silent for so long is not counted any more: KTRDR asks each every 10 s.
const SILENT_NS: Ns = 120_000_000_000;
/// Longest text taken from a registration.
const MAX_TEXT: usize = 96;

/// A worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Its id as it registered, else the name of its service.
    pub id: Arc<str>,
    /// `training`, `backtesting`, …
    pub kind: Arc<str>,
    /// The operation it is busy with (empty = busy with something), and since when.
    pub busy: Option<(Arc<str>, Ns)>,
    /// It could not be reached.
    pub lost: bool,
    /// When it was last heard of.
    pub last: Ns,
    /// The service that hands out work to it, if that is observed here.
    pub registry: Option<Arc<Resource>>,
}

/// What a worker is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It would take a job.
    Idle,
    /// It has one.
    Busy,
    /// It could not be reached.
    Lost,
}

impl State {
    /// As metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Busy => "busy",
            State::Lost => "lost",
        }
    }
}

impl Worker {
    /// What it was up to at a time, not counting what began then.
    pub fn state(&self, at: Ns) -> State {
        match &self.busy {
            _ if self.lost => State::Lost,
            Some((_, since)) if *since < at => State::Busy,
            _ => State::Idle,
        }
    }
}

/// All workers, by `host:port`.
pub struct Workers {
    map: LruCache<String, Worker, foldhash::fast::FixedState>,
}

impl Default for Workers {
    fn default() -> Self {
        Self { map: LruCache::with_hasher(MAX_WORKERS, foldhash::fast::FixedState::default()) }
    }
}

/// What kind of work a path hands out (the routes of KTRDR's workers).
pub fn dispatches(path: &str) -> Option<&'static str> {
    match path.trim_end_matches('/') {
        "/training/start" => Some("training"),
        "/backtests/start" => Some("backtesting"),
        _ => None,
    }
}

/// Whether a call is to or from a worker, or about one, as far as its path tells.
pub(super) fn concern(a: &Attributes) -> bool {
    path(a).is_some_and(|path| {
        path.ends_with("/workers/register") || path.ends_with("/health") || dispatches(path).is_some()
    })
}

impl Workers {
    /// All that are remembered, the one heard of last first.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.map.iter().rev().map(|(_, w)| w)
    }

    /// Those heard of lately.
    pub fn alive(&self, at: Ns) -> impl Iterator<Item = &Worker> {
        self.iter().filter(move |w| w.last.saturating_add(SILENT_NS) >= at)
    }

    /// Learns from a finished call; says on a dispatch what is known of the workers. Returns the worker that took the
    /// job, if this call is one that handed it out.
    pub fn observe(
        &mut self,
        span: &mut Span,
        request: &Fields,
        response: &Fields,
        operation: Option<&str>,
    ) -> Option<Arc<str>> {
        let path = path(&span.attributes)?;
        if path.ends_with("/workers/register") {
            self.registered(request, span);
            return None;
        }
        if let Some(kind) = dispatches(path) {
            let at = endpoint(span)?;
            return self.dispatched(span, &at, kind, operation);
        }
        if path.ends_with("/health")
            && let Some(status) = response.get("/worker_status")
            && let Some(w) = self.map.get_mut(&endpoint(span)?)
        {
            w.last = span.end;
            w.lost = false;
            match status {
                "busy" => {
                    let current = response.get("/current_operation").unwrap_or_default();
                    if w.busy.as_ref().is_none_or(|(op, _)| **op != *current) {
                        w.busy = Some((current.into(), span.start));
                    }
                }
                _ => w.busy = None,
            }
        }
        None
    }

    /// A connect to a worker failed; says which worker that was.
    pub fn unreachable(&mut self, span: &mut Span) {
        let Some(at) = endpoint(span) else { return };
        let Some(w) = self.map.get_mut(&at) else { return };
        w.lost = true;
        span.attributes.set("worker.selected_id", w.id.to_string());
        span.attributes.set("worker.type", w.kind.to_string());
        span.attributes.set("worker.selection_status", "unreachable");
    }

    /// The operation ended: whoever worked on it is free.
    pub fn ended(&mut self, operation: &str) {
        for (_, w) in self.map.iter_mut() {
            if w.busy.as_ref().is_some_and(|(op, _)| **op == *operation) {
                w.busy = None;
            }
        }
    }

    fn registered(&mut self, request: &Fields, span: &mut Span) {
        let text = |key: &str| request.get(key).filter(|t| !t.is_empty() && t.len() <= MAX_TEXT);
        let (Some(id), Some(url)) = (text("/worker_id"), text("/endpoint_url")) else { return };
        let Some(at) = authority(url) else { return };
        let kind = text("/worker_type").unwrap_or("unknown");
        let taken = matches!(status_code(span), Some(200..=299)) && span.status == Status::Unset;
        let a = &mut span.attributes;
        a.set("worker.id", id.to_owned());
        a.set("worker.type", kind.to_owned());
        a.set("worker.registration_status", if taken { "registered" } else { "rejected" });
        if !taken {
            return;
        }
        // Each registration is seen at both ends, the worker's first or last.
        let known = self.map.peek(&at).filter(|w| *w.id == *id).and_then(|w| w.registry.clone());
        let registry = if span.kind == SpanKind::Server { Some(span.resource.clone()) } else { known };
        let (id, kind, last) = (id.into(), kind.into(), span.end);
        self.insert(at, Worker { id, kind, busy: None, lost: false, last, registry });
    }

    fn insert(&mut self, at: String, worker: Worker) {
        // The same worker at another place has moved.
        let moved: Vec<String> =
            self.map.iter().filter(|(a, w)| w.id == worker.id && **a != at).map(|(a, _)| a.clone()).collect();
        moved.iter().for_each(|a| drop(self.map.remove(a)));
        self.map.insert(at, worker);
    }

    fn dispatched(
        &mut self,
        span: &mut Span,
        at: &str,
        kind: &str,
        operation: Option<&str>,
    ) -> Option<Arc<str>> {
        if self.map.peek(at).is_none() {
            // Registered before the agent came: its service's name has to do.
            let name = match span.kind {
                SpanKind::Client => text(span, "peer.service").unwrap_or(at).to_owned(),
                _ => span.resource.service.clone(),
            };
            let (id, kind) = (name.into(), kind.into());
            let worker = Worker { id, kind, busy: None, lost: false, last: span.end, registry: None };
            self.insert(at.to_owned(), worker);
        }
        let (total, free) = self.count(kind, span.start);
        let w = self.map.get_mut(at)?;
        w.last = span.end;
        if span.kind == SpanKind::Client {
            w.registry = Some(span.resource.clone());
        }
        if text(span, "ktrdr.incomplete").is_some_and(unseen) && status_code(span).is_none() {
            // It may have answered; nobody saw it.
            return None;
        }
        let said = match (status_code(span), &span.status) {
            (Some(503), _) => "busy",
            (Some(200..=299), Status::Unset) => "selected",
            (Some(_), _) => "rejected",
            (None, _) => "no_answer",
        };
        w.lost = said == "no_answer";
        let busy_with = w.busy.as_ref().map(|(op, _)| op.clone()).filter(|_| said == "busy");
        match said {
            "busy" if w.busy.is_none() => w.busy = Some(("".into(), span.start)),
            "selected" => w.busy = Some((operation.unwrap_or_default().into(), span.start)),
            _ => {}
        }
        let id = w.id.clone();
        let a = &mut span.attributes;
        a.set("worker.selected_id", id.to_string());
        a.set("worker.type", kind.to_owned());
        a.set("worker.selection_status", said);
        a.set("worker.total_workers", total);
        a.set("worker.available_workers", free);
        a.set("worker.busy_workers", total - free);
        if let Some(current) = busy_with.filter(|op| !op.is_empty() && operation != Some(op)) {
            a.set("worker.current_operation", current.to_string());
        }
        (said == "selected").then_some(id)
    }

    /// Workers of a kind at a time, and those of them that were free: not busy before it, and not lost.
    fn count(&self, kind: &str, at: Ns) -> (u64, u64) {
        let of_kind = self.alive(at).filter(|w| *w.kind == *kind);
        let mut counts = (0, 0);
        for w in of_kind {
            counts.0 += 1;
            counts.1 += u64::from(w.state(at) == State::Idle);
        }
        counts
    }
}

fn status_code(span: &Span) -> Option<i64> {
    match span.attributes.get("http.response.status_code") {
        Some(Value::Int(code)) => Some(*code),
        _ => None,
    }
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    span.attributes.get(key)?.as_str()
}

fn path(a: &Attributes) -> Option<&str> {
    let text = |key| a.get(key).and_then(Value::as_str);
    if let Some(path) = text("url.path") {
        return Some(path);
    }
    let rest = text("url.full")?.split_once("://")?.1;
    rest.get(rest.find('/')?..)?.split(['?', '#']).next()
}

/// `host:port` as the client named it, which is how it was told at the registration.
fn endpoint(span: &Span) -> Option<String> {
    let Some(Value::Int(port)) = span.attributes.get("server.port") else { return None };
    Some(format!("{}:{port}", text(span, "server.address")?))
}

fn authority(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().filter(|a| !a.is_empty())?;
    Some(if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") })
}

#[cfg(test)]
mod tests;
