//! The functions of single system calls: what is asked at the end of these calls costs no other call anything, which raw
//! `sys_exit` does ([`super::calls`]). Only where the kernel lets programs be put behind functions (fexit).
//!
//! Each has a program of its own. Where the kernel is preemptive, another thread may interrupt one, and the kernel refuses the
//! second run of the same program only. So two of them may be under way on one processor, and share no memory of it: a
//! [`Place`] for each that copies anything, a mark for each that looks for one.

use aya_ebpf::{macros::fexit, programs::FExitContext};

use super::{connect, read, write};
use crate::{
    error::{self, Error},
    handled::By,
    memory::{Direct, Object},
    scratch::Place,
    syscall::{self, Call},
};

/// `long (const struct pt_regs *regs)`
#[fexit]
pub fn exit_read(ctx: FExitContext) -> i32 {
    of(&ctx, syscall::READ, |call, result| read::ended(call, result, Place::Read))
}

/// Likewise.
#[fexit]
pub fn exit_write(ctx: FExitContext) -> i32 {
    of(&ctx, syscall::WRITE, |call, result| write::ended(call, result, By::Write, Place::Syscall))
}

/// Likewise.
#[fexit]
pub fn exit_writev(ctx: FExitContext) -> i32 {
    of(&ctx, syscall::WRITEV, |call, result| write::ended(call, result, By::Writev, Place::Writev))
}

/// Likewise.
#[fexit]
pub fn exit_connect(ctx: FExitContext) -> i32 {
    of(&ctx, syscall::CONNECT, connect::ended)
}

/// Programs of other kinds (x32, 32-bit on arm64) have the same functions under other numbers, and their arguments are not
/// ours.
#[inline(always)]
fn of(ctx: &FExitContext, number: u32, ended: impl FnOnce(Call<Direct>, i64) -> Result<(), Error>) -> i32 {
    error::run(|| {
        let call = Call(Direct::at(ctx.arg::<*const u8>(0)));
        if call.number()? != number {
            return Ok(());
        }
        // What the function returned follows its arguments.
        ended(call, ctx.arg::<i64>(1))
    })
}
