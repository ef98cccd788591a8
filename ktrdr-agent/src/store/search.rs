//! Looking through all that is kept: by service, name, attribute, time and duration.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::jaeger::TraceQuery;
use super::{NotFound, Store};
use crate::explain::{self, LogLine};
use crate::export::Item;
use crate::export::console::json;
use crate::export::time::rfc3339;
use crate::trace::model::{Span, SpanKind, Status, TraceId};

/// Version of the schema of [`Finds`].
pub const FIND_SCHEMA: &str = "ktrdr.find/1";
/// Version of the schema of [`Spans`].
pub const SPANS_SCHEMA: &str = "ktrdr.spans/1";
/// Bytes of spans in an answer: more does not help a person, and fills the context of a language model.
const MAX_BYTES: usize = 64 * 1024;

/// A trace found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its spans, in the order they ended.
    pub spans: Vec<Item>,
    /// Spans of it that were not kept.
    pub dropped: u64,
}

/// Traces that fit a question, a line each, the one that began last first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finds {
    /// [`FIND_SCHEMA`].
    pub schema: String,
    /// The lines.
    pub traces: Vec<FindRow>,
}

/// A trace in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindRow {
    /// Trace id.
    pub trace_id: String,
    /// When it began, RFC 3339, UTC.
    pub time: String,
    /// From its first begin to its last end.
    pub duration_ms: f64,
    /// Service and name of its earliest span.
    pub root: String,
    /// Who takes part, sorted.
    pub services: Vec<String>,
    /// Spans kept.
    pub spans: usize,
    /// Spans with an error.
    pub failed: usize,
    /// The first error's sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The spans of a trace, oldest first, as `--console json` writes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spans {
    /// [`SPANS_SCHEMA`].
    pub schema: String,
    /// Trace id.
    pub trace_id: String,
    /// The spans.
    pub spans: Vec<Value>,
    /// Warnings and errors that were logged in it, oldest first; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogLine>,
    /// Spans left out because the answer would be too long, or not kept.
    pub left_out: u64,
}

impl Store {
    /// Names of the services that made a span kept here, sorted.
    pub fn services(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        self.each_span(|s| {
            if !names.contains(&s.resource.service) {
                names.insert(s.resource.service.clone());
            }
        });
        names.into_iter().collect()
    }

    /// Names and kinds of the spans of a service, sorted.
    pub fn operations_of(&self, service: &str) -> Vec<(String, SpanKind)> {
        let mut names: BTreeSet<(String, SpanKind)> = BTreeSet::new();
        self.each_span(|s| {
            if s.resource.service == service {
                names.insert((s.name.clone(), s.kind));
            }
        });
        names.into_iter().collect()
    }

    /// A trace.
    pub fn trace(&self, id: TraceId) -> Option<Found> {
        let inner = self.lock();
        inner.traces.get(id).map(|t| Found { spans: t.spans.clone(), dropped: t.dropped })
    }

    /// Traces that fit, the one that began last first.
    pub fn search(&self, query: &TraceQuery) -> Vec<Found> {
        if !query.ids.is_empty() {
            return query.ids.iter().filter_map(|id| self.trace(*id)).collect();
        }
        let mut found: Vec<(u64, Found)> = Vec::new();
        {
            let inner = self.lock();
            for (_, trace) in inner.traces.all() {
                if trace.spans.iter().any(|s| query.fits(s)) {
                    let start = trace.spans.iter().map(|s| s.start_wall_ns()).min().unwrap_or_default();
                    found.push((start, Found { spans: trace.spans.clone(), dropped: trace.dropped }));
                }
            }
        }
        found.sort_by_key(|(start, _)| std::cmp::Reverse(*start));
        found.into_iter().take(query.limit).map(|(_, f)| f).collect()
    }

    /// Traces that fit, a line each.
    pub fn found(&self, query: &TraceQuery) -> Finds {
        let traces = self.search(query).iter().filter_map(FindRow::of).collect();
        Finds { schema: FIND_SCHEMA.to_owned(), traces }
    }

    /// The spans of a trace.
    pub fn spans_of(&self, id: TraceId) -> Result<Spans, NotFound> {
        let none = || NotFound { message: format!("no trace {id} is kept"), suggestions: Vec::new() };
        let Found { mut spans, dropped } = self.trace(id).ok_or_else(none)?;
        spans.sort_by_key(|s| (s.start_wall_ns(), s.span_id));
        let (mut shown, mut bytes, mut line) = (Vec::new(), 0, Vec::new());
        for span in &spans {
            line.clear();
            json::line(span, &mut line);
            bytes += line.len();
            if bytes > MAX_BYTES {
                break;
            }
            shown.extend(serde_json::from_slice(&line));
        }
        let logs = explain::log_lines(&self.lock().logs.about([id].into_iter(), None));
        let left_out = (spans.len() - shown.len()) as u64 + dropped;
        Ok(Spans { schema: SPANS_SCHEMA.to_owned(), trace_id: id.to_string(), spans: shown, logs, left_out })
    }

    /// Shows every span kept.
    pub fn each_span(&self, mut see: impl FnMut(&Span)) {
        let inner = self.lock();
        inner.traces.all().flat_map(|(_, t)| t.spans.iter()).for_each(|s| see(s));
    }
}

impl FindRow {
    fn of(found: &Found) -> Option<Self> {
        // Of two ends of one call that began together, the caller's comes first.
        let order = |s: &&Item| (s.start_wall_ns(), s.parent_span_id.is_some(), s.span_id);
        let first = found.spans.iter().min_by_key(order)?;
        let end = found.spans.iter().map(|s| s.end_wall_ns()).max()?;
        let services: BTreeSet<&str> = found.spans.iter().map(|s| s.resource.service.as_str()).collect();
        let mut failed: Vec<(u64, &str)> = Vec::new();
        for s in &found.spans {
            if let Status::Error(message) = &s.status {
                failed.push((s.start_wall_ns(), message));
            }
        }
        failed.sort_unstable();
        Some(Self {
            trace_id: first.trace_id.to_string(),
            time: rfc3339(first.start_wall_ns()),
            duration_ms: end.saturating_sub(first.start_wall_ns()) as f64 / 1e6,
            root: format!("{} {}", first.resource.service, first.name),
            services: services.into_iter().map(str::to_owned).collect(),
            spans: found.spans.len(),
            failed: failed.len(),
            error: failed.iter().map(|(_, m)| *m).find(|m| !m.is_empty()).map(str::to_owned),
        })
    }
}
