//! From a finished transfer to its record: the one path that all hooks share.

use ktrdr_ebpf_common::{Counter, DataBody, RECV, SEND, flags, kind};

use crate::{
    bodies::Part,
    constants::UNKNOWN_CAPTURE,
    counters::{Tally, count},
    error::Error,
    filter, given,
    memory::Object,
    payload, python, ring,
    scratch::{self, Head, Place},
    sock::{Sock, TransferPositions},
    syscall::{Buffer, Call},
};

const MSG_OOB: u32 = 0x1;
const MSG_PEEK: u32 = 0x2;
const MSG_TRUNC: u32 = 0x20;
const MSG_ERRQUEUE: u32 = 0x2000;
/// Receives that leave the stream where it is: a look, urgent data, the error queue.
const NOT_THE_STREAM: u32 = MSG_OOB | MSG_PEEK | MSG_ERRQUEUE;

/// A transfer as a hook saw it.
#[derive(Clone, Copy)]
pub struct Transfer {
    /// [`SEND`] or [`RECV`].
    pub direction: u8,
    /// What the call returned.
    pub result: i64,
    /// `MSG_*` flags of a receive.
    pub msg_flags: u32,
}

impl Transfer {
    /// Whether the stream moved, or ended. The cheapest question, asked first.
    #[inline(always)]
    pub fn counts(self) -> bool {
        if self.direction == SEND {
            self.result > 0
        } else {
            self.result >= 0 && self.msg_flags & NOT_THE_STREAM == 0
        }
    }
}

/// Sends the record of a transfer by a thread (tgid, tid) that [`Transfer::counts`] on a TCP socket. `call` gives the system
/// call's registers, `None` for one whose arguments cannot be followed.
#[inline(always)]
pub fn transfer<S: Object, C: Object>(
    transfer: Transfer,
    sock: Sock<S>,
    place: Place,
    (tgid, tid): (u32, u32),
    call: impl FnOnce() -> Result<Option<Call<C>>, Error>,
) -> Result<(), Error>
where
    Sock<S>: TransferPositions,
{
    if filter::excluded(tgid) {
        count(Counter::Excluded);
        return Ok(());
    }
    // On a Python thread a receive shows that the loop went on to other work: the causality of its other
    // connections needs to know, not what was received.
    let told_anyway = || transfer.direction == RECV && python::current_context(tgid, tid) != 0;
    let left_out = filter::left_out(sock)?;
    // It may have brought a request that nobody sees, whether or not the context can be read at this moment.
    if left_out && !(transfer.direction == RECV && python::is_thread(tgid, tid)) {
        count(Counter::TransfersLeftOut);
        return Ok(());
    }
    let written = if transfer.direction == SEND { sock.conn_so_far()? } else { 0 };
    let conn = sock.conn()?;
    // Of one that is left out the addresses tell the agent that it is.
    let policy = if left_out { None } else { filter::capture_limit(conn) };
    let limit = match policy {
        _ if left_out => 0,
        Some(0) if told_anyway() => 0,
        Some(0) => {
            count(Counter::Ignored);
            return Ok(());
        }
        Some(limit) => limit,
        None => UNKNOWN_CAPTURE.get(),
    };
    let buffer = match call()? {
        // The bytes were discarded instead of copied.
        _ if transfer.msg_flags & MSG_TRUNC != 0 => Buffer::None,
        None => Buffer::None,
        Some(call) if transfer.direction == SEND => Buffer::of_send(call)?,
        Some(call) => Buffer::of_receive(call)?,
    };
    let scratch = scratch::here(place)?;
    let len = transfer.result as u32;
    let mut flags = if place.is_second() { flags::SECOND } else { 0 };
    let mut captured = 0;
    let mut fault = false;
    if len == 0 {
        let ended = match payload::asked_for_bytes(buffer, scratch) {
            Some(asked) => asked,
            None => sock.receive_ended()?,
        };
        if !ended {
            return Ok(());
        }
        flags |= flags::EOF;
    } else if matches!(buffer, Buffer::None) {
        flags |= flags::NO_BUFFER;
    } else if limit > 0 {
        let part = Part::of(conn, transfer.direction);
        let copied = payload::copy(buffer, part.limit(len, limit).min(len) as usize, place, scratch);
        captured = copied.bytes;
        fault = copied.fault;
        part.copied(captured as u32);
    }
    if fault {
        flags |= flags::FAULT;
    }
    let tuple = match policy {
        Some(_) => None,
        None => Some(sock.tuple()?),
    };
    if tuple.is_some() {
        flags |= flags::TUPLE;
    }
    let positions = sock.transfer_positions()?;
    let given = if transfer.direction == SEND { given::taken(written, tgid, tid, buffer) } else { 0 };
    let body = DataBody {
        conn,
        py_context: if given != 0 { given } else { python::current_context(tgid, tid) },
        seq_end: if transfer.direction == RECV { positions.copied } else { positions.written },
        len,
        captured: captured as u32,
        direction: transfer.direction,
        reserved: [0; 3],
    };
    let head_len = if tuple.is_some() { scratch::LONG_HEAD } else { scratch::SHORT_HEAD };
    let header = ring::header_of(kind::DATA, flags, (head_len + captured) as u32, tgid, tid);
    let tally = ring::submit(scratch.record(Head { header, body }, tuple, captured), ring::Wake::IfFull)?;
    note(tally, len, captured, flags);
    Ok(())
}

#[inline(always)]
fn note(tally: Tally, len: u32, captured: usize, flags: u16) {
    tally.add(Counter::BytesSeen, len.into());
    tally.add(Counter::BytesCaptured, captured as u64);
    if flags & flags::NO_BUFFER != 0 {
        tally.add(Counter::NoBuffer, 1);
    }
    if flags & flags::SECOND != 0 {
        tally.add(Counter::TransfersBySecond, 1);
    }
    if flags & flags::FAULT != 0 {
        tally.add(Counter::CopyFault, 1);
    }
}
