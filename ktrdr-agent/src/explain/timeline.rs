//! The trace in a few lines: the two ends of a call share a line, polls are counted, what matters is kept.

use std::collections::BTreeMap;

use super::cause::Analysis;
use super::schema::Row;
use super::tree::{Edge, Tree};
use super::view;
use crate::trace::model::{Span, SpanKind};

/// So many equal calls side by side become one line.
const MANY: usize = 3;
/// Depth beyond which lines are not indented further.
const MAX_DEPTH: usize = 12;
/// Lines made at most; the report keeps fewer.
const MAX_ROWS: usize = 400;

/// What makes calls equal: who, whom, what, how it went.
type Alike<'a> = (&'a str, Option<String>, &'a str, String);

/// Equal calls of one caller.
struct Group {
    first: usize,
    count: u32,
    total_ns: u64,
    until_ns: u64,
}

/// The lines, and how many spans are not in any.
pub fn rows(tree: &Tree<'_>, analysis: &Analysis<'_>) -> (Vec<Row>, usize) {
    let zero = tree.spans.first().map_or(0, |s| s.start_wall_ns());
    let causes: Vec<usize> = analysis.first().map(|f| f.spans.clone()).unwrap_or_default();
    let mut rows = Vec::new();
    let mut shown = 0usize;
    let roots: Vec<usize> = (0..tree.len()).filter(|i| tree.parent[*i].is_none()).collect();
    let mut stack: Vec<(usize, Group)> = Vec::new();
    push(tree, analysis, &mut stack, 0, &roots);
    while let Some((depth, group)) = stack.pop() {
        if rows.len() >= MAX_ROWS {
            break;
        }
        let i = group.first;
        let server = tree.server_end(i).filter(|s| {
            view::outcome(tree.spans[*s]) == view::outcome(tree.spans[i]) || analysis.symptoms[*s].is_some()
        });
        let span = tree.spans[i];
        let to = match server {
            Some(s) => Some(tree.spans[s].resource.service.clone()),
            None => view::peer(span),
        };
        let failing = analysis.failing[i] || analysis.symptoms[i].is_some();
        rows.push(Row {
            at_ms: millis(span.start_wall_ns().saturating_sub(zero)),
            depth,
            service: span.resource.service.clone(),
            to,
            // Equal ones have their route in common.
            what: match group.count {
                1 => view::what(span).into_owned(),
                _ if view::is_connect(span) => "connect".to_owned(),
                _ => span.name.clone(),
            },
            outcome: view::outcome(span),
            duration_ms: millis(view::duration(span)),
            count: group.count,
            until_ms: (group.count > 1).then(|| millis(group.until_ns.saturating_sub(zero))),
            mean_ms: (group.count > 1).then(|| millis(group.total_ns / u64::from(group.count.max(1)))),
            failed: failing && analysis.symptoms[i].is_some(),
            cause: causes.contains(&i) || server.is_some_and(|s| causes.contains(&s)),
            after: tree.edge[i] == Edge::After,
            span_id: span.span_id.to_string(),
        });
        shown += group.count as usize;
        if group.count > 1 && !failing {
            // What equal good calls did is as equal as they are.
            shown += descendants(tree, i) * group.count as usize;
            continue;
        }
        let mut below: Vec<usize> = tree.children[i].iter().copied().filter(|c| Some(*c) != server).collect();
        if let Some(s) = server {
            shown += group.count as usize;
            below.extend_from_slice(&tree.children[s]);
            below.sort_unstable();
        }
        push(tree, analysis, &mut stack, (depth + 1).min(MAX_DEPTH), &below);
    }
    let elsewhere = analysis.first().map(|f| f.beyond.as_slice()).unwrap_or_default();
    if !elsewhere.is_empty() {
        rows.iter_mut().for_each(|r| r.cause = false);
    }
    // A few show what there is.
    for span in elsewhere.iter().rev().take(4).rev() {
        beyond(span, zero, &mut rows);
    }
    (rows, tree.len().saturating_sub(shown))
}

