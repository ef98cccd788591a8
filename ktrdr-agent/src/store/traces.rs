//! Spans by trace, within bounds. Traces with errors outlive those of operations, and those all others.

use hashlink::LinkedHashMap;

use super::Limits;
use crate::explain::kind_of;
use crate::export::Item;
use crate::trace::model::{Span, Status, TraceId};

type Map = LinkedHashMap<TraceId, Trace, foldhash::fast::FixedState>;

/// What a trace is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nothing failed.
    Healthy,
    /// Nothing failed, and it belongs to an operation.
    Operation,
    /// Something failed.
    Error,
}

const CLASSES: [Class; 3] = [Class::Healthy, Class::Operation, Class::Error];
/// Parts of the room (of 8) that a class may fill before it gives way to others: errors are rare, and asked for.
const SHARES: [usize; 3] = [1, 3, 8];

/// A trace as it is kept.
#[derive(Debug)]
pub struct Trace {
    /// Its spans, in the order they ended.
    pub spans: Vec<Item>,
    /// What it is worth.
    pub class: Class,
    /// Spans not kept because there were too many.
    pub dropped: u64,
    bytes: usize,
}

/// All traces.
pub struct Traces {
    limits: Limits,
    // By class, the longest without news first.
    maps: [Map; 3],
    spans: [usize; 3],
    bytes: [usize; 3],
}

impl Traces {
    /// None.
    pub fn new(limits: Limits) -> Self {
        let map = || Map::with_hasher(foldhash::fast::FixedState::default());
        Self { limits, maps: [map(), map(), map()], spans: [0; 3], bytes: [0; 3] }
    }

    /// Adds a span, and forgets others to make room.
    pub fn add(&mut self, span: &Item, of_operation: bool) {
        let id = span.trace_id;
        let class = match (kind_of(span), of_operation) {
            (Some(_), _) => Class::Error,
            (None, true) => Class::Operation,
            (None, false) => Class::Healthy,
        };
        let known = (0..CLASSES.len()).find(|c| self.maps[*c].contains_key(&id));
        // A trace stays where it is unless it is worth more now.
        let at = match known {
            Some(at) if at >= class as usize => at,
            _ => {
                let new = Trace { spans: Vec::new(), class, dropped: 0, bytes: 0 };
                let trace = known.and_then(|_| self.take(id)).unwrap_or(new);
                let at = class as usize;
                self.spans[at] += trace.spans.len();
                self.bytes[at] += trace.bytes;
                self.maps[at].insert(id, Trace { class, ..trace });
                at
            }
        };
        // Failures get as much room again.
        let room = self.limits.spans_per_trace * if class == Class::Error { 2 } else { 1 };
        if let Some(trace) = self.maps[at].to_back(&id) {
            if trace.spans.len() < room {
                let bytes = weight(span);
                trace.bytes += bytes;
                trace.spans.push(span.clone());
                self.spans[at] += 1;
                self.bytes[at] += bytes;
            } else {
                trace.dropped += 1;
            }
        }
        while self.over() && self.len() > 1 {
            self.evict();
        }
    }

    fn take(&mut self, id: TraceId) -> Option<Trace> {
        let at = (0..CLASSES.len()).find(|c| self.maps[*c].contains_key(&id))?;
        let trace = self.maps[at].remove(&id)?;
        self.spans[at] -= trace.spans.len();
        self.bytes[at] -= trace.bytes;
        Some(trace)
    }

    fn over(&self) -> bool {
        self.spans() > self.limits.spans || self.bytes.iter().sum::<usize>() > self.limits.bytes
    }

    /// Forgets the oldest trace of the first class that has more than its share.
    fn evict(&mut self) {
        let above = |c: usize| {
            let part = |total: usize| total / 8 * SHARES[c];
            self.spans[c] > part(self.limits.spans) || self.bytes[c] > part(self.limits.bytes)
        };
        let any = |c: &usize| !self.maps[*c].is_empty();
        let class = (0..CLASSES.len()).filter(any).find(|c| above(*c)).or((0..CLASSES.len()).rev().find(any));
        let Some(at) = class else { return };
        if let Some((_, trace)) = self.maps[at].pop_front() {
            self.spans[at] -= trace.spans.len();
            self.bytes[at] -= trace.bytes;
        }
    }

    /// Forgets a trace in which nothing failed.
    pub fn drop_if_healthy(&mut self, id: TraceId) {
        if self.get(id).is_some_and(|t| t.class < Class::Error) {
            self.take(id);
        }
    }

    /// A trace.
    pub fn get(&self, id: TraceId) -> Option<&Trace> {
        self.maps.iter().find_map(|m| m.get(&id))
    }

    /// Traces of a class, the one with the latest news first.
    pub fn newest(&self, class: Class) -> impl Iterator<Item = (TraceId, &Trace)> {
        self.maps[class as usize].iter().rev().map(|(id, t)| (*id, t))
    }

    /// All traces, the most valuable class first, in each the one with the latest news first.
    pub fn all(&self) -> impl Iterator<Item = (TraceId, &Trace)> {
        CLASSES.into_iter().rev().flat_map(|c| self.newest(c))
    }

    /// How many traces.
    pub fn len(&self) -> usize {
        self.maps.iter().map(|m| m.len()).sum()
    }

    /// How many spans.
    pub fn spans(&self) -> usize {
        self.spans.iter().sum()
    }
}

/// Memory of a span, estimated: its own size and that of its texts. The resource is shared.
pub fn weight(span: &Span) -> usize {
    let events: usize = span.events.iter().map(|e| size_of_val(e) + e.attributes.bytes()).sum();
    let links: usize = span.links.iter().map(|l| size_of_val(l) + l.attributes.bytes()).sum();
    let status = match &span.status {
        Status::Error(text) => text.capacity(),
        Status::Unset => 0,
    };
    size_of::<Span>() + span.name.capacity() + status + span.attributes.bytes() + events + links
}
