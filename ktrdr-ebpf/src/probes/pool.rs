//! `SimpleQueue` of CPython's module `_queue`: `ThreadPoolExecutor` puts each call that it is to make into one, as a
//! `_WorkItem`, and its threads take them out. Who put it there began what the thread does until it takes the next.
//!
//! The end of `get` is awaited, which may take as long as the pool has nothing to do, with the kernel's own address in the
//! place of the one that the function returns to. That address stays good until the process ends or runs another program:
//! what is behind it and the list of the true addresses are the process's and the thread's own, not the probe's, and a forked
//! child has both. So the agent may end meanwhile, in whatever way (`tests/kernel/pool.rs` tries it).

use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_probe_read_user,
    macros::{map, uprobe, uretprobe},
    maps::LruHashMap,
    programs::{ProbeContext, RetProbeContext},
};
use ktrdr_ebpf_common::{EventHeader, PyWorkBody, kind, limits::MAX_PY_TAKERS};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    error::{self, Error},
    own_stack, python,
    ring::{self, Wake},
    task,
};

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct PyWorkRecord {
    header: EventHeader,
    body: PyWorkBody,
}

/// Threads (tid → tgid) whose last take of an item was told, and not yet that they found a queue empty.
#[map]
static PY_TAKERS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(MAX_PY_TAKERS, 0);

/// At the entry of `put(self, args, nargs, kwnames)`. At its end the item may be another thread's already, and gone.
#[uprobe]
pub fn py_pool_submit(ctx: ProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    let (tgid, tid) = task::current_ids();
    if !python::may_be_followed(tgid) {
        return 0;
    }
    let (Some(args), Some(1..)) = (ctx.arg::<u64>(1), ctx.arg::<u64>(2)) else { return 0 };
    // SAFETY: the helper checks the address and reports a fault: of what the interpreter has just written, never seen.
    let Ok(item) = (unsafe { bpf_probe_read_user(args as *const u64) }) else { return 0 };
    if python::may_be_work_item(item) {
        error::run(|| tell(kind::PY_SUBMIT, tgid, tid, item));
    }
    0
}

/// At the return of `get` and `get_nowait`.
#[uretprobe]
pub fn py_pool_take(ctx: RetProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    let (tgid, tid) = task::current_ids();
    if !python::may_be_followed(tgid) {
        return 0;
    }
    match ctx.ret::<u64>() {
        // Nothing there. Told once, not each time: a program may ask a queue all day long.
        0 if PY_TAKERS.get_ptr(tid).is_some() => {
            let _ = PY_TAKERS.remove(tid);
            error::run(|| tell(kind::PY_TAKE, tgid, tid, 0));
        }
        0 => {}
        item if python::may_be_work_item(item) => {
            // Full of threads that took something later: the end of this one's work is told by its next item.
            let _ = PY_TAKERS.insert(tid, tgid, 0);
            error::run(|| tell(kind::PY_TAKE, tgid, tid, item));
        }
        _ => {}
    }
    0
}

#[inline(always)]
fn tell(kind: u16, tgid: u32, tid: u32, item: u64) -> Result<(), Error> {
    let header = ring::header_of(kind, 0, size_of::<PyWorkRecord>() as u32, tgid, tid);
    let body = PyWorkBody { py_context: python::current_context(tgid, tid), item };
    ring::submit_fixed(&PyWorkRecord { header, body }, Wake::IfFull)
}
