//! Raw `sys_exit` beside the socket tracepoints: what no socket tells of, where the kernel takes programs neither at the functions
//! of single calls ([`super::functions`]) nor at their tracepoints ([`super::points`]). It runs at every system call of the host,
//! so what it is not there for ends after a few comparisons; the older hook's program does the same besides its own work.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ktrdr_ebpf_common::maps::calls;

use super::{connect, read, write};
use crate::{
    constants::CALLS,
    error,
    handled::By,
    memory::{Direct, Object},
    scratch::Place,
    syscall::{self, Call},
};

/// Whether any of these calls is asked about.
#[inline(always)]
pub fn wanted(calls: u32) -> bool {
    CALLS.get() & calls != 0
}

/// `(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit_calls(ctx: BtfTracePointContext) -> i32 {
    error::run(|| {
        let call = Call(Direct::at(ctx.arg::<*const u8>(0)));
        let result = ctx.arg::<i64>(1);
        match call.number()? {
            syscall::READ if wanted(calls::READ) => read::ended(call, result, Place::Syscall),
            syscall::WRITE if wanted(calls::WRITE) => write::ended(call, result, By::Write, Place::Syscall),
            syscall::WRITEV if wanted(calls::WRITE) => write::ended(call, result, By::Writev, Place::Syscall),
            syscall::CONNECT if wanted(calls::CONNECT) => connect::ended(call, result),
            _ => Ok(()),
        }
    })
}
