//! Spans that are open or were until recently, so that others can find their parent among them.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use hashlink::LruCache;

use super::commands::Command;
use super::handoff::About;
use super::said::Said;
use crate::event::Ns;
use crate::protocol::{Role, TraceContext};
use crate::trace::causality::{CallRef, Gap, Method, Origin, SpanRef};
use crate::trace::ids::{ExchangeId, Positions};
use crate::trace::model::{BoxedSpan, SpanId, TraceId};

/// Spans remembered, about 220 bytes each (15 MB at worst): most of a second at 40,000 requests/s with both ends, and half an hour at
/// KTRDR's rates, in which work that outlives its request finds its origin.
const MAX_NODES: usize = 64 * 1024;
/// Commands under way that are remembered beyond that: as many as [`crate::trace::commands`] follows.
const MAX_COMMANDS: usize = 4_096;
/// Calls that are remembered beyond that since they are still open, or wait to be emitted: as many as a busy proxy has open, most of
/// them downloads, or long polls.
const MAX_LONG: usize = 8_192;

/// Where a span hangs; final once decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Trace.
    pub trace_id: TraceId,
    /// Parent, if it is a child.
    pub parent: Option<SpanId>,
    /// The span whose work this is although it was over by then: same trace, linked, no child.
    pub follows: Option<SpanId>,
    /// How that is known.
    pub method: Option<Method>,
    /// Why it has no parent, where a task's context should have told.
    pub gap: Option<Gap>,
}

/// A span that others may refer to.
#[derive(Debug)]
pub struct Node {
    /// Which end.
    pub role: Role,
    /// Its exchange.
    pub exchange: ExchangeId,
    /// Its place on the connection, where the other end may see other addresses.
    pub positions: Option<Positions>,
    /// Its id.
    pub span_id: SpanId,
    /// Process.
    pub tgid: u32,
    /// The other end of its exchange, if it is seen on this host.
    pub other: Option<SpanRef>,
    /// Start.
    pub start: Ns,
    /// End, once it is over.
    pub end: Option<Ns>,
    /// It goes on beyond that, but nobody looks.
    pub left: bool,
    /// For calls: whose work they are.
    pub call: Option<CallRef>,
    /// Where it hangs, once decided.
    pub place: Option<Place>,
    /// The span it hangs below or follows.
    pub above: Option<SpanRef>,
    /// The operation it belongs to.
    pub operation: Option<Arc<str>>,
    /// What it is about, if it says.
    pub about: Option<Box<About>>,
    /// The command whose process made this call, or that started this command.
    pub under: Option<SpanRef>,
    /// What else there is to know of a command; calls have none.
    pub command: Option<Box<Command>>,
    /// What few spans have.
    pub rare: Option<Box<Rare>>,
    /// The finished span, until it is emitted.
    pub finished: Option<BoxedSpan>,
}

/// Evidence that few spans have.
#[derive(Debug, Default)]
pub struct Rare {
    /// A trace context on the wire.
    pub context: Option<TraceContext>,
    /// The request that it passes on, as a relay does.
    pub passed_on: Option<SpanRef>,
    /// The request that it repeats, as a reverse proxy does, or whose id it carries.
    pub repeats: Option<Origin>,
    /// The operation that its task named before, in a log line.
    pub hint: Option<Arc<str>>,
    /// What log records say of it.
    pub said: Option<Said>,
}

impl Rare {
    /// What a call says itself, if it does.
    pub fn of(
        context: Option<TraceContext>,
        passed_on: Option<SpanRef>,
        repeats: Option<Origin>,
    ) -> Option<Box<Self>> {
        let any = context.is_some() || passed_on.is_some() || repeats.is_some();
        any.then(|| Box::new(Self { context, passed_on, repeats, hint: None, said: None }))
    }
}

