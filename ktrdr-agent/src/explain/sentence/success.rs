//! When nothing failed.

use super::super::cause::Analysis;
use super::super::symptom::Kind;
use super::super::tree::Tree;
use super::super::{Case, gaps, gpu, knowledge, slow, view};
use super::operation::{progress, worker};
use super::request;
use crate::export::console::human::text::duration;
use crate::trace::model::{Span, SpanKind};
use crate::trace::spans::LEFT_OUT;

/// When nothing failed: the kind and the sentence.
pub fn of_success(case: &Case, tree: &Tree<'_>, analysis: &Analysis<'_>) -> (Kind, String) {
    if let Some(text) = cancelled(tree, analysis) {
        return (Kind::Cancelled, text);
    }
    let Some(top) = slow::longest(tree) else {
        return (Kind::MissingData, "no span of it is here".to_owned());
    };
    let span = tree.spans[top];
    let lost = view::text(span, "ktrdr.incomplete").filter(|why| gaps::unseen(why));
    // One that was answered may have gone on for long after nobody looked at it any more.
    if let Some(why) = lost.filter(|why| *why == LEFT_OUT || view::code(span).is_none()) {
        let why = why.replace('_', " ");
        return (
            Kind::MissingData,
            format!("how {} ended was not seen by the agent ({why})", describe(span)),
        );
    }
    if let Some(text) = not_sure(case, tree, analysis) {
        return (Kind::MissingData, text);
    }
    let took = view::duration(span);
    let shares = slow::shares(tree, top);
    // Of calls within a millisecond the time is noise.
    let worth = |s: &&slow::Share| took >= 1_000_000 && s.own_ns > 0;
    let most = shares.first().filter(worth).map(|s| {
        let part = (s.own_ns as f64 / took.max(1) as f64 * 100.0).round();
        format!("{} of it ({part:.0} %) {}", duration(s.own_ns), slow::say(tree, s))
    });
    let most = most.map(|m| format!(", {m}")).unwrap_or_default();
    let made_good = analysis.recovery.recovered.iter().filter(|r| **r).count();
    let survived: usize = analysis.survived.iter().map(|f| f.spans.len()).sum();
    let disagreement = analysis
        .operation
        .filter(|i| asked_on(tree, *i))
        .and_then(|i| view::text(tree.spans[i], "ktrdr.operation.disagreement"))
        .map(|d| format!("; {d}"))
        .unwrap_or_default();
    let disagreement = format!("{}{disagreement}", tolerated(tree, top));
    let retried = match made_good + survived {
        0 => disagreement,
        1 => format!("; 1 call failed on the way and was made good{disagreement}"),
        n => format!("; {n} calls failed on the way and were made good{disagreement}"),
    };
    let slow = took >= slow::SLOW_NS;
    if let Some(operation) = analysis.operation.map(|i| tree.spans[i]) {
        let (kind, on_gpu) = match gpu::of_slow(operation) {
            Some((kind, text)) => (kind, format!("; {text}")),
            None => (if slow { Kind::Slow } else { Kind::Ok }, String::new()),
        };
        let status = match view::text(operation, "operation.status") {
            Some("completed") => {
                format!("completed after {}{}", duration(view::duration(operation)), worker(operation))
            }
            Some(status) if view::is_open(operation) => {
                format!("is {status}{}{}", worker(operation), progress(operation))
            }
            Some(status) => {
                format!("was {status} when last heard of{}{}", worker(operation), progress(operation))
            }
            None => "was not seen to end".to_owned(),
        };
        let name = view::text(operation, "operation.type").unwrap_or_default();
        let longest = format!("the longest call, {}, took {}{most}{retried}", describe(span), duration(took));
        return (kind, format!("nothing failed: the {name} operation {status}{on_gpu}; {longest}"));
    }
    if slow {
        let ran = tree.server_end(top).map_or(span, |s| tree.spans[s]);
        let (kind, on_gpu) = match gpu::of_slow(ran) {
            Some((kind, text)) => (kind, format!("; {text}")),
            None => (Kind::Slow, String::new()),
        };
        return (
            kind,
            format!("nothing failed, but {} took {}{most}{on_gpu}{retried}", describe(span), duration(took)),
        );
    }
    // An answer that blames the request is what its caller asked to know.
    if let Some(code) = view::code(span).filter(|code| *code >= 400) {
        let reason = knowledge::reason(code);
        let text = format!("{} was answered {code} ({reason}) after {}", describe(span), duration(took));
        return (Kind::Ok, format!("{text}, with which nobody failed{most}{retried}"));
    }
    (Kind::Ok, format!("nothing failed: {} took {}{most}{retried}", describe(span), duration(took)))
}

