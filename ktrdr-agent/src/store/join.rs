//! Spans of several agents as one: what one host's agent saw of a call and what the other's did.
//!
//! Both ends of an exchange derive the same identity from what both see (`ktrdr.exchange.id`, behind address
//! translation `ktrdr.exchange.positions`). A server's span without a parent, whose client's span is in another file,
//! becomes that one's child, and all of its trace with it. A trace context on the wire has given it a parent already,
//! and wins. Of two clients that claim one exchange none is believed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::trace::causality::Method;
use crate::trace::logs::LogRecord;
use crate::trace::model::{Attributes, Span, SpanId, SpanKind, TraceId};

/// Attributes that both ends derive alike, the better one first.
const IDENTITIES: [&str; 2] = ["ktrdr.exchange.id", "ktrdr.exchange.positions"];

/// Exchanges per pair of files from which the difference of their clocks is taken: more add nothing.
const MAX_PAIRS: usize = 10_000;

/// What was joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Calls whose two ends were in different files.
    pub calls: usize,
    /// By file: nanoseconds its clock was moved by, so that no answer comes before its question.
    pub moved_ns: Vec<i64>,
    /// Traces that became a part of another.
    names: BTreeMap<TraceId, TraceId>,
}

impl Joined {
    /// What was done to the spans of a file is done to a log record of it.
    pub fn move_log(&self, file: usize, record: &mut LogRecord) {
        record.trace_id = record.trace_id.map(|id| resolve(&self.names, id));
        let by = self.moved_ns.get(file).copied().unwrap_or_default();
        record.wall_offset_ns = record.wall_offset_ns.saturating_add(by);
    }
}

/// A call whose ends are in different files.
struct Pair {
    client: (usize, usize),
    server: (usize, usize),
}

/// Joins the spans of several files.
pub fn join(files: &mut [Vec<Span>]) -> Joined {
    let pairs = pairs(files);
    let moved_ns = align(files, &pairs);
    let mut names: BTreeMap<TraceId, TraceId> = BTreeMap::new();
    let mut calls = 0;
    for Pair { client, server } in pairs {
        let (above, parent) = (files[client.0][client.1].trace_id, files[client.0][client.1].span_id);
        let span = &mut files[server.0][server.1];
        let (from, to) = (resolve(&names, span.trace_id), resolve(&names, above));
        // The two are one trace already: by another call, or because each would hang below the other.
        if from == to {
            continue;
        }
        span.parent_span_id = Some(parent);
        span.attributes.set("ktrdr.link.method", Method::Connection.name());
        span.attributes.set("ktrdr.link.certainty", "exact");
        names.insert(from, to);
        calls += 1;
    }
    for span in files.iter_mut().flatten() {
        span.trace_id = resolve(&names, span.trace_id);
        for link in &mut span.links {
            link.trace_id = resolve(&names, link.trace_id);
        }
    }
    once(files);
    Joined { calls, moved_ns, names }
}

/// The name that a trace goes by now.
fn resolve(names: &BTreeMap<TraceId, TraceId>, mut trace: TraceId) -> TraceId {
    // Each name was given to a trace that had none above it, so this ends.
    while let Some(above) = names.get(&trace) {
        trace = *above;
    }
    trace
}

fn pairs(files: &[Vec<Span>]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut done: BTreeSet<(usize, usize)> = BTreeSet::new();
    for key in IDENTITIES {
        // `None`: two clients claim it.
        let mut clients: BTreeMap<Cow<'_, str>, Option<(usize, usize)>> = BTreeMap::new();
        for (at, span) in ends(files, SpanKind::Client) {
            let Some(id) = text(&span.attributes, key) else { continue };
            clients
                .entry(id)
                .and_modify(|known| {
                    let same = |k: (usize, usize)| files[k.0][k.1].span_id == span.span_id;
                    *known = known.filter(|k| same(*k));
                })
                .or_insert(Some(at));
        }
        for (at, span) in ends(files, SpanKind::Server) {
            if span.parent_span_id.is_some() || done.contains(&at) {
                continue;
            }
            let client = text(&span.attributes, key).and_then(|id| *clients.get(&id)?);
            if let Some(client) = client.filter(|c| c.0 != at.0) {
                done.insert(at);
                pairs.push(Pair { client, server: at });
            }
        }
    }
    pairs
}