impl Node {
    /// A span that has just begun, in a process at a time.
    pub fn new(
        role: Role,
        exchange: ExchangeId,
        span_id: SpanId,
        (tgid, start): (u32, Ns),
        call: Option<CallRef>,
    ) -> Self {
        Self {
            role,
            exchange,
            positions: None,
            span_id,
            tgid,
            other: None,
            start,
            end: None,
            left: false,
            call,
            place: None,
            above: None,
            operation: None,
            about: None,
            under: None,
            command: None,
            rare: None,
            finished: None,
        }
    }
}

/// Nodes by number, oldest first.
pub struct Nodes {
    first: u64,
    nodes: VecDeque<Option<Node>>,
    /// Commands older than all of these: what they started may go on for hours.
    commands: BTreeMap<SpanRef, Node>,
    /// Calls older than all of these.
    long: BTreeMap<SpanRef, Node>,
    /// Ends whose other end has not been seen.
    ends: Ends<ExchangeId>,
    /// The same by what both see where addresses are translated between them.
    translated: Ends<Positions>,
    /// Spans forgotten before they ended or were emitted, because too many were open.
    pub forgotten: u64,
}

/// Single ends of exchanges.
type Ends<K> = LruCache<K, (Role, SpanRef), foldhash::fast::FixedState>;

impl Nodes {
    /// None.
    pub fn new() -> Self {
        Self {
            first: 0,
            nodes: VecDeque::new(),
            commands: BTreeMap::new(),
            long: BTreeMap::new(),
            ends: LruCache::with_hasher(MAX_NODES, foldhash::fast::FixedState::default()),
            translated: LruCache::with_hasher(MAX_NODES, foldhash::fast::FixedState::default()),
            forgotten: 0,
        }
    }

    /// Adds a span. Numbers grow, but some are never used.
    pub fn insert(&mut self, span: SpanRef, mut node: Node) {
        if span.0 < self.first && !self.nodes.is_empty() {
            return;
        }
        // Never beyond the bound, not even for a moment: room grows by doubling, and all of it is used in turn.
        while self.slot(span).is_none() {
            if self.nodes.is_empty() {
                self.first = span.0;
            } else if self.nodes.len() >= MAX_NODES {
                self.forget_oldest();
            }
            self.nodes.push_back(None);
        }
        node.other = meet(&mut self.ends, node.exchange, node.role, span);
        if let Some(positions) = node.positions {
            let translated = meet(&mut self.translated, positions, node.role, span);
            node.other = node.other.or(translated);
        }
        if let Some(other) = node.other.and_then(|o| self.get_mut(o)) {
            other.other = Some(span);
        }
        if let Some(slot) = self.slot(span) {
            *slot = Some(node);
        }
    }

    fn slot(&mut self, span: SpanRef) -> Option<&mut Option<Node>> {
        self.nodes.get_mut(usize::try_from(span.0.checked_sub(self.first)?).ok()?)
    }

    fn forget_oldest(&mut self) {
        let oldest = SpanRef(self.first);
        match self.nodes.pop_front().flatten() {
            Some(node) if node.command.is_some() && node.end.is_none() => {
                self.forgotten += keep(&mut self.commands, oldest, node, MAX_COMMANDS);
            }
            Some(node) if is_missed(&node) => {
                self.forgotten += keep(&mut self.long, oldest, node, MAX_LONG);
            }
            _ => {}
        }
        self.first += 1;
    }

    /// The span, if it is remembered.
    pub fn get(&self, span: SpanRef) -> Option<&Node> {
        match span.0.checked_sub(self.first) {
            Some(at) => self.nodes.get(usize::try_from(at).ok()?)?.as_ref(),
            None => self.long.get(&span).or_else(|| self.commands.get(&span)),
        }
    }

    /// The span, if it is remembered.
    pub fn get_mut(&mut self, span: SpanRef) -> Option<&mut Node> {
        match span.0.checked_sub(self.first) {
            Some(at) => self.nodes.get_mut(usize::try_from(at).ok()?)?.as_mut(),
            None => self.long.get_mut(&span).or_else(|| self.commands.get_mut(&span)),
        }
    }

