//! What is under way, asked of the running agent when a question comes: the one loop that knows answers in its turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Store;
use crate::export::Item;
use crate::trace::model::Span;

/// The loop turns every 40 ms; one under full load answers later, and then the question goes without.
const PATIENCE: Duration = Duration::from_millis(300);

/// Open spans as of the last question.
#[derive(Default)]
pub struct Open {
    wanted: AtomicBool,
    /// Somebody answers.
    live: AtomicBool,
    spans: Mutex<(u64, Arc<[Item]>)>,
    came: Condvar,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, (u64, Arc<[Item]>)> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// A running agent will answer [`Store::open_spans_wanted`].
    pub fn goes_live(&self) {
        self.open.live.store(true, Ordering::Release);
    }

    /// Whether somebody waits for the open spans.
    pub fn open_spans_wanted(&self) -> bool {
        self.open.wanted.swap(false, Ordering::AcqRel)
    }

    /// The open spans, for those who wait.
    pub fn open_spans(&self, spans: Vec<Span>) {
        let mut held = self.open.lock();
        *held = (held.0 + 1, spans.into_iter().map(Arc::new).collect());
        self.open.came.notify_all();
    }

    /// Asks for the open spans; none if nobody answers in time.
    pub(super) fn ask_open(&self) -> Arc<[Item]> {
        if !self.open.live.load(Ordering::Acquire) {
            return Arc::default();
        }
        let held = self.open.lock();
        let before = held.0;
        self.open.wanted.store(true, Ordering::Release);
        let (held, waited) = self
            .open
            .came
            .wait_timeout_while(held, PATIENCE, |held| held.0 == before)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() { Arc::default() } else { held.1.clone() }
    }
}
