//! `PyContext_CopyCurrent` of CPython: a context was copied, so what runs under the copy was begun by what ran under
//! the original.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _, bindings::pt_regs, helpers::bpf_get_func_ip, macros::uretprobe,
    programs::RetProbeContext,
};
use ktrdr_ebpf_common::{Counter, EventHeader, PyCopyBody, kind};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    counters::Tally,
    error::{self, Error},
    own_stack, python,
    ring::{self, Wake},
    task,
};

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct PyCopyRecord {
    header: EventHeader,
    body: PyCopyBody,
}

/// At the return of the function: until then there is no copy.
#[uretprobe]
pub fn py_context_copy_ret(ctx: RetProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    returned(ctx.ret());
    0
}

/// At its entry, and at its return if the entry could not tell (a "session", Linux 6.13 and later): the way to the return
/// and back is as long as the one to the entry, and spared mostly.
///
/// Its section is spelt out because the macro's program returns 0 whatever this function returns.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub fn py_context_copy(ctx: *mut c_void) -> u32 {
    /// To the kernel: there is nothing to do at the return.
    const TOLD: u32 = 1;
    /// The return is awaited.
    const AWAITED: u32 = 0;
    own_stack::keep(ctx);
    // SAFETY: a number for a context that is valid; at the entry as at the return where the function begins.
    let function = unsafe { bpf_get_func_ip(ctx) };
    if instruction(ctx) != function {
        returned(RetProbeContext::new(ctx).ret());
        return AWAITED;
    }
    let (tgid, tid) = task::current_ids();
    let python::Foretold { parent, child } = python::foretold(tgid, tid);
    if child == 0 {
        return AWAITED;
    }
    error::run(|| copy(tgid, tid, parent, child, Counter::PyContextForetold).map(|_| ()));
    TOLD
}

#[inline(always)]
fn returned(child: u64) {
    let (tgid, tid) = task::current_ids();
    python::copied(tgid, child);
    // 0: the copy failed, and an exception is on its way.
    if child == 0 {
        return;
    }
    error::run(|| {
        let tally = copy(tgid, tid, python::current_context(tgid, tid), child, Counter::Submitted)?;
        tally.add(Counter::PyContextCopies, 1);
        Ok(())
    });
}

#[inline(always)]
fn copy(tgid: u32, tid: u32, parent: u64, child: u64, counter: Counter) -> Result<Tally, Error> {
    let header = ring::header_without_time(kind::PY_COPY, 0, size_of::<PyCopyRecord>() as u32, tgid, tid);
    let record = PyCopyRecord { header, body: PyCopyBody { parent, child } };
    ring::submit_as(record.as_bytes(), Wake::IfFull, counter)
}

/// Where the thread is: at the function, or where it returns to.
#[inline(always)]
fn instruction(ctx: *mut c_void) -> u64 {
    // SAFETY: the context of such a program is the saved registers.
    let registers = unsafe { &*ctx.cast::<pt_regs>() };
    #[cfg(bpf_target_arch = "x86_64")]
    return registers.rip;
    #[cfg(bpf_target_arch = "aarch64")]
    return registers.pc;
}
