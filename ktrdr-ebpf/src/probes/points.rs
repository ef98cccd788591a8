//! The tracepoints of single system calls, where the kernel takes no programs at their functions ([`super::functions`]). They are
//! events of perf: other calls pay for the way to what looks whether somebody asks about them, a third of the way to a program at
//! raw `sys_exit` ([`super::calls`]).
//!
//! 32-bit system calls, whose arguments are others, do not come here: these tracepoints leave them out
//! (`ARCH_TRACE_IGNORE_COMPAT_SYSCALLS`, on x86_64 and arm64). The kernel runs them without being preempted, so of the programs
//! here one is under way on a processor at most, and they share one place.

use aya_ebpf::{
    EbpfContext as _, helpers::bpf_task_pt_regs, macros::tracepoint, programs::TracePointContext,
};

use super::{connect, read, write};
use crate::{
    error::{self, Error},
    handled::By,
    memory::{Direct, Object},
    scratch::Place,
    syscall::Call,
    task::Task,
};

/// `syscalls:sys_exit_read`
#[tracepoint]
pub fn point_read(ctx: TracePointContext) -> u32 {
    of(&ctx, |call, result| read::ended(call, result, Place::Syscall))
}

/// `syscalls:sys_exit_write`
#[tracepoint]
pub fn point_write(ctx: TracePointContext) -> u32 {
    of(&ctx, |call, result| write::ended(call, result, By::Write, Place::Syscall))
}

/// `syscalls:sys_exit_writev`
#[tracepoint]
pub fn point_writev(ctx: TracePointContext) -> u32 {
    of(&ctx, |call, result| write::ended(call, result, By::Writev, Place::Syscall))
}

/// `syscalls:sys_exit_connect`
#[tracepoint]
pub fn point_connect(ctx: TracePointContext) -> u32 {
    of(&ctx, connect::ended)
}

#[inline(always)]
fn of(ctx: &TracePointContext, ended: impl FnOnce(Call<Direct>, i64) -> Result<(), Error>) -> u32 {
    /// Offset of the result in the context (`struct syscall_trace_exit`): 8 common bytes, number, result.
    const RESULT: usize = 16;
    error::run(|| {
        // SAFETY: the field lies inside the tracepoint's context, and is aligned; the verifier checks.
        let result = unsafe { ctx.as_ptr().cast::<u8>().add(RESULT).cast::<i64>().read_volatile() };
        let task = Task::<Direct>::current();
        // SAFETY: the pointer is a `struct task_struct` to the verifier too.
        let regs = unsafe { bpf_task_pt_regs(task.0.address().cast_mut().cast()) };
        ended(Call(Direct::at(regs as *const u8)), result)
    }) as u32
}
