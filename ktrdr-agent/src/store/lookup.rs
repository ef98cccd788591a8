//! From a question to the spans it is about.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::jaeger::TraceQuery;
use super::traces::Class;
use super::{Answers, Filter, Finds, Inner, NotFound, Spans, Store};
use crate::explain::{self, Case, Kind, ListRow, Listing, Logged, Report, parse};
use crate::export::Item;
use crate::trace::model::{SpanKind, TraceId, Value};

/// Failures without an origin that are looked at.
const MAX_NEARBY: usize = 256;
/// What happened a little later tells how a process that broke a connection ended: KTRDR's API checks the health of
/// its workers every 10 s.
const LATER_NS: u64 = 12_000_000_000;
/// A worker registers when it starts, and a job that finds no worker may come much later: so long before is looked for
/// registrations that were rejected.
const REGISTRATION_NS: u64 = 600_000_000_000;
/// So many of them: they repeat each other.
const MAX_REJECTED: usize = 3;
/// Operations, traces with a failure, and traces with answers that blame their request only, that a listing looks through, each.
const MAX_SEARCHED: usize = 512;
/// Rows of a listing at most.
pub const MAX_ROWS: usize = 50;
/// Shortest beginning of a trace id that is understood.
const MIN_PREFIX: usize = 6;
/// Shortest part of a path that is looked for, bytes.
const MIN_PART: usize = 3;
/// Suggestions at most.
const MAX_SUGGESTIONS: usize = 5;

/// What a case is about.
enum Subject {
    Operation(String),
    Traces(Vec<TraceId>),
    /// Traces with this in their URLs.
    Part(Vec<TraceId>),
}

impl Answers for Store {
    fn explain(&self, query: &str) -> Result<Report, NotFound> {
        let query = query.trim();
        if matches!(query.to_ascii_lowercase().replace(['-', '_'], " ").as_str(), "last error" | "last") {
            return self.last_error(query);
        }
        let open = self.ask_open();
        let case = {
            let inner = self.lock();
            let subject = inner.subject(query)?;
            inner.case(query, &subject, &open)
        };
        Ok(explain::explain(&case))
    }

    fn list(&self, limit: usize) -> Listing {
        self.list_of(limit, &Filter::default())
    }

    fn list_of(&self, limit: usize, filter: &Filter) -> Listing {
        let limit = limit.clamp(1, MAX_ROWS);
        let (traces, spans) = self.size();
        let open = self.ask_open();
        // What is no failure in the end, or is left out by a filter, makes room for what came before it.
        let subjects = self.lock().recent(MAX_SEARCHED);
        let now = now();
        // Of each its row alone: there may be many, and most say the same.
        let mut found: Vec<(ListRow, Vec<String>)> = subjects
            .iter()
            // The lock is taken for one at a time: spans keep arriving.
            .map(|subject| self.lock().case("", subject, &open))
            .filter(|case| !case.spans.is_empty() && filter.takes(case, now))
            .map(|case| explain::explain(&case))
            .filter(|r| r.operation.is_some() || r.verdict.kind.is_failure())
            .filter(|r| filter.shows(r))
            .map(|r| (ListRow::new(&r), r.trace_ids))
            .collect();
        // A failure that explains an operation needs no line of its own.
        let within: BTreeSet<String> =
            found.iter().filter(|(row, _)| row.is_operation).flat_map(|(_, ids)| ids.clone()).collect();
        found.retain(|(row, ids)| row.is_operation || ids.first().is_none_or(|t| !within.contains(t)));
        found.sort_by(|(a, _), (b, _)| b.time.cmp(&a.time));
        let mut rows: Vec<ListRow> = Vec::new();
        for (row, _) in found {
            if let Some(known) = rows.iter_mut().find(|known| known.same_as(&row)) {
                known.count += 1;
            } else if rows.len() < limit {
                rows.push(row);
            }
        }
        Listing { schema: explain::LIST_SCHEMA.to_owned(), rows, traces, spans }
    }

    fn find(&self, query: &TraceQuery) -> Finds {
        self.found(query)
    }

    fn spans(&self, trace: &str) -> Result<Spans, NotFound> {
        let id = {
            let inner = self.lock();
            match inner.subject(trace.trim())? {
                Subject::Traces(ids) | Subject::Part(ids) => ids.first().copied(),
                Subject::Operation(id) => inner.operations.get(&id).and_then(|t| t.ids.front().copied()),
            }
        };
        self.spans_of(id.unwrap_or_default())
    }
}

