//! `syscalls:sys_exit_read`: what processes that speak JSON on standard input read there. With either hook: of a pipe
//! there is no other place to see it (but raw `sys_exit`, see `calls`), and `read` is what they all use.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use super::exit;
use crate::{
    error::{self, Error},
    memory::{Direct, Probed},
    scratch::Place,
    speakers,
    syscall::Call,
    task::Task,
};

/// `syscalls:sys_exit_read`
#[tracepoint]
pub fn sys_exit_read(ctx: TracePointContext) -> u32 {
    error::run(|| read(&ctx)) as u32
}

#[inline(always)]
fn read(ctx: &TracePointContext) -> Result<(), Error> {
    // Whose read it is first: this runs at every read of the host.
    let Some(speaker) = speakers::current() else { return Ok(()) };
    let result = exit::result(ctx);
    if result <= 0 {
        return Ok(());
    }
    let task = Task::<Direct>::current();
    speaker.read(task, exit::call(task), result as u32, Place::Read)
}

/// A read as raw `sys_exit` sees it.
#[inline(always)]
pub fn ended(call: Call<Direct>, result: i64) -> Result<(), Error> {
    let Some(speaker) = speakers::current() else { return Ok(()) };
    let task = Task::<Probed>::current();
    if result <= 0 || task.is_compat()? {
        return Ok(());
    }
    speaker.read(task, call, result as u32, Place::Read)
}
