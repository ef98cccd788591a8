//! What a Python loop was given for a connection and has not sent yet, and who gave it.
//!
//! uvloop before 0.23 keeps what is written to a transport in a list, and sends it when all callbacks of the loop's turn have
//! run, under a context of the loop's own. Each write is told with the context that is current then, and a number that is one
//! for all that is written until the connection's next send. That send bears the number if it begins with the bytes that
//! were the first under it. Whatever else goes on in between, it is the same list then: from its beginning, and with all
//! that was told of. Any send ends the number, so that the rest of one which did not send all, or what was not told of, is the
//! loop's, as before. Whether all was written under one context is for the agent to judge: an address alone does not tell.

use aya_ebpf::{macros::map, maps::LruHashMap};
use ktrdr_ebpf_common::{
    EventHeader, GIVEN_BEFORE, PyWorkBody, flags, kind,
    limits::MAX_PY_WRITES,
    maps::{PyContexts, used},
};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    constants::{HAS_SOCKET_COOKIE, HAS_TASK_BTF},
    error::Error,
    filter,
    memory::{Direct, Probed},
    python::{self, Unreadable, user},
    ring::{self, Wake},
    syscall::Buffer,
    task::{self, Task},
};

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct PyWriteRecord {
    header: EventHeader,
    body: PyWorkBody,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Given {
    /// Where the bytes of the first write are; 0 = not known.
    first: u64,
    /// As `PyWorkBody::item`.
    number: u64,
}

/// By `Sock::conn_so_far`. An address is that of a socket older than the agent until something is received or sent there, and so no
/// other one's that is sent on by it.
#[map]
static PY_WRITES: LruHashMap<u64, Given> = LruHashMap::with_max_entries(MAX_PY_WRITES, 0);

/// A thread (tgid, tid) gives the loop an object to send on the connection of a stream: bytes, or a list of such.
#[inline(always)]
pub fn tell(tgid: u32, tid: u32, stream: u64, object: u64) -> Result<(), Error> {
    // The descriptor first: most of what it may be is no connection.
    let fd = Unreadable::or(descriptor(stream), u32::MAX);
    let Some(conn) = connection(fd)? else { return Ok(()) };
    let Some(first) = Unreadable::or(first_bytes(object), Some(0)) else { return Ok(()) };
    let known = PY_WRITES.get_ptr(conn);
    let flags = if known.is_some() { flags::BEHIND } else { 0 };
    let header = ring::header_of(kind::PY_WRITE, flags, size_of::<PyWriteRecord>() as u32, tgid, tid);
    // SAFETY: a valid map value, which nobody changes while it is there.
    let number = known.map_or(header.ts << 2 | GIVEN_BEFORE, |given| unsafe { (*given).number });
    let body = PyWorkBody { py_context: python::current_context(tgid, tid), item: number };
    ring::submit_fixed(&PyWriteRecord { header, body }, Wake::IfFull)?;
    if known.is_none() {
        // Full of connections that were written to later: the send of this one will be the loop's.
        let _ = PY_WRITES.insert(conn, Given { first, number }, 0);
    }
    Ok(())
}

/// A thread (tgid, tid) sent bytes on a connection: the number under which it was told whose they are, 0 if it was not.
#[inline(always)]
pub fn taken(conn: u64, tgid: u32, tid: u32, buffer: Buffer) -> u64 {
    if !filter::in_use(used::PY_WRITES) {
        return 0;
    }
    match buffer {
        Buffer::None => take(conn, tgid, tid, 0, 0),
        Buffer::Flat { base, .. } => take(conn, tgid, tid, base, 0),
        Buffer::Vectored { list, .. } => take(conn, tgid, tid, 0, list),
    }
}

/// The same, for bytes that begin at `base`, or where the first vector at `list` says.
///
/// A global function, as `gather`: the verifier judges it once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take(conn: u64, tgid: u32, tid: u32, base: u64, list: u64) -> u64 {
    if python::writes(tgid, tid) == PyContexts::AT_ONCE {
        return 0;
    }
    let Some(given) = PY_WRITES.get_ptr(conn) else { return 0 };
    // SAFETY: a valid map value, which nobody changes while it is there.
    let Given { first, number } = unsafe { *given };
    let _ = PY_WRITES.remove(conn);
    let base = if list == 0 { base } else { user(list).unwrap_or(0) };
    if base != 0 && base == first { number } else { 0 }
}

