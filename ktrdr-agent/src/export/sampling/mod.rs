//! Which spans are sent to the OTLP receiver. Off by default; whatever is decided here, metrics count every call, and
//! `explain`, its page and the consoles have every span.

mod decide;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::otlp::OtlpSink;
use super::{Books, Item, SpanSink};
pub use decide::{Keep, Rules, Sampler};

/// The receiver's sink behind a sampler.
pub struct Sampled {
    sink: OtlpSink<Item>,
    sampler: Mutex<Sampler>,
}

impl Sampled {
    /// Sends what `rules` let through.
    pub fn new(sink: OtlpSink<Item>, rules: Rules) -> Self {
        Self { sink, sampler: Mutex::new(Sampler::new(rules)) }
    }

    /// A panic while the lock was held leaves, at worst, one trace incomplete.
    fn lock(&self) -> MutexGuard<'_, Sampler> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpanSink for Sampled {
    fn name(&self) -> &'static str {
        SpanSink::name(&self.sink)
    }
    fn submit(&self, span: &Item) {
        self.lock().offer(span, &mut |span| self.sink.take(span));
    }
    fn wait_for_room(&self, patience: Duration) {
        self.sink.wait_for_room(patience);
    }
    /// Of all spans, those that were not for the receiver with them.
    fn books(&self) -> Books {
        let sampler = self.lock();
        let books = self.sink.books();
        Books {
            submitted: books.submitted + sampler.left_out() + sampler.undecided(),
            waiting: books.waiting + sampler.undecided(),
            sampled_out: sampler.left_out(),
            ..books
        }
    }
    fn begin_stop(&self, deadline: Instant) {
        // Nothing that would have them kept can come any more.
        self.lock().end();
        self.sink.begin_stop(deadline);
    }
    fn wait_stopped(&self, deadline: Instant) {
        self.sink.wait_stopped(deadline);
    }
}
