//! Operations and the calls that created them.

use std::sync::Arc;

use hashlink::LruCache;

use crate::event::Ns;
use crate::trace::causality::SpanRef;

/// Operations whose creation is remembered; as many as [`crate::trace::operations`] follows.
const MAX_OPERATIONS: usize = 4096;

struct Creation {
    by: SpanRef,
    symbols: Vec<Box<str>>,
    ended: Option<Ns>,
}

/// Operations by id.
pub struct Created {
    map: LruCache<Arc<str>, Creation, foldhash::fast::FixedState>,
}

impl Default for Created {
    fn default() -> Self {
        Self { map: LruCache::with_hasher(MAX_OPERATIONS, foldhash::fast::FixedState::default()) }
    }
}

impl Created {
    /// This call created the operation, which is about these symbols.
    pub fn insert(&mut self, id: Arc<str>, by: SpanRef, symbols: &[Box<str>]) {
        match self.map.get_mut(&id) {
            Some(known) => known.by = by,
            None => {
                self.map.insert(id, Creation { by, symbols: symbols.to_vec(), ended: None });
            }
        }
    }

    /// The operation was said to have ended.
    pub fn ended(&mut self, id: &str, at: Ns) {
        if let Some(c) = self.map.get_mut(id) {
            c.ended.get_or_insert(at);
        }
    }

    /// The call that created it.
    pub fn by(&self, id: &str) -> Option<SpanRef> {
        self.map.peek(id).map(|c| c.by)
    }

    /// The creators of operations about one of the symbols that had not ended by `at`. A reply that says so comes
    /// after the end, so an operation seems to go on for a while: two then look possible, never none.
    pub fn under_way(&self, at: Ns, symbols: &[Box<str>]) -> impl Iterator<Item = SpanRef> {
        self.map
            .iter()
            .filter(move |(_, c)| c.ended.is_none_or(|end| end >= at))
            .filter(|(_, c)| c.symbols.iter().any(|s| symbols.contains(s)))
            .map(|(_, c)| c.by)
    }
}
