//! The `contextvars` context current on a Python thread.

use core::{
    ffi::c_void,
    mem::{MaybeUninit, offset_of},
};

use aya_ebpf::{
    helpers::{bpf_probe_read_user, generated},
    macros::map,
    maps::{Array, HashMap},
};
use ktrdr_ebpf_common::{
    Counter,
    limits::{MAX_PY_PROCESSES, MAX_PY_THREADS},
    maps::{PyContexts, PyForetelling, PyProcess, PyThread, used},
    records::THREADS_OWN_CONTEXT,
};

use crate::{
    by_process::{ByProcess, Held},
    constants::{HAS_TASK_BTF, TASK_THREAD_POINTER},
    counters::count,
    filter::in_use,
    memory::{Direct, Object, Probed},
    task::Task,
};

#[map]
static PY_PROCESSES: Array<PyProcess> = Array::with_max_entries(MAX_PY_PROCESSES, 0);

#[map]
static PY_PROCESSES_BESIDE: HashMap<u32, PyProcess> = HashMap::with_max_entries(MAX_PY_PROCESSES, 0);

#[map]
static PY_BESIDE: Array<u32> = Array::with_max_entries(MAX_PY_PROCESSES, 0);

const PROCESSES: ByProcess<PyProcess> =
    ByProcess { places: &PY_PROCESSES, beside: &PY_PROCESSES_BESIDE, any_beside: &PY_BESIDE };

impl Held for PyProcess {
    #[inline(always)]
    fn whose(entry: *mut Self) -> *mut u32 {
        entry.wrapping_byte_add(offset_of!(PyProcess, tgid)).cast()
    }
}

#[map]
static PY_THREADS: HashMap<u32, PyThread> = HashMap::with_max_entries(MAX_PY_THREADS, 0);

/// User memory that could not be read: moved, swapped out, or unmapped by a thread beside this one.
pub struct Unreadable;

impl Unreadable {
    /// Counts it; what cannot be read is not known.
    #[inline(always)]
    pub fn or<T>(result: Result<T, Unreadable>, unknown: T) -> T {
        result.unwrap_or_else(|Unreadable| {
            count(Counter::PyContextFaults);
            unknown
        })
    }
}

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
    Unreadable::or(current, 0)
}

/// Whether this is a Python thread of a process whose contexts are followed, or may be one: its memory cannot be read.
#[inline(always)]
pub fn is_thread(tgid: u32, tid: u32) -> bool {
    thread_state(tgid, tid).is_some_and(|(tstate, _)| !matches!(tstate, Ok(0)))
}

/// Whether this process's contexts are followed; or may be, where threads are told of one by one and a new one is not yet.
#[inline(always)]
pub fn may_be_followed(tgid: u32) -> bool {
    entry(tgid).is_some() || in_use(used::PY_THREADS)
}

/// Whether this is an object of a class `_WorkItem`, or cannot be read. Then it is told of all the same: of what nobody
/// submitted the agent makes nothing, but a thread of which nothing is told still has the item before.
#[inline(always)]
pub fn may_be_work_item(object: u64) -> bool {
    Unreadable::or(is_work_item(object), true)
}

/// Offset of `ob_type` in an object, where all threads share a lock (3.8 to 3.15).
pub const TYPE: u64 = 8;

#[inline(always)]
fn is_work_item(object: u64) -> Result<bool, Unreadable> {
    /// Offset of `tp_name` in a type: behind the head of an object that says its size.
    const NAME: u64 = 24;
    /// The name, with the zero at its end.
    const BEGIN: u64 = u64::from_ne_bytes(*b"_WorkIte");
    const END: u16 = u16::from_ne_bytes(*b"m\0");
    const LENGTH: i64 = 10;
    let kind: u64 = user(object.wrapping_add(TYPE))?;
    let name: u64 = user(kind.wrapping_add(NAME))?;
    // More than its length: a longer one that begins like it would be cut to it.
    let mut words = MaybeUninit::<[u64; 2]>::uninit();
    // SAFETY: the helper checks the address, writes no more than the size it is given, and reports a fault.
    let length = unsafe {
        generated::bpf_probe_read_user_str(
            words.as_mut_ptr().cast(),
            size_of::<[u64; 2]>() as u32,
            name as *const c_void,
        )
    };
    if length < 0 {
        return Err(Unreadable);
    }
    // SAFETY: so much of it was written, and the verifier takes all of it for written.
    let [first, second] = unsafe { words.assume_init() };
    Ok(length == LENGTH && first == BEGIN && second as u16 == END)
}

