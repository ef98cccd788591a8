//! Builds the answer.

use super::cause::{Analysis, Finding};
use super::hints::{self, shorten};
use super::schema::{Cause, Evidence, Operation, Report, SCHEMA, Step};
use super::tree::{Edge, Tree};
use super::{Case, Kind, gaps, knowledge, logs, sentence, slow, timeline, view};
use crate::export::time::rfc3339;
use crate::trace::model::{Span, Value, digits};

/// Causes listed; more than this many things at once are one thing that was not recognised.
const MAX_CAUSES: usize = 5;
/// Evidence spans at most.
const MAX_EVIDENCE: usize = 12;
/// Steps of a chain: KTRDR's longest has eight; of longer ones the two ends are kept.
const MAX_CHAIN: usize = 14;

/// Builds the report and makes it fit.
pub fn make(case: &Case, tree: &Tree<'_>, analysis: &Analysis<'_>) -> Report {
    let causes: Vec<Cause> =
        analysis.findings.iter().take(MAX_CAUSES).map(|f| cause(case, tree, f)).collect();
    let verdict = causes.first().cloned().unwrap_or_else(|| success(case, tree, analysis));
    let (rows, hidden) = timeline::rows(tree, analysis);
    let (logs, unsaid) = logs::lines(case, tree, analysis);
    let start = tree.spans.iter().map(|s| s.start_wall_ns()).min().unwrap_or_default();
    let end = tree.spans.iter().map(|s| s.end_wall_ns()).max().unwrap_or_default();
    let mut report = Report {
        schema: SCHEMA.to_owned(),
        query: shorten(&case.query, 200),
        operation: operation(case, tree),
        trace_ids: traces(tree, analysis),
        spans: tree.len(),
        start_time: rfc3339(start),
        duration_ms: timeline::millis(end.saturating_sub(start)),
        chain: analysis.first().map(|f| chain(tree, f)).unwrap_or_default(),
        evidence: analysis.first().map_or_else(|| on_gpu(tree, &verdict), |f| evidence(tree, f)),
        logs,
        timeline: rows,
        gaps: gaps::find(case, tree, analysis),
        hints: hints::make(case, tree, analysis),
        truncated: Vec::new(),
        verdict,
        causes,
    };
    if analysis.findings.len() > MAX_CAUSES {
        report.truncated.push(format!("{} more causes", analysis.findings.len() - MAX_CAUSES));
    }
    if hidden > 0 {
        report.truncated.push(format!("{hidden} further spans of the timeline"));
    }
    if unsaid > 0 {
        report.truncated.push(format!("{unsaid} log records"));
    }
    report.cut_texts();
    report.fit();
    report
}

fn cause(case: &Case, tree: &Tree<'_>, finding: &Finding<'_>) -> Cause {
    let span = finding.span(tree);
    Cause {
        kind: finding.kind,
        sentence: sentence::of_cause(case, tree, finding),
        confidence: certainty(finding.inferred),
        service: Some(span.resource.service.clone()),
        peer: view::peer(span),
        span_id: Some(span.span_id.to_string()),
        trace_id: Some(span.trace_id.to_string()),
        time: Some(rfc3339(tree.spans[finding.spans[0]].start_wall_ns())),
        attempts: finding.spans.len(),
    }
}

fn success(case: &Case, tree: &Tree<'_>, analysis: &Analysis<'_>) -> Cause {
    let (kind, sentence) = sentence::of_success(case, tree, analysis);
    let top = slow::longest(tree);
    // The span that holds the time.
    let most = top.and_then(|t| slow::shares(tree, t).first().map(|s| tree.spans[s.span]));
    Cause {
        kind,
        sentence,
        confidence: certainty(false),
        service: most.map(|s| s.resource.service.clone()),
        peer: most.and_then(view::peer),
        span_id: most.map(|s| s.span_id.to_string()),
        trace_id: most.map(|s| s.trace_id.to_string()),
        time: most.map(|s| rfc3339(s.start_wall_ns())),
        attempts: 1,
    }
}

pub fn certainty(inferred: bool) -> String {
    (if inferred { "inferred" } else { "exact" }).to_owned()
}

fn operation(case: &Case, tree: &Tree<'_>) -> Option<Operation> {
    let id = case.operation.clone()?;
    let about = |key: &str| {
        let of = |s: &&&Span| view::text(s, "operation.id") == Some(&id);
        let mut spans = tree.spans.iter().rev().filter(of);
        spans.find_map(|s| view::text(s, key)).map(str::to_owned)
    };
    Some(Operation {
        kind: about("operation.type").or_else(|| knowledge::operation_type(&id).map(str::to_owned)),
        status: about("operation.status"),
        error: about("operation.error"),
        id: shorten(&id, 100),
    })
}

