//! Spans as the lines of a tree. The two ends of a call become one line where both were seen.

use std::collections::{HashMap, HashSet};

use super::describe::{self, Mood, Outcome};
use super::text::clean;
use crate::export::{Item, LogItem};
use crate::trace::logs::Severity;
use crate::trace::model::{Span, SpanId, SpanKind};

/// A line of the tree.
#[derive(Debug)]
pub struct Line {
    /// How deep it is indented.
    pub depth: usize,
    /// When it began, nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// `ktrdr-api → ktrdr-ib-host-service:5001`.
    pub who: String,
    /// Name.
    pub what: String,
    /// How it went.
    pub outcome: Outcome,
    /// How long it took, nanoseconds.
    pub duration_ns: u64,
    /// The failure in a sentence.
    pub sentence: Option<String>,
    /// What is not as one would expect.
    pub notes: Vec<String>,
    /// Warnings and errors that were logged.
    pub logs: Vec<(Severity, String)>,
    /// It stands for several like it.
    pub repeat: Option<Repeat>,
}

/// Several calls in a row that differ in their times only, as polling makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// How many.
    pub count: usize,
    /// When the last one began, nanoseconds since the Unix epoch.
    pub last_ns: u64,
    /// The longest of them, nanoseconds.
    pub slowest_ns: u64,
}

/// The lines of a trace.
#[derive(Debug, Default)]
pub struct Forest {
    /// In the order they are printed.
    pub lines: Vec<Line>,
    /// Spans in them.
    pub spans: usize,
    /// Lines that failed.
    pub failed: usize,
}

/// Depth beyond which lines are not indented further: 40 columns of blanks help nobody.
const MAX_DEPTH: usize = 20;
/// So many calls in a row become one line.
const REPEATS: usize = 3;
/// A server's time is worth a word if the network and the queues took this part of the caller's time...
const APART: f64 = 0.2;
/// ... and at least so long, in nanoseconds.
const APART_NS: u64 = 5_000_000;

/// Builds the tree. `known` are spans of the same trace that were printed before.
/// `logs` go below the line of their span, or below the first line if it is not among these.
pub fn build(spans: &[Item], logs: &[LogItem], known: &[(SpanId, String)]) -> Forest {
    let ids: HashSet<SpanId, foldhash::fast::FixedState> = spans.iter().map(|s| s.span_id).collect();
    let mut order: Vec<&Span> = spans.iter().map(|s| &**s).collect();
    order.sort_by_key(|s| (s.start_wall_ns(), s.kind != SpanKind::Client, s.span_id));
    let mut children: HashMap<SpanId, Vec<&Span>, foldhash::fast::FixedState> = HashMap::default();
    let mut roots = Vec::new();
    for span in order {
        match span.parent_span_id {
            Some(parent) if ids.contains(&parent) && parent != span.span_id => {
                children.entry(parent).or_default().push(span);
            }
            _ => roots.push(span),
        }
    }
    let mut forest = Forest { spans: spans.len(), ..Forest::default() };
    let mut said = Said::new(logs);
    // A stack instead of recursion: the depth comes from outside.
    let mut stack: Vec<(usize, &Span)> = roots.into_iter().rev().map(|s| (0, s)).collect();
    while let Some((depth, span)) = stack.pop() {
        let own = children.remove(&span.span_id).unwrap_or_default();
        let server = joined(span, &own);
        let below_of = server.map(|s| s.span_id);
        let (mut line, below) = match server {
            Some(server) => {
                let mut below = children.remove(&server.span_id).unwrap_or_default();
                below.extend(own.iter().filter(|s| s.span_id != server.span_id));
                below.sort_by_key(|s| (s.start_wall_ns(), s.span_id));
                (call(span, server), below)
            }
            None => (single(span), own),
        };
        said.take(span.span_id, &mut line);
        if let Some(server) = below_of {
            said.take(server, &mut line);
        }
        let line = Line { depth, notes: with_origin(line.notes, span, &ids, known, depth), ..line };
        forest.failed += usize::from(line.outcome.mood == Mood::Bad);
        forest.lines.push(line);
        let deeper = (depth + 1).min(MAX_DEPTH);
        stack.extend(below.into_iter().rev().map(|s| (deeper, s)));
    }
    // Spans that are each other's ancestors (a corrupt trace) hang from no root.
    let mut rest: Vec<&Span> = children.into_values().flatten().collect();
    rest.sort_by_key(|s| (s.start_wall_ns(), s.span_id));
    forest.lines.extend(rest.into_iter().map(single));
    said_once(&mut forest.lines);
    inferred_once(&mut forest.lines);
    forest.lines = folded(forest.lines);
    if let Some(first) = forest.lines.first_mut() {
        said.rest(first);
    }
    forest
}

/// Log records by span, until their line takes them.
struct Said<'a>(Vec<&'a LogItem>);

impl<'a> Said<'a> {
    fn new(logs: &'a [LogItem]) -> Self {
        let mut logs: Vec<&LogItem> = logs.iter().collect();
        logs.sort_by_key(|r| r.wall_ns());
        Self(logs)
    }

    fn take(&mut self, span: SpanId, line: &mut Line) {
        self.0.retain(|r| {
            let its = r.span_id == Some(span);
            if its {
                line.say(r);
            }
            !its
        });
    }

    /// Those of spans that are printed elsewhere.
    fn rest(self, line: &mut Line) {
        self.0.into_iter().for_each(|r| line.say(r));
    }
}

/// Log records below one line; the first and the worst are what a person looks for, the rest is in the backend.
const MAX_SAID: usize = 4;

