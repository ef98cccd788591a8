//! A pool of threads that tasks submit work to.

use std::collections::VecDeque;

use super::*;

const POOL_THREAD: u32 = 20;

/// A pool of threads.
#[derive(Default)]
pub(super) struct Pool {
    /// Submitted: the item's address, and for whom.
    pub queue: VecDeque<(u64, Option<SpanRef>)>,
    pub threads: [PoolThread; 3],
}

/// One of its threads.
#[derive(Clone, Copy, Default)]
pub(super) struct PoolThread {
    /// What it runs, and for whom.
    item: u64,
    works_for: Option<SpanRef>,
    /// A copy of its own context that it works under, as below a loop of its own.
    copy: u64,
    /// It has its own.
    own: bool,
}

impl Sim {
    /// One of the pool's threads does something.
    pub(super) fn pool(&mut self) {
        let n = self.dice.roll(self.pool.threads.len());
        // Its own context is made when it first needs one.
        self.pool.threads[n].own |= self.dice.roll(2) == 0;
        let PoolThread { item, works_for, copy, own } = self.pool.threads[n];
        let tid = POOL_THREAD + n as u32;
        let task = if own { scenario::own(tid, 30_000 + n as u64) } else { at(tid, 0) };
        match self.dice.roll(4) {
            0 => {
                self.free.extend([item, copy].into_iter().filter(|a| *a != 0));
                let Some((item, works_for)) = self.pool.queue.pop_front() else {
                    self.pool.threads[n] = PoolThread { own, ..PoolThread::default() };
                    return;
                };
                self.w.take(tid, item);
                self.pool.threads[n] = PoolThread { item, works_for, copy: 0, own };
            }
            _ if item == 0 => {}
            1 if copy == 0 && own => {
                let copy = self.alloc();
                self.w.copy_under(task, copy);
                self.pool.threads[n].copy = copy;
            }
            2 if self.pool.queue.len() < 50 => {
                let item = self.alloc();
                self.w.submit(task, item);
                self.pool.queue.push_back((item, works_for));
            }
            _ => {
                let task = if copy != 0 && self.dice.roll(2) == 0 { at(tid, copy) } else { task };
                self.called(task, works_for);
            }
        }
    }
}
