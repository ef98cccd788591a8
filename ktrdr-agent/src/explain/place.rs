//! What stands around a failure: the worker that was lost, the callee's own troubles, what it waited for.

use std::collections::BTreeSet;

use super::symptom::{self, Kind};
use super::tree::{Edge, Tree};
use super::{Case, knowledge, view};
use crate::trace::model::{Span, SpanKind};

/// A call of the callee explains its caller's wait if it took up at least this part of it.
const MOST: f64 = 0.5;

/// A worker that took a job and then cannot be reached is a lost worker, not merely a refused connection.
pub fn name_lost_workers(tree: &Tree<'_>, symptoms: &mut [Option<Kind>]) {
    let mut working: BTreeSet<(String, i64)> = BTreeSet::new();
    // In order of start: what comes after the dispatch.
    for (i, span) in tree.spans.iter().enumerate() {
        let (Some(name), Some(port)) = (view::peer_name(span), view::port(span)) else { continue };
        let key = (name.to_owned(), port);
        match symptoms[i] {
            None if view::path(span).is_some_and(symptom::starts_work) => {
                working.insert(key);
            }
            Some(Kind::Refused | Kind::Reset | Kind::NoResponse | Kind::ResponseCut)
                if working.contains(&key) =>
            {
                symptoms[i] = Some(Kind::WorkerLost);
            }
            _ => {}
        }
    }
}

/// How the process behind a peer ended, if somebody who was refused there later got to know: "pid 4711 was killed by
/// SIGKILL".
pub fn fate(case: &Case, tree: &Tree<'_>, lost: &Span) -> Option<String> {
    if let (Some(pid), Some(exit)) = (view::int(lost, "ktrdr.peer.pid"), view::text(lost, "ktrdr.peer.exit"))
    {
        return Some(format!("pid {pid} {exit}"));
    }
    let ended = |s: &&Span| {
        s.start_wall_ns() >= lost.start_wall_ns()
            && view::port(s) == view::port(lost)
            && view::peer_name(s) == view::peer_name(lost)
    };
    let here = tree.spans.iter().copied();
    let mut later = here.chain(case.nearby.iter().map(|s| &**s)).filter(ended);
    later.find_map(|s| {
        let pid = view::int(s, "ktrdr.listener.pid")?;
        Some(format!("pid {pid} {}", view::text(s, "ktrdr.listener.exit")?))
    })
}

/// The service that owed the answer.
pub fn callee<'a>(tree: &Tree<'a>, i: usize) -> Option<&'a str> {
    let span = tree.spans[i];
    match tree.server_end(i) {
        Some(server) => Some(&tree.spans[server].resource.service),
        None if span.kind == SpanKind::Client => view::text(span, "peer.service"),
        None => Some(&span.resource.service),
    }
}

/// Failed calls of the callee at that time whose origin is not known, if all of them went to services of one kind: the
/// request was handed to another thread, and nothing shows to which.
pub fn beyond<'a>(case: &'a Case, tree: &Tree<'a>, i: usize, kind: Kind) -> Vec<&'a Span> {
    let span = tree.spans[i];
    let waits = symptom::unanswered(kind) && !view::is_connect(span);
    let told = matches!(kind, Kind::BusinessError | Kind::NoWorker) && is_about_a_connection(span);
    let broken = kind == Kind::HttpError && view::code(span).is_some_and(|c| c >= 500);
    if !waits && !told && !broken {
        return Vec::new();
    }
    let services: BTreeSet<&str> = if view::is_operation(span) {
        tree.spans.iter().map(|s| s.resource.service.as_str()).collect()
    } else {
        callee(tree, i).into_iter().collect()
    };
    let (from, to) = (span.start_wall_ns(), span.end_wall_ns());
    let candidates: Vec<&Span> = case
        .nearby
        .iter()
        .map(|s| &**s)
        .filter(|s| services.contains(s.resource.service.as_str()) && s.kind == SpanKind::Client)
        .filter(|s| s.start_wall_ns() >= from && s.start_wall_ns() <= to)
        .filter(|s| symptom::kind_of(s).is_some_and(|k| k.rank() <= Kind::TimedOut.rank()))
        .filter(|s| fits(view::text(span, "operation.type"), s))
        .collect();
    of_one_kind(candidates)
}

/// A failed call of the process that served this request, made meanwhile, of which nobody knows for which request.
pub fn at_that_time<'a>(case: &'a Case, tree: &Tree<'a>, i: usize) -> Option<&'a Span> {
    let server = tree.server_end(i).map_or(tree.spans[i], |s| tree.spans[s]);
    if server.kind != SpanKind::Server {
        return None;
    }
    let process = |s: &'a Span| s.resource.attributes.get("process.pid");
    let meanwhile = server.start_wall_ns()..=server.end_wall_ns();
    let mut calls = case.nearby.iter().map(|s| &**s).filter(|s| {
        let same = s.resource.service == server.resource.service && process(s) == process(server);
        let failed = symptom::kind_of(s).is_some_and(Kind::is_failure);
        same && failed && s.kind == SpanKind::Client && meanwhile.contains(&s.start_wall_ns())
    });
    calls.next_back()
}

