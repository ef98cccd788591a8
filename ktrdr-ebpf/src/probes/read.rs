//! `syscalls:sys_exit_read`: what processes that speak JSON on standard input read there. With either hook: of a pipe
//! there is no other place to see it (but raw `sys_exit`, see `calls`), and `read` is what they all use.

use aya_ebpf::{helpers::bpf_task_pt_regs, macros::tracepoint, programs::TracePointContext};

use crate::{
    error::{self, Error},
    memory::{Direct, Object, Probed},
    scratch::Place,
    speakers,
    syscall::Call,
    task::Task,
};

/// Offset of the result in the context of a `syscalls:sys_exit_*` tracepoint: 8 common bytes, number, result.
const RESULT: usize = 16;

/// `syscalls:sys_exit_read`
#[tracepoint]
pub fn sys_exit_read(ctx: TracePointContext) -> u32 {
    error::run(|| read(&ctx)) as u32
}

#[inline(always)]
fn read(ctx: &TracePointContext) -> Result<(), Error> {
    // Whose read it is first: this runs at every read of the host.
    let Some(speaker) = speakers::current() else { return Ok(()) };
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
    let call = Call(Direct::at(regs as *const u8));
    speaker.read(call, result as u32, Place::Read)
}

/// A read as raw `sys_exit` sees it.
#[inline(always)]
pub fn ended(call: Call<Direct>, result: i64) -> Result<(), Error> {
    let Some(speaker) = speakers::current() else { return Ok(()) };
    if result <= 0 || Task::<Probed>::current().is_compat()? {
        return Ok(());
    }
    speaker.read(call, result as u32, Place::Read)
}
