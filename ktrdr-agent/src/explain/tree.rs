//! Spans as a forest: who called whom, and what was done afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::trace::model::{Link, Span, SpanId, SpanKind, TraceId, Value};

/// How a span hangs on its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It has none here.
    Root,
    /// It happened within its parent.
    Child,
    /// It is its parent's work, done after the parent ended.
    After,
    /// It asks about its parent, an operation.
    About,
}

/// The forest. Spans are referred to by their place in [`Tree::spans`], which is ordered by start.
#[derive(Debug)]
pub struct Tree<'a> {
    /// The spans, each once.
    pub spans: Vec<&'a Span>,
    /// Parent of each.
    pub parent: Vec<Option<usize>>,
    /// How it hangs on it.
    pub edge: Vec<Edge>,
    /// Children of each, by start.
    pub children: Vec<Vec<usize>>,
    /// Spans whose parent is named and not here.
    pub missing_parents: usize,
    /// Spans that named themselves or each other as ancestors.
    pub cycles: usize,
}

impl<'a> Tree<'a> {
    /// Builds the forest. Ends for any input: circles are cut.
    pub fn new(spans: &'a [Arc<Span>]) -> Self {
        let mut order: Vec<&Span> = spans.iter().map(|s| &**s).collect();
        // The two ends of a call can begin at the same time: the client's comes first.
        order.sort_by_key(|s| (s.start_wall_ns(), s.kind != SpanKind::Client, s.trace_id, s.span_id));
        let mut at: BTreeMap<(TraceId, SpanId), usize> = BTreeMap::new();
        order.retain(|s| {
            let next = at.len();
            let fresh = !at.contains_key(&(s.trace_id, s.span_id));
            at.entry((s.trace_id, s.span_id)).or_insert(next);
            fresh
        });
        let n = order.len();
        let mut tree = Self {
            spans: order,
            parent: vec![None; n],
            edge: vec![Edge::Root; n],
            children: vec![Vec::new(); n],
            missing_parents: 0,
            cycles: 0,
        };
        for i in 0..n {
            let span = tree.spans[i];
            let named = span.parent_span_id.map(|p| at.get(&(span.trace_id, p)).copied());
            // The request whose work it is says more than the operation.
            let link = |kind: Option<&str>| {
                let of = |l: &&Link| {
                    kind.is_none() || l.attributes.get("ktrdr.link.kind").and_then(Value::as_str) == kind
                };
                span.links.iter().filter(of).find_map(|l| at.get(&(l.trace_id, l.span_id)).copied())
            };
            let (parent, edge) = match (named, link(Some("work_after_response"))) {
                (Some(Some(p)), _) => (Some(p), Edge::Child),
                (_, Some(p)) => (Some(p), Edge::After),
                _ => (link(None), Edge::About),
            };
            if named == Some(None) && parent.is_none() {
                tree.missing_parents += 1;
            }
            if parent.is_some() {
                tree.parent[i] = parent;
                tree.edge[i] = edge;
            }
        }
        tree.cut_circles();
        for i in 0..n {
            if let Some(p) = tree.parent[i] {
                tree.children[p].push(i);
            }
        }
        tree
    }

    /// Makes the earliest span of every circle a root.
    fn cut_circles(&mut self) {
        // 0 = not visited, else the number of the walk that came by.
        let mut seen = vec![0usize; self.spans.len()];
        for start in 0..self.spans.len() {
            let walk = start + 1;
            let mut at = start;
            while seen[at] == 0 {
                seen[at] = walk;
                match self.parent[at] {
                    Some(p) => at = p,
                    None => break,
                }
            }
            // Coming back to a span of this very walk, over an edge, is a circle.
            if seen[at] == walk && self.parent[at].is_some() {
                let mut first = at;
                let mut next = self.parent[at];
                while let Some(i) = next.filter(|i| *i != at) {
                    first = first.min(i);
                    next = self.parent[i];
                }
                self.parent[first] = None;
                self.edge[first] = Edge::Root;
                self.cycles += 1;
            }
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Every span after all of its descendants.
    pub fn bottom_up(&self) -> Vec<usize> {
        let mut order = self.top_down();
        order.reverse();
        order
    }

    /// Every span after its parent; a tree's spans stand together, children by start.
    pub fn top_down(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.len());
        let mut stack: Vec<usize> = (0..self.len()).rev().filter(|i| self.parent[*i].is_none()).collect();
        while let Some(i) = stack.pop() {
            order.push(i);
            stack.extend(self.children[i].iter().rev());
        }
        order
    }

    /// From the root to the span, itself included.
    pub fn path(&self, to: usize) -> Vec<usize> {
        let mut path = vec![to];
        let mut at = to;
        while let Some(p) = self.parent[at] {
            path.push(p);
            at = p;
        }
        path.reverse();
        path
    }

    /// The server's end of a call, if it is here.
    pub fn server_end(&self, client: usize) -> Option<usize> {
        if self.spans[client].kind != SpanKind::Client {
            return None;
        }
        let mut servers = self.children[client]
            .iter()
            .copied()
            .filter(|c| self.edge[*c] == Edge::Child && self.spans[*c].kind == SpanKind::Server);
        let first = servers.next()?;
        servers.next().is_none().then_some(first)
    }

    /// The client's end of a call, if it is here.
    pub fn client_end(&self, server: usize) -> Option<usize> {
        let client = self.parent[server].filter(|_| self.edge[server] == Edge::Child)?;
        (self.server_end(client) == Some(server)).then_some(client)
    }
}