/// The failure elsewhere is the cause, not the one it explains.
fn beyond(span: &Span, zero: u64, rows: &mut Vec<Row>) {
    let at_ms = millis(span.start_wall_ns().saturating_sub(zero));
    let after = rows.iter().rposition(|r| r.depth == 0 && r.at_ms <= at_ms);
    let at = after.map_or(0, |first| {
        let next = rows[first + 1..].iter().position(|r| r.at_ms > at_ms || r.depth == 0);
        next.map_or(rows.len(), |n| first + 1 + n)
    });
    rows.insert(
        at,
        Row {
            at_ms,
            depth: 0,
            service: span.resource.service.clone(),
            to: view::peer(span),
            what: view::what(span).into_owned(),
            outcome: view::outcome(span),
            duration_ms: millis(view::duration(span)),
            count: 1,
            until_ms: None,
            mean_ms: None,
            failed: true,
            cause: true,
            after: false,
            span_id: span.span_id.to_string(),
        },
    );
}

/// Puts a caller's calls on the stack so that the earliest comes first.
fn push(
    tree: &Tree<'_>,
    analysis: &Analysis<'_>,
    stack: &mut Vec<(usize, Group)>,
    depth: usize,
    calls: &[usize],
) {
    let key = |i: usize| -> Alike<'_> {
        let span = tree.spans[i];
        (&span.resource.service, view::peer(span), &span.name, view::outcome(span))
    };
    let mut alike: BTreeMap<Alike<'_>, u32> = BTreeMap::new();
    for i in calls {
        *alike.entry(key(*i)).or_default() += 1;
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut at: BTreeMap<Alike<'_>, usize> = BTreeMap::new();
    for i in calls {
        let span = tree.spans[*i];
        let key = key(*i);
        let lone_failure = analysis.failing[*i] && analysis.symptoms[*i].is_none();
        let many = alike.get(&key).is_some_and(|n| *n as usize >= MANY) && !lone_failure;
        match at.get(&key).filter(|_| many) {
            Some(g) => {
                let group = &mut groups[*g];
                group.count += 1;
                group.total_ns = group.total_ns.saturating_add(view::duration(span));
                group.until_ns = group.until_ns.max(span.end_wall_ns());
            }
            None => {
                if many {
                    at.insert(key, groups.len());
                }
                groups.push(Group {
                    first: *i,
                    count: 1,
                    total_ns: view::duration(span),
                    until_ns: span.end_wall_ns(),
                });
            }
        }
    }
    stack.extend(groups.into_iter().rev().map(|g| (depth, g)));
}

fn descendants(tree: &Tree<'_>, top: usize) -> usize {
    let (mut n, mut stack) = (0, vec![top]);
    while let Some(i) = stack.pop() {
        n += tree.children[i].len();
        stack.extend(&tree.children[i]);
    }
    n
}

/// Nanoseconds as milliseconds, to a microsecond.
pub fn millis(ns: u64) -> f64 {
    (ns / 1_000) as f64 / 1e3
}

/// Keeps at most `max` lines: the cause and failures, then the first ones. Returns how many were left out.
pub fn thin(rows: &mut Vec<Row>, max: usize) -> usize {
    if rows.len() <= max {
        return 0;
    }
    let before = rows.len();
    let mut keep = vec![false; before];
    let mut left = max;
    let classes: [fn(&Row) -> bool; 3] = [|r| r.cause, |r| r.failed, |_| true];
    for class in classes {
        for (i, row) in rows.iter().enumerate() {
            if left > 0 && !keep[i] && class(row) {
                keep[i] = true;
                left -= 1;
            }
        }
    }
    let mut flags = keep.into_iter();
    rows.retain(|_| flags.next().unwrap_or(false));
    before - rows.len()
}

/// Whether a span is one end of a call whose other end has its own line already.
pub fn is_far_end(tree: &Tree<'_>, i: usize) -> bool {
    tree.spans[i].kind == SpanKind::Server && tree.client_end(i).is_some()
}
