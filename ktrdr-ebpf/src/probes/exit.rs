//! What the programs on `syscalls:sys_exit_*` have in common. 32-bit system calls, whose arguments are others, do not come
//! there: these tracepoints leave them out (`ARCH_TRACE_IGNORE_COMPAT_SYSCALLS`, on x86_64 and arm64).

use aya_ebpf::{EbpfContext as _, helpers::bpf_task_pt_regs, programs::TracePointContext};

use crate::{
    memory::{Direct, Object},
    syscall::Call,
    task::Task,
};

/// Offset of the result in the context: 8 common bytes, number, result.
const RESULT: usize = 16;

/// What the system call returned. A plain load: the helper that reads the kernel's memory takes a quarter of the time that
/// a whole program on a write has.
#[inline(always)]
pub fn result(ctx: &TracePointContext) -> i64 {
    // SAFETY: the field lies inside the tracepoint's context, and is aligned; the verifier checks.
    unsafe { ctx.as_ptr().cast::<u8>().add(RESULT).cast::<i64>().read_volatile() }
}

/// The registers that the current task entered the kernel with.
#[inline(always)]
pub fn call(task: Task<Direct>) -> Call<Direct> {
    // SAFETY: the pointer is a `struct task_struct` to the verifier too.
    let regs = unsafe { bpf_task_pt_regs(task.0.address().cast_mut().cast()) };
    Call(Direct::at(regs as *const u8))
}
