//! Raw `sys_exit` in place of tracepoints of single system calls, where those cannot be had: they are events of perf, which
//! some distributions refuse to all but CAP_SYS_ADMIN, take tracefs, and here a helper of 5.15. It runs at every system
//! call of the host, so what it is not there for ends after one comparison.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ktrdr_ebpf_common::maps::calls;

use super::{connect, read, write};
use crate::{
    constants::RAW_CALLS,
    error,
    memory::{Direct, Object},
    syscall::{self, Call},
};

/// `(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit_calls(ctx: BtfTracePointContext) -> i32 {
    error::run(|| {
        let call = Call(Direct::at(ctx.arg::<*const u8>(0)));
        let result = ctx.arg::<i64>(1);
        let wanted = |calls: u32| RAW_CALLS.get() & calls != 0;
        match call.number()? {
            syscall::READ if wanted(calls::READ) => read::ended(call, result),
            syscall::WRITE | syscall::WRITEV if wanted(calls::WRITE) => write::ended(call, result),
            syscall::CONNECT if wanted(calls::CONNECT) => connect::ended(call, result),
            _ => Ok(()),
        }
    })
}