fn traces(tree: &Tree<'_>, analysis: &Analysis<'_>) -> Vec<String> {
    const MOST: usize = 8;
    let first = analysis.first().map(|f| f.span(tree).trace_id);
    let mut ids: Vec<_> = first.into_iter().collect();
    for span in &tree.spans {
        if ids.len() >= MOST {
            break;
        }
        if !ids.contains(&span.trace_id) {
            ids.push(span.trace_id);
        }
    }
    ids.iter().map(ToString::to_string).collect()
}

fn chain(tree: &Tree<'_>, finding: &Finding<'_>) -> Vec<Step> {
    let step = |i: usize, relation: &str| {
        let span = tree.spans[i];
        let server = tree.server_end(i).map(|s| tree.spans[s]);
        let to = server.map(|s| s.resource.service.clone()).or_else(|| view::peer(span));
        let inferred = view::text(span, "ktrdr.link.certainty") == Some("inferred");
        Step {
            service: span.resource.service.clone(),
            to,
            what: view::what(span).into_owned(),
            outcome: view::outcome(span),
            duration_ms: timeline::millis(view::duration(span)),
            relation: relation.to_owned(),
            confidence: certainty(inferred),
            span_id: span.span_id.to_string(),
        }
    };
    let mut steps = Vec::new();
    let mut path = tree.path(finding.last());
    path.retain(|i| !timeline::is_far_end(tree, *i));
    if path.len() > MAX_CHAIN {
        path.drain(MAX_CHAIN / 2..path.len() - MAX_CHAIN / 2);
    }
    for i in path {
        let relation = match tree.edge[i] {
            Edge::Root | Edge::Child => "calls",
            Edge::After => "afterwards",
            Edge::About => "for it",
        };
        steps.push(step(i, relation));
    }
    steps.extend(finding.meanwhile.map(|m| step(m, "meanwhile")));
    if let Some(span) = finding.beyond.last() {
        steps.push(Step {
            service: span.resource.service.clone(),
            to: view::peer(span),
            what: view::what(span).into_owned(),
            outcome: view::outcome(span),
            duration_ms: timeline::millis(view::duration(span)),
            relation: "at that time".to_owned(),
            confidence: certainty(true),
            span_id: span.span_id.to_string(),
        });
    }
    steps
}

/// The cause's attempts, the other end of the last one, what its callee waited for, and the calls above.
fn evidence(tree: &Tree<'_>, finding: &Finding<'_>) -> Vec<Evidence> {
    let mut spans: Vec<&Span> = finding.beyond.iter().rev().take(4).copied().collect();
    let ends = [finding.spans.first(), finding.spans.last()];
    let mut indices: Vec<usize> = ends.into_iter().flatten().rev().copied().collect();
    indices.extend(tree.server_end(finding.last()));
    indices.extend(finding.meanwhile);
    indices.extend(tree.path(finding.last()).into_iter().rev());
    for i in indices {
        if spans.len() == MAX_EVIDENCE {
            break;
        }
        if !spans.iter().any(|s| s.span_id == tree.spans[i].span_id) {
            spans.push(tree.spans[i]);
        }
    }
    spans.into_iter().map(proof).collect()
}

/// What proves a verdict about a GPU when nothing failed.
fn on_gpu(tree: &Tree<'_>, verdict: &Cause) -> Vec<Evidence> {
    if !matches!(verdict.kind, Kind::GpuNotUsed | Kind::GpuIdle) {
        return Vec::new();
    }
    let spoken = |s: &&&Span| super::gpu::of_slow(s).is_some();
    tree.spans.iter().filter(spoken).take(2).map(|s| proof(s)).collect()
}

/// Attributes that repeat other fields, or say nothing about the failure.
const NOISE: [&str; 11] = [
    "http.request.method",
    "network.protocol.version",
    "network.transport",
    "network.type",
    "url.scheme",
    "url.template",
    "user_agent.original",
    "ktrdr.exchange.id",
    "client.address",
    "thread.id",
    "http.request.body.size",
];

fn proof(span: &Span) -> Evidence {
    let mut attributes = serde_json::Map::new();
    for a in span.attributes.iter().filter(|a| !NOISE.contains(&&*a.key)).take(24) {
        let value = match &a.value {
            Value::Static(s) => (*s).into(),
            Value::Str(s) => shorten(s, 200).into(),
            Value::Id(id) => digits(id).as_str().into(),
            Value::Int(n) => (*n).into(),
            Value::Float(f) => (*f).into(),
            Value::Bool(b) => (*b).into(),
            Value::List(items) => items.iter().take(8).map(|s| shorten(s, 100)).collect(),
        };
        attributes.insert(shorten(&a.key, 80), value);
    }
    Evidence {
        span_id: span.span_id.to_string(),
        service: span.resource.service.clone(),
        kind: format!("{:?}", span.kind).to_lowercase(),
        name: span.name.clone(),
        time: rfc3339(span.start_wall_ns()),
        duration_ms: timeline::millis(view::duration(span)),
        message: view::message(span).unwrap_or_default().to_owned(),
        attributes,
    }
}
