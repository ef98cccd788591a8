//! The kernel programs of ktrdr-agent. Each hook family is a file under [`probes`]; the rest is what they share.
//!
//! No state is kept between hooks: a transfer is described completely at the moment it ends, with the socket's own
//! sequence numbers. Only what would be looked at twice leaves a mark ([`handled`]), and what a loop sends later ([`given`]). Maps are
//! private to the module that reads them.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the atomic add of `counters`; the toolchain is pinned")]

mod bodies;
mod by_process;
mod capture;
mod constants;
mod counters;
mod error;
mod file;
mod filter;
mod given;
mod handled;
mod memory;
mod own_stack;
mod payload;
mod probes;
mod python;
mod ring;
mod scratch;
mod second;
mod sock;
mod speakers;
mod syscall;
mod task;
mod watch;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Nothing in this crate panics; a path to here would not pass the verifier.
    loop {}
}

/// Several helpers (probe reads, ring buffer) are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
