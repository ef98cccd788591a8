//! What callers said of sampling: the `sampled` flag of the trace contexts on the wire, per trace, so that all spans of
//! a trace go the same way.

use hashlink::LruCache;

use crate::protocol::TraceContext;
use crate::trace::model::{Span, TraceId};

/// Traces remembered: many more than are under way at a time.
const MAX_TRACES: usize = 16 * 1024;

/// Flags by trace. Without anybody who follows them nothing is remembered, and no span says anything.
#[derive(Default)]
pub struct Flags {
    traces: Option<LruCache<TraceId, bool, foldhash::fast::FixedState>>,
}

impl Flags {
    /// Somebody does follow them.
    pub fn remember(&mut self) {
        self.traces = Some(LruCache::with_hasher(MAX_TRACES, foldhash::fast::FixedState::default()));
    }

    /// A context on the wire. The first one of a trace counts: those after it pass it on.
    pub fn note(&mut self, context: &TraceContext) {
        if let Some(traces) = &mut self.traces
            && traces.get(&context.trace_id).is_none()
        {
            traces.insert(context.trace_id, context.sampled);
        }
    }

    /// Has the span say what its trace's caller said.
    pub fn tell(&self, span: &mut Span) {
        if let Some(sampled) = self.traces.as_ref().and_then(|t| t.peek(&span.trace_id)) {
            span.attributes.set("ktrdr.trace.sampled", *sampled);
        }
    }
}
