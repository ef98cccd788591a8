//! The end of links, all at once.
//!
//! Whoever closes the link of a program at a call's tracepoint, at a call's function or in user code waits until no thread can
//! be in the program any more: a grace period of the kernel's RCU or two, 20 to 100 ms. One after the other each takes its
//! own, also where the process leaves that to its end. Closed at the same time most are served by the same ones: four
//! tracepoints and four probes in user code took 380 ms, and take 80 (Linux 6.18).

use std::{any::Any, thread};

/// What keeps a program at its place until it is dropped.
pub(super) type Link = Box<dyn Any + Send>;

/// Threads that close: four calls and the four Python probes of three libraries. What is beyond waits its turn.
const MAX_THREADS: usize = 16;

/// Links that are being closed.
#[must_use]
pub struct Closing(Vec<thread::JoinHandle<()>>);

impl Closing {
    /// Begins to close them.
    pub(super) fn begin(links: Vec<Link>) -> Closing {
        let mut shares: Vec<Vec<Link>> = Vec::new();
        shares.resize_with(links.len().min(MAX_THREADS), Vec::new);
        for (i, link) in links.into_iter().enumerate() {
            shares[i % MAX_THREADS].push(link);
        }
        // Where no thread can be had, they are closed here and now.
        let closing =
            |share| thread::Builder::new().name("detach".into()).spawn(move || drop::<Vec<Link>>(share)).ok();
        Closing(shares.into_iter().filter_map(closing).collect())
    }

    /// These and others.
    pub(super) fn and(mut self, others: Closing) -> Closing {
        self.0.extend(others.0);
        self
    }

    /// Whether all are closed.
    pub fn is_done(&self) -> bool {
        self.0.iter().all(thread::JoinHandle::is_finished)
    }

    /// Returns when all are closed.
    pub fn wait(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::warn!("a program was not detached");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// Is closed once all of a round are being closed.
    struct Together(Arc<Barrier>, Arc<AtomicUsize>);

    impl Drop for Together {
        fn drop(&mut self) {
            self.0.wait();
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn links_are_closed_at_the_same_time_and_waited_for() {
        for rounds in [0, 1, 3] {
            // Would wait for ever if one were closed after another.
            let barrier = Arc::new(Barrier::new(MAX_THREADS));
            let closed = Arc::new(AtomicUsize::new(0));
            let link = |_| -> Link { Box::new(Together(barrier.clone(), closed.clone())) };
            Closing::begin((0..MAX_THREADS * rounds).map(link).collect()).wait();
            assert_eq!(closed.load(Ordering::Relaxed), MAX_THREADS * rounds);
        }
    }
}