    /// Forgets the span.
    pub fn remove(&mut self, span: SpanRef) -> Option<Node> {
        let node = match self.slot(span) {
            Some(slot) => slot.take()?,
            None => self.long.remove(&span).or_else(|| self.commands.remove(&span))?,
        };
        self.ends.remove(&node.exchange);
        if let Some(other) = node.other.and_then(|o| self.get_mut(o)) {
            other.other = None;
        }
        Some(node)
    }
}

/// Whether somebody would miss the span: it goes on, or was not emitted.
fn is_missed(node: &Node) -> bool {
    node.end.is_none() || node.finished.is_some()
}

/// Remembers it among those, of which the oldest is forgotten if they are too many. How many were forgotten that are missed.
fn keep(those: &mut BTreeMap<SpanRef, Node>, span: SpanRef, node: Node, most: usize) -> u64 {
    those.insert(span, node);
    let oldest = if those.len() > most { those.pop_first() } else { None };
    u64::from(oldest.is_some_and(|(_, node)| is_missed(&node)))
}

/// The other end of what both ends see under this key; without it this one waits for it.
fn meet<K: Copy + Eq + Hash>(ends: &mut Ends<K>, key: K, role: Role, span: SpanRef) -> Option<SpanRef> {
    match ends.remove(&key) {
        Some((other, at)) if other != role => Some(at),
        _ => {
            ends.insert(key, (role, span));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As [`MAX_NODES`] says.
    #[test]
    fn a_remembered_span_is_small() {
        let size = size_of::<Option<Node>>();
        assert!(size <= 224, "{size} bytes");
    }

    #[test]
    fn the_oldest_go_before_there_are_too_many() {
        let mut nodes = Nodes::new();
        let node = |n: u64| Node {
            end: Some(n),
            ..Node::new(Role::Server, ExchangeId(n.into()), SpanId([0; 8]), (1, n), None)
        };
        let all = MAX_NODES as u64 + 10;
        (5..all).for_each(|n| nodes.insert(SpanRef(n), node(n)));
        assert_eq!((nodes.nodes.len(), nodes.nodes.capacity()), (MAX_NODES, MAX_NODES));
        assert!(nodes.get(SpanRef(9)).is_none() && nodes.get(SpanRef(10)).is_some_and(|n| n.start == 10));
        assert_eq!(nodes.forgotten, 0);
        // Numbers that are never used.
        nodes.insert(SpanRef(3 * all), node(7));
        assert!(nodes.get(SpanRef(3 * all)).is_some() && nodes.get(SpanRef(all - 1)).is_none());
        assert_eq!(nodes.nodes.len(), MAX_NODES);
    }

    #[test]
    fn a_call_that_goes_on_is_remembered_however_many_begin_meanwhile() {
        let mut nodes = Nodes::new();
        let open = |n: u64| Node::new(Role::Server, ExchangeId(n.into()), SpanId([0; 8]), (1, n), None);
        let over = |n: u64| Node { end: Some(n), ..open(n) };
        nodes.insert(SpanRef(1), open(1));
        nodes.insert(SpanRef(2), open(2));
        (3..3 * MAX_NODES as u64).for_each(|n| nodes.insert(SpanRef(n), over(n)));
        assert!(nodes.get_mut(SpanRef(1)).is_some_and(|n| n.start == 1));
        assert!(nodes.remove(SpanRef(2)).is_some() && nodes.get(SpanRef(2)).is_none());
        assert_eq!(nodes.forgotten, 0);
        // Of too many the oldest goes, and is counted if it is missed.
        let next = 3 * MAX_NODES as u64;
        (next..next + MAX_LONG as u64).for_each(|n| nodes.insert(SpanRef(n), open(n)));
        let later = next + MAX_LONG as u64;
        (later..later + MAX_NODES as u64).for_each(|n| nodes.insert(SpanRef(n), over(n)));
        assert!(nodes.get(SpanRef(1)).is_none() && nodes.get(SpanRef(next)).is_some());
        assert_eq!((nodes.long.len(), nodes.forgotten), (MAX_LONG, 1));
    }
}
