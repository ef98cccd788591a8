//! The verdict in a sentence.

mod answer;
mod operation;
mod success;

use super::cause::Finding;
use super::symptom::{self, Kind};
use super::tree::Tree;
use super::{Case, gpu, knowledge, place, view};
use crate::export::console::human::text::duration;
use crate::trace::model::{Span, SpanKind, Value};

pub use success::of_success;

/// About a cause.
pub fn of_cause(case: &Case, tree: &Tree<'_>, finding: &Finding<'_>) -> String {
    let span = finding.span(tree);
    let mut text = match finding.kind {
        Kind::OperationLost => operation::lost(tree, finding, span),
        Kind::HttpError => answer::http(case, tree, finding, span),
        Kind::GpuOutOfMemory => gpu::out_of_memory(tree, finding, span),
        Kind::BusinessError => answer::business(tree, finding, span),
        Kind::NameNotResolved => format!(
            "a name could not be resolved to an address, so that {} made no connection: {}",
            span.resource.service,
            in_words(span)
        ),
        Kind::NoWorker => format!(
            "{} found no worker to give the job to: {}{}",
            span.resource.service,
            in_words(span),
            operation::rejected(case, tree, span)
        ),
        Kind::GatewayError => answer::gateway(tree, finding, span),
        Kind::WorkerBusy => operation::busy(tree, finding),
        Kind::WorkerLost => {
            let told = told(tree, finding, span);
            // A refused connect says it itself.
            let fate = place::fate(case, tree, span).filter(|f| !told.contains(f.as_str()));
            let fate = fate.filter(|_| !view::is_connect(span)).map(|f| format!("; {f}")).unwrap_or_default();
            format!("{} was lost while it had work: {told}{fate}", whom(tree, finding, span))
        }
        Kind::Stuck if view::is_operation(span) => operation::stuck(span),
        Kind::Unheard => operation::unheard(span),
        Kind::Waiting => format!(
            "{} has been waiting for {} for {} ({}); nothing has failed so far",
            span.resource.service,
            // Where the answer is due from: to find who listens there, the port is what counts.
            view::peer(span).unwrap_or_else(|| whom(tree, finding, span)),
            duration(view::duration(span)),
            request(span)
        ),
        _ if view::is_command(span) => command(tree, finding, span),
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
fn command(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    let how = view::message(span).unwrap_or("failed");
    let mut said = span.events.iter().rev().filter(|e| e.name == "exception");
    let said = said.find_map(|e| {
        let text = |key: &str| e.attributes.get(key).and_then(Value::as_str);
        Some(format!("{}: {}", text("exception.type")?, text("exception.message")?))
    });
    let said = said.map(|s| format!(" ({})", super::hints::shorten(&s, 200))).unwrap_or_default();
    let code = view::int(span, "process.exit.code");
    let meaning = code.and_then(|code| knowledge::exit_status(&span.name, code));
    let meaning = meaning.map(|m| format!(" ({m})")).unwrap_or_default();
    let calls = match place::given_up(tree, finding.last()) {
        Some(call) => format!(
            "; its call to {} ({}) had not been answered by then, after {}",
            view::peer(call).unwrap_or_else(|| "a peer".to_owned()),
            request(call),
            duration(view::duration(call))
        ),
        // A signal cuts off what was under way.
        None if code.is_some() => "; none of the calls seen failed".to_owned(),
        None => String::new(),
    };
    format!("the command `{}` {how}{meaning}{said}{calls}", span.name)
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

/// What the service itself says.
fn in_words(span: &Span) -> &str {
    view::message(span)
        .or_else(|| view::text(span, "ktrdr.business_error.message"))
        .or_else(|| view::text(span, "operation.error"))
        .or_else(|| view::exception(span))
        .unwrap_or("no message given")
}
