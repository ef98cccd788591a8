//! Working memory for data records, which are too long for the 512-byte stack.
//!
//! Send and receive programs can interrupt each other on one CPU, and where programs can be preempted any two, hence a place
//! for each; one program never interrupts itself there (the kernel refuses the second run and counts it as a recursion miss).
//! Programs of which only one copies anything in an agent's life share one. An array indexed by CPU and not
//! a per-CPU map, because values of those end at 32 KiB; the agent sizes it to the possible CPUs.

use aya_ebpf::{helpers::bpf_get_smp_processor_id, macros::map, maps::Array};
use ktrdr_ebpf_common::{
    ConnTuple, DataBody, EventHeader, WriteBody,
    limits::{MAX_IOVECS, MAX_PAYLOAD, SCRATCH_PLACES},
};

use crate::{constants::CPUS, error::Error};

const HEAD_WORDS: usize = (size_of::<EventHeader>() + size_of::<DataBody>()) / 4;
const TUPLE_WORDS: usize = size_of::<ConnTuple>() / 4;

/// Bytes before the payload, without and with a tuple.
pub const SHORT_HEAD: usize = size_of::<Head>();
pub const LONG_HEAD: usize = SHORT_HEAD + size_of::<ConnTuple>();

/// Header and body of a data record.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Head {
    pub header: EventHeader,
    pub body: DataBody,
}

/// Header and body of a write record.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WriteHead {
    pub header: EventHeader,
    pub body: WriteBody,
}

/// Bytes before the payload of a write record.
pub const WRITE_HEAD: usize = size_of::<WriteHead>();
const WRITE_WORDS: usize = WRITE_HEAD / 4;

/// A user-space `struct iovec`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Iovec {
    pub base: u64,
    pub len: u64,
}

/// Where one transfer's record is put together. The payload has one place; what precedes it starts 56 bytes before
/// or, with a tuple, 100 bytes before, so that the record lies in one piece either way.
#[repr(C)]
pub struct Scratch {
    /// Twice the limit, for the same reason as in `payload`.
    pub iovecs: [Iovec; 2 * MAX_IOVECS],
    /// Payload bytes gathered so far.
    pub filled: u64,
    /// Makes the shorter head 8-byte aligned.
    _align: u32,
    front: [u32; HEAD_WORDS + TUPLE_WORDS],
    /// Three times the limit: all that every verifier believes is a position below `MAX_PAYLOAD` and a length below
    /// twice that.
    pub payload: [u8; 3 * MAX_PAYLOAD],
}

/// A length of at most `MAX_PAYLOAD`, unchanged, in the one form that every verifier believes: masked. Those before 6.8
/// forget what a comparison of the lower half of a register told (6.1 refused programs over it).
#[inline(always)]
pub fn length(bytes: usize) -> usize {
    core::hint::black_box(bytes) & (2 * MAX_PAYLOAD - 1)
}

/// Whose working memory.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Place {
    Send,
    Recv,
    /// Of the program at the end of all system calls, whichever of the two is loaded; instead of it, of that of `write`.
    Syscall,
    /// Of the programs at the functions of single calls; see `crate::probes::functions`.
    Read,
    Writev,
    /// Of the second programs; see `crate::second`.
    SecondSend,
    SecondRecv,
}

impl Place {
    /// Of a second program.
    #[inline(always)]
    pub const fn is_second(self) -> bool {
        matches!(self, Place::SecondSend | Place::SecondRecv)
    }
}

#[map]
static SCRATCH: Array<Scratch> = Array::with_max_entries(SCRATCH_PLACES, 0);

/// The entry of this CPU.
#[inline(always)]
pub fn here(place: Place) -> Result<&'static mut Scratch, Error> {
    at(place as u32)
}

/// Likewise, by the number of the place.
#[inline(always)]
pub fn at(place: u32) -> Result<&'static mut Scratch, Error> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let scratch = SCRATCH.get_ptr_mut(place * CPUS.get() + cpu).ok_or(Error::MapEntry)?;
    // SAFETY: a valid map value, used by one run of one program at a time (see above); all bit patterns are valid.
    Ok(unsafe { &mut *scratch })
}

impl Scratch {
    /// Writes what precedes the payload and gives the whole record. `captured` is at most `MAX_PAYLOAD`.
    #[inline(always)]
    pub fn record(&mut self, head: Head, tuple: Option<ConnTuple>, captured: usize) -> &[u8] {
        let front = self.front.as_mut_ptr();
        // SAFETY: all places lie inside `front` and are aligned: `front` starts at 268, so its word 11 is at 312.
        let start = unsafe {
            let short = front.add(TUPLE_WORDS);
            short.cast::<Head>().write(head);
            match tuple {
                None => short,
                Some(tuple) => {
                    for word in 0..HEAD_WORDS {
                        front.add(word).write_volatile(short.add(word).read_volatile());
                    }
                    front.add(HEAD_WORDS).cast::<ConnTuple>().write(tuple);
                    front
                }
            }
        };
        let head_len = if tuple.is_some() { LONG_HEAD } else { SHORT_HEAD };
        // SAFETY: from `start` to the end of `front`, then `captured` bytes of the payload that follows it directly.
        unsafe { core::slice::from_raw_parts(start.cast(), head_len + length(captured)) }
    }

    /// The same for a write record.
    #[inline(always)]
    pub fn write_record(&mut self, head: WriteHead, captured: usize) -> &[u8] {
        // SAFETY: the head is shorter than `front`, and ends where it does, so it begins on a multiple of 8.
        unsafe {
            let start = self.front.as_mut_ptr().add(HEAD_WORDS + TUPLE_WORDS - WRITE_WORDS);
            start.cast::<WriteHead>().write(head);
            core::slice::from_raw_parts(start.cast(), WRITE_HEAD + length(captured))
        }
    }
}
