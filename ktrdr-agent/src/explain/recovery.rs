//! Failures that were made good: the next worker took the job, the retry succeeded, nobody minded the 404.

use std::collections::BTreeMap;

use super::tree::{Edge, Tree};
use super::{Kind, symptom, view};
use crate::trace::model::SpanKind;

/// Which symptoms are no cause of anything.
#[derive(Debug)]
pub struct Recovery {
    /// Repeated with success later, by the same caller.
    pub recovered: Vec<bool>,
    /// Recovered, or a 4xx answer to a caller that went on to succeed, or within such a call.
    pub excused: Vec<bool>,
}

/// Calls for one purpose: who asks (parent or service), and what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose<'a> {
    /// A request, to whoever serves it.
    Request { parent: Option<usize>, service: &'a str, name: &'a str },
    /// A connection to one of a kind.
    Peer { parent: Option<usize>, service: &'a str, family: &'a str, port: Option<i64> },
}

fn request<'a>(tree: &Tree<'a>, i: usize) -> Purpose<'a> {
    let span = tree.spans[i];
    Purpose::Request { parent: tree.parent[i], service: &span.resource.service, name: &span.name }
}

/// Services known by name stand in for each other within their kind; addresses only for themselves.
fn peer<'a>(tree: &Tree<'a>, i: usize) -> Option<Purpose<'a>> {
    let span = tree.spans[i];
    let named = view::text(span, "peer.service");
    let family = named.map(view::family).or_else(|| view::peer_name(span))?;
    let port = if named.is_some_and(view::is_worker) { None } else { view::port(span) };
    Some(Purpose::Peer { parent: tree.parent[i], service: &span.resource.service, family, port })
}

impl Recovery {
    /// Looks at every failed call for a later success of the same purpose.
    pub fn new(tree: &Tree<'_>, symptoms: &[Option<Kind>]) -> Self {
        let mut last: BTreeMap<Purpose<'_>, u64> = BTreeMap::new();
        let calls = || (0..tree.len()).filter(|i| tree.spans[*i].kind == SpanKind::Client);
        let fine = |i: usize| {
            let server = tree.server_end(i);
            symptoms[i].is_none()
                && view::code(tree.spans[i]).is_none_or(|c| c < 400)
                && server.is_none_or(|s| symptoms[s].is_none())
        };
        for i in calls().filter(|i| fine(*i)) {
            let start = tree.spans[i].start_wall_ns();
            for purpose in [Some(request(tree, i)), peer(tree, i)].into_iter().flatten() {
                let entry = last.entry(purpose).or_default();
                *entry = start.max(*entry);
            }
        }
        let mut recovered = vec![false; tree.len()];
        let mut excused = vec![false; tree.len()];
        for i in calls().filter(|i| symptoms[*i].is_some()) {
            let span = tree.spans[i];
            let purpose = if view::is_connect(span) { peer(tree, i) } else { Some(request(tree, i)) };
            let later = purpose.and_then(|p| last.get(&p)).is_some_and(|t| *t >= span.end_wall_ns());
            recovered[i] = later;
            let caller_fine = tree.parent[i].is_some_and(|p| symptoms[p].is_none());
            let tolerated = symptom::is_soft(span) && tree.edge[i] == Edge::Child && caller_fine;
            excused[i] = later || tolerated;
        }
        // What happened within a call that was made good was made good with it.
        for i in tree.top_down() {
            if let Some(p) = tree.parent[i].filter(|_| tree.edge[i] == Edge::Child) {
                excused[i] |= excused[p];
            }
        }
        Self { recovered, excused }
    }
}
