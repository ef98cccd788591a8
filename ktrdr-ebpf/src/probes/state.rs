//! `sock:inet_sock_set_state`: the life of connections and listeners. May run in softirq, where the current task
//! means nothing.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ktrdr_ebpf_common::{Counter, EventHeader, StateBody, kind};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    counters::count,
    error::{self, Error},
    filter,
    memory::{Direct, Object},
    python,
    ring::{self, Wake},
    sock::Sock,
};

// include/net/tcp_states.h
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct StateRecord {
    header: EventHeader,
    body: StateBody,
}

/// `(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    error::run(|| {
        let (old, new) = (ctx.arg::<i32>(1), ctx.arg::<i32>(2));
        let sock = Sock(Direct::at(ctx.arg::<*const u8>(0)));
        if !tells(old, new) || !sock.is_tcp()? {
            return Ok(());
        }
        if may_be_left_out(old, new) && filter::left_out(sock)? {
            count(Counter::StatesLeftOut);
            return Ok(());
        }
        changed(sock, old, new)
    })
}

/// Begin, success, failure and end of connections and listeners; not how the two directions close one by one.
#[inline(always)]
fn tells(old: i32, new: i32) -> bool {
    match (old, new) {
        (SYN_SENT, _) | (_, SYN_SENT | LISTEN) | (SYN_RECV, ESTABLISHED) => true,
        // An unfinished handshake of a server: nobody was told of it.
        (SYN_RECV, CLOSE) => false,
        (_, CLOSE) => true,
        _ => false,
    }
}

/// What is not told of a connection that is left out: that a server has it, and its end. How a connect went is told of each
/// (a refusal is what the operator waits for), as are listeners.
#[inline(always)]
fn may_be_left_out(old: i32, new: i32) -> bool {
    match (old, new) {
        (SYN_RECV, ESTABLISHED) => true,
        (SYN_SENT | LISTEN, _) => false,
        (_, CLOSE) => true,
        _ => false,
    }
}

#[inline(always)]
fn changed(sock: Sock<Direct>, old: i32, new: i32) -> Result<(), Error> {
    let header = ring::header(kind::STATE, 0, size_of::<StateRecord>() as u32);
    let in_caller = old == CLOSE;
    let positions = sock.positions()?;
    let body = StateBody {
        conn: sock.conn()?,
        py_context: if in_caller { python::current_context(header.tgid, header.tid) } else { 0 },
        write_seq: positions.written,
        copied_seq: positions.copied,
        old: old as u8,
        new: new as u8,
        error: sock.error()?,
        tuple: sock.tuple()?,
    };
    let wake = match (old, new) {
        // A refused connect is what the operator waits for.
        (SYN_SENT, CLOSE) => Wake::Now,
        // What a service writes about its first request is seen only if its process is watched by then.
        (_, LISTEN) => Wake::Now,
        _ => Wake::IfFull,
    };
    ring::submit_fixed(&StateRecord { header, body }, wake)
}
