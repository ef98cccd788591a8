//! The workers, as their registrations, health answers and dispatches show them. What is known of them is said on the
//! calls that hand out work: which worker was asked, how many there were, how many were free.

use std::sync::Arc;

use hashlink::LruCache;

use super::body::Fields;
use crate::event::Ns;
use crate::trace::model::{Span, SpanKind, Status, Value};

/// Workers remembered; the one unheard of for longest is forgotten. KTRDR runs tens.
const MAX_WORKERS: usize = 1024;
/// A worker silent for so long is not counted any more: KTRDR asks each every 10 s.
const SILENT_NS: Ns = 120_000_000_000;
/// Longest text taken from a registration.
const MAX_TEXT: usize = 96;

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Workers {
    /// All that are remembered, the one heard of last first.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.map.iter().rev().map(|(_, w)| w)
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
        let path = path(span)?.to_owned();
        if path.ends_with("/workers/register") {
            self.registered(request, span.end);
            return None;
        }
        let at = endpoint(span)?;
        if let Some(kind) = dispatches(&path) {
            return self.dispatched(span, &at, kind, operation);
        }
        if path.ends_with("/health")
            && let (Some(status), Some(w)) = (response.get("/worker_status"), self.map.get_mut(&at))
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

    fn registered(&mut self, request: &Fields, ts: Ns) {
        let text = |key: &str| request.get(key).filter(|t| !t.is_empty() && t.len() <= MAX_TEXT);
        let (Some(id), Some(url)) = (text("/worker_id"), text("/endpoint_url")) else { return };
        let Some(at) = authority(url) else { return };
        let kind = text("/worker_type").unwrap_or("unknown");
        self.insert(at, Worker { id: id.into(), kind: kind.into(), busy: None, lost: false, last: ts });
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
            self.insert(at.to_owned(), Worker { id, kind, busy: None, lost: false, last: span.end });
        }
        let (total, free) = self.count(kind, span.start);
        let w = self.map.get_mut(at)?;
        w.last = span.end;
        let code = match span.attributes.get("http.response.status_code") {
            Some(Value::Int(code)) => Some(*code),
            _ => None,
        };
        let said = match (code, &span.status) {
            (Some(503), _) => "busy",
            (Some(200..=299), Status::Unset) => "selected",
            (Some(_), _) => "rejected",
            (None, _) => "no_answer",
        };
        w.lost = said == "no_answer";
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
        (said == "selected").then_some(id)
    }

    /// Workers of a kind at a time, and those of them that were free: not busy before it, and not lost.
    fn count(&self, kind: &str, at: Ns) -> (u64, u64) {
        let alive = |w: &&Worker| *w.kind == *kind && w.last.saturating_add(SILENT_NS) >= at;
        let free = |w: &&Worker| !w.lost && w.busy.as_ref().is_none_or(|(_, since)| *since >= at);
        let all = self.iter().filter(alive).count();
        let free = self.iter().filter(alive).filter(free).count();
        (all as u64, free as u64)
    }
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    span.attributes.get(key)?.as_str()
}

