//! `syscalls:sys_exit_write` and `sys_exit_writev`: what watched processes write to pipes, terminals and files. Unix
//! sockets are seen where all sockets are, and with the older hook so is everything here.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use super::exit;
use crate::{
    error::{self, Error},
    memory::{Direct, Object, Probed},
    scratch::Place,
    syscall::Call,
    task::Task,
    watch::{self, Watched},
};

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
    let result = exit::result(ctx);
    if result <= 0 {
        return Ok(());
    }
    let task = Task::<Direct>::current();
    of(process, task, exit::call(task), result as u32)
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