/// The descriptor of a stream of uvloop's.
#[inline(always)]
fn descriptor(stream: u64) -> Result<u32, Unreadable> {
    /// Offset of `_handle` in an `UVStream`: the first field of its first base class (`uvloop/handles/handle.pxd`, 0.12 to
    /// 0.23), behind the object's head and the table of methods that Cython puts first.
    const HANDLE: u64 = 24;
    /// Offset of `io_watcher.fd` in libuv's `uv_stream_t` (`include/uv.h`, `uv/unix.h`), which no release of 1.x may change.
    const FD: u64 = 184;
    let handle: u64 = user(stream.wrapping_add(HANDLE))?;
    user(handle.wrapping_add(FD))
}

/// The TCP connection behind a descriptor of the current task, unless nothing is told of it.
#[inline(always)]
fn connection(fd: u32) -> Result<Option<u64>, Error> {
    let file = if HAS_TASK_BTF.get() != 0 {
        Task::<Direct>::current().file(fd)?
    } else {
        Task::<Probed>::current().file(fd)?
    };
    let Some(file) = file else { return Ok(None) };
    let Some(sock) = task::socket(file)? else { return Ok(None) };
    // Without cookies an address may be another socket's by the time of a send.
    if HAS_SOCKET_COOKIE.get() == 0 || !sock.is_tcp()? || filter::left_out(sock)? {
        return Ok(None);
    }
    let conn = sock.conn_so_far()?;
    Ok((filter::capture_limit(conn) != Some(0)).then_some(conn))
}

/// The head of an object, from its type on.
#[derive(Clone, Copy)]
#[repr(C)]
struct Head {
    kind: u64,
    /// Of those that have one (`ob_size`).
    size: u64,
    /// Of a list where its items are, of a tuple its first.
    items: u64,
}

/// Where the bytes of an object are that the loop sends first. `Some(0)`: not known, `None`: there are none.
#[inline(always)]
fn first_bytes(object: u64) -> Result<Option<u64>, Unreadable> {
    /// Offset of the bytes in a `bytes` object, behind its head, size and hash (3.8 to 3.15).
    const BYTES: u64 = 32;
    /// Bits of `tp_flags` (`Include/object.h`): of the type and of those derived from it.
    const IS_LIST: u64 = 1 << 25;
    const IS_TUPLE: u64 = 1 << 26;
    const IS_BYTES: u64 = 1 << 27;
    let Head { kind, size, items } = user(object.wrapping_add(python::TYPE))?;
    let flags = type_flags(kind)?;
    if flags & (IS_LIST | IS_TUPLE | IS_BYTES) == 0 {
        return Ok(Some(0));
    }
    if size == 0 {
        return Ok(None);
    }
    if flags & IS_BYTES != 0 {
        return Ok(Some(object.wrapping_add(BYTES)));
    }
    let first = if flags & IS_LIST != 0 { user(items)? } else { items };
    let kind = user(first.wrapping_add(python::TYPE))?;
    let bytes = type_flags(kind)? & IS_BYTES != 0;
    Ok(Some(if bytes { first.wrapping_add(BYTES) } else { 0 }))
}

#[inline(always)]
fn type_flags(kind: u64) -> Result<u64, Unreadable> {
    /// Offset of `tp_flags` in a type (3.8 to 3.15).
    const FLAGS: u64 = 168;
    user(kind.wrapping_add(FLAGS))
}
