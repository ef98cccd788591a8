//! Which log records matter: what the services of a failure wrote about it themselves, nearest to the cause first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cause::Analysis;
use super::logged::Logged;
use super::schema::LogLine;
use super::tree::Tree;
use super::{Case, view};
use crate::export::time::rfc3339;
use crate::trace::logs::Severity;
use crate::trace::model::{SpanId, TraceId};

/// Lines shown: one per service of a long chain.
const MAX_LINES: usize = 6;
/// Last lines of a process that has ended.
const MAX_LAST_WORDS: usize = 3;

/// Why a record is shown; the nearest to the cause first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Relation {
    /// Written in the span of the cause.
    Cause,
    /// Written in a span above it.
    Caller,
    /// It names the operation.
    Operation,
    /// Written elsewhere in these traces.
    Trace,
    /// The last lines of a process whose end explains the failure.
    LastWords,
}

impl Relation {
    const fn name(self) -> &'static str {
        match self {
            Relation::Cause => "cause",
            Relation::Caller => "caller",
            Relation::Operation => "operation",
            Relation::Trace => "trace",
            Relation::LastWords => "last_words",
        }
    }
}

/// The records that matter, in order of time, and how many errors are not among them.
pub fn lines(case: &Case, tree: &Tree<'_>, analysis: &Analysis<'_>) -> (Vec<LogLine>, usize) {
    let near = near(tree, analysis);
    let own: BTreeSet<TraceId> = case.spans.iter().map(|s| s.trace_id).collect();
    let failed = analysis.first().is_some();
    let mut chosen: Vec<(Relation, &Arc<Logged>)> = Vec::new();
    for record in &case.logs {
        let place = record.span_id.and_then(|id| near.get(&id).copied());
        let relation = match (place, record.trace_id) {
            (Some(relation), _) => relation,
            (None, None) => Relation::Operation,
            (None, Some(trace)) if own.contains(&trace) => Relation::Trace,
            // Of a failure at that time that explains nothing here.
            (None, Some(_)) => continue,
        };
        // Of what went well nobody asks for the warnings, and of what failed only for those next to the failure.
        let wanted = record.severity >= Severity::ERROR || (failed && relation <= Relation::Caller);
        if wanted {
            chosen.push((relation, record));
        }
    }
    chosen.sort_by_key(|(relation, r)| {
        let bad = r.severity >= Severity::ERROR || r.exception.is_some();
        (!bad, *relation, r.exception.is_none(), r.wall_ns)
    });
    let mut lines: Vec<(u64, LogLine)> = Vec::new();
    let mut left_out = 0;
    for (relation, record) in chosen {
        if let Some((_, known)) = lines.iter_mut().find(|(_, known)| says_the_same(known, record)) {
            known.count += 1;
        } else if lines.len() < MAX_LINES {
            lines.push((record.wall_ns, line(relation, record)));
        } else {
            left_out += usize::from(record.severity >= Severity::ERROR);
        }
    }
    for record in case.last_words.iter().rev().take(MAX_LAST_WORDS) {
        if !lines.iter().any(|(_, known)| says_the_same(known, record)) {
            lines.push((record.wall_ns, line(Relation::LastWords, record)));
        }
    }
    lines.sort_by_key(|(at, _)| *at);
    (lines.into_iter().map(|(_, l)| l).collect(), left_out)
}

/// The lines of the records of one trace.
pub fn of_trace(records: &[Arc<Logged>]) -> Vec<LogLine> {
    records.iter().map(|r| line(Relation::Trace, r)).collect()
}

/// The spans of the cause and those above it.
fn near(tree: &Tree<'_>, analysis: &Analysis<'_>) -> BTreeMap<SpanId, Relation> {
    let mut near = BTreeMap::new();
    let Some(finding) = analysis.first() else { return near };
    let id = |i: usize| tree.spans[i].span_id;
    for first in &finding.spans {
        let mut at = Some(*first);
        // Thousands of attempts have one caller: what was passed once is not passed again.
        while let Some(i) = at.filter(|i| near.insert(id(*i), Relation::Caller).is_none()) {
            near.extend(tree.server_end(i).map(|s| (id(s), Relation::Caller)));
            at = tree.parent[i];
        }
    }
    for i in finding.spans.iter().copied().chain(finding.meanwhile) {
        near.insert(id(i), Relation::Cause);
        near.extend(tree.server_end(i).map(|s| (id(s), Relation::Cause)));
        // A call has no lines of its own: its caller's are those of the span it was made in.
        if let Some(parent) = tree.parent[i].filter(|_| view::is_client(tree.spans[i])) {
            near.insert(id(parent), Relation::Cause);
        }
    }
    near.extend(finding.beyond.iter().map(|s| (s.span_id, Relation::Cause)));
    near
}

fn says_the_same(line: &LogLine, record: &Logged) -> bool {
    line.service == record.resource.service
        && line.message == record.message
        && line.exception == record.exception
        && line.severity == record.severity.name()
}

fn line(relation: Relation, record: &Logged) -> LogLine {
    LogLine {
        time: rfc3339(record.wall_ns),
        service: record.resource.service.clone(),
        severity: record.severity.name().to_owned(),
        logger: record.logger.clone(),
        message: record.message.clone(),
        exception: record.exception.clone(),
        stack: record.stack.clone(),
        relation: relation.name().to_owned(),
        confidence: super::report::certainty(record.inferred),
        trace_id: record.trace_id.map(|id| id.to_string()),
        span_id: record.span_id.map(|id| id.to_string()),
        count: 1,
    }
}
