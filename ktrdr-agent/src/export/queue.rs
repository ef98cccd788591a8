//! The bounded queue between the engine and one sink, with the sink's books.
//!
//! The engine's thread only ever takes a short lock: it never waits for a sink. Everything that was submitted is in
//! exactly one column of the books, at every moment: waiting, exported, rejected or dropped.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// What became of the items given to one sink. [`Books::balanced`] always holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Items given to the sink.
    pub submitted: u64,
    /// Items that arrived.
    pub exported: u64,
    /// Items dropped because the queue was full.
    pub dropped_full: u64,
    /// Items given up when the agent stopped before they could be delivered.
    pub dropped_stop: u64,
    /// Items the receiver refused for good.
    pub rejected: u64,
    /// Items that sampling left out.
    pub sampled_out: u64,
    /// Items in the queue or on their way.
    pub waiting: u64,
    /// Deliveries that were tried again (attempts, not items).
    pub retried: u64,
}

impl Books {
    /// Whether every submitted item is accounted for.
    pub fn balanced(&self) -> bool {
        self.submitted == self.settled() + self.waiting
    }

    /// Items whose fate is known.
    pub fn settled(&self) -> u64 {
        self.exported + self.dropped_full + self.dropped_stop + self.rejected + self.sampled_out
    }
}

/// A bounded queue. A full queue drops what is submitted and counts it: the oldest items are already the ones that
/// a person waits for, and dropping the newest keeps whole traces at the front.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    thread: Condvar,
    task: Notify,
    room: Condvar,
    capacity: usize,
    batch: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    books: Books,
    closed: bool,
    /// Somebody waited in vain for room; until there is some, nobody waits again.
    stalled: bool,
}

impl<T> Queue<T> {
    /// At most `capacity` items wait; the consumer is woken for the first item and for every full `batch`, not for
    /// each item.
    pub fn new(capacity: usize, batch: usize) -> Self {
        let (capacity, batch) = (capacity.max(1), batch.max(1));
        let state = State { items: VecDeque::new(), books: Books::default(), closed: false, stalled: false };
        Self {
            state: Mutex::new(state),
            thread: Condvar::new(),
            task: Notify::new(),
            room: Condvar::new(),
            capacity,
            batch: batch.min(capacity),
        }
    }

    /// A panic while the lock was held cannot leave the state half changed: plain assignments only.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item, or drops it if the queue is full or closed. Never waits for the consumer.
    pub fn submit(&self, item: T) {
        let mut state = self.lock();
        state.books.submitted += 1;
        if state.closed {
            state.books.dropped_stop += 1;
            return;
        }
        if state.items.len() >= self.capacity {
            state.books.dropped_full += 1;
            return;
        }
        state.items.push_back(item);
        state.books.waiting += 1;
        let wake = state.items.len() == 1 || state.items.len() == self.batch;
        drop(state);
        if wake {
            self.wake();
        }
    }

    /// Waits up to `patience` until an item would not be dropped for lack of room; only the first of several waits
    /// in vain takes that long. For feeders that can wait (a replay), never for the engine of a running host.
    pub fn wait_for_room(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.items.len() >= self.capacity && !state.closed && !state.stalled {
            let left = deadline.saturating_duration_since(Instant::now());
            state.stalled = left.is_zero();
            state = self.room.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wake(&self) {
        self.thread.notify_one();
        self.task.notify_one();
    }

    /// No more items are taken; the consumer empties the queue and stops.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    /// The books as of now.
    pub fn books(&self) -> Books {
        self.lock().books
    }

    /// The next batch for a task: waits for a first item, then up to `linger` for more. Empty = closed and empty.
    pub async fn next_batch(&self, linger: Duration) -> Vec<T> {
        while self.with(|s| s.items.is_empty() && !s.closed) {
            self.task.notified().await;
        }
        let deadline = tokio::time::Instant::now() + linger;
        while self.with(|s| s.items.len() < self.batch && !s.closed) {
            if tokio::time::timeout_at(deadline, self.task.notified()).await.is_err() {
                break;
            }
        }
        self.take()
    }

    /// The next batch for a thread: waits up to `patience` for a first item. `None` = closed and empty.
    pub fn next_batch_blocking(&self, patience: Duration) -> Option<Vec<T>> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.items.is_empty() && !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(Vec::new());
            }
            state = self.thread.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let ended = state.items.is_empty();
        drop(state);
        if ended { None } else { Some(self.take()) }
    }