/// A process's entry.
#[inline(always)]
fn entry(tgid: u32) -> Option<*mut PyProcess> {
    if in_use(used::PY_PROCESSES) { PROCESSES.entry(tgid) } else { None }
}

/// [`PyContexts::writes`] of the process.
#[inline(always)]
pub fn writes(tgid: u32, tid: u32) -> u16 {
    if !in_use(used::PY_WRITES) {
        return PyContexts::AT_ONCE;
    }
    if let Some(process) = entry(tgid) {
        // SAFETY: a valid map value; one aligned number.
        return unsafe { (*process).contexts.writes };
    }
    if !in_use(used::PY_THREADS) {
        return PyContexts::AT_ONCE;
    }
    PY_THREADS.get_ptr(tid).map_or(PyContexts::AT_ONCE, |thread| {
        // SAFETY: a valid map value; see `thread_state`.
        let PyThread { contexts, tgid: owner, .. } = unsafe { *thread };
        if owner == tgid { contexts.writes } else { PyContexts::AT_ONCE }
    })
}

/// Address of the thread's `PyThreadState`, and the way from there to its contexts. `None`: nobody told.
#[inline(always)]
fn thread_state(tgid: u32, tid: u32) -> Option<(Result<u64, Unreadable>, PyContexts)> {
    if let Some(process) = entry(tgid) {
        // SAFETY: a valid map value; what is read here is the same for as long as its program runs.
        let process = unsafe { *process };
        return Some((own_state(process.tls_offset), process.contexts));
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
fn own_state(tls_offset: i32) -> Result<u64, Unreadable> {
    let pointer = if HAS_TASK_BTF.get() != 0 {
        // A load, where the other way is a helper's call.
        Task::<Direct>::current().0.load::<u64>(&TASK_THREAD_POINTER)
    } else {
        Task::<Probed>::current().0.load(&TASK_THREAD_POINTER)
    };
    user(pointer.unwrap_or(0).wrapping_add_signed(tls_offset.into()))
}

/// Of the words of a thread state from `interp` on the one at this offset.
const fn word(offset: u16) -> usize {
    (offset - PyForetelling::TSTATE_INTERP) as usize / size_of::<u64>()
}

/// As many of them as hold `context` in every version: at 208 (3.12 to 3.14), 224 (3.11), 232 (3.15), 240 (before).
const STATE_WORDS: usize = word(240) + 1;

/// A copy that is about to be made.
#[derive(Clone, Copy)]
pub struct Foretold {
    /// As [`current_context`] gives it.
    pub parent: u64,
    /// Address of the copy; 0: its return will tell, and [`copied`] compares.
    pub child: u64,
}

impl Foretold {
    /// Numbers in all cases, and no `Option`: the verifier refuses code that moves what is not there.
    const NOTHING: Foretold = Foretold { parent: 0, child: 0 };
}

/// At the entry of `PyContext_CopyCurrent`: the copy, if the interpreter's free list names it and need not be checked this
/// time.
#[inline(always)]
pub fn foretold(tgid: u32, tid: u32) -> Foretold {
    let Some(place) = entry(tgid) else { return Foretold::NOTHING };
    // SAFETY: a valid map value. Its own numbers are written under the interpreter's lock only.
    let process = unsafe { *place };
    let PyForetelling { head, copies, .. } = process.foretelling;
    if head == 0 {
        return Foretold::NOTHING;
    }
    let named = free_context(process, tgid == tid).unwrap_or(Foretold::NOTHING);
    // SAFETY: as above, and nobody else has it while this lock is held.
    let own = unsafe { &mut (*place).foretelling };
    if copies >= PyForetelling::CONFIRMED {
        own.copies = copies.wrapping_add(1).max(PyForetelling::CONFIRMED);
        if !copies.is_multiple_of(PyForetelling::CHECK) {
            own.expected = 0;
            return named;
        }
    }
    own.expected = named.child;
    Foretold::NOTHING
}

/// The context at the head of the free list, and the one current now. A thread without one gets one first, from the same
/// list, and an empty list names nothing.
#[inline(always)]
fn free_context(process: PyProcess, first_thread: bool) -> Result<Foretold, Unreadable> {
    let tstate = own_state(process.tls_offset)?;
    if tstate == 0 {
        return Ok(Foretold::NOTHING);
    }
    // One read of many words: what takes long is that the kernel checks where it reads from and to.
    let mut words = MaybeUninit::<[u64; STATE_WORDS]>::uninit();
    let from = tstate.wrapping_add(PyForetelling::TSTATE_INTERP.into());
    // SAFETY: the helper checks the address, writes no more than the size it is given, and reports a fault.
    let fault = unsafe {
        generated::bpf_probe_read_user(
            words.as_mut_ptr().cast(),
            size_of::<[u64; STATE_WORDS]>() as u32,
            from as *const c_void,
        )
    };
    if fault != 0 {
        return Err(Unreadable);
    }
    // SAFETY: all of it was written.
    let words = unsafe { words.assume_init_ref() };
    let interpreter = words[0];
    // By constants, because the verifier knows nothing of what the offset may be.
    let current = match process.contexts.current {
        208 => words[word(208)],
        224 => words[word(224)],
        232 => words[word(232)],
        240 => words[word(240)],
        _ => return Ok(Foretold::NOTHING),
    };
    if current == 0 {
        return Ok(Foretold::NOTHING);
    }
    let parent = marked(current, process.contexts, first_thread)?;
    let child = user(interpreter.wrapping_add(process.foretelling.head.into()))?;
    Ok(Foretold { parent, child })
}

/// At the return of `PyContext_CopyCurrent`, after [`foretold`] said nothing: whether the free list had been right.
#[inline(always)]
pub fn copied(tgid: u32, child: u64) {
    let Some(process) = entry(tgid) else { return };
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
    match user(tstate.wrapping_add(offsets.current.into()))? {
        0 => Ok(0),
        context => marked(context, offsets, first_thread),
    }
}

/// A `PyContextObject` behind the object's head.
#[derive(Clone, Copy)]
#[repr(C)]
struct Context {
    prev: u64,
    _vars: u64,
    _weak_references: u64,
    entered: u32,
}
const _: () = assert!(core::mem::offset_of!(Context, entered) == PyContexts::PREV_TO_ENTERED as usize);

/// A context that is current, with [`THREADS_OWN_CONTEXT`].
#[inline(always)]
fn marked(context: u64, offsets: PyContexts, first_thread: bool) -> Result<u64, Unreadable> {
    // One read for both.
    let from = u64::from(offsets.entered - PyContexts::PREV_TO_ENTERED);
    let Context { prev, entered, .. } = user(context.wrapping_add(from))?;
    let threads = offsets.threads_enter != 0 && !first_thread && prev == 0;
    Ok(if entered != 0 && !threads { context } else { context | THREADS_OWN_CONTEXT })
}

/// Reads the process's memory.
#[inline(always)]
pub fn user<T>(address: u64) -> Result<T, Unreadable> {
    // SAFETY: the helper checks the address and reports a fault.
    unsafe { bpf_probe_read_user(address as *const T) }.map_err(|_| Unreadable)
}

/// A forked process is a copy: everything is where its parent has it.
#[inline(always)]
pub fn inherit(parent: u32, child: u32) {
    let Some(process) = entry(parent) else { return };
    // SAFETY: a valid map value. What another thread of the parent is just awaiting is not awaited in the child.
    let mut process = unsafe { *process };
    process.tgid = child;
    process.foretelling.expected = 0;
    // A full map: the child's calls are unlinked until the agent names it.
    PROCESSES.put_beside(child, &process, 0);
}

/// The process ended or runs another program.
#[inline(always)]
pub fn forget(tgid: u32) {
    if in_use(used::PY_PROCESSES) {
        PROCESSES.forget(tgid);
    }
}
