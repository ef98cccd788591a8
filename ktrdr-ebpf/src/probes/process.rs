//! `sched:sched_process_{exec,fork,exit}`: processes and threads come and go.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user,
    macros::{btf_tracepoint, map},
    maps::{LruHashMap, PerCpuArray},
    programs::BtfTracePointContext,
};
use ktrdr_ebpf_common::{
    EventHeader, ExecBody, ExitBody, ForkBody, flags, kind,
    limits::{MAX_ARGS, MAX_VICTIMS},
};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    constants::*,
    error::{self, Error},
    memory::{Direct, Object},
    python,
    ring::{self, Wake},
    speakers,
    task::{Task, current_ids},
    watch,
};

/// An exec record being put together.
#[repr(C)]
struct ExecRecord {
    header: EventHeader,
    body: ExecBody,
    args: [u8; MAX_ARGS],
}

/// Processes that the kernel chose to be killed because memory was short, and that have not ended yet.
#[map]
static VICTIMS: LruHashMap<u32, u8> = LruHashMap::with_max_entries(MAX_VICTIMS, 0);

#[map]
static SCRATCH_EXEC: PerCpuArray<ExecRecord> = PerCpuArray::with_max_entries(1, 0);

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ForkRecord {
    header: EventHeader,
    body: ForkBody,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ExitRecord {
    header: EventHeader,
    body: ExitBody,
}

/// `(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    error::run(|| executed(Task(Direct::at(ctx.arg::<*const u8>(0)))))
}

#[inline(always)]
fn executed(task: Task<Direct>) -> Result<(), Error> {
    // The new program's memory is not the old one's.
    python::forget(current_ids().0);
    let mm = task.0.follow(&TASK_MM)?;
    let start: u64 = mm.load(&MM_ARG_START)?;
    let end: u64 = mm.load(&MM_ARG_END)?;
    let record = SCRATCH_EXEC.get_ptr_mut(0).ok_or(Error::MapEntry)?;
    // SAFETY: a valid map value; this program does not interrupt itself on a CPU.
    let record = unsafe { &mut *record };
    let mut args_len = (end.saturating_sub(start) as usize).min(MAX_ARGS);
    // SAFETY: at most `MAX_ARGS` bytes; the helper checks the user address.
    let read =
        unsafe { bpf_probe_read_user(record.args.as_mut_ptr().cast(), args_len as u32, start as *const _) };
    if read != 0 {
        // `/proc` still has them, if the process lives that long.
        args_len = 0;
    }
    record.body = ExecBody { ppid: task.parent()?, args_len: args_len as u32, comm: task.comm()? };
    let len = size_of::<EventHeader>() + size_of::<ExecBody>() + args_len;
    record.header = ring::header(kind::EXEC, 0, len as u32);
    // SAFETY: header, body and the arguments just read lie in one piece.
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::from_ref(record).cast::<u8>(), len) };
    ring::submit(bytes, Wake::Now)?;
    speakers::executed()
}

/// `(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    error::run(|| forked(Direct::at(ctx.arg::<*const u8>(1))))
}

#[inline(always)]
fn forked(child: Direct) -> Result<(), Error> {
    let mut header = ring::header(kind::FORK, 0, size_of::<ForkRecord>() as u32);
    let child_tgid = child.load(&TASK_TGID)?;
    if child_tgid == header.tgid {
        header.flags |= flags::THREAD;
        if child_tgid == AGENT_TGID.get() {
            return Ok(());
        }
    } else {
        python::inherit(header.tgid, child_tgid);
    }
    let body = ForkBody {
        child_tgid,
        child_tid: child.load(&TASK_PID)?,
        py_context: python::current_context(header.tgid, header.tid),
    };
    ring::submit_fixed(&ForkRecord { header, body }, Wake::IfFull)
}

/// `(struct task_struct *p)`, since 6.16 `(struct task_struct *p, bool group_dead)`
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    error::run(|| {
        let task = Task(Direct::at(ctx.arg::<*const u8>(0)));
        let signal = task.0.follow(&TASK_SIGNAL)?;
        let group_dead = if HAS_GROUP_DEAD.get() != 0 {
            ctx.arg::<i32>(1) & 0xff != 0
        } else {
            // Two last threads that leave at once may both see 0: the agent gets the end of a process twice then.
            signal.load::<u32>(&SIGNAL_LIVE)? == 0
        };
        if group_dead { ended(task, signal) } else { Ok(()) }
    })
}

/// `signal_struct.flags`: `group_exit_code` counts for all threads.
const SIGNAL_GROUP_EXIT: u32 = 4;

#[inline(always)]
fn ended(task: Task<Direct>, signal: Direct) -> Result<(), Error> {
    let code = if signal.load::<u32>(&SIGNAL_FLAGS)? & SIGNAL_GROUP_EXIT != 0 {
        signal.load(&SIGNAL_EXIT_CODE)?
    } else {
        // What `wait` would tell: the code of the leader, whichever thread was last.
        task.0.follow(&TASK_LEADER)?.load(&TASK_EXIT_CODE)?
    };
    let tgid = current_ids().0;
    python::forget(tgid);
    watch::forget(tgid);
    speakers::forget(tgid);
    let flags = if VICTIMS.remove(tgid).is_ok() { flags::OUT_OF_MEMORY } else { 0 };
    let header = ring::header(kind::EXIT, flags, size_of::<ExitRecord>() as u32);
    let body = ExitBody { code, ppid: task.parent()?, comm: task.comm()? };
    ring::submit_fixed(&ExitRecord { header, body }, Wake::Now)
}

/// `(struct task_struct *task, uid_t uid)`, before 6.8 `(int pid)`: the kernel, or a memory cgroup, kills a process for want of
/// memory.
#[btf_tracepoint(function = "mark_victim")]
pub fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    error::run(|| {
        let tgid = if HAS_VICTIM_TASK.get() != 0 {
            Task(Direct::at(ctx.arg::<*const u8>(0))).0.load(&TASK_TGID)?
        } else {
            // Of its first thread, which is the process's.
            ctx.arg::<u32>(0)
        };
        VICTIMS.insert(tgid, 1, 0).map_err(|_| Error::MapEntry)
    })
}
