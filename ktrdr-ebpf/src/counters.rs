//! Counters, one set per CPU.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{macros::map, maps::PerCpuArray};
use ktrdr_ebpf_common::counters::{COUNTERS as COUNT, Counter};

#[map]
static COUNTERS: PerCpuArray<[u64; COUNT as usize]> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's counters: look up once, add many times.
#[derive(Clone, Copy)]
pub struct Tally(*mut u64);

impl Tally {
    /// `None` cannot happen (entry 0 exists); the verifier wants the question asked.
    #[inline(always)]
    pub fn here() -> Option<Tally> {
        COUNTERS.get_ptr_mut(0).map(|set| Tally(set.cast()))
    }

    /// Adds `by` to a counter. Atomic, because a softirq's program may count on the same CPU in between.
    #[inline(always)]
    pub fn add(self, counter: Counter, by: u64) {
        // The intrinsic, because `AtomicU64` has no `fetch_add` on a target without compare-and-swap.
        // SAFETY: the map's value has an entry per counter, is 8-byte aligned and only ever added to atomically.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0.add(counter as usize), by) };
    }
}

/// Adds to a map's value.
#[inline(always)]
pub fn add_u32(at: *mut u32, by: u32) {
    // SAFETY: a valid, aligned map value; the intrinsic as in [`Tally::add`].
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(at, by) };
}

/// Adds 1 to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(tally) = Tally::here() {
        tally.add(counter, 1);
    }
}
