//! Operations and the workers that do them.

use super::super::cause::Finding;
use super::super::tree::Tree;
use super::super::{Case, hints, symptom, view};
use super::{asker, request, whom};
use crate::export::console::human::text::duration;
use crate::trace::model::{Span, Value};

/// Its process ended, and another one answers that it does not know it.
pub(super) fn lost(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    let exit = view::text(span, "ktrdr.operation.known_to.exit").unwrap_or("ended");
    let pid = view::int(span, "ktrdr.operation.known_to.pid").unwrap_or_default();
    let fallback = || format!("the operation was lost with pid {pid}, which knew it and {exit}");
    let told = view::message(span).filter(|told| told.starts_with("the operation was lost"));
    let asker = asker(tree, finding.last()).map(|a| format!(" from {a}")).unwrap_or_default();
    let told = told.map_or_else(fallback, str::to_owned);
    format!("{told} ({} answered 404 to {}{asker})", whom(tree, finding, span), request(span))
}

pub(super) fn unheard(span: &Span) -> String {
    let kind = view::text(span, "operation.type").unwrap_or_default();
    let who = view::text(span, "ktrdr.operation.disagreement").unwrap_or("the services disagree");
    format!("the {kind} operation has ended, and not everybody has heard of it: {who}")
}

pub(super) fn stuck(span: &Span) -> String {
    let kind = view::text(span, "operation.type").unwrap_or_default();
    let still =
        view::int(span, "ktrdr.operation.last_progress_ms_before_end").unwrap_or_default().unsigned_abs();
    let at = percentage(span).map_or_else(|| "stands still".to_owned(), |p| format!("stands at {p}"));
    let step = step(span).map(|s| format!(" ({s})")).unwrap_or_default();
    let worker = worker(span);
    let still = duration(still.saturating_mul(1_000_000));
    let disagreement =
        view::text(span, "ktrdr.operation.disagreement").map(|d| format!("; {d}")).unwrap_or_default();
    format!("the {kind} operation {at}{step}{worker}: no progress in the last {still}{disagreement}")
}

pub(super) fn percentage(operation: &Span) -> Option<String> {
    match operation.attributes.get("progress.percentage")? {
        Value::Float(p) => Some(format!("{p} %")),
        Value::Int(p) => Some(format!("{p} %")),
        _ => None,
    }
}

/// What the operation is doing, in its own words.
pub(super) fn step(operation: &Span) -> Option<String> {
    let step = view::text(operation, "progress.current_step").filter(|s| !s.is_empty())?;
    Some(hints::shorten(step, 80))
}

/// ` on training-worker-1, after training-worker-2 had refused it`.
pub(super) fn worker(operation: &Span) -> String {
    let Some(id) = view::text(operation, "worker.selected_id") else { return String::new() };
    let refused = match operation.attributes.get("worker.refused_ids") {
        Some(Value::List(ids)) if !ids.is_empty() => format!(", after {} had refused it", ids.join(", ")),
        _ => String::new(),
    };
    format!(" on {id}{refused}")
}

/// `, at 12.5 % (loading bars), without progress for 31 s`.
pub(super) fn progress(operation: &Span) -> String {
    /// Polls come three times a second and steps take seconds: less is no standstill.
    const WORTH_MS: i64 = 5_000;
    let mut text = percentage(operation).map(|p| format!(", at {p}")).unwrap_or_default();
    if let Some(step) = step(operation) {
        text.push_str(&if text.is_empty() { format!(", at \"{step}\"") } else { format!(" ({step})") });
    }
    let still = view::int(operation, "ktrdr.operation.last_progress_ms_before_end").unwrap_or_default();
    if still >= WORTH_MS {
        let still = duration(still.unsigned_abs().saturating_mul(1_000_000));
        text.push_str(&format!(", without progress for {still}"));
    }
    text
}

/// All that were asked, in order, each once.
pub(super) fn busy(tree: &Tree<'_>, finding: &Finding<'_>) -> String {
    let mut names: Vec<String> = Vec::new();
    for i in &finding.spans {
        let name = whom(tree, finding, tree.spans[*i]);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut jobs: Vec<String> = Vec::new();
    for span in finding.spans.iter().map(|i| tree.spans[*i]) {
        let Some(current) = view::text(span, "worker.current_operation") else { continue };
        let worker = view::text(span, "worker.selected_id").unwrap_or("it");
        let job = format!("{worker} is at work on {current}");
        if !jobs.contains(&job) {
            jobs.push(job);
        }
    }
    let jobs = if jobs.is_empty() { String::new() } else { format!("; {}", jobs.join(", ")) };
    let asked = request(finding.span(tree));
    let names = names.join(", ");
    format!("{names} answered 503 (busy) to {asked}, and no other worker took the job{jobs}")
}

/// The last worker of the kind whose registration was rejected, if there is one: it would have been there.
pub(super) fn rejected(case: &Case, tree: &Tree<'_>, span: &Span) -> String {
    let kind = tree.spans.iter().find_map(|s| view::text(s, "operation.type"));
    let of_kind = |s: &Span| kind.is_none_or(|kind| view::text(s, "worker.type") == Some(kind));
    let mut all = tree.spans.iter().copied().chain(case.nearby.iter().map(|s| &**s));
    let before = |s: &&Span| s.start_wall_ns() <= span.end_wall_ns();
    let last = all.by_ref().filter(|s| symptom::is_rejected_registration(s) && of_kind(s)).filter(before);
    let Some(last) = last.max_by_key(|s| s.start_wall_ns()) else { return String::new() };
    let how = match view::code(last) {
        Some(code) => format!(" ({code})"),
        None => String::new(),
    };
    let ago = duration(span.end_wall_ns().saturating_sub(last.start_wall_ns()));
    let worker = view::text(last, "worker.id").unwrap_or(&last.resource.service);
    format!("; the registration of {worker} was rejected{how} {ago} before")
}
