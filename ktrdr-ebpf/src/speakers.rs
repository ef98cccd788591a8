//! Processes that are spoken to in JSON on standard input and answer on standard output, as servers of the Model
//! Context Protocol are: found by what their descriptors are when they begin, and by what they read first.

use aya_ebpf::{macros::map, maps::LruHashMap};
use ktrdr_ebpf_common::{
    file, kind,
    limits::{MAX_SPEAKERS, SPEAKER_RATE},
    maps::{FileId, Speaker as State},
};

use crate::{
    constants::{AGENT_TGID, HAS_LOGS},
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

const STDIN: u32 = 0;
const STDOUT: u32 = 1;

/// A process that may be one.
#[derive(Clone, Copy)]
pub struct Speaker {
    tgid: u32,
    state: State,
}

#[inline(always)]
fn of(tgid: u32) -> Option<Speaker> {
    // SAFETY: a valid map value, written by the process's own programs and read in its own calls.
    SPEAKERS.get_ptr(tgid).map(|state| Speaker { tgid, state: unsafe { *state } })
}

/// The current process, if it may be one: one look-up, and all that others pay.
#[inline(always)]
pub fn current() -> Option<Speaker> {
    if HAS_LOGS.get() == 0 {
        return None;
    }
    of(current_ids().0)
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
        let _ = SPEAKERS.insert(tgid, State { input, output, state: State::CANDIDATE, reserved: 0 }, 0);
    } else {
        forget(tgid);
    }
    Ok(())
}

/// It is none, or is no more.
#[inline(always)]
pub fn forget(tgid: u32) {
    if HAS_LOGS.get() != 0 {
        let _ = SPEAKERS.remove(tgid);
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
    /// It read `len` bytes.
    #[inline(always)]
    pub fn read<T: Object, C: Object>(
        self,
        task: Task<T>,
        call: Call<C>,
        len: u32,
        place: Place,
    ) -> Result<(), Error> {
        let fd = call.argument::<0>()? as u32;
        let Some(input) = task.file(fd)? else { return Ok(()) };
        // Nothing but what was standard input when the program began, whatever its number is now.
        if input.address() != self.state.input || filter::excluded(self.tgid) {
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
            let _ = SPEAKERS.insert(self.tgid, State { state: State::SPEAKS, ..self.state }, 0);
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
