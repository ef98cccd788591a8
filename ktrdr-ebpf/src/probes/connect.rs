//! A connect that failed before a SYN left: no socket state tells of it, so the system call's result must.

use aya_ebpf::helpers::bpf_probe_read_user;
use ktrdr_ebpf_common::{ConnectErrorBody, EventHeader, kind};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    error::Error,
    memory::{Direct, Object, Probed},
    python,
    ring::{self, Wake},
    sock::{AF_INET, AF_INET6, v4_mapped},
    syscall::Call,
    task::{Task, socket},
};

const EPERM: u32 = 1;
const EACCES: u32 = 13;
const EINVAL: u32 = 22;
const EAFNOSUPPORT: u32 = 97;
const EADDRINUSE: u32 = 98;
const EADDRNOTAVAIL: u32 = 99;
const ENETDOWN: u32 = 100;
const ENETUNREACH: u32 = 101;
const ENOBUFS: u32 = 105;
const EHOSTUNREACH: u32 = 113;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ConnectErrorRecord {
    header: EventHeader,
    body: ConnectErrorBody,
}

/// The end of a `connect`, on any kernel.
#[inline(always)]
pub fn ended(call: Call<Direct>, result: i64) -> Result<(), Error> {
    if !may_be_local(result) || Task::<Probed>::current().is_compat()? {
        return Ok(());
    }
    failed(call, result)
}

/// Whether this result can come from a connect that sent nothing. Refusals and time-outs are answers to a SYN.
#[inline(always)]
fn may_be_local(result: i64) -> bool {
    matches!(
        result.wrapping_neg() as u32,
        EPERM
            | EACCES
            | EINVAL
            | EAFNOSUPPORT
            | EADDRINUSE
            | EADDRNOTAVAIL
            | ENETDOWN
            | ENETUNREACH
            | ENOBUFS
            | EHOSTUNREACH
    )
}

/// Reports a failed connect, unless it was not TCP or a SYN did leave.
#[inline(always)]
fn failed<C: Object>(call: Call<C>, result: i64) -> Result<(), Error> {
    let fd = call.argument::<0>()? as u32;
    let task = Task::<Probed>::current();
    let Some(file) = task.file(fd)? else { return Ok(()) };
    let Some(sock) = socket(file)? else { return Ok(()) };
    // The first SYN chooses the first sequence number, so a socket without one never sent anything. With one, a
    // route's ICMP answer may be what failed, and the socket's own state change has told of it.
    if !sock.is_tcp()? || sock.written()? != 0 {
        return Ok(());
    }
    let Some((family, remote_port, remote_addr)) = destination(call.argument::<1>()?) else { return Ok(()) };
    let header = ring::header(kind::CONNECT_ERROR, 0, size_of::<ConnectErrorRecord>() as u32);
    let body = ConnectErrorBody {
        py_context: python::current_context(header.tgid, header.tid),
        error: result.wrapping_neg() as u32,
        remote_port,
        family,
        remote_addr,
        netns: task.netns()?,
        fd,
    };
    ring::submit_fixed(&ConnectErrorRecord { header, body }, Wake::Now)
}

/// Family, port and address of a user-space `sockaddr_in` or `sockaddr_in6`.
#[inline(always)]
fn destination(address: u64) -> Option<(u16, u16, [u8; 16])> {
    let base = address as *const u8;
    // SAFETY: the helper checks the addresses and reports faults.
    unsafe {
        let [family, port]: [u16; 2] = bpf_probe_read_user(base.cast()).ok()?;
        let remote = match family {
            AF_INET => v4_mapped(bpf_probe_read_user(base.wrapping_add(4).cast()).ok()?),
            AF_INET6 => bpf_probe_read_user(base.wrapping_add(8).cast()).ok()?,
            _ => return None,
        };
        Some((family, u16::from_be(port), remote))
    }
}
