//! The `contextvars` context current on a Python thread.

use aya_ebpf::{helpers::bpf_probe_read_user, macros::map, maps::HashMap};
use ktrdr_ebpf_common::{
    Counter,
    limits::{MAX_PY_PROCESSES, MAX_PY_THREADS},
    maps::{PyContexts, PyForetelling, PyProcess, PyThread, used},
    records::THREADS_OWN_CONTEXT,
};

use crate::{
    constants::TASK_THREAD_POINTER,
    counters::count,
    filter::in_use,
    memory::{Object, Probed},
    task::Task,
};

#[map]
static PY_PROCESSES: HashMap<u32, PyProcess> = HashMap::with_max_entries(MAX_PY_PROCESSES, 0);

#[map]
static PY_THREADS: HashMap<u32, PyThread> = HashMap::with_max_entries(MAX_PY_THREADS, 0);

/// User memory that could not be read: moved, swapped out, or unmapped by a thread beside this one.
struct Unreadable;

/// Address of the context current on a thread, with [`THREADS_OWN_CONTEXT`]; 0 for none, for a thread of a process the agent
/// has not named, and where it cannot be read. Only for the current task: it reads its memory.
#[inline(always)]
pub fn current_context(tgid: u32, tid: u32) -> u64 {
    let Some((tstate, contexts)) = thread_state(tgid, tid) else { return 0 };
    let current = tstate.and_then(|tstate| match tstate {
        // Not a Python thread, or not yet.
        0 => Ok(0),
        tstate => context(tstate, contexts, tgid == tid),
    });
    current.unwrap_or_else(|Unreadable| {
        count(Counter::PyContextFaults);
        0
    })
}

/// Address of the thread's `PyThreadState`, and the way from there to its contexts. `None`: nobody told.
#[inline(always)]
fn thread_state(tgid: u32, tid: u32) -> Option<(Result<u64, Unreadable>, PyContexts)> {
    if in_use(used::PY_PROCESSES)
        && let Some(process) = PY_PROCESSES.get_ptr(tgid)
    {
        // SAFETY: a valid map value; entries are written once per program image.
        let process = unsafe { *process };
        return Some((own_state(process), process.contexts));
    }
    if !in_use(used::PY_THREADS) {
        return None;
    }
    let thread = PY_THREADS.get_ptr(tid)?;
    // SAFETY: a valid map value; a concurrent update of the entry can at worst give an address that cannot be read or
    // a context that the agent does not know.
    let PyThread { tstate, contexts, tgid: owner, .. } = unsafe { *thread };
    (owner == tgid).then_some((Ok(tstate), contexts))
}

/// A thread finds its own state at one distance from its thread pointer, so a new one needs no announcement.
#[inline(always)]
fn own_state(process: PyProcess) -> Result<u64, Unreadable> {
    let task = Task::<Probed>::current().0;
    let thread_pointer: u64 = task.load(&TASK_THREAD_POINTER).unwrap_or(0);
    user(thread_pointer.wrapping_add_signed(process.tls_offset.into()))
}

/// A copy that is about to be made.
pub struct Foretold {
    /// As [`current_context`] gives it.
    pub parent: u64,
    /// Address of the copy.
    pub child: u64,
}

/// At the entry of `PyContext_CopyCurrent`: the copy, if the interpreter's free list names it and need not be checked this
/// time. `None`: its return will tell, and [`copied`] compares.
#[inline(always)]
pub fn foretold(tgid: u32, tid: u32) -> Option<Foretold> {
    if !in_use(used::PY_PROCESSES) {
        return None;
    }
    let process = PY_PROCESSES.get_ptr_mut(tgid)?;
    // SAFETY: a valid map value. Its own numbers are written under the interpreter's lock only.
    let PyProcess { contexts, foretelling: PyForetelling { head, copies, .. }, .. } = unsafe { *process };
    if head == 0 {
        return None;
    }
    // SAFETY: as above.
    let foretold = free_context(unsafe { *process }, contexts, head, tgid == tid).ok();
    let believed = copies >= PyForetelling::CONFIRMED && !copies.is_multiple_of(PyForetelling::CHECK);
    let (expected, foretold) = match foretold {
        Some(foretold) if believed => (0, Some(foretold)),
        other => (other.map_or(0, |foretold| foretold.child), None),
    };
    // SAFETY: as above; aligned numbers.
    unsafe {
        (*process).foretelling.expected = expected;
        if copies >= PyForetelling::CONFIRMED {
            (*process).foretelling.copies = copies.wrapping_add(1).max(PyForetelling::CONFIRMED);
        }
    }
    foretold
}

/// The context at the head of the free list, and the one current now. A thread without one gets one first, from the same
/// list; and an empty list names nothing.
#[inline(always)]
fn free_context(
    process: PyProcess,
    contexts: PyContexts,
    head: u32,
    first_thread: bool,
) -> Result<Foretold, Unreadable> {
    let tstate = own_state(process)?;
    if tstate == 0 {
        return Err(Unreadable);
    }
    let parent = context(tstate, contexts, first_thread)?;
    let interpreter = user(tstate.wrapping_add(PyForetelling::TSTATE_INTERP.into()))?;
    let child = user(interpreter.wrapping_add(head.into()))?;
    if parent == 0 || child == 0 {
        return Err(Unreadable);
    }
    Ok(Foretold { parent, child })
}

/// At the return of `PyContext_CopyCurrent`, after [`foretold`] said nothing: whether the free list had been right.
#[inline(always)]
pub fn copied(tgid: u32, child: u64) {
    if !in_use(used::PY_PROCESSES) {
        return;
    }
    let Some(process) = PY_PROCESSES.get_ptr_mut(tgid) else { return };
    // SAFETY: a valid map value, whose aligned numbers are written under the interpreter's lock only.
    let foretelling = unsafe { &mut (*process).foretelling };
    let expected = core::mem::take(&mut foretelling.expected);
    if expected == 0 {
        return;
    }
    if expected != child {
        foretelling.head = 0;
        count(Counter::PyContextMistold);
    } else if foretelling.copies < PyForetelling::CONFIRMED {
        foretelling.copies += 1;
    }
}

/// A context that is current without having been entered is the thread's own: the interpreter made it when the
/// first context variable was used, and nobody copied it, so its address says nothing. It is marked by bit 0.
///
/// So is, from 3.14 on, the one that `threading` enters first on each thread it starts: an empty one, or a copy of
/// its creator's, which says nothing of what a pool's thread does later.
#[inline(always)]
fn context(tstate: u64, offsets: PyContexts, first_thread: bool) -> Result<u64, Unreadable> {
    let context = user(tstate.wrapping_add(offsets.current.into()))?;
    if context == 0 {
        return Ok(0);
    }
    let entered = user(context.wrapping_add(offsets.entered.into()))? as u32 != 0;
    let threads = offsets.first_prev != 0
        && !first_thread
        && user(context.wrapping_add(offsets.first_prev.into()))? == 0;
    Ok(if entered && !threads { context } else { context | THREADS_OWN_CONTEXT })
}

#[inline(always)]
fn user(address: u64) -> Result<u64, Unreadable> {
    // SAFETY: the helper checks the address and reports a fault.
    unsafe { bpf_probe_read_user(address as *const u64) }.map_err(|_| Unreadable)
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
