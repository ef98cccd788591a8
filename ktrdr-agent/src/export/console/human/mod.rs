//! Traces as indented trees, printed once they look complete.
//!
//! A pure state machine: it is given spans and the time, and appends text.
//!
//! ```text
//!            push                 root ended and quiet for GRACE, or QUIET, or OLDEST, or too many
//! (nothing) ─────► collecting ───────────────────────────────────────────────────────────► printed
//!                      ▲                                                                       │
//!                      └──────────────── push (a late span: an addendum) ──────────────────────┘
//! ```

mod describe;
mod forest;
mod layout;
mod logs;
mod polls;
pub mod text;

use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashlink::LinkedHashMap;

use crate::export::{Item, LogItem};
use crate::trace::model::{SpanId, SpanKind, TraceId};
pub use layout::Style;
use logs::Logs;
use polls::Polls;

/// Children end before their parents, so little can come once the root has ended: what the engine still orders, and
/// spans of other threads.
const GRACE: Duration = Duration::from_millis(100);
/// A server waits with a failed request for what it logs about it (240 ms), longer than its caller's end of the call: so long
/// is waited for it, and for a caller whose callees are here already.
const LATE: Duration = Duration::from_millis(350);
/// A trace whose root is still open is shown when nothing has happened for so long: a refused call inside a request
/// that hangs is what somebody is waiting to see.
const QUIET: Duration = Duration::from_secs(2);
/// ... and in any case after so long.
const OLDEST: Duration = Duration::from_secs(10);
/// Spans of one trace held back. A longer tree is not read from its first line anyway; the rest follows below it.
const MAX_TRACE: usize = 500;
/// Spans held back altogether, about 2 kB each: 20 MB.
const MAX_HELD: usize = 10_000;
/// Printed traces that late spans are told apart by, about 100 bytes for each of their first spans: 6 MB.
const MAX_PRINTED: usize = 1_000;
/// Spans of a printed trace that are remembered by name, so that a late child can be put under its parent.
const MAX_NAMES: usize = 64;

/// Traces on their way to the screen.
#[derive(Default)]
pub struct Human {
    /// By age: the first is the oldest.
    collecting: LinkedHashMap<TraceId, Collecting, FixedState>,
    held: usize,
    /// Warnings and errors of log records, by their span; those of no trace are printed as they come.
    logs: Logs,
    /// How operations are doing, asked again and again.
    polls: Polls,
    /// By the time they were printed.
    printed: LinkedHashMap<TraceId, Printed, FixedState>,
}

struct Collecting {
    spans: Vec<Item>,
    first: Duration,
    last: Duration,
}

/// What is remembered of a printed trace.
struct Printed {
    at: Duration,
    names: Vec<(SpanId, String)>,
}

impl Collecting {
    /// Whether a span without a parent has ended, or one whose caller is outside (its context came on the wire).
    fn rooted(&self) -> bool {
        self.spans.iter().any(|s| s.parent_span_id.is_none() || describe::continues_remote(s))
    }

    /// Whether the server's end of a call is likely to come: something hangs below it, or the call failed with a status that a
    /// server logs about.
    fn lacks_a_server(&self) -> bool {
        let here: HashSet<SpanId, FixedState> = self.spans.iter().map(|s| s.span_id).collect();
        let above: HashSet<SpanId, FixedState> = self.spans.iter().filter_map(|s| s.parent_span_id).collect();
        self.spans.iter().any(|s| {
            let parent =
                s.parent_span_id.is_some_and(|p| !here.contains(&p)) && !describe::continues_remote(s);
            let broken = s.kind == SpanKind::Client && describe::is_server_error(s);
            parent || (broken && !above.contains(&s.span_id))
        })
    }

    fn due(&self, now: Duration, late: bool) -> bool {
        let quiet = now.saturating_sub(self.last);
        let enough = match (late, self.rooted()) {
            (false, false) => QUIET,
            // Looked at only once it could be due.
            (false, true) if (GRACE..LATE).contains(&quiet) && self.lacks_a_server() => LATE,
            _ => GRACE,
        };
        quiet >= enough || now.saturating_sub(self.first) >= OLDEST || self.spans.len() >= MAX_TRACE
    }
}

impl Human {
    /// Takes a span that arrived at `now` (any clock that does not go back).
    pub fn push(&mut self, span: Item, now: Duration) {
        self.held += 1;
        let trace = self.collecting.entry(span.trace_id).or_insert_with(|| Collecting {
            spans: Vec::new(),
            first: now,
            last: now,
        });
        trace.last = now;
        trace.spans.push(span);
    }

    /// Takes a log record. Returns how many records need no printing: information is for the backend.
    pub fn push_log(&mut self, record: LogItem, now: Duration) -> u64 {
        self.logs.push(record, now)
    }

    /// Appends what is due. Returns how many spans and records that were.
    pub fn poll(&mut self, now: Duration, style: &Style, out: &mut String) -> u64 {
        let mut due: Vec<TraceId> = Vec::new();
        let mut left = self.held;
        for (id, trace) in &self.collecting {
            // The oldest go first when there are too many.
            if trace.due(now, self.printed.contains_key(id)) || left > MAX_HELD {
                left -= trace.spans.len();
                due.push(*id);
            }
        }
        let spans: u64 = due.into_iter().map(|id| self.print(id, now, style, out)).sum();
        self.polls.poll(now, None, style, out);
        spans + self.logs.poll(now, style, out)
    }

    /// Appends everything: no more spans will come.
    pub fn finish(&mut self, now: Duration, style: &Style, out: &mut String) -> u64 {
        let all: Vec<TraceId> = self.collecting.keys().copied().collect();
        let spans: u64 = all.into_iter().map(|id| self.print(id, now, style, out)).sum();
        self.polls.finish(style, out);
        spans + self.logs.finish(style, out)
    }

    fn print(&mut self, id: TraceId, now: Duration, style: &Style, out: &mut String) -> u64 {
        let Some(trace) = self.collecting.remove(&id) else { return 0 };
        self.held -= trace.spans.len();
        let before = self.printed.remove(&id);
        let names = before.as_ref().map_or(&[][..], |p| &p.names);
        let logs = self.logs.of(id);
        let shown = logs.len() as u64;
        let build = || forest::build(&trace.spans, &logs, names);
        let first = || build().lines.into_iter().next();
        if before.is_none() && logs.is_empty() && self.polls.take(&trace.spans, first, now) {
            return trace.spans.len() as u64;
        }
        self.polls.poll(now, polls::operation(&trace.spans), style, out);
        let forest = build();
        layout::trace(id, &forest, before.as_ref().map(|p| now.saturating_sub(p.at)), style, out);
        let mut names = before.map(|p| p.names).unwrap_or_default();
        let room = MAX_NAMES.saturating_sub(names.len());
        names.extend(trace.spans.iter().take(room).map(|s| (s.span_id, describe::short(s))));
        self.printed.insert(id, Printed { at: now, names });
        if self.printed.len() > MAX_PRINTED {
            self.printed.pop_front();
        }
        trace.spans.len() as u64 + shown
    }
}

/// Says how many spans were not shown since the last time, if any: `known` is the total that was said already.
pub fn not_shown(dropped: u64, known: &mut u64, out: &mut String) {
    let new = dropped.saturating_sub(*known);
    if new > 0 {
        *known = dropped;
        // Writing to a string cannot fail.
        let _ =
            writeln!(out, "… {new} more spans were not shown: they came faster than they could be written\n");
    }
}

#[cfg(test)]
mod tests;
