//! Why did it fail? From the finished spans of a trace, or of an operation, to a verdict with its evidence.
//!
//! Pure functions over [`model::Span`](crate::trace::model::Span): spans come from the store of a running agent, a
//! file of spans or a recording, and all of them get the same answer.
//!
//! ```text
//! Case (spans) ─► tree (who called whom) ─► symptom (what failed) ─► cause (which failure explains the others)
//!                                                                       │
//!                                    Report (schema ktrdr.explain/1) ◄──┴─► timeline, gaps, hints
//! ```
//!
//! The rules, in the order they are applied:
//! 1. A span has a symptom if its status is an error ([`symptom`]).
//! 2. A failed call that was repeated with success later is *recovered*; a 4xx answer to a call whose caller went on
//!    to succeed is *tolerated*. Neither is a cause ([`recovery`]).
//! 3. What a process's own end cut off says nothing beside the request that it served, or the command that it was. A
//!    symptom with another symptom below it, that began before it ended, is explained by that one. What nothing
//!    explains is a cause: the deepest one wins ([`cause`]).
//! 4. Equal causes (kind, who, whom, what) are one cause with several attempts.
//! 5. A call that got no answer, with nothing failed below it, may be explained by a failure of the callee at that
//!    time whose origin is not known. That is said to be inferred.

mod cause;
mod fit;
mod gaps;
mod gpu;
mod hints;
mod knowledge;
mod listing;
mod logged;
mod logs;
pub mod parse;
mod place;
mod recovery;
pub mod report;
pub mod schema;
mod sentence;
pub mod show;
mod slow;
mod symptom;
mod timeline;
mod tree;
pub(crate) mod view;

#[cfg(test)]
mod build;
#[cfg(test)]
mod death_tests;
#[cfg(test)]
mod honest_tests;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod operation_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::trace::model::Span;
pub use knowledge::operation_ids;
pub use listing::{ListRow, Listing, SCHEMA as LIST_SCHEMA};
pub use logged::Logged;
pub use logs::of_trace as log_lines;
pub use schema::LogLine;
pub use schema::Report;
pub use symptom::{Kind, is_rejected_registration, is_soft, kind_of};

/// Spans considered at most: an operation polled every 0.3 s for an hour has 48,000. Of more, the failed ones and
/// then the earliest are kept.
pub const MAX_SPANS: usize = 100_000;

/// What is known about the thing asked for.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// What was asked: an operation id, a trace id, or words.
    pub query: String,
    /// The operation, if the query is or belongs to one.
    pub operation: Option<String>,
    /// All spans of the traces concerned.
    pub spans: Vec<Arc<Span>>,
    /// Failed calls of other traces whose origin is not known: evidence of last resort.
    pub nearby: Vec<Arc<Span>>,
    /// Warnings and errors that were logged in these traces, or name the operation.
    pub logs: Vec<Arc<Logged>>,
    /// Last lines of processes whose end is told of in these spans.
    pub last_words: Vec<Arc<Logged>>,
    /// What the agent lost while these spans were made: name and number.
    pub lost: Vec<(String, u64)>,
    /// What the agent was told to leave out, if it was: its options.
    pub narrowed: Option<String>,
    /// The query is a part of the URLs of these traces.
    pub by_part: bool,
    /// Spans of these traces that are not here because the store is bounded.
    pub dropped: u64,
}

/// Answers the case.
pub fn explain(case: &Case) -> Report {
    let bounded;
    let case = if case.spans.len() > MAX_SPANS {
        bounded = bound(case);
        &bounded
    } else {
        case
    };
    let tree = tree::Tree::new(&case.spans);
    let analysis = cause::Analysis::new(case, &tree);
    report::make(case, &tree, &analysis)
}

/// Keeps the spans that matter most.
fn bound(case: &Case) -> Case {
    let mut order: Vec<&Arc<Span>> = case.spans.iter().collect();
    order.sort_by_key(|s| (kind_of(s).is_none(), s.start_wall_ns(), s.span_id));
    let spans: Vec<_> = order.into_iter().take(MAX_SPANS).cloned().collect();
    let dropped = case.dropped + (case.spans.len() - spans.len()) as u64;
    Case { spans, dropped, ..case.clone() }
}