fn path(span: &Span) -> Option<&str> {
    if let Some(path) = text(span, "url.path") {
        return Some(path);
    }
    let rest = text(span, "url.full")?.split_once("://")?.1;
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
mod tests {
    use super::*;
    use crate::trace::model::{Attributes, Resource};

    fn span(path: &str, port: u16, code: i64, at: Ns) -> Span {
        let mut a = Attributes::new();
        a.set("url.full", format!("http://127.0.0.1:{port}{path}"));
        a.set("server.address", "127.0.0.1");
        a.set("server.port", port);
        a.set("http.response.status_code", code);
        Span {
            trace_id: Default::default(),
            span_id: Default::default(),
            parent_span_id: None,
            kind: SpanKind::Client,
            name: format!("POST {path}"),
            start: at,
            end: at + 1,
            wall_offset_ns: 0,
            status: if code >= 400 { Status::Error(String::new()) } else { Status::Unset },
            attributes: a,
            events: Vec::new(),
            links: Vec::new(),
            resource: Arc::new(Resource { service: "ktrdr-api".into(), attributes: Attributes::new() }),
        }
    }

    fn play(w: &mut Workers, path: &str, port: u16, code: i64, at: Ns, body: (&str, &str), op: &str) -> Span {
        let mut s = span(path, port, code, at);
        let fields = (Fields::of(body.0.as_bytes()), Fields::of(body.1.as_bytes()));
        w.observe(&mut s, &fields.0, &fields.1, Some(op));
        s
    }

    fn registered() -> Workers {
        let mut w = Workers::default();
        for (id, port) in [("training-worker-1", 5005), ("training-worker-2", 5006)] {
            let body = format!(
                r#"{{"worker_id":"{id}","worker_type":"training","endpoint_url":"http://127.0.0.1:{port}"}}"#
            );
            play(&mut w, "/api/v1/workers/register", 8000, 200, 1, (&body, ""), "");
        }
        w
    }

    fn said(s: &Span) -> (String, String, Option<Value>, Option<Value>) {
        let t = |k: &str| text(s, k).unwrap_or_default().to_owned();
        let n = |k: &str| s.attributes.get(k).cloned();
        (
            t("worker.selected_id"),
            t("worker.selection_status"),
            n("worker.total_workers"),
            n("worker.available_workers"),
        )
    }

    fn want(id: &str, status: &str, total: i64, free: i64) -> (String, String, Option<Value>, Option<Value>) {
        (id.into(), status.into(), Some(Value::Int(total)), Some(Value::Int(free)))
    }

    #[test]
    fn a_dispatch_says_who_was_asked_and_how_many_were_free() {
        let mut w = registered();
        let first = play(&mut w, "/training/start", 5005, 200, 10, ("", ""), "op_a_123456");
        assert_eq!(said(&first), want("training-worker-1", "selected", 2, 2));
        // The server's end of the same call says the same.
        let again = play(&mut w, "/training/start", 5005, 200, 10, ("", ""), "op_a_123456");
        assert_eq!(said(&again), want("training-worker-1", "selected", 2, 2));
        let refused = play(&mut w, "/training/start", 5005, 503, 20, ("", ""), "op_b_123456");
        assert_eq!(said(&refused), want("training-worker-1", "busy", 2, 1));
        let next = play(&mut w, "/training/start", 5006, 200, 30, ("", ""), "op_b_123456");
        assert_eq!(said(&next), want("training-worker-2", "selected", 2, 1));
        w.ended("op_a_123456");
        let third = play(&mut w, "/training/start", 5005, 200, 40, ("", ""), "op_c_123456");
        assert_eq!(said(&third), want("training-worker-1", "selected", 2, 1));
    }

    #[test]
    fn health_says_who_is_busy_with_what() {
        let mut w = registered();
        let busy = r#"{"worker_status":"busy","current_operation":"op_x_123456"}"#;
        play(&mut w, "/health", 5006, 200, 10, ("", busy), "");
        let worker = w.iter().find(|w| &*w.id == "training-worker-2").unwrap();
        assert_eq!(worker.busy.as_ref().map(|(op, _)| &**op), Some("op_x_123456"));
        assert_eq!(
            said(&play(&mut w, "/training/start", 5005, 200, 20, ("", ""), "")).3,
            Some(Value::Int(1))
        );
        play(
            &mut w,
            "/health",
            5006,
            200,
            30,
            ("", r#"{"worker_status":"idle","current_operation":null}"#),
            "",
        );
        assert!(w.iter().find(|w| &*w.id == "training-worker-2").unwrap().busy.is_none());
        // What is no worker's health says nothing.
        play(&mut w, "/health", 5001, 200, 40, ("", r#"{"healthy":true}"#), "");
        assert_eq!(w.iter().count(), 2);
    }

    #[test]
    fn a_worker_older_than_the_agent_is_named_by_its_service_and_any_number_is_bounded() {
        let mut w = Workers::default();
        let s = play(&mut w, "/backtests/start", 5003, 200, 10, ("", ""), "op_y_123456");
        assert_eq!(said(&s), want("127.0.0.1:5003", "selected", 1, 1));
        for n in 0..20_000u32 {
            let body =
                format!(r#"{{"worker_id":"w{n}","worker_type":"t","endpoint_url":"http://10.0.0.1:{n}"}}"#);
            play(&mut w, "/workers/register", 8000, 200, 20, (&body, ""), "");
        }
        assert_eq!(w.iter().count(), MAX_WORKERS);
        let long = format!(r#"{{"worker_id":"{}","endpoint_url":"http://h:1"}}"#, "x".repeat(500));
        play(&mut w, "/workers/register", 8000, 200, 20, (&long, ""), "");
        assert!(w.iter().all(|w| w.id.len() <= MAX_TEXT));
    }
}
