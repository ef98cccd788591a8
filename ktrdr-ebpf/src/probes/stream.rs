//! `UVStream.write` and `writelines` of uvloop before 0.23: a task gives its loop what is to be sent later. See [`given`].

use aya_ebpf::{EbpfContext as _, macros::uprobe, programs::ProbeContext};
use ktrdr_ebpf_common::maps::PyContexts;

use crate::{
    error, given, own_stack,
    python::{self, Unreadable},
    task,
};

/// At the entry of either, `(self, object)` or `(self, arguments, nargs, kwnames)`; both have one parameter.
#[uprobe]
pub fn py_stream_write(ctx: ProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    let (tgid, tid) = task::current_ids();
    let (Some(stream), Some(second)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else { return 0 };
    let object = match python::writes(tgid, tid) {
        PyContexts::OBJECT => second,
        PyContexts::ARGUMENTS => Unreadable::or(python::user(second), 0),
        _ => return 0,
    };
    error::run(|| given::tell(tgid, tid, stream, object));
    0
}
