//! The verdict in a sentence.

use super::cause::{Analysis, Finding};
use super::symptom::{self, Kind};
use super::tree::Tree;
use super::{Case, gaps, gpu, knowledge, place, slow, view};
use crate::export::console::human::text::duration;
use crate::trace::model::{Span, SpanKind, Value};

/// About a cause.
pub fn of_cause(case: &Case, tree: &Tree<'_>, finding: &Finding<'_>) -> String {
    let span = finding.span(tree);
    let mut text = match finding.kind {
        Kind::HttpError => http(tree, finding, span),
        Kind::GpuOutOfMemory => gpu::out_of_memory(tree, finding, span),
        Kind::BusinessError => business(tree, finding, span),
        Kind::NameNotResolved => format!(
            "a name could not be resolved to an address, so that {} made no connection: {}",
            span.resource.service,
            in_words(span)
        ),
        Kind::NoWorker => format!(
            "{} found no worker to give the job to: {}{}",
            span.resource.service,
            in_words(span),
            rejected(case, tree, span)
        ),
        Kind::GatewayError => gateway(tree, finding, span),
        Kind::WorkerBusy => busy(tree, finding),
        Kind::WorkerLost => {
            let told = told(tree, finding, span);
            // A refused connect says it itself.
            let fate = place::fate(case, tree, span).filter(|f| !told.contains(f.as_str()));
            let fate = fate.filter(|_| !view::is_connect(span)).map(|f| format!("; {f}")).unwrap_or_default();
            format!("{} was lost while it had work: {told}{fate}", whom(tree, finding, span))
        }
        Kind::Stuck if view::is_operation(span) => stuck(span),
        Kind::Unheard => unheard(span),
        Kind::Waiting => format!(
            "{} has been waiting for {} for {} ({}); nothing has failed so far",
            span.resource.service,
            // Where the answer is due from: to find who listens there, the port is what counts.
            view::peer(span).unwrap_or_else(|| whom(tree, finding, span)),
            duration(view::duration(span)),
            request(span)
        ),
        _ if view::is_command(span) => command(span),
        _ => told(tree, finding, span),
    };
    if finding.spans.len() > 1 && finding.kind != Kind::WorkerBusy {
        let (first, last) = (tree.spans[finding.spans[0]], tree.spans[finding.last()]);
        let over = last.end_wall_ns().saturating_sub(first.start_wall_ns());
        text.push_str(&format!(" ({} attempts in {})", finding.spans.len(), duration(over)));
    }
    let mut others: Vec<String> = finding.beyond.iter().filter_map(|s| view::peer(s)).collect();
    others.sort();
    others.dedup();
    others.retain(|peer| view::peer(span).as_ref() != Some(peer));
    if !others.is_empty() {
        text.push_str(&format!("; the same for {}", others.join(", ")));
    }
    let busy = (finding.kind == Kind::TimedOut && finding.meanwhile.is_none() && finding.beyond.is_empty())
        .then(|| place::busy_elsewhere(case, tree, finding.last()))
        .flatten();
    if let Some(call) = busy {
        text.push_str(&format!(
            "; {} was waiting for {} at that time, for another request ({}, {} so far)",
            call.resource.service,
            view::peer(call).unwrap_or_else(|| "a peer".to_owned()),
            view::what(call),
            duration(view::duration(call))
        ));
    }
    if let Some(m) = finding.meanwhile {
        let call = tree.spans[m];
        let peer = view::peer(call).unwrap_or_else(|| "a peer".to_owned());
        text.push_str(&format!(
            "; meanwhile {} was waiting for {peer} ({}, {} in all)",
            call.resource.service,
            view::what(call),
            duration(view::duration(call))
        ));
    }
    text
}

