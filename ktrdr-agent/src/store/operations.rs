//! Which traces belong to which operation.

use std::collections::VecDeque;

use hashlink::LruCache;

use crate::explain::operation_ids;
use crate::export::Item;
use crate::trace::attributes::Common;
use crate::trace::model::{TraceId, Value};

/// Operations remembered; the one without news for longest is forgotten. KTRDR runs some hundreds a day.
const MAX_OPERATIONS: usize = 4_096;
/// Traces of an operation: the first ones (how it was started) and the last ones (how it ended). Each poll for its
/// status is a trace, three a second.
const FIRST: usize = 32;
/// See [`FIRST`].
const LAST: usize = 96;
/// Ids taken from one span: lists of operations name many, and belong to none.
const MAX_IDS: usize = 4;
/// Heads remembered: those that a busy host's requests have in common, at both ends.
const SILENT: usize = 256;
/// Longest id that is indexed.
const MAX_ID: usize = 128;

/// Traces by operation.
pub struct Operations {
    map: LruCache<String, Traces, foldhash::fast::FixedState>,
    /// Heads of requests that name none: most do not, and the same ones come again and again. A newer one takes the place.
    silent: Box<[Option<Common>]>,
}

/// Traces of one operation.
#[derive(Debug, Default)]
pub struct Traces {
    /// In order of arrival.
    pub ids: VecDeque<TraceId>,
    /// Traces that were too many.
    pub dropped: u64,
}

impl Default for Operations {
    fn default() -> Self {
        let map = LruCache::with_hasher(MAX_OPERATIONS, foldhash::fast::FixedState::default());
        Self { map, silent: vec![None; SILENT].into() }
    }
}

impl Operations {
    /// A trace belongs to an operation. Returns a trace that is one too many.
    pub fn add(&mut self, id: &str, trace: TraceId) -> Option<TraceId> {
        if self.map.get(id).is_none() {
            self.map.insert(id.to_owned(), Traces::default());
        }
        let traces = self.map.get_mut(id)?;
        // The spans of a trace come close together.
        if traces.ids.iter().rev().take(LAST).any(|t| *t == trace)
            || traces.ids.iter().take(FIRST).any(|t| *t == trace)
        {
            return None;
        }
        traces.ids.push_back(trace);
        if traces.ids.len() <= FIRST + LAST {
            return None;
        }
        traces.dropped += 1;
        traces.ids.remove(FIRST)
    }

    /// [`ids_of`] a span that comes in.
    pub fn named_by(&mut self, span: &Item) -> Vec<String> {
        let Some(head) = span.attributes.common() else { return ids_of(span) };
        let place = head.place(SILENT);
        let silent = self.silent[place].as_ref() == Some(head);
        if silent && span.attributes.get("operation.id").is_none() {
            return Vec::new();
        }
        let ids = ids_of(span);
        if ids.is_empty() {
            self.silent[place] = Some(head.clone());
        }
        ids
    }

    /// The traces of an operation.
    pub fn get(&self, id: &str) -> Option<&Traces> {
        self.map.peek(id)
    }

    /// All operations, the one with the latest news first.
    pub fn newest(&self) -> impl Iterator<Item = (&str, &Traces)> {
        self.map.iter().rev().map(|(id, t)| (id.as_str(), t))
    }
}

/// The operations a span says it belongs to: its attribute, else ids in its URL.
pub fn ids_of(span: &Item) -> Vec<String> {
    let text = |key: &str| span.attributes.get(key).and_then(Value::as_str);
    if let Some(id) = text("operation.id").filter(|id| !id.is_empty() && id.len() <= MAX_ID) {
        return vec![id.to_owned()];
    }
    let urls = [text("url.path"), text("url.full"), text("url.query")];
    let mut ids: Vec<String> = Vec::new();
    for id in urls.into_iter().flatten().flat_map(operation_ids).take(MAX_IDS) {
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    ids
}
