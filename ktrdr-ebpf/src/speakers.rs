//! Processes that are spoken to in JSON on standard input and answer on standard output, as servers of the Model
//! Context Protocol are: found by what their descriptors are when they begin, and by what they read first.

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};
use ktrdr_ebpf_common::{
    file, kind,
    limits::{MAX_SPEAKERS, MAX_WATCHED, SPEAKER_RATE},
    maps::{FileId, Speaker as State, place_of},
};

use crate::{
    constants::{AGENT_TGID, HAS_LOGS},
    counters::add_u32,
    error::Error,
    file::File,
    filter,
    memory::{Object, Probed},
    payload,
    ring::Wake,
    scratch::{self, Place},
    syscall::{Buffer, Call},
    task::{Task, current_ids, socket},
    watch::{self, Target},
};

#[map]
static SPEAKERS: LruHashMap<u32, State> = LruHashMap::with_max_entries(MAX_SPEAKERS, 0);

#[map]
static SPEAKING: Array<u32> = Array::with_max_entries(MAX_WATCHED, 0);

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
/// `BPF_EXIST`: only instead of an entry.
const EXIST: u64 = 2;

/// A process that may be one.
#[derive(Clone, Copy)]
pub struct Speaker {
    tgid: u32,
    state: State,
}

/// A process, if it may be one: one look-up, and all that others pay.
#[inline(always)]
pub fn of(tgid: u32) -> Option<Speaker> {
    if HAS_LOGS.get() == 0 || !any(tgid) {
        return None;
    }
    // SAFETY: a valid map value, written by the process's own programs and read in its own calls.
    SPEAKERS.get_ptr(tgid).map(|state| Speaker { tgid, state: unsafe { *state } })
}

/// For a process that speaks: whether this open file is the one that it answers to.
#[inline(always)]
pub fn answers(tgid: u32, file: File) -> Option<bool> {
    let speaker = of(tgid).filter(|s| s.state.state == State::SPEAKS)?;
    Some(speaker.state.output == file.address())
}

/// The current process became another program.
#[inline(always)]
pub fn executed() -> Result<(), Error> {
    let (tgid, _) = current_ids();
    if HAS_LOGS.get() == 0 || tgid == AGENT_TGID.get() {
        return Ok(());
    }
    let task = Task::<Probed>::current();
    if let Some(input) = task.file(STDIN)?
        && let Some(output) = task.file(STDOUT)?
        && pipe(input)?.is_some()
        && pipe(output)?.is_some()
    {
        let (input, output) = (input.address(), output.address());
        // Counted before it is there, or a read could pass it by. Counts of entries that had to make room stay.
        if SPEAKERS.get_ptr(tgid).is_none() {
            counted(tgid, 1);
        }
        let _ = SPEAKERS.insert(tgid, State { input, output, state: State::CANDIDATE, reserved: 0 }, 0);
    } else {
        forget(tgid);
    }
    Ok(())
}

/// It is none, or is no more.
#[inline(always)]
pub fn forget(tgid: u32) {
    if HAS_LOGS.get() != 0 && any(tgid) && SPEAKERS.remove(tgid).is_ok() {
        counted(tgid, -1);
    }
}

/// Whether any process of its place may be one.
#[inline(always)]
fn any(tgid: u32) -> bool {
    // SAFETY: a valid map value; one aligned `u32`, volatile because others write it.
    SPEAKING.get_ptr(place_of(tgid)).is_some_and(|count| unsafe { count.read_volatile() } != 0)
}

#[inline(always)]
fn counted(tgid: u32, by: i32) {
    if let Some(count) = SPEAKING.get_ptr_mut(place_of(tgid)) {
        add_u32(count, by.cast_unsigned());
    }
}

/// The pipe or Unix socket that an open file is.
#[inline(always)]
fn pipe(file: File) -> Result<Option<(u8, FileId)>, Error> {
    let inode = file.inode()?;
    let kind = if inode.kind()? == file::PIPE {
        file::PIPE
    } else {
        match socket(file)? {
            Some(sock) if sock.is_unix()? => file::UNIX_SOCKET,
            _ => return Ok(None),
        }
    };
    Ok(Some((kind, inode.id()?)))
}

impl Speaker {
    /// Whether a call is about what was standard input when the program began, whatever its number is now.
    #[inline(always)]
    pub fn input<T: Object, C: Object>(self, task: Task<T>, call: Call<C>) -> Result<Option<File>, Error> {
        let file = task.file(call.argument::<0>()? as u32)?;
        Ok(file.filter(|file| file.address() == self.state.input))
    }

    /// It read `len` bytes of its [`input`](Self::input).
    #[inline(always)]
    pub fn read<C: Object>(self, input: File, call: Call<C>, len: u32, place: Place) -> Result<(), Error> {
        if filter::excluded(self.tgid) {
            return Ok(());
        }
        let Some((kind, id)) = pipe(input)? else { return Ok(()) };
        let base = call.argument::<1>()?;
        let scratch = scratch::here(place)?;
        let mut wake = Wake::IfFull;
        if self.state.state == State::CANDIDATE {
            let copied = payload::copy(Buffer::Flat { base, len: 1 }, 1, place, scratch);
            if copied.fault || !watch::begins_like_json(scratch) {
                forget(self.tgid);
                return Ok(());
            }
            // Not where it was removed meanwhile: it would not be counted.
            let _ = SPEAKERS.insert(self.tgid, State { state: State::SPEAKS, ..self.state }, EXIST);
            // What it answers is wanted from now on, before the agent can say so.
            watch::begin(self.tgid, SPEAKER_RATE);
            wake = Wake::Now;
        }
        let Some(process) = watch::current() else { return Ok(()) };
        if !process.within_rate(len) {
            return Ok(());
        }
        let target = Target { record: kind::READ, fd: STDIN, id, kind, flags: 0, json: false, wake };
        process.parts(target, base, len, place, scratch)
    }
}