/// Which operation all of a trace is for, its first line says for those below.
fn said_once(lines: &mut [Line]) {
    let mut above: Vec<Vec<String>> = Vec::new();
    for line in lines {
        above.truncate(line.depth);
        let own = line.notes.clone();
        line.notes.retain(|n| !n.starts_with("operation: ") || !above.iter().flatten().any(|a| a == n));
        above.push(own);
    }
}

/// A parent that was inferred in the same way for siblings in a row is said of the first, with their number.
fn inferred_once(lines: &mut [Line]) {
    let inferred = |l: &Line| l.notes.iter().find(|n| n.starts_with(describe::INFERRED)).cloned();
    let mut at = 0;
    while at < lines.len() {
        let Some(note) = inferred(&lines[at]) else {
            at += 1;
            continue;
        };
        let depth = lines[at].depth;
        let after = lines[at + 1..].iter();
        let run = after.take_while(|l| l.depth == depth && l.notes.contains(&note)).count();
        if run > 0 {
            for n in lines[at].notes.iter_mut().filter(|n| **n == note) {
                n.push_str(&format!(", and of the next {run}"));
            }
            for line in &mut lines[at + 1..=at + run] {
                line.notes.retain(|n| *n != note);
            }
        }
        at += run + 1;
    }
}

/// Folds runs of like lines that have nothing below them and nothing to say. Neighbours of one depth have one
/// parent: a line of another parent would stand between them.
fn folded(lines: Vec<Line>) -> Vec<Line> {
    let mut out: Vec<Line> = Vec::with_capacity(lines.len());
    let mut rest = lines.into_iter().peekable();
    while let Some(first) = rest.next() {
        let mut run = vec![first];
        while let Some(next) = rest.next_if(|next| run[0].like(next)) {
            run.push(next);
        }
        // The last one may have something below it.
        let parent = rest.peek().is_some_and(|next| next.depth > run[0].depth).then(|| run.pop()).flatten();
        if run.len() >= REPEATS {
            let last_ns = run[run.len() - 1].start_ns;
            let slowest_ns = run.iter().map(|l| l.duration_ns).max().unwrap_or(0);
            run[0].repeat = Some(Repeat { count: run.len(), last_ns, slowest_ns });
            run.truncate(1);
        }
        out.extend(run);
        out.extend(parent);
    }
    out
}

impl Line {
    fn say(&mut self, record: &LogItem) {
        let text = super::logs::sentence(record);
        if self.logs.len() < MAX_SAID && !self.logs.iter().any(|(_, t)| *t == text) {
            self.logs.push((record.severity, text));
        }
    }

    fn like(&self, other: &Line) -> bool {
        let silent = |l: &Line| l.sentence.is_none() && l.notes.is_empty() && l.logs.is_empty();
        self.depth == other.depth
            && self.who == other.who
            && self.what == other.what
            && self.outcome == other.outcome
            && silent(self)
            && silent(other)
    }
}

/// The other end of a call, if it is to share the line: the one server span below the client's, and they agree.
fn joined<'a>(client: &Span, children: &[&'a Span]) -> Option<&'a Span> {
    if client.kind != SpanKind::Client {
        return None;
    }
    let mut servers = children.iter().filter(|s| s.kind == SpanKind::Server);
    let (server, None) = (servers.next()?, servers.next()) else { return None };
    let agree =
        server.name == client.name && describe::outcome(server).word == describe::outcome(client).word;
    agree.then_some(server)
}

fn single(span: &Span) -> Line {
    let service = clean(&span.resource.service);
    Line {
        depth: 0,
        start_ns: span.start_wall_ns(),
        who: match describe::peer(span) {
            Some(peer) => format!("{service} → {peer}"),
            None => service,
        },
        what: describe::what(span),
        outcome: describe::outcome(span),
        duration_ns: span.end.saturating_sub(span.start),
        sentence: describe::sentence(span),
        notes: describe::notes(span),
        logs: Vec::new(),
        repeat: None,
    }
}

fn call(client: &Span, server: &Span) -> Line {
    let mut line = single(client);
    let (from, to) = (clean(&client.resource.service), clean(&server.resource.service));
    line.who = format!("{from} → {to}");
    let other = describe::outcome(server);
    if other.mood > line.outcome.mood {
        line.outcome = other;
    }
    if line.sentence.is_none() {
        line.sentence = describe::sentence(server);
    }
    let inside = server.end.saturating_sub(server.start);
    let outside = line.duration_ns.saturating_sub(inside);
    if outside >= APART_NS && outside as f64 >= line.duration_ns as f64 * APART {
        line.notes.push(format!("{} in {to}", super::text::duration(inside)));
    }
    for note in describe::notes(server) {
        if !line.notes.contains(&note) {
            line.notes.push(note);
        }
    }
    line
}

/// Says where a line at the left edge belongs, if it is not a root.
fn with_origin(
    mut notes: Vec<String>,
    span: &Span,
    ids: &HashSet<SpanId, foldhash::fast::FixedState>,
    known: &[(SpanId, String)],
    depth: usize,
) -> Vec<String> {
    let Some(parent) = span.parent_span_id.filter(|p| depth == 0 && !ids.contains(p)) else { return notes };
    notes.insert(
        0,
        match known.iter().find(|(id, _)| *id == parent) {
            Some((_, name)) => format!("below {name}"),
            None if describe::continues_remote(span) => {
                format!("called from elsewhere (traceparent), span {parent}")
            }
            None => format!("its caller, span {parent}, is not finished or was not seen"),
        },
    );
    notes
}
