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
    told(probe())
}

/// The same of what a probe came to. A long closure becomes a function of its own, with a frame of its own on the stack.
#[inline(always)]
pub fn told(result: Result<(), Error>) -> i32 {
    if let Err(error) = result {
        #[cfg(feature = "log")]
        log(error);
        count(match error {
            Error::KernelRead => Counter::KernelReadFault,
            Error::MapEntry => Counter::MapFault,
            Error::RingFull => Counter::LostRingFull,
        });
    }
    0
}

/// Says it in words, for those who work on the programs.
#[cfg(feature = "log")]
#[inline(never)]
fn log(error: Error) {
    let why = match error {
        Error::KernelRead => "kernel memory could not be read",
        Error::MapEntry => "a map entry was missing",
        Error::RingFull => "the ring was full",
    };
    let pid_tgid = aya_ebpf::helpers::bpf_get_current_pid_tgid();
    aya_log_ebpf::warn!(
        (),
        "no record: {} (pid {}, thread {})",
        why,
        (pid_tgid >> 32) as u32,
        pid_tgid as u32
    );
}
