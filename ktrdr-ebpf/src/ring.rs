//! The ring of records. Only this file hands records to the agent and counts them.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{Array, RingBuf},
};
use ktrdr_ebpf_common::{Counter, EventHeader, flags::LOSSES_SHIFT, limits::RING_BYTES};

use crate::{
    constants::WAKE_BYTES,
    counters::{Tally, add_u32},
    error::Error,
    task,
};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// See [`LOSSES_SHIFT`]. Read for each record, written around losses only.
#[map]
static LOSSES: Array<u32> = Array::with_max_entries(1, 0);

/// Where losses are counted, and the count.
#[inline(always)]
fn losses() -> Option<(*mut u32, u32)> {
    let at = LOSSES.get_ptr_mut(0)?;
    // SAFETY: a valid, aligned map value; volatile because other CPUs write it.
    Some((at, unsafe { at.read_volatile() }))
}

/// Counts when the question whether something is missing gets another answer. Two CPUs that find the same answer at
/// once count twice, which at worst says that more is missing.
#[inline(always)]
fn note_loss(missing: bool) {
    if let Some((at, count)) = losses()
        && (count & 1 != 0) != missing
    {
        add_u32(at, 1);
    }
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
    let losses = losses().map_or(0, |(_, count)| count);
    EventHeader { ts, tgid, tid, len, kind, flags: flags | (losses as u16) << LOSSES_SHIFT }
}

/// Submits a record, whole, in exactly its length.
#[inline(always)]
pub fn submit(record: &[u8], wake: Wake) -> Result<Tally, Error> {
    let flags = match wake {
        Wake::Now => BPF_RB_FORCE_WAKEUP,
        // Either way the flag is explicit: the default wakes whenever the reader has caught up, at 1.4 µs each.
        Wake::IfFull if fills_another_step(EVENTS.query(BPF_RB_AVAIL_DATA.into()), record.len()) => {
            BPF_RB_FORCE_WAKEUP
        }
        Wake::IfFull => BPF_RB_NO_WAKEUP,
    };
    if EVENTS.output::<[u8]>(record, flags.into()).is_err() {
        note_loss(true);
        return Err(Error::RingFull);
    }
    note_loss(false);
    let tally = Tally::here().ok_or(Error::MapEntry)?;
    tally.add(Counter::Submitted, 1);
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
