//! `sock:sock_send_length` and `sock:sock_recv_length` (kernel 6.3 and later): every transfer on any socket, after
//! the protocol did its work, in the calling task.

use aya_ebpf::{helpers::bpf_task_pt_regs, macros::btf_tracepoint, programs::BtfTracePointContext};
use ktrdr_ebpf_common::{RECV, SEND};

use crate::{
    capture::{self, Transfer},
    error::{self, Error},
    handled,
    memory::{Direct, Object},
    scratch::Place,
    sock::Sock,
    syscall::Call,
    task::Task,
    watch,
};

/// `(struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    error::run(|| socket_transfer(&ctx, SEND, Place::Send))
}

/// `(struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    error::run(|| socket_transfer(&ctx, RECV, Place::Recv))
}

#[inline(always)]
fn socket_transfer(ctx: &BtfTracePointContext, direction: u8, place: Place) -> Result<(), Error> {
    let sock = Sock(Direct::at(ctx.arg::<*const u8>(0)));
    if !sock.is_tcp()? {
        return if direction == SEND && sock.is_unix()? { written(ctx.arg::<i32>(1)) } else { Ok(()) };
    }
    let transfer =
        Transfer { direction, result: ctx.arg::<i32>(1).into(), msg_flags: ctx.arg::<i32>(2) as u32 };
    if !transfer.counts() || !sock.has_file()? {
        return Ok(());
    }
    let task = Task::<Direct>::current();
    let (tgid, tid) = task.ids()?;
    // Others' writes are not looked at in the end.
    if direction == SEND
        && watch::of(tgid, tid).is_some()
        && let Some(call) = current_call(task)?
    {
        handled::leave(task, call, transfer.result)?;
    }
    capture::transfer(transfer, sock, place, (tgid, tid), || current_call(task))
}

/// A write to a Unix socket: of interest where a supervisor (journald) reads a service's output from one.
#[inline(always)]
fn written(result: i32) -> Result<(), Error> {
    let Some(process) = watch::current() else { return Ok(()) };
    if result <= 0 {
        return Ok(());
    }
    let task = Task::<Direct>::current();
    let Some(call) = current_call(task)? else { return Ok(()) };
    handled::leave(task, call, result.into())?;
    let fd = call.argument::<0>()? as u32;
    process.wrote(task, call, fd, result as u32, true, Place::Send)
}

/// The registers of the system call that a task is in; `None` in a 32-bit one.
#[inline(always)]
fn current_call(task: Task<Direct>) -> Result<Option<Call<Direct>>, Error> {
    if task.is_compat()? {
        return Ok(None);
    }
    // SAFETY: the pointer is a `struct task_struct` to the verifier too.
    let regs = unsafe { bpf_task_pt_regs(task.0.address().cast_mut().cast()) };
    Ok(Some(Call(Direct::at(regs as *const u8))))
}