/// The last worker of the kind whose registration was rejected, if there is one: it would have been there.
fn rejected(case: &Case, tree: &Tree<'_>, span: &Span) -> String {
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

/// The agent's own sentence on the span, without the number of the attempt: it counts over all operations.
fn told(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    match view::message(span) {
        Some(message) => {
            let message = message.rsplit_once(" (attempt ").map_or(message, |(before, _)| before);
            // Who did not answer is in it, what was asked is not.
            match symptom::unanswered(finding.kind) && !view::is_connect(span) {
                true => format!("{message} ({})", request(span)),
                false => message.to_owned(),
            }
        }
        None => {
            let error = view::text(span, "error.type").unwrap_or("no reason given").replace('_', " ");
            let whom = whom(tree, finding, span);
            format!("{}: {} to {whom} failed: {error}", span.resource.service, view::what(span))
        }
    }
}

/// A command that failed by itself, with what it said last.
fn command(span: &Span) -> String {
    let how = view::message(span).unwrap_or("failed");
    let mut said = span.events.iter().rev().filter(|e| e.name == "exception");
    let said = said.find_map(|e| {
        let text = |key: &str| e.attributes.get(key).and_then(Value::as_str);
        Some(format!("{}: {}", text("exception.type")?, text("exception.message")?))
    });
    let said = said.map(|s| format!(" ({})", super::hints::shorten(&s, 200))).unwrap_or_default();
    // A signal cuts off what was under way.
    let alone =
        if view::int(span, "process.exit.code").is_some() { "; none of its calls failed" } else { "" };
    format!("the command `{}` {how}{said}{alone}", span.name)
}

/// Who owed the answer, with its port where that is known.
fn whom(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    let server = finding.beyond.is_empty().then(|| tree.server_end(finding.last())).flatten();
    match (span.kind, server) {
        (_, Some(server)) => tree.spans[server].resource.service.clone(),
        (SpanKind::Client, None) => view::peer(span).unwrap_or_else(|| "its peer".to_owned()),
        _ => span.resource.service.clone(),
    }
}

/// Who asked: the client's end of a call seen from the server.
fn asker(tree: &Tree<'_>, i: usize) -> Option<String> {
    let client = if tree.spans[i].kind == SpanKind::Client { Some(i) } else { tree.client_end(i) };
    client.map(|c| tree.spans[c].resource.service.clone())
}

/// `GET /api/v1/operations/op_1`: the path itself, which says more here than the span's name.
fn request(span: &Span) -> String {
    match (view::text(span, "http.request.method"), view::path(span)) {
        (Some(method), Some(path)) => format!("{method} {}", super::hints::shorten(path, 120)),
        _ => span.name.clone(),
    }
}

fn http(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    let code = view::code(span).or_else(|| view::int(span, "error.type")).unwrap_or_default();
    let asker = asker(tree, finding.last()).map(|a| format!(" from {a}")).unwrap_or_default();
    let mut text = format!(
        "{} answered {code} ({}) to {}{asker} after {}",
        whom(tree, finding, span),
        knowledge::reason(code),
        request(span),
        duration(view::duration(span))
    );
    if let Some(message) = view::message(span) {
        text.push_str(&format!(": {message}"));
    } else if code >= 500 {
        text.push_str("; none of its own calls failed");
    }
    text
}

/// What the service itself says.
fn in_words(span: &Span) -> &str {
    view::message(span)
        .or_else(|| view::text(span, "ktrdr.business_error.message"))
        .or_else(|| view::text(span, "operation.error"))
        .unwrap_or("no message given")
}

fn business(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    let message = in_words(span);
    if view::is_operation(span) {
        let kind = view::text(span, "operation.type").unwrap_or("an");
        let on = worker(span);
        return format!("the {kind} operation failed{on}: {message}; none of the calls seen failed");
    }
    let Some(code) = view::code(span) else {
        // On a pipe there is no status around it.
        let asker = asker(tree, finding.last()).map(|a| format!(" from {a}")).unwrap_or_default();
        return format!(
            "{} answered {}{asker} with an error: {message}",
            whom(tree, finding, span),
            request(span)
        );
    };
    format!(
        "{} reported a failure inside its {code} answer to {}: {message}",
        whom(tree, finding, span),
        request(span)
    )
}

fn unheard(span: &Span) -> String {
    let kind = view::text(span, "operation.type").unwrap_or_default();
    let who = view::text(span, "ktrdr.operation.disagreement").unwrap_or("the services disagree");
    format!("the {kind} operation has ended, and not everybody has heard of it: {who}")
}

fn stuck(span: &Span) -> String {
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

fn percentage(operation: &Span) -> Option<String> {
    match operation.attributes.get("progress.percentage")? {
        Value::Float(p) => Some(format!("{p} %")),
        Value::Int(p) => Some(format!("{p} %")),
        _ => None,
    }
}

/// What the operation is doing, in its own words.
fn step(operation: &Span) -> Option<String> {
    let step = view::text(operation, "progress.current_step").filter(|s| !s.is_empty())?;
    Some(super::hints::shorten(step, 80))
}

/// ` on training-worker-1, after training-worker-2 had refused it`.
fn worker(operation: &Span) -> String {
    let Some(id) = view::text(operation, "worker.selected_id") else { return String::new() };
    let refused = match operation.attributes.get("worker.refused_ids") {
        Some(Value::List(ids)) if !ids.is_empty() => format!(", after {} had refused it", ids.join(", ")),
        _ => String::new(),
    };
    format!(" on {id}{refused}")
}

/// `, at 12.5 % (loading bars), without progress for 31 s`.
fn progress(operation: &Span) -> String {
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

fn gateway(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    let what = view::what(span);
    let Some(code) = view::int(span, "ib.error.code") else {
        return view::message(span).unwrap_or("the IB gateway reported an error").to_owned();
    };
    let text = view::text(span, "ib.error.message").or_else(|| view::message(span)).unwrap_or("no text");
    let meaning = view::text(span, "ib.error.meaning").map(|m| format!(" ({m})")).unwrap_or_default();
    let asker = asker(tree, finding.last()).unwrap_or_else(|| "a client".to_owned());
    format!("the IB gateway answered {what} from {asker} with error {code}: {text}{meaning}")
}

/// All that were asked, in order, each once.
fn busy(tree: &Tree<'_>, finding: &Finding<'_>) -> String {
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
    if let (Some(why), None) = (lost, view::code(span)) {
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
    (Kind::Ok, format!("nothing failed: {} took {}{most}{retried}", describe(span), duration(took)))
}

/// Why "nothing failed" would say more than is known: records were lost, and it shows.
fn not_sure(case: &Case, tree: &Tree<'_>, analysis: &Analysis<'_>) -> Option<String> {
    let lost: u64 = case.lost.iter().map(|(_, n)| n).sum();
    let cut = |s: &&&Span| view::text(s, "ktrdr.incomplete").is_some_and(gaps::unseen);
    let cut = tree.spans.iter().filter(cut).count();
    // Without its own span an operation was not seen to end.
    let no_end = case.operation.is_some() && analysis.operation.is_none();
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
