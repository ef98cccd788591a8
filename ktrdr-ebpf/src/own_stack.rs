//! Programs at functions of user code keep to the kernel's stack, which is their thread's own.
//!
//! From 6.13 on (6.12.58 and later, too) the kernel gives a program that uses 64 bytes of stack or more one for each
//! processor, unless it is of a kind that may be run again before it has ended ("bpf: Find eligible subprogs for private
//! stack support"). It counts programs at user functions among those that may not. But where kernels are preemptive, another
//! thread may interrupt one and run the same: both then work on one stack, and the first goes on with what the second
//! left there. Records of such runs are nonsense, and whatever the verifier was sure of is not so any more. Hosts have
//! crashed (open-telemetry/opentelemetry-ebpf-instrumentation issue 3056, Ubuntu 26.04 with Linux 7.0).
//!
//! No program with a tail call in it gets such a stack: the kernel looks for the instruction before it looks at what is
//! reached. So these have one that never is.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_tail_call;

use crate::constants::NEVER;

/// To be called by each program that no count of the kernel keeps from being run twice on one processor.
#[inline(always)]
pub fn keep(ctx: *mut c_void) {
    if NEVER.get() != 0 {
        // SAFETY: never reached; the verifier knows the constant, and takes this away.
        unsafe { bpf_tail_call(ctx, core::ptr::null_mut(), 0) };
    }
}
