//! Asking again and again how an operation is doing makes a trace each time. The first one is printed as any other;
//! what follows and brings nothing else becomes one line, so that it does not drown the rest.

use std::time::Duration;

use hashlink::LinkedHashMap;

use super::describe;
use super::forest::{Forest, Line, Repeat};
use super::layout::{self, Style};
use crate::export::Item;
use crate::trace::model::{Span, SpanKind, Status};

/// A line is due once nobody has asked for so long: the asking is over.
const QUIET: Duration = Duration::from_secs(2);
/// ... and in any case after so long, so that somebody who looks on sees that it goes on.
const AT_MOST: Duration = Duration::from_secs(10);
/// Questions that are remembered, about 300 bytes each: more operations are not followed at once.
const MAX_GROUPS: usize = 256;

/// Who asks, what, and about which operation.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    who: String,
    what: String,
    operation: String,
}

/// Traces that were not printed since the last line about them.
struct Group {
    line: Line,
    count: usize,
    since: Duration,
    last: Duration,
}

/// Polls, by what they ask. One without a group was printed in full.
#[derive(Default)]
pub struct Polls {
    seen: LinkedHashMap<Key, Option<Group>, foldhash::fast::FixedState>,
}

impl Polls {
    /// Takes a trace if it only asks what was asked before. Otherwise it is to be printed.
    pub fn take(&mut self, spans: &[Item], line: impl FnOnce() -> Option<Line>, now: Duration) -> bool {
        let Some(key) = key(spans) else { return false };
        // Moved to the end: who asks on is not the one to forget.
        let Some(known) = self.seen.remove(&key) else {
            self.seen.insert(key, None);
            return false;
        };
        let group = match known {
            Some(group) => Some(group),
            None => line().map(|line| Group { line, count: 0, since: now, last: now }),
        };
        let taken = group.map(|mut group| {
            let (start, duration) = span_of(spans);
            let last = group.line.repeat.map_or(start, |r| r.last_ns.max(start));
            let slowest = group.line.duration_ns.max(duration);
            group.count += 1;
            group.last = now;
            group.line.duration_ns = slowest;
            group.line.repeat = Some(Repeat { count: group.count, last_ns: last, slowest_ns: slowest });
            group
        });
        let is_taken = taken.is_some();
        self.seen.insert(key, taken);
        is_taken
    }

    /// Appends the lines that are due: of those over, of those that went on for long, of `about` (an operation of
    /// which something else is about to be printed), and of those there is no more room for.
    pub fn poll(&mut self, now: Duration, about: Option<&str>, style: &Style, out: &mut String) {
        for (key, group) in &mut self.seen {
            let due = |g: &mut Group| {
                now.saturating_sub(g.last) >= QUIET
                    || now.saturating_sub(g.since) >= AT_MOST
                    || about == Some(&key.operation)
            };
            print(group.take_if(due), style, out);
        }
        while self.seen.len() > MAX_GROUPS {
            print(self.seen.pop_front().and_then(|(_, group)| group), style, out);
        }
    }

    /// Appends all that is left.
    pub fn finish(&mut self, style: &Style, out: &mut String) {
        for (_, group) in &mut self.seen {
            print(group.take(), style, out);
        }
    }
}

fn print(group: Option<Group>, style: &Style, out: &mut String) {
    let Some(mut group) = group else { return };
    // One is an ordinary line.
    group.line.repeat = group.line.repeat.filter(|r| r.count > 1);
    let forest = Forest { spans: 1, failed: 0, lines: vec![group.line] };
    layout::trace(Default::default(), &forest, None, style, out);
}

/// What a trace asks, if it does nothing but read, one operation is all that it is about, and all went well.
fn key(spans: &[Item]) -> Option<Key> {
    let mut roots = spans.iter().filter(|s| s.parent_span_id.is_none());
    let (root, None) = (roots.next()?, roots.next()) else { return None };
    let operation = text(root, "operation.id")?;
    let reads = |s: &Span| {
        matches!(s.status, Status::Unset)
            && matches!(s.kind, SpanKind::Client | SpanKind::Server)
            && text(s, "http.request.method") == Some("GET")
            && text(s, "operation.id") == Some(operation)
            && text(s, "ktrdr.incomplete").is_none()
            && s.events.iter().all(|e| e.name != "exception")
    };
    spans.iter().all(|s| reads(s)).then(|| Key {
        who: root.resource.service.clone(),
        what: describe::what(root),
        operation: operation.to_owned(),
    })
}

/// The operation that a trace is about.
pub fn operation(spans: &[Item]) -> Option<&str> {
    spans.iter().find_map(|s| text(s, "operation.id"))
}

fn span_of(spans: &[Item]) -> (u64, u64) {
    let root = spans.iter().find(|s| s.parent_span_id.is_none());
    root.map_or((0, 0), |s| (s.start_wall_ns(), s.end.saturating_sub(s.start)))
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    span.attributes.get(key)?.as_str()
}