/// Answers that blame the request, with which whoever asked went on; but for the one that the sentence is about.
fn tolerated(tree: &Tree<'_>, top: usize) -> String {
    let blames = |i: &usize| {
        let code = view::code(tree.spans[*i]).filter(|code| (400..500).contains(code));
        code.filter(|_| *i != top && view::is_client(tree.spans[*i]))
    };
    let codes: Vec<i64> = (0..tree.len()).filter_map(|i| blames(&i)).collect();
    match codes.as_slice() {
        [] => String::new(),
        [code] => format!("; 1 call was answered {code}, with which its caller went on"),
        more => format!("; {} calls were answered with 4xx, with which their callers went on", more.len()),
    }
}

/// Why "nothing failed" would say more than is known: records were lost, or connections were left out, and it shows.
fn not_sure(case: &Case, tree: &Tree<'_>, analysis: &Analysis<'_>) -> Option<String> {
    let lost: u64 = case.lost.iter().map(|(_, n)| n).sum();
    let cut = |s: &&&Span| view::text(s, "ktrdr.incomplete").is_some_and(gaps::unseen);
    let cut = tree.spans.iter().filter(cut).count();
    // Without its own span an operation was not seen to end.
    let no_end = case.operation.is_some() && analysis.operation.is_none();
    let left = tree.spans.iter().filter(|s| view::text(s, "ktrdr.incomplete") == Some(LEFT_OUT)).count();
    if lost == 0 && left > 0 {
        let calls = if left == 1 { "1 call was".to_owned() } else { format!("{left} calls were") };
        return Some(format!(
            "no failure was seen, but {calls} not seen to the end: some are left out to stay within the agent's budget"
        ));
    }
    if lost == 0 || (cut == 0 && !no_end) {
        return None;
    }
    let end = if no_end { ", among them how the operation ended" } else { "" };
    Some(format!("no failure was seen, but not all was: the agent lost {lost} records at that time{end}"))
}

/// Whether somebody still asked about the operation a while after it was said to have ended: before, services may
/// disagree because one has not heard yet.
fn asked_on(tree: &Tree<'_>, operation: usize) -> bool {
    const A_WHILE: u64 = 2_000_000_000;
    let end = tree.spans[operation].end_wall_ns().saturating_add(A_WHILE);
    tree.spans.iter().any(|s| s.kind == SpanKind::Server && s.start_wall_ns() > end)
}

/// Who cancelled the operation, if it was.
fn cancelled(tree: &Tree<'_>, analysis: &Analysis<'_>) -> Option<String> {
    let operation = tree.spans[analysis.operation?];
    if view::text(operation, "operation.status") != Some("cancelled") {
        return None;
    }
    let kind = view::text(operation, "operation.type").unwrap_or("");
    let is_delete = |s: &&&Span| view::text(s, "http.request.method") == Some("DELETE");
    // The first that asked for it, not the ones who passed it on.
    let by = tree.spans.iter().find(is_delete);
    let by = by.map(|s| format!(" by {} ({})", s.resource.service, request(s))).unwrap_or_default();
    let after = duration(view::duration(operation));
    Some(format!("the {kind} operation was cancelled{by} after {after}"))
}

/// `ktrdr-cli's POST /x to ktrdr-api:8000`.
fn describe(span: &Span) -> String {
    let what = request(span);
    match (span.kind, view::peer(span)) {
        (SpanKind::Client, Some(peer)) => format!("{}'s {what} to {peer}", span.resource.service),
        (SpanKind::Server, _) => format!("{what} at {}", span.resource.service),
        _ => format!("{what} of {}", span.resource.service),
    }
}
