//! The `contextvars` context current on a Python thread.

use aya_ebpf::{helpers::bpf_probe_read_user, macros::map, maps::HashMap};
use ktrdr_ebpf_common::{
    limits::{MAX_PY_PROCESSES, MAX_PY_THREADS},
    maps::{PyContexts, PyProcess, PyThread, used},
    records::THREADS_OWN_CONTEXT,
};

use crate::{
    constants::TASK_THREAD_POINTER,
    filter::in_use,
    memory::{Object, Probed},
    task::Task,
};

#[map]
static PY_PROCESSES: HashMap<u32, PyProcess> = HashMap::with_max_entries(MAX_PY_PROCESSES, 0);

#[map]
static PY_THREADS: HashMap<u32, PyThread> = HashMap::with_max_entries(MAX_PY_THREADS, 0);

/// Address of the context current on a thread, with [`THREADS_OWN_CONTEXT`]; 0 for a thread of a process the agent has not named or where nothing
/// can be read. Only for the current task: it reads its memory.
#[inline(always)]
pub fn current_context(tgid: u32, tid: u32) -> u64 {
    if in_use(used::PY_PROCESSES)
        && let Some(process) = PY_PROCESSES.get_ptr(tgid)
    {
        // SAFETY: a valid map value; entries are written once per program image.
        return own_context(unsafe { *process }, tgid == tid);
    }
    if !in_use(used::PY_THREADS) {
        return 0;
    }
    let Some(thread) = PY_THREADS.get_ptr(tid) else { return 0 };
    // SAFETY: a valid map value; a concurrent update of the entry can at worst give an address that reads as 0 or as
    // a pointer that the agent does not know.
    let PyThread { tstate, contexts, tgid: owner, .. } = unsafe { *thread };
    if owner != tgid {
        return 0;
    }
    context(tstate, contexts, tgid == tid)
}

/// The thread's own state is a thread-specific value of the C library, so a new thread needs no announcement.
#[inline(always)]
fn own_context(process: PyProcess, first: bool) -> u64 {
    let task = Task::<Probed>::current().0;
    let thread_pointer: u64 = task.load(&TASK_THREAD_POINTER).unwrap_or(0);
    let tstate = user(thread_pointer.wrapping_add_signed(process.tls_offset.into()));
    if tstate == 0 {
        // Not a Python thread, or not yet.
        return 0;
    }
    context(tstate, process.contexts, first)
}

/// A context that is current without having been entered is the thread's own: the interpreter made it when the
/// first context variable was used, and nobody copied it, so its address says nothing. It is marked by bit 0.
#[inline(always)]
///
/// So is, from 3.14 on, the one that `threading` enters first on each thread it starts: an empty one, or a copy of
/// its creator's, which says nothing of what a pool's thread does later.
fn context(tstate: u64, offsets: PyContexts, first_thread: bool) -> u64 {
    let context = user(tstate.wrapping_add(offsets.current.into()));
    if context == 0 {
        return 0;
    }
    let entered = user(context.wrapping_add(offsets.entered.into())) as u32 != 0;
    let threads = offsets.first_prev != 0
        && !first_thread
        && user(context.wrapping_add(offsets.first_prev.into())) == 0;
    if entered && !threads { context } else { context | THREADS_OWN_CONTEXT }
}

#[inline(always)]
fn user(address: u64) -> u64 {
    // SAFETY: the helper checks the address and reports a fault.
    unsafe { bpf_probe_read_user(address as *const u64) }.unwrap_or(0)
}

/// A forked process is a copy: everything is where its parent has it.
#[inline(always)]
pub fn inherit(parent: u32, child: u32) {
    let Some(process) = PY_PROCESSES.get_ptr(parent) else { return };
    // SAFETY: a valid map value; entries are written once per program image.
    let process = unsafe { *process };
    // A full map: the child's calls are unlinked until the agent names it.
    let _ = PY_PROCESSES.insert(child, process, 0);
}

/// The process ended or runs another program.
#[inline(always)]
pub fn forget(tgid: u32) {
    let _ = PY_PROCESSES.remove(tgid);
}