/// The last call of a command that was cut off by its end.
pub fn given_up<'a>(tree: &Tree<'a>, i: usize) -> Option<&'a Span> {
    let calls = tree.children[i].iter().map(|c| tree.spans[*c]);
    calls.rev().find(|s| s.kind == SpanKind::Client && symptom::kind_of(s) == Some(Kind::ProcessEnded))
}

/// Failed calls of the services that work for an operation which was not seen to end, at that time and without known
/// origin. Asked only if nothing else failed.
pub fn troubles<'a>(case: &'a Case, tree: &Tree<'a>) -> Vec<&'a Span> {
    let Some(id) = &case.operation else { return Vec::new() };
    let services: BTreeSet<&str> = tree
        .spans
        .iter()
        .filter(|s| s.kind == SpanKind::Server)
        .map(|s| s.resource.service.as_str())
        .collect();
    let kind = knowledge::operation_type(id);
    let end = tree.spans.iter().map(|s| s.end_wall_ns()).max().unwrap_or_default();
    let candidates: Vec<&Span> = case
        .nearby
        .iter()
        .map(|s| &**s)
        .filter(|s| services.contains(s.resource.service.as_str()) && fits(kind, s))
        .filter(|s| s.start_wall_ns() <= end)
        // Health checks go to everyone, all the time.
        .filter(|s| view::path(s).is_none_or(|p| !p.ends_with("/health")))
        .filter(|s| symptom::kind_of(s).is_some_and(|k| k.rank() <= Kind::TimedOut.rank()))
        .collect();
    of_one_kind(candidates)
}

/// The calls, if all of them went to services of one kind.
fn of_one_kind<'a>(calls: Vec<&'a Span>) -> Vec<&'a Span> {
    let whom = |s: &'a Span| {
        let name = view::peer_name(s).unwrap_or_default();
        // Instances stand in for each other; an address is only itself.
        if view::is_worker(name) { (view::family(name), None) } else { (name, view::port(s)) }
    };
    let mut places = calls.iter().map(|s| whom(s));
    let first = places.next();
    if places.all(|p| Some(p) == first) { calls } else { Vec::new() }
}

/// Whether a failure told in words may be that of a call: "All connection attempts failed", "no training worker is
/// available", "[Errno 111] …".
fn is_about_a_connection(span: &Span) -> bool {
    let told = view::message(span).or_else(|| view::text(span, "operation.error")).unwrap_or_default();
    let told = told.to_ascii_lowercase();
    ["connect", "refused", "timeout", "timed out", "unreachable", "errno", "worker", "unavailable"]
        .iter()
        .any(|word| told.contains(word))
}

/// Training and backtests are done by workers, downloads are not: a failed health check of a worker at that time
/// explains none.
fn fits(operation: Option<&str>, call: &Span) -> bool {
    let worker = view::peer_name(call).is_some_and(view::is_worker);
    match operation {
        Some("training" | "backtesting") => worker,
        Some("data_load") => !worker,
        _ => true,
    }
}

/// The callee's own call that took up most of the time its caller waited in vain.
pub fn meanwhile(tree: &Tree<'_>, i: usize, kind: Kind) -> Option<usize> {
    if !symptom::unanswered(kind) {
        return None;
    }
    let mut found = None;
    let mut at = tree.server_end(i)?;
    // Down to the deepest that fits: what the callee's callee waited for is the better answer.
    loop {
        let wait = view::duration(tree.spans[i]).max(1) as f64;
        let longest = tree.children[at]
            .iter()
            .copied()
            .filter(|c| tree.edge[*c] == Edge::Child && tree.spans[*c].kind == SpanKind::Client)
            .max_by_key(|c| (overlap(tree.spans[i], tree.spans[*c]), std::cmp::Reverse(*c)));
        let Some(call) = longest.filter(|c| overlap(tree.spans[i], tree.spans[*c]) as f64 >= wait * MOST)
        else {
            return found;
        };
        found = Some(call);
        match tree.server_end(call) {
            Some(server) => at = server,
            None => return found,
        }
    }
}

/// A call of the callee for somebody else, open while its caller waited in vain and still now. That it is why nobody was
/// answered is not known, only that it was so.
pub fn busy_elsewhere<'a>(case: &'a Case, tree: &Tree<'a>, i: usize) -> Option<&'a Span> {
    let (caller, callee) = (tree.spans[i], callee(tree, i)?);
    let most = view::duration(caller).max(1) as f64 * MOST;
    let open = case.nearby.iter().map(|s| &**s).filter(|s| view::is_open(s) && s.kind == SpanKind::Client);
    let during = open.filter(|s| s.resource.service == callee && overlap(caller, s) as f64 >= most);
    during.min_by_key(|s| (s.start_wall_ns(), s.span_id))
}

fn overlap(a: &Span, b: &Span) -> u64 {
    let start = a.start_wall_ns().max(b.start_wall_ns());
    a.end_wall_ns().min(b.end_wall_ns()).saturating_sub(start)
}
