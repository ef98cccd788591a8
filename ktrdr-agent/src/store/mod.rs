//! Recent traces in memory, so that a running agent can be asked why something failed: `ktrdr-agent explain`.
//!
//! ```text
//! export::Exporters ─► StoreSink ─► Store (bounded) ◄── lookup ◄── server (unix socket, own thread) ◄── client
//! ```

pub mod client;
mod file;
mod filter;
pub mod jaeger;
pub mod join;
mod logs;
mod lookup;
mod open;
mod operations;
pub mod protocol;
mod search;
pub mod server;
#[cfg(test)]
mod tests;
mod traces;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::explain::{Listing, Report};
use crate::export::{Books, Item, LogItem, SpanSink};
use crate::trace::logs::LogRecord;
use crate::trace::model::{Span, TraceId};
pub use file::{FileError, from_files};
pub use filter::Filter;
use jaeger::TraceQuery;
use logs::Logs;
use operations::Operations;
pub use search::{Finds, Found, Spans};
use traces::Traces;

/// Bounds on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all spans, estimated.
    pub bytes: usize,
    /// Spans in all.
    pub spans: usize,
    /// Spans of one trace; a trace that is an endless loop must not push out all others.
    pub spans_per_trace: usize,
}

impl Limits {
    /// For a running agent. A span of KTRDR's takes about 2 kB, so the number of spans rarely binds first.
    pub const fn live(bytes: usize) -> Self {
        Self { bytes, spans: 64 * 1024, spans_per_trace: 8 * 1024 }
    }

    /// For a file that is read once and asked once: as much as a small host can hold.
    pub const FILE: Self = Self { bytes: 2 << 30, spans: 1 << 20, spans_per_trace: 128 * 1024 };
}

/// Log records take this part of the room of spans, on top of it: an error has a line or two, and a dozen spans.
const LOGS_SHARE: usize = 8;
/// Records of losses remembered; one a second while there are any.
const MAX_LOSSES: usize = 600;

/// Something that can answer questions: the store, or a test's.
pub trait Answers: Send + Sync {
    /// Why did this fail?
    fn explain(&self, query: &str) -> Result<Report, NotFound>;
    /// What happened lately?
    fn list(&self, limit: usize) -> Listing;
    /// The same, of what fits.
    fn list_of(&self, limit: usize, _filter: &Filter) -> Listing {
        self.list(limit)
    }
    /// Which traces fit?
    fn find(&self, query: &TraceQuery) -> Finds;
    /// What is in this trace?
    fn spans(&self, trace: &str) -> Result<Spans, NotFound>;
}

/// There is no such thing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotFound {
    /// In a sentence.
    pub message: String,
    /// What may have been meant.
    pub suggestions: Vec<String>,
}

/// Recent traces.
pub struct Store {
    inner: Mutex<Inner>,
    open: open::Open,
}

struct Inner {
    traces: Traces,
    operations: Operations,
    logs: Logs,
    losses: VecDeque<(u64, String, u64)>,
    lost_throughout: Vec<(String, u64)>,
    /// What of the host is looked at, where that is not all.
    narrowed: Option<String>,
    submitted: u64,
}

impl Store {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        let inner = Inner {
            traces: Traces::new(limits),
            operations: Operations::default(),
            logs: Logs::new(limits.bytes / LOGS_SHARE),
            losses: VecDeque::new(),
            lost_throughout: Vec::new(),
            narrowed: None,
            submitted: 0,
        };
        Self { inner: Mutex::new(inner), open: open::Open::default() }
    }

    /// A panic while the lock was held (there is none to be expected) leaves a store that is at worst incomplete.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a span.
    pub fn add(&self, span: &Item) {
        let mut inner = self.lock();
        inner.submitted += 1;
        if span.trace_id == TraceId::default() {
            // Without a place in a trace there is nothing to ask for.
            return;
        }
        let ids = inner.operations.named_by(span);
        inner.traces.add(span, !ids.is_empty());
        for id in ids {
            if let Some(surplus) = inner.operations.add(&id, span.trace_id) {
                inner.traces.drop_if_healthy(surplus);
            }
        }
    }

    /// Keeps a log record, if it says what an answer may need.
    pub fn log(&self, record: &LogRecord) {
        self.lock().logs.add(record);
    }

    /// Remembers that the agent lost records, at a time (nanoseconds since the Unix epoch).
    pub fn lost(&self, wall_ns: u64, counts: &[(String, u64)]) {
        let mut inner = self.lock();
        for (name, n) in counts {
            if inner.losses.len() >= MAX_LOSSES {
                inner.losses.pop_front();
            }
            inner.losses.push_back((wall_ns, name.clone(), *n));
        }
    }

    /// Remembers losses of a recording, which may concern any of its traces.
    pub fn lost_throughout(&self, counts: Vec<(String, u64)>) {
        self.lock().lost_throughout = counts;
    }

    /// Remembers what of the host is not looked at, as the user said it.
    pub fn narrowed(&self, how: Option<String>) {
        self.lock().narrowed = how;
    }

    /// Traces and spans kept.
    pub fn size(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.traces.len(), inner.traces.spans())
    }
}

/// The store as a sink of the exporters.
pub struct StoreSink(pub Arc<Store>);

impl SpanSink for StoreSink {
    fn name(&self) -> &'static str {
        "store"
    }
    fn submit(&self, span: &Arc<Span>) {
        self.0.add(span);
    }
    fn submit_log(&self, record: &LogItem) {
        self.0.log(record);
    }
    /// There is always room: the oldest makes way.
    fn wait_for_room(&self, _: Duration) {}
    /// A span kept for a while has arrived: the store is not lossy, it forgets.
    fn books(&self) -> Books {
        let submitted = self.0.lock().submitted;
        Books { submitted, exported: submitted, ..Books::default() }
    }
    fn begin_stop(&self, _: Instant) {}
    fn wait_stopped(&self, _: Instant) {}
}