    fn with<R>(&self, f: impl FnOnce(&State<T>) -> R) -> R {
        f(&self.lock())
    }

    fn take(&self) -> Vec<T> {
        let mut state = self.lock();
        let n = state.items.len().min(self.batch);
        state.stalled &= n == 0;
        let batch = state.items.drain(..n).collect();
        drop(state);
        self.room.notify_all();
        batch
    }

    /// Writes the end of `exported + rejected` taken items into the books.
    pub fn settle(&self, exported: u64, rejected: u64) {
        let books = &mut self.lock().books;
        books.exported += exported;
        books.rejected += rejected;
        books.waiting = books.waiting.saturating_sub(exported + rejected);
    }

    /// Counts a repeated delivery.
    pub fn retried(&self) {
        self.lock().books.retried += 1;
    }

    /// Gives up everything still waiting, items on their way included.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.items.clear();
        state.books.dropped_stop += std::mem::take(&mut state.books.waiting);
        drop(state);
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_the_books_balance() {
        let queue = Queue::new(3, 2);
        (0..5).for_each(|i| queue.submit(i));
        assert_eq!(queue.books().dropped_full, 2);
        let batch = queue.next_batch_blocking(Duration::ZERO).unwrap();
        assert_eq!(batch, [0, 1], "at most a batch, in order");
        queue.settle(1, 1);
        assert!(queue.books().balanced());
        queue.close();
        queue.submit(9);
        assert_eq!(queue.next_batch_blocking(Duration::ZERO), Some(vec![2]));
        assert_eq!(queue.next_batch_blocking(Duration::ZERO), None);
        queue.abandon();
        let books = queue.books();
        assert!(books.balanced());
        let want = Books {
            submitted: 6,
            exported: 1,
            rejected: 1,
            sampled_out: 0,
            dropped_full: 2,
            dropped_stop: 2,
            waiting: 0,
            retried: 0,
        };
        assert_eq!(books, want);
    }

    #[test]
    fn a_feeder_that_can_wait_loses_nothing_and_is_not_held_up_by_a_dead_sink() {
        let queue = std::sync::Arc::new(Queue::new(2, 2));
        let long = Duration::from_secs(600);
        let consumer = std::thread::spawn({
            let queue = queue.clone();
            move || {
                let mut taken = 0;
                while taken < 100 {
                    let n = queue.next_batch_blocking(long).map_or(0, |b| b.len() as u64);
                    queue.settle(n, 0);
                    taken += n;
                }
            }
        });
        for i in 0..100 {
            queue.wait_for_room(long);
            queue.submit(i);
        }
        consumer.join().unwrap();
        assert_eq!(queue.books().exported, 100);
        // Nobody takes anything now.
        (0..2).for_each(|i| queue.submit(i));
        queue.wait_for_room(Duration::from_millis(1));
        let begin = Instant::now();
        (0..100).for_each(|_| queue.wait_for_room(long));
        assert!(begin.elapsed() < long);
    }

    #[test]
    fn a_thread_is_woken_by_the_first_item_and_by_the_end() {
        let queue = std::sync::Arc::new(Queue::new(10, 10));
        let consumer = std::thread::spawn({
            let queue = queue.clone();
            move || {
                let mut got = Vec::new();
                while let Some(batch) = queue.next_batch_blocking(Duration::from_secs(60)) {
                    got.extend(batch);
                }
                got
            }
        });
        queue.submit(1);
        queue.close();
        assert_eq!(consumer.join().unwrap(), [1]);
    }

    #[test]
    fn a_task_lingers_for_more_and_not_longer() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (short, long) = (Duration::from_millis(20), Duration::from_secs(600));
            let queue = Queue::new(10, 3);
            queue.submit(1);
            let start = Instant::now();
            assert_eq!(queue.next_batch(short).await, [1]);
            assert!(start.elapsed() >= short);
            (0..4).for_each(|i| queue.submit(i));
            assert_eq!(queue.next_batch(long).await, [0, 1, 2], "a full batch leaves at once");
            queue.close();
            assert_eq!(queue.next_batch(long).await, [3]);
            assert!(queue.next_batch(long).await.is_empty());
            assert!(start.elapsed() < long);
        });
    }
}