impl Store {
    fn last_error(&self, query: &str) -> Result<Report, NotFound> {
        let newest = self.lock().failed(MAX_SEARCHED);
        let looked_at = newest.len();
        for id in newest {
            let case = {
                let inner = self.lock();
                // The whole operation tells more than one of its traces.
                let subject = match inner.operation_of(id) {
                    Some(operation) => Subject::Operation(operation),
                    None => Subject::Traces(vec![id]),
                };
                inner.case(query, &subject, &[])
            };
            let report = explain::explain(&case);
            if report.verdict.kind.is_failure() {
                return Ok(report);
            }
        }
        let (traces, spans) = self.size();
        let message = match looked_at < MAX_SEARCHED {
            true => format!("no error among the {spans} spans of {traces} traces kept"),
            false => format!("no error in the last {looked_at} traces in which something failed on the way"),
        };
        Err(NotFound { message, suggestions: Vec::new() })
    }
}

impl Inner {
    fn subject(&self, query: &str) -> Result<Subject, NotFound> {
        if query.is_empty() {
            return Err(self.not_found("nothing was asked for".to_owned(), query));
        }
        if self.operations.get(query).is_some() {
            return Ok(Subject::Operation(query.to_owned()));
        }
        let hex = query.to_ascii_lowercase();
        if hex.len() <= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            match parse::trace_id(&hex) {
                Ok(id) if self.traces.get(id).is_some() => return Ok(Subject::Traces(vec![id])),
                Ok(_) => return Err(self.not_found(format!("no trace {hex} is kept"), query)),
                Err(_) if hex.len() >= MIN_PREFIX => {
                    let same = |(id, _): &(TraceId, _)| id.to_string().starts_with(&hex);
                    let ids: Vec<TraceId> = self.traces.all().filter(same).map(|(id, _)| id).collect();
                    match ids.as_slice() {
                        [] => {}
                        [one] => return Ok(Subject::Traces(vec![*one])),
                        many => return Err(ambiguous(query, many.iter().map(ToString::to_string).collect())),
                    }
                }
                Err(_) => {}
            }
        }
        let part: Vec<String> = self
            .operations
            .newest()
            .map(|(id, _)| id)
            .filter(|id| id.contains(query))
            .map(str::to_owned)
            .collect();
        match part.as_slice() {
            [] => {}
            [one] => return Ok(Subject::Operation(one.clone())),
            _ if query.len() < MIN_PREFIX => {}
            _ => return Err(ambiguous(query, part)),
        }
        if query.len() < MIN_PART {
            return Err(self.not_found(format!("`{query}` is too short to be looked for"), query));
        }
        if query.starts_with('/') {
            return self.of_path(query);
        }
        let traces: Vec<TraceId> = self
            .traces
            .all()
            .filter(|(_, t)| t.spans.iter().any(|s| mentions(s, query)))
            .map(|(id, _)| id)
            .take(128)
            .collect();
        if traces.is_empty() {
            let message = format!("nothing is known about `{}`", clip(query));
            return Err(self.not_found(message, query));
        }
        Ok(Subject::Part(traces))
    }

    /// The newest trace with a call to this path, or to one below it; rather one that failed.
    fn of_path(&self, path: &str) -> Result<Subject, NotFound> {
        let below = |p: &str| {
            p.strip_prefix(path).is_some_and(|r| path.ends_with('/') || r.is_empty() || r.starts_with('/'))
        };
        let calls = |s: &Item| explain::view::path(s).is_some_and(below);
        let newest =
            |class| self.traces.newest(class).find(|(_, t)| t.spans.iter().any(calls)).map(|(id, _)| id);
        let found = [Class::Error, Class::Operation, Class::Healthy].into_iter().find_map(newest);
        let message = || format!("no call to `{}` is kept", clip(path));
        found.map(|id| Subject::Traces(vec![id])).ok_or_else(|| self.not_found(message(), path))
    }

    fn not_found(&self, message: String, query: &str) -> NotFound {
        let mut known: Vec<(bool, usize, String)> = self
            .operations
            .newest()
            .take(256)
            .map(|(id, _)| (strsim::damerau_levenshtein(clip(query), id) > 8, id))
            .enumerate()
            .filter(|(_, (far, _))| !far)
            .map(|(age, (far, id))| (far, age, id.to_owned()))
            .collect();
        known.sort();
        let suggestions = known.into_iter().map(|(_, _, id)| id).take(MAX_SUGGESTIONS).collect();
        NotFound { message, suggestions }
    }

    /// The operation that a trace belongs to.
    fn operation_of(&self, trace: TraceId) -> Option<String> {
        let trace = self.traces.get(trace)?;
        trace.spans.iter().find_map(|s| super::operations::ids_of(s).into_iter().next())
    }

    /// Operations and traces with errors, newest first.
    fn recent(&self, limit: usize) -> Vec<Subject> {
        let operations =
            self.operations.newest().take(limit).map(|(id, _)| Subject::Operation(id.to_owned()));
        let mut all: Vec<Subject> = operations.collect();
        let alone = self.failed(limit).into_iter().filter(|id| self.operation_of(*id).is_none());
        all.extend(alone.map(|id| Subject::Traces(vec![id])));
        all
    }

    /// Traces in which something failed, newest first. Answers that blame the request are mostly none, and may be many: they do not
    /// push out the others.
    fn failed(&self, limit: usize) -> Vec<TraceId> {
        let (mut hard, mut soft) = (0, 0);
        let mut room = |failed: bool| {
            let taken = if failed { &mut hard } else { &mut soft };
            *taken += 1;
            *taken <= limit
        };
        let failed = |s: &Item| explain::kind_of(s).is_some_and(Kind::is_failure) && !explain::is_soft(s);
        let traces = self.traces.newest(Class::Error);
        traces.filter(|(_, t)| room(t.spans.iter().any(failed))).map(|(id, _)| id).collect()
    }

    fn case(&self, query: &str, subject: &Subject, open: &[Item]) -> Case {
        let (operation, ids, mut dropped) = match subject {
            Subject::Operation(id) => {
                let traces = self.operations.get(id);
                let ids = traces.map(|t| t.ids.iter().copied().collect()).unwrap_or_default();
                // A trace of polls is two spans.
                (Some(id.clone()), ids, traces.map_or(0, |t| t.dropped * 2))
            }
            Subject::Traces(ids) | Subject::Part(ids) => (None, ids.clone(), 0),
        };
        let by_part = matches!(subject, Subject::Part(_));
        let mut spans: Vec<Item> = Vec::new();
        for id in &ids {
            if let Some(trace) = self.traces.get(*id) {
                spans.extend(trace.spans.iter().cloned());
                dropped += trace.dropped;
            }
        }
        let mentions = |s: &Item, id: &str| super::operations::ids_of(s).iter().any(|i| i == id);
        let concerns =
            |s: &&Item| ids.contains(&s.trace_id) || operation.as_deref().is_some_and(|id| mentions(s, id));
        spans.extend(open.iter().filter(concerns).cloned());
        if let Some(id) = &operation {
            // A trace can hold several operations (a list of them was asked for, a thread did one after the other).
            spans.retain(|s| {
                let ids = super::operations::ids_of(s);
                ids.is_empty() || ids.contains(id)
            });
        }
        let operation = operation.or_else(|| match ids.as_slice() {
            [one] => self.operation_of(*one),
            _ => None,
        });
        let mut nearby = self.nearby(&spans);
        let lost = self.losses(&spans);
        let traces: BTreeSet<TraceId> = ids.into_iter().chain(nearby.iter().map(|s| s.trace_id)).collect();
        let mut logs = self.logs.about(traces.into_iter(), operation.as_deref());
        if let (Subject::Operation(id), true) = (subject, operation.is_some()) {
            // What is said of another operation in a trace of several is not about this one.
            logs.retain(|r| r.operation.as_ref().is_none_or(|of| of == id));
        }
        let last_words = self.last_words(spans.iter().chain(&nearby));
        // What those services wait for now, for others: one with a single thread answers nobody meanwhile.
        let is_there = |own: &Item, service: &str| {
            let peer = own.attributes.get("peer.service").and_then(Value::as_str);
            own.resource.service == service || peer == Some(service)
        };
        let theirs = |s: &&Item| {
            s.kind == SpanKind::Client && spans.iter().any(|own| is_there(own, &s.resource.service))
        };
        let elsewhere = |s: &&Item| spans.iter().all(|own| own.span_id != s.span_id);
        nearby.extend(open.iter().filter(theirs).filter(elsewhere).take(MAX_NEARBY).cloned());
        let (query, narrowed) = (query.to_owned(), self.narrowed.clone());
        Case { query, operation, spans, nearby, logs, last_words, lost, narrowed, by_part, dropped }
    }

    /// Failed calls without a caller, by the same services at the same time, in other traces.
    fn nearby(&self, spans: &[Item]) -> Vec<Item> {
        let ids: BTreeSet<TraceId> = spans.iter().map(|s| s.trace_id).collect();
        let mut services: BTreeSet<&str> = spans.iter().map(|s| s.resource.service.as_str()).collect();
        services
            .extend(spans.iter().filter_map(|s| s.attributes.get("peer.service").and_then(Value::as_str)));
        let from = spans.iter().map(|s| s.start_wall_ns()).min().unwrap_or_default();
        let to = spans.iter().map(|s| s.end_wall_ns()).max().unwrap_or_default().saturating_add(LATER_NS);
        let mut found: Vec<Item> = self
            .traces
            .newest(Class::Error)
            .filter(|(id, _)| !ids.contains(id))
            .flat_map(|(_, t)| t.spans.iter())
            .filter(|s| s.kind == SpanKind::Client && s.parent_span_id.is_none() && s.links.is_empty())
            .filter(|s| (from..=to).contains(&s.start_wall_ns()))
            .filter(|s| services.contains(s.resource.service.as_str()))
            .filter(|s| explain::kind_of(s).is_some())
            .take(MAX_NEARBY)
            .map(Arc::clone)
            .collect();
        let text = |s: &Item, key: &str| s.attributes.get(key).and_then(Value::as_str).map(str::to_owned);
        let rejected = self
            .traces
            .newest(Class::Error)
            .filter(|(id, _)| !ids.contains(id))
            .flat_map(|(_, t)| t.spans.iter())
            .filter(|s| s.kind == SpanKind::Client && explain::is_rejected_registration(s))
            .filter(|s| (from.saturating_sub(REGISTRATION_NS)..=to).contains(&s.start_wall_ns()))
            .filter(|s| text(s, "peer.service").is_some_and(|peer| services.contains(peer.as_str())))
            .take(MAX_REJECTED);
        found.extend(rejected.cloned());
        found.sort_by_key(|s| (s.start_wall_ns(), s.span_id));
        found.dedup_by_key(|s| s.span_id);
        found
    }

    /// The last lines of the processes that no longer listened.
    fn last_words<'a>(&self, spans: impl Iterator<Item = &'a Item>) -> Vec<Arc<Logged>> {
        let int = |s: &Item, key: &str| match s.attributes.get(key) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        };
        let mut found: Vec<Arc<Logged>> = Vec::new();
        let mut pids = BTreeSet::new();
        for span in spans {
            let Some(pid) = int(span, "ktrdr.listener.pid").filter(|pid| pids.insert(*pid)) else { continue };
            let gone =
                span.attributes.get("ktrdr.listener.state").and_then(Value::as_str) == Some("listener_gone");
            let service = span.attributes.get("peer.service").and_then(Value::as_str);
            if gone {
                found.extend(self.logs.last_words(pid, service, span.end_wall_ns()));
            }
        }
        found.sort_by_key(|r| r.wall_ns);
        found
    }

    /// What was lost while the spans were made; counters are read once a second.
    fn losses(&self, spans: &[Item]) -> Vec<(String, u64)> {
        const SECOND: u64 = 1_000_000_000;
        let from = spans.iter().map(|s| s.start_wall_ns()).min().unwrap_or_default();
        let to = spans.iter().map(|s| s.end_wall_ns()).max().unwrap_or_default().saturating_add(SECOND);
        let mut sums = self.lost_throughout.clone();
        for (_, name, n) in self.losses.iter().filter(|(at, _, _)| (from..=to).contains(at)) {
            match sums.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += n,
                None => sums.push((name.clone(), *n)),
            }
        }
        sums
    }
}

/// Nanoseconds since the Unix epoch.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a path or an id of the span has this part.
fn mentions(span: &Item, query: &str) -> bool {
    let part = |text: &str| text.split(['/', '?', '&', '=', '#']).any(|p| p == query);
    span.span_id.to_string() == query
        || ["url.path", "url.full", "url.query", "session.id", "worker.id"]
            .iter()
            .filter_map(|k| span.attributes.get(k).and_then(Value::as_str))
            .any(part)
}

fn ambiguous(query: &str, mut all: Vec<String>) -> NotFound {
    let message = format!("`{}` fits {} of those kept", clip(query), all.len());
    all.truncate(MAX_SUGGESTIONS);
    NotFound { message, suggestions: all }
}

/// The beginning of a question: it may be anything.
fn clip(query: &str) -> &str {
    query.char_indices().nth(100).map_or(query, |(at, _)| &query[..at])
}
