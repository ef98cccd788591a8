//! What can go wrong in a program, and the one place where it becomes a counter.

use ktrdr_ebpf_common::Counter;

use crate::counters::count;

/// Why a program sent no record.
#[derive(Clone, Copy)]
pub enum Error {
    /// Kernel memory could not be read.
    KernelRead,
    /// A map entry that must exist did not.
    MapEntry,
    /// The ring was full.
    RingFull,
}

/// Runs a probe; its error ends as a counter. Programs always return 0.
#[inline(always)]
pub fn run(probe: impl FnOnce() -> Result<(), Error>) -> i32 {
    if let Err(error) = probe() {
        count(match error {
            Error::KernelRead => Counter::KernelReadFault,
            Error::MapEntry => Counter::MapFault,
            Error::RingFull => Counter::LostRingFull,
        });
    }
    0
}
