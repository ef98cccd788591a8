//! What is missing from the picture, so that nobody takes silence for evidence.

use std::collections::BTreeSet;

use super::cause::Analysis;
use super::tree::{Edge, Tree};
use super::{Case, view};
use crate::trace::model::{SpanKind, TraceId, Value};

/// A reason of `ktrdr.incomplete`: all of the answer was seen, and it is none of the protocol that the request speaks.
const UNREADABLE: &str = "response_unreadable";

pub use crate::trace::spans::unseen;

/// Sentences, most important first.
pub fn find(case: &Case, tree: &Tree<'_>, analysis: &Analysis<'_>) -> Vec<String> {
    let mut gaps = Vec::new();
    let count = |n: usize, one: &str, many: &str| {
        if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
    };
    for (name, n) in case.lost.iter().filter(|(_, n)| *n > 0) {
        gaps.push(format!("the agent lost {n} × {name} at that time: calls may be missing"));
    }
    if case.dropped > 0 {
        let what = count(case.dropped as usize, "span is", "spans are");
        gaps.push(format!("{what} no longer kept (the agent's memory is bounded)"));
    }
    gaps.extend(
        case.narrowed.as_ref().map(|how| format!("not all is observed ({how}): other calls do not show")),
    );
    if tree.missing_parents > 0 {
        let what = count(tree.missing_parents, "span's caller is", "spans' callers are");
        let left_out = if case.narrowed.is_some() { "left out as asked, " } else { "" };
        gaps.push(format!("{what} not here: {left_out}still open, not observed, or no longer kept"));
    }
    let traces: BTreeSet<TraceId> = case.spans.iter().map(|s| s.trace_id).collect();
    if case.by_part && traces.len() > 1 {
        let what = traces.len();
        gaps.push(format!(
            "`{}` is a part of URLs in {what} traces, and this is about all of them",
            case.query
        ));
    }
    let incomplete = |ours: bool| {
        let matches = |r: &str| unseen(r) == ours;
        tree.spans.iter().filter(|s| view::text(s, "ktrdr.incomplete").is_some_and(matches)).count()
    };
    let ours = incomplete(true);
    let unreadable =
        tree.spans.iter().filter(|s| view::text(s, "ktrdr.incomplete") == Some(UNREADABLE)).count();
    if unreadable > 0 {
        let what = count(unreadable, "call was", "calls were");
        gaps.push(format!(
            "{what} answered in what is not the request's protocol (HTTP/2 to HTTP/1.1, for instance)"
        ));
    }
    let ours = ours - unreadable;
    if ours > 0 {
        let what = count(ours, "call was", "calls were");
        gaps.push(format!("{what} not seen to the end by the agent"));
    }
    gaps.extend(observed(tree));
    let inferred =
        tree.spans.iter().filter(|s| view::text(s, "ktrdr.link.certainty") == Some("inferred")).count();
    if inferred > 0 {
        let what = count(inferred, "span's place in the trace is", "spans' places in the trace are");
        gaps.push(format!("{what} inferred, not certain"));
    }
    let unseen_ends = unobserved(tree, analysis);
    if !unseen_ends.is_empty() {
        let what = if unseen_ends.len() == 1 { "its inner work is" } else { "their inner work is" };
        gaps.push(format!("not observed, or not finished: {} ({what} not visible)", unseen_ends.join(", ")));
    }
    gaps.extend(still_open(tree, analysis));
    if tree.cycles > 0 {
        gaps.push("some spans name each other as parents (damaged input)".to_owned());
    }
    gaps
}

/// Services of whose calls not all were observed; at most four are named.
fn observed(tree: &Tree<'_>) -> Vec<String> {
    let mut parts: Vec<(&str, f64)> = Vec::new();
    for span in &tree.spans {
        let Some(Value::Float(part)) = span.attributes.get("ktrdr.observed.share") else { continue };
        let name = match span.kind {
            SpanKind::Server => Some(span.resource.service.as_str()),
            _ => view::peer_name(span),
        };
        let name = name.unwrap_or("a service that is not known");
        if let Some((_, known)) = parts.iter_mut().find(|(known, _)| *known == name) {
            // It changes while a trace goes on.
            *known = known.min(*part);
        } else if parts.len() < 4 {
            parts.push((name, *part));
        }
    }
    let only = |(name, part): &(&str, f64)| {
        let percent = part * 100.0;
        let percent = if percent < 1.0 { format!("{percent:.1}") } else { format!("{percent:.0}") };
        format!("of the calls to {name} only {percent} % were observed, to stay within the agent's budget")
    };
    parts.iter().map(only).collect()
}

/// A service whose caller gave up, and which is not seen to have called anyone meanwhile: a call that it has not
/// finished yet is not in the trace yet.
fn still_open(tree: &Tree<'_>, analysis: &Analysis<'_>) -> Option<String> {
    let cause = analysis.first().filter(|f| super::symptom::unanswered(f.kind) && f.beyond.is_empty())?;
    let server = tree.server_end(cause.last())?;
    // One that has ended has no calls that are still to come.
    if !tree.children[server].is_empty() || !view::is_open(tree.spans[server]) {
        return None;
    }
    let name = &tree.spans[server].resource.service;
    Some(format!("calls that {name} has not finished yet do not show: ask again when they have ended"))
}

/// Peers that answered, or should have, and whose own end of the call is not here; at most four are named.
fn unobserved(tree: &Tree<'_>, analysis: &Analysis<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for i in 0..tree.len() {
        let span = tree.spans[i];
        let alone = span.kind == SpanKind::Client
            && !view::is_connect(span)
            && !tree.children[i].iter().any(|c| tree.edge[*c] == Edge::Child);
        // Of calls that went well nobody asks what happened inside.
        let matters = analysis.failing[i] || view::duration(span) >= super::slow::SLOW_NS;
        if let Some(peer) = view::peer(span).filter(|p| alone && matters && !names.contains(p)) {
            if names.len() == 4 {
                names.push("others".to_owned());
                break;
            }
            names.push(peer);
        }
    }
    names
}
