//! `syscalls:sys_exit_write` and `sys_exit_writev`: what watched processes write to pipes, terminals and files. Unix
//! sockets are seen where all sockets are, and with the older hook so is everything here.

use aya_ebpf::{helpers::bpf_task_pt_regs, macros::tracepoint, programs::TracePointContext};

use crate::{
    error::{self, Error},
    memory::{Direct, Object, Probed},
    scratch::Place,
    syscall::Call,
    task::Task,
    watch::{self, Watched},
};

/// Offset of the result in the context of a `syscalls:sys_exit_*` tracepoint: 8 common bytes, number, result.
const RESULT: usize = 16;

/// `syscalls:sys_exit_write`
#[tracepoint]
pub fn sys_exit_write(ctx: TracePointContext) -> u32 {
    error::run(|| wrote(&ctx)) as u32
}

/// `syscalls:sys_exit_writev`
#[tracepoint]
pub fn sys_exit_writev(ctx: TracePointContext) -> u32 {
    error::run(|| wrote(&ctx)) as u32
}

#[inline(always)]
fn wrote(ctx: &TracePointContext) -> Result<(), Error> {
    // Whose write it is first: this runs at every write of the host.
    let Some(process) = watch::current() else { return Ok(()) };
    // SAFETY: the field lies inside the tracepoint's context; the verifier checks.
    let result: i64 = unsafe { ctx.read_at(RESULT) }.map_err(|_| Error::KernelRead)?;
    if result <= 0 {
        return Ok(());
    }
    let task = Task::<Direct>::current();
    if task.is_compat()? {
        return Ok(());
    }
    // SAFETY: the pointer is a `struct task_struct` to the verifier too.
    let regs = unsafe { bpf_task_pt_regs(task.0.address().cast_mut().cast()) };
    of(process, task, Call(Direct::at(regs as *const u8)), result as u32)
}

/// A write as raw `sys_exit` sees it.
#[inline(always)]
pub fn ended(call: Call<Direct>, result: i64) -> Result<(), Error> {
    let Some(process) = watch::current() else { return Ok(()) };
    let task = Task::<Probed>::current();
    if result <= 0 || task.is_compat()? {
        return Ok(());
    }
    of(process, task, call, result as u32)
}

/// A write of `len` bytes by a watched process.
#[inline(always)]
fn of<T: Object>(process: Watched, task: Task<T>, call: Call<Direct>, len: u32) -> Result<(), Error> {
    let fd = call.argument::<0>()? as u32;
    if process.floods(fd, len) {
        return Ok(());
    }
    process.wrote(task, call, fd, len, false, Place::Write)
}
