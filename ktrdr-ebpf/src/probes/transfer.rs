//! `sock:sock_send_length` and `sock:sock_recv_length` (kernel 6.3 and later): every transfer on any socket, after
//! the protocol did its work, in the calling task.

use aya_ebpf::{helpers::bpf_task_pt_regs, macros::btf_tracepoint, programs::BtfTracePointContext};
use ktrdr_ebpf_common::{RECV, SEND};

use crate::{
    capture::{self, Transfer},
    constants::SECONDS,
    error::{self, Error},
    handled,
    memory::{Direct, Object},
    scratch::Place,
    second::{self, Sign},
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

/// Likewise, behind the first one at the same place: for transfers that it was not run for.
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length_second(ctx: BtfTracePointContext) -> i32 {
    error::run(|| socket_transfer(&ctx, SEND, Place::SecondSend))
}

/// Likewise.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length_second(ctx: BtfTracePointContext) -> i32 {
    error::run(|| socket_transfer(&ctx, RECV, Place::SecondRecv))
}

#[inline(always)]
fn socket_transfer(ctx: &BtfTracePointContext, direction: u8, place: Place) -> Result<(), Error> {
    let sock = Sock(Direct::at(ctx.arg::<*const u8>(0)));
    if !sock.is_tcp()? {
        return if direction == SEND && sock.is_unix()? { written(ctx, sock, place) } else { Ok(()) };
    }
    let transfer =
        Transfer { direction, result: ctx.arg::<i32>(1).into(), msg_flags: ctx.arg::<i32>(2) as u32 };
    if !transfer.counts() {
        return Ok(());
    }
    let task = Task::<Direct>::current();
    let (tgid, tid) = task.ids()?;
    // First of all: the second program should have little to do.
    if SECONDS.get() != 0 && second::was_told(Sign::of(sock, tid, transfer.result)?, direction, place)? {
        return Ok(());
    }
    if !sock.has_file()? {
        return Ok(());
    }
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
fn written(ctx: &BtfTracePointContext, sock: Sock<Direct>, place: Place) -> Result<(), Error> {
    let result = ctx.arg::<i32>(1);
    let Some(process) = watch::current() else { return Ok(()) };
    if result <= 0 {
        return Ok(());
    }
    let task = Task::<Direct>::current();
    let sign = Sign::of(sock, task.ids()?.1, result.into())?;
    if SECONDS.get() != 0 && second::was_told(sign, SEND, place)? {
        return Ok(());
    }
    let Some(call) = current_call(task)? else { return Ok(()) };
    handled::leave(task, call, result.into())?;
    let fd = call.argument::<0>()? as u32;
    process.wrote(task, call, fd, result as u32, true, place)
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
