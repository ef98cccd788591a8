//! Raw `sys_exit`: the same transfers on kernels before 6.3. At the exit the saved registers still hold the
//! arguments, so no hook at the entry and no map of pending calls is needed. Bytes moved by io_uring and by 32-bit
//! programs are not seen here; they show as gaps in the positions.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ktrdr_ebpf_common::{RECV, SEND, maps::calls};

use super::{calls::wanted, connect};
use crate::{
    capture::{self, Transfer},
    error::{self, Error},
    memory::{Direct, Object, Probed},
    scratch::Place,
    speakers,
    syscall::{self, Call},
    task::{Task, current_ids, socket},
    watch,
};

/// `(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
#[inline(always)]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    error::told(ended(&ctx))
}

#[inline(always)]
fn ended(ctx: &BtfTracePointContext) -> Result<(), Error> {
    let call = Call(Direct::at(ctx.arg::<*const u8>(0)));
    let result = ctx.arg::<i64>(1);
    let number = call.number()?;
    if number == syscall::CONNECT {
        return connect::ended(call, result);
    }
    if number == syscall::READ
        && result > 0
        && wanted(calls::READ)
        && let Some(speaker) = speakers::of(current_ids().0)
        && let task = Task::<Probed>::current()
        && !task.is_compat()?
        && let Some(input) = speaker.input(task, call)?
    {
        return speaker.read(input, call, result as u32, Place::Syscall);
    }
    match transfer_of(number, call, result)? {
        Some((fd, transfer)) => moved(call, fd, transfer),
        None => Ok(()),
    }
}

/// File descriptor and transfer, where a system call may have moved bytes of a socket.
#[inline(always)]
fn transfer_of(number: u32, call: Call<Direct>, result: i64) -> Result<Option<(u32, Transfer)>, Error> {
    if result < 0 {
        return Ok(None);
    }
    let fd = call.argument::<0>()? as u32;
    let send = |fd| Some((fd, Transfer { direction: SEND, result, msg_flags: 0 }));
    let receive = |msg_flags| Some((fd, Transfer { direction: RECV, result, msg_flags }));
    Ok(match number {
        syscall::READ | syscall::READV | syscall::PREADV2 => receive(0),
        syscall::RECVFROM => receive(call.argument::<3>()? as u32),
        syscall::RECVMSG => receive(call.argument::<2>()? as u32),
        syscall::WRITE
        | syscall::SENDTO
        | syscall::WRITEV
        | syscall::SENDMSG
        | syscall::PWRITEV2
        | syscall::SENDFILE => send(fd),
        syscall::RECVMMSG => {
            let result = syscall::bytes_of_messages(call, result)?;
            Some((fd, Transfer { direction: RECV, result, msg_flags: call.argument::<3>()? as u32 }))
        }
        syscall::SENDMMSG => {
            let result = syscall::bytes_of_messages(call, result)?;
            Some((fd, Transfer { direction: SEND, result, msg_flags: 0 }))
        }
        syscall::SPLICE => send(call.argument::<2>()? as u32),
        _ => None,
    })
}

#[inline(always)]
fn moved(call: Call<Direct>, fd: u32, transfer: Transfer) -> Result<(), Error> {
    if !transfer.counts() {
        return Ok(());
    }
    let task = Task::<Probed>::current();
    if task.is_compat()? {
        return Ok(());
    }
    let Some(file) = task.file(fd)? else { return Ok(()) };
    let Some(sock) = socket(file)? else { return written(call, fd, transfer, false) };
    if !sock.is_tcp()? {
        return if sock.is_unix()? { written(call, fd, transfer, true) } else { Ok(()) };
    }
    capture::transfer(transfer, sock, Place::Syscall, current_ids(), || Ok(Some(call)))
}

/// A write to anything but TCP.
#[inline(always)]
fn written(call: Call<Direct>, fd: u32, transfer: Transfer, unix: bool) -> Result<(), Error> {
    if transfer.direction != SEND || transfer.result <= 0 {
        return Ok(());
    }
    let Some(process) = watch::current() else { return Ok(()) };
    let len = transfer.result as u32;
    if process.floods(fd, len) {
        return Ok(());
    }
    process.wrote(Task::<Probed>::current(), call, fd, len, unix, Place::Syscall)
}