fn ends(files: &[Vec<Span>], kind: SpanKind) -> impl Iterator<Item = ((usize, usize), &Span)> {
    let all = files.iter().enumerate();
    all.flat_map(|(f, spans)| spans.iter().enumerate().map(move |(n, s)| ((f, n), s)))
        .filter(move |(_, s)| s.kind == kind)
}

fn text<'a>(attributes: &'a Attributes, key: &str) -> Option<Cow<'a, str>> {
    attributes.get(key)?.text()
}

/// Moves the clocks of files, each against the earlier ones, by the least that lets every server's span lie within
/// its client's. Clocks of hosts differ by milliseconds, which would otherwise put answers before questions.
fn align(files: &mut [Vec<Span>], pairs: &[Pair]) -> Vec<i64> {
    let mut moved: Vec<Option<i64>> = vec![None; files.len()];
    if let Some(first) = moved.first_mut() {
        *first = Some(0);
    }
    while moved.contains(&None) {
        let known = |f: usize| moved.get(f).copied().flatten();
        // The file with most calls to or from those that are settled.
        let mut bounds: BTreeMap<usize, Vec<(i64, i64)>> = BTreeMap::new();
        for Pair { client, server } in pairs {
            let (c, s) = (&files[client.0][client.1], &files[server.0][server.1]);
            let wall = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
            let before = wall(c.start_wall_ns()).saturating_sub(wall(s.start_wall_ns()));
            let after = wall(c.end_wall_ns()).saturating_sub(wall(s.end_wall_ns()));
            // What the server's file must be moved by relative to the client's.
            let (least, most) = (before.min(after), before.max(after));
            let (file, bound) = match (known(client.0), known(server.0)) {
                (Some(by), None) => (server.0, (least.saturating_add(by), most.saturating_add(by))),
                (None, Some(by)) => (client.0, (by.saturating_sub(most), by.saturating_sub(least))),
                _ => continue,
            };
            let list = bounds.entry(file).or_default();
            if list.len() < MAX_PAIRS {
                list.push(bound);
            }
        }
        let most = bounds.into_iter().max_by_key(|(file, list)| (list.len(), std::cmp::Reverse(*file)));
        match most {
            Some((file, list)) => moved[file] = Some(least_move(&list)),
            // Nothing ties it to the others: its clock is taken as it is.
            None => moved.iter_mut().for_each(|m| {
                m.get_or_insert(0);
            }),
        }
    }
    let moved: Vec<i64> = moved.into_iter().map(Option::unwrap_or_default).collect();
    for (spans, by) in files.iter_mut().zip(&moved) {
        spans.iter_mut().for_each(|s| s.wall_offset_ns = s.wall_offset_ns.saturating_add(*by));
    }
    moved
}

/// The number nearest to 0 within all bounds; where clocks drifted so that there is none, the middle of what they ask.
fn least_move(bounds: &[(i64, i64)]) -> i64 {
    let least = bounds.iter().map(|b| b.0).max().unwrap_or(0);
    let most = bounds.iter().map(|b| b.1).min().unwrap_or(0);
    if least <= most {
        return 0.clamp(least, most);
    }
    let mut middles: Vec<i64> = bounds.iter().map(|(a, b)| a.midpoint(*b)).collect();
    let half = middles.len() / 2;
    *middles.select_nth_unstable(half).1
}

