//! Answers that say what went wrong: an HTTP status, an error within a success, the IB gateway's code.

use super::super::cause::Finding;
use super::super::tree::Tree;
use super::super::{Case, knowledge, place, view};
use super::{asker, in_words, operation, request, whom};
use crate::export::console::human::text::duration;
use crate::trace::model::Span;

pub(super) fn http(case: &Case, tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
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
        text.push_str(&match place::at_that_time(case, tree, finding.last()) {
            Some(call) => format!(
                "; at that time its {} to {} failed ({}), for which request is not known",
                view::what(call),
                view::peer(call).unwrap_or_else(|| "a peer".to_owned()),
                view::outcome(call)
            ),
            None => "; none of the calls seen failed".to_owned(),
        });
    }
    text
}

pub(super) fn business(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    let message = in_words(span);
    if view::is_operation(span) {
        let kind = view::text(span, "operation.type").unwrap_or("an");
        let on = operation::worker(span);
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

pub(super) fn gateway(tree: &Tree<'_>, finding: &Finding<'_>, span: &Span) -> String {
    let what = view::what(span);
    let Some(code) = view::int(span, "ib.error.code") else {
        return view::message(span).unwrap_or("the IB gateway reported an error").to_owned();
    };
    let text = view::text(span, "ib.error.message").or_else(|| view::message(span)).unwrap_or("no text");
    let meaning = view::text(span, "ib.error.meaning").map(|m| format!(" ({m})")).unwrap_or_default();
    let asker = asker(tree, finding.last()).unwrap_or_else(|| "a client".to_owned());
    format!("the IB gateway answered {what} from {asker} with error {code}: {text}{meaning}")
}
