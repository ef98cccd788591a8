//! Where the time went: how long each span was busy with nothing that is seen below it.

use super::tree::{Edge, Tree};
use super::view;
use crate::trace::model::SpanKind;

/// A call that took longer is called slow even if nothing failed. KTRDR's services answer each other within a second
/// when all is well, its clients give up after 30.
pub const SLOW_NS: u64 = 2_000_000_000;

/// A share of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whose.
    pub span: usize,
    /// Time without any call below it, nanoseconds.
    pub own_ns: u64,
    /// Whether it is the way between the ends of a call: network, and waiting to be accepted.
    pub on_the_way: bool,
}

/// The span that all below is about: the longest that nobody called but a command, operations aside. A command that made
/// no call stands for itself.
pub fn longest(tree: &Tree<'_>) -> Option<usize> {
    let by = |i: &usize| (view::duration(tree.spans[*i]), std::cmp::Reverse(*i));
    let outermost = |i: &usize| {
        tree.edge[*i] != Edge::Child || tree.parent[*i].is_some_and(|p| view::is_command(tree.spans[p]))
    };
    let all = || (0..tree.len()).filter(outermost).filter(|i| !view::is_operation(tree.spans[*i]));
    all().filter(|i| !view::is_command(tree.spans[*i])).max_by_key(by).or_else(|| all().max_by_key(by))
}

/// Shares of the time of `top`, largest first. An operation is no work of its own, it stands for the calls made for it.
pub fn shares(tree: &Tree<'_>, top: usize) -> Vec<Share> {
    let mut shares = Vec::new();
    let mut stack = vec![top];
    while let Some(i) = stack.pop() {
        let within: Vec<usize> = tree.children[i]
            .iter()
            .copied()
            .filter(|c| tree.edge[*c] == Edge::Child && !view::is_operation(tree.spans[*c]))
            .collect();
        let on_the_way = tree.server_end(i).is_some();
        shares.push(Share { span: i, own_ns: own(tree, i, &within), on_the_way });
        stack.extend(within);
    }
    shares.sort_by_key(|s| (std::cmp::Reverse(s.own_ns), s.span));
    shares
}

/// Duration less the time covered by children, which come ordered by start.
fn own(tree: &Tree<'_>, i: usize, children: &[usize]) -> u64 {
    let span = tree.spans[i];
    let (start, end) = (span.start_wall_ns(), span.end_wall_ns());
    let (mut covered, mut until) = (0u64, start);
    for c in children {
        let from = tree.spans[*c].start_wall_ns().clamp(until, end.max(until));
        let to = tree.spans[*c].end_wall_ns().min(end).max(from);
        covered = covered.saturating_add(to - from);
        until = to;
    }
    view::duration(span).saturating_sub(covered)
}

/// "in ktrdr-api itself", "waiting for ib-gateway:4002".
pub fn say(tree: &Tree<'_>, share: &Share) -> String {
    let span = tree.spans[share.span];
    let service = &span.resource.service;
    match (span.kind, view::peer(span)) {
        (SpanKind::Client, Some(peer)) if share.on_the_way => {
            let to = tree.server_end(share.span).map(|s| tree.spans[s].resource.service.clone());
            format!("on the way between {service} and {}", to.unwrap_or(peer))
        }
        (SpanKind::Client, Some(peer)) => format!("{service} waiting for {peer} ({})", view::what(span)),
        (SpanKind::Client, None) => format!("{service} waiting for an answer ({})", view::what(span)),
        (SpanKind::Server, _) => format!("in {service} itself ({})", view::what(span)),
        (SpanKind::Internal, _) => format!("in {service} ({})", view::what(span)),
    }
}
