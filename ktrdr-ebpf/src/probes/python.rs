//! `PyContext_CopyCurrent` of CPython: a context was copied, so what runs under the copy was begun by what ran under
//! the original.

use aya_ebpf::{macros::uretprobe, programs::RetProbeContext};
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

/// At the return of the function: until then there is no copy.
#[uretprobe]
pub fn py_context_copy_ret(ctx: RetProbeContext) -> u32 {
    let child = ctx.ret();
    if child == 0 {
        // The copy failed: an exception is on its way.
        return 0;
    }
    count(Counter::PyContextCopies);
    let header = ring::header(kind::PY_COPY, 0, size_of::<PyCopyRecord>() as u32);
    let body = PyCopyBody { parent: python::current_context(header.tgid, header.tid), child };
    error::run(|| ring::submit_fixed(&PyCopyRecord { header, body }, Wake::IfFull)) as u32
}
