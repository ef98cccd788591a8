//! The ring of records. Only this file hands records to the agent and counts them.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{Array, RingBuf},
};
use ktrdr_ebpf_common::{Counter, EventHeader, limits::RING_BYTES};

use crate::{
    constants::WAKE_BYTES,
    counters::{Tally, add_u32},
    error::Error,
    task,
};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Records that found no room, ever; see [`EventHeader::losses`].
#[map]
static LOSSES: Array<u32> = Array::with_max_entries(1, 0);

/// How many records found no room so far. A record that was begun after another one's loss says so, whatever other CPUs do
/// in between; therefore a plain count, and nothing that a record which found room would take back.
#[inline(always)]
fn losses() -> u32 {
    // SAFETY: a valid, aligned map value; volatile because other CPUs write it.
    LOSSES.get_ptr(0).map_or(0, |count| unsafe { count.read_volatile() })
}

/// Whether the reader should be woken for this record alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Only if much is unread; otherwise the reader's timer finds the record.
    IfFull,
    /// At once: what it tells is rare and gone soon (a process's `/proc` entry).
    Now,
}

/// Header of a record of `len` bytes made by the current task.
#[inline(always)]
pub fn header(kind: u16, flags: u16, len: u32) -> EventHeader {
    let (tgid, tid) = task::current_ids();
    header_of(kind, flags, len, tgid, tid)
}

/// Header of a record about a given thread.
#[inline(always)]
pub fn header_of(kind: u16, flags: u16, len: u32, tgid: u32, tid: u32) -> EventHeader {
    // SAFETY: a helper without arguments.
    let ts = unsafe { bpf_ktime_get_boot_ns() };
    EventHeader { ts, ..header_without_time(kind, flags, len, tgid, tid) }
}

/// The same for one that has no time of its own.
#[inline(always)]
pub fn header_without_time(kind: u16, flags: u16, len: u32, tgid: u32, tid: u32) -> EventHeader {
    EventHeader { ts: 0, tgid, tid, len: EventHeader::length_and_losses(len, losses()), kind, flags }
}

/// Submits a record, whole, in exactly its length.
#[inline(always)]
pub fn submit(record: &[u8], wake: Wake) -> Result<Tally, Error> {
    submit_as(record, wake, Counter::Submitted)
}

/// The same for a record that is counted elsewhere, from where the agent adds it ([`Counter::complete`]).
#[inline(always)]
pub fn submit_as(record: &[u8], wake: Wake, counter: Counter) -> Result<Tally, Error> {
    let flags = match wake {
        Wake::Now => BPF_RB_FORCE_WAKEUP,
        // Either way the flag is explicit: the default wakes whenever the reader has caught up, at 1.4 µs each.
        Wake::IfFull if fills_another_step(EVENTS.query(BPF_RB_AVAIL_DATA.into()), record.len()) => {
            BPF_RB_FORCE_WAKEUP
        }
        Wake::IfFull => BPF_RB_NO_WAKEUP,
    };
    if EVENTS.output::<[u8]>(record, flags.into()).is_err() {
        if let Some(count) = LOSSES.get_ptr_mut(0) {
            add_u32(count, 1);
        }
        return Err(Error::RingFull);
    }
    let tally = Tally::here().ok_or(Error::MapEntry)?;
    tally.add(counter, 1);
    Ok(tally)
}

/// Whether this record lifts the unread bytes over the wake-up level or a multiple of it. Not whenever they are above:
/// a reader that is busy catching up needs no wake-up per record (5 µs each in a VM). Should processors that submit at
/// once both miss a step, the next step or the reader's timer makes up for it.
#[inline(always)]
fn fills_another_step(unread: u64, len: usize) -> bool {
    let step = WAKE_BYTES.get();
    // The ring puts 8 bytes before each record and aligns it to 8.
    let taken = (len as u64 + 15) & !7;
    (unread & (step - 1)) + taken >= step
}

/// Submits a record of fixed shape: header and body, without padding between them.
#[inline(always)]
pub fn submit_fixed<T: zerocopy::IntoBytes + zerocopy::Immutable>(
    record: &T,
    wake: Wake,
) -> Result<(), Error> {
    submit(record.as_bytes(), wake).map(|_| ())
}
