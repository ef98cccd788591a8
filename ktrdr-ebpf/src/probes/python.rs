//! `PyContext_CopyCurrent` of CPython: a context was copied, so what runs under the copy was begun by what ran under
//! the original.

use aya_ebpf::{
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use ktrdr_ebpf_common::{Counter, EventHeader, PyCopyBody, kind};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    counters::count,
    error, python,
    ring::{self, Wake},
};

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct PyCopyRecord {
    header: EventHeader,
    body: PyCopyBody,
}

/// At the return of the function, by return probe.
#[uretprobe]
pub fn py_context_copy_ret(ctx: RetProbeContext) -> u32 {
    copied(ctx.ret())
}

/// At one of the function's `ret` instructions, which costs half as much.
#[uprobe]
pub fn py_context_copy_at_ret(ctx: ProbeContext) -> u32 {
    copied(RetProbeContext { regs: ctx.regs }.ret())
}

#[inline(always)]
fn copied(child: u64) -> u32 {
    if child == 0 {
        // The copy failed: an exception is on its way.
        return 0;
    }
    count(Counter::PyContextCopies);
    let header = ring::header(kind::PY_COPY, 0, size_of::<PyCopyRecord>() as u32);
    let body = PyCopyBody { parent: python::current_context(header.tgid, header.tid), child };
    error::run(|| ring::submit_fixed(&PyCopyRecord { header, body }, Wake::IfFull)) as u32
}
