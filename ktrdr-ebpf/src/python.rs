//! The `contextvars` context current on a Python thread.

use aya_ebpf::{helpers::bpf_probe_read_user, macros::map, maps::HashMap};
use ktrdr_ebpf_common::{limits::MAX_PY_THREADS, maps::PyThread};

#[map]
static PY_THREADS: HashMap<u32, PyThread> = HashMap::with_max_entries(MAX_PY_THREADS, 0);

/// Address of the context current on a thread; 0 for a thread the agent has not named or where nothing can be read.
/// Only for the current task: it reads its memory.
#[inline(always)]
pub fn current_context(tgid: u32, tid: u32) -> u64 {
    let Some(thread) = PY_THREADS.get_ptr(tid) else { return 0 };
    // SAFETY: a valid map value; a concurrent update of the entry can at worst give an address that reads as 0 or as
    // a pointer that the agent does not know.
    let PyThread { tstate, context_offset, tgid: owner } = unsafe { *thread };
    if owner != tgid {
        return 0;
    }
    let field = tstate.wrapping_add(context_offset.into()) as *const u64;
    // SAFETY: the helper checks the address and reports a fault.
    unsafe { bpf_probe_read_user(field) }.unwrap_or(0)
}