/// Two files may hold the same span: of one agent, or of one recording.
fn once(files: &mut [Vec<Span>]) {
    let mut seen: BTreeSet<(TraceId, SpanId)> = BTreeSet::new();
    for spans in files {
        spans.retain(|s| seen.insert((s.trace_id, s.span_id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fixture;

    const MS: i64 = 1_000_000;

    /// A span of trace `trace` with an exchange.
    fn span(trace: u8, id: u8, parent: u8, kind: SpanKind, ms: (u64, u64), exchange: &str) -> Span {
        let service = fixture::service(if kind == SpanKind::Client { "a" } else { "b" });
        let mut s = fixture::span(trace, id, parent, &service, kind, "GET /x", ms);
        if !exchange.is_empty() {
            s.attributes.set("ktrdr.exchange.id", exchange.to_owned());
        }
        s
    }

    use SpanKind::{Client, Server};

    #[test]
    fn three_hosts_become_one_trace_whatever_the_order_of_their_files() {
        let hosts = || {
            [
                vec![span(1, 1, 0, Client, (0, 100), "x")],
                vec![span(2, 2, 0, Server, (10, 90), "x"), span(2, 3, 2, Client, (20, 80), "y")],
                vec![span(3, 4, 0, Server, (30, 70), "y")],
            ]
        };
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut files: Vec<Vec<Span>> = order.iter().map(|n| hosts()[*n].clone()).collect();
            let joined = join(&mut files);
            assert_eq!((joined.calls, &joined.moved_ns), (2, &vec![0; 3]));
            let mut all: Vec<Span> = files.into_iter().flatten().collect();
            all.sort_by_key(|s| s.span_id);
            assert!(all.iter().all(|s| s.trace_id == all[0].trace_id), "{order:?}");
            assert_eq!(all[1].parent_span_id, Some(all[0].span_id));
            assert_eq!(all[2].parent_span_id, Some(all[1].span_id));
            assert_eq!(all[3].parent_span_id, Some(all[2].span_id));
        }
    }

    #[test]
    fn clocks_move_by_the_least_that_puts_answers_behind_questions() {
        let mut files = vec![
            vec![span(1, 1, 0, Client, (1_000, 1_100), "x"), span(5, 5, 0, Client, (2_000, 2_050), "z")],
            vec![span(2, 2, 0, Server, (500, 590), "x"), span(6, 6, 0, Server, (1_501, 1_540), "z")],
        ];
        let before = files[1][0].start_wall_ns();
        let joined = join(&mut files);
        assert_eq!(joined.moved_ns, [0, 500 * MS]);
        assert_eq!(files[1][0].start_wall_ns() - before, 500_000_000);
    }

    #[test]
    fn nothing_is_joined_on_a_guess() {
        let mut two = vec![
            vec![span(1, 1, 0, Client, (0, 100), "x"), span(4, 4, 0, Client, (0, 100), "x")],
            vec![span(2, 2, 0, Server, (10, 90), "x"), span(3, 3, 9, Server, (10, 90), "x")],
        ];
        let before = two.clone();
        assert_eq!(join(&mut two).calls, 0, "two claim it, and a parent is there already");
        assert_eq!(two, before);
        let mut one = vec![vec![span(1, 1, 0, Client, (0, 9), "x"), span(2, 2, 0, Server, (1, 2), "x")]];
        assert_eq!(join(&mut one).calls, 0, "what one agent did not join has a reason");
    }

    #[test]
    fn two_traces_that_would_hang_below_each_other_stay_acyclic() {
        let mut files = vec![
            vec![span(1, 1, 0, Server, (0, 50), "b"), span(1, 2, 1, Client, (1, 49), "a")],
            vec![span(2, 3, 0, Server, (0, 50), "a"), span(2, 4, 3, Client, (1, 49), "b")],
        ];
        assert_eq!(join(&mut files).calls, 1);
        let roots = files.iter().flatten().filter(|s| s.parent_span_id.is_none()).count();
        assert_eq!(roots, 1);
    }

    #[test]
    fn the_same_span_in_two_files_is_one() {
        let a = vec![span(1, 1, 0, Client, (0, 100), "x")];
        let mut files = vec![a.clone(), a, vec![span(2, 2, 0, Server, (10, 90), "x")]];
        assert_eq!(join(&mut files).calls, 1);
        assert_eq!(files.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 1]);
    }
}
