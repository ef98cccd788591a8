//! Processes that are spoken to in JSON on standard input and answer on standard output, as servers of the Model
//! Context Protocol are: found by what their descriptors are when they begin, and by what they read first.

use aya_ebpf::{macros::map, maps::LruHashMap};
use ktrdr_ebpf_common::{
    file, kind,
    limits::{MAX_SPEAKERS, SPEAKER_RATE},
    maps::{CANDIDATE, FileId, SPEAKS},
};

use crate::{
    constants::{AGENT_TGID, HAS_LOGS},
    error::Error,
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
static SPEAKERS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(MAX_SPEAKERS, 0);

const STDIN: u32 = 0;
const STDOUT: u32 = 1;

/// A process that may be one.
#[derive(Clone, Copy)]
pub struct Speaker {
    tgid: u32,
    candidate: bool,
}

/// The current process, if it may be one: one look-up, and all that others pay.
#[inline(always)]
pub fn current() -> Option<Speaker> {
    if HAS_LOGS.get() == 0 {
        return None;
    }
    let (tgid, _) = current_ids();
    // SAFETY: a valid map value; one aligned `u32`.
    let state = SPEAKERS.get_ptr(tgid).map(|state| unsafe { *state })?;
    Some(Speaker { tgid, candidate: state == CANDIDATE })
}

/// The current process became another program.
#[inline(always)]
pub fn executed() -> Result<(), Error> {
    let (tgid, _) = current_ids();
    if HAS_LOGS.get() == 0 || tgid == AGENT_TGID.get() {
        return Ok(());
    }
    if pipe(STDIN)?.is_some() && pipe(STDOUT)?.is_some() {
        let _ = SPEAKERS.insert(tgid, CANDIDATE, 0);
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

/// The pipe or Unix socket behind a descriptor of the current process.
#[inline(always)]
fn pipe(fd: u32) -> Result<Option<(u8, FileId)>, Error> {
    let Some(file) = Task::<Probed>::current().file(fd)? else { return Ok(None) };
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
    pub fn read<C: Object>(self, call: Call<C>, len: u32, place: Place) -> Result<(), Error> {
        if call.argument::<0>()? as u32 != STDIN || filter::excluded(self.tgid) {
            return Ok(());
        }
        let base = call.argument::<1>()?;
        let scratch = scratch::here(place)?;
        let mut wake = Wake::IfFull;
        if self.candidate {
            let copied = payload::copy(Buffer::Flat { base, len: 1 }, 1, place, scratch);
            if copied.fault || !watch::begins_like_json(scratch) {
                forget(self.tgid);
                return Ok(());
            }
            let _ = SPEAKERS.insert(self.tgid, SPEAKS, 0);
            // What it answers is wanted from now on, before the agent can say so.
            watch::begin(self.tgid, SPEAKER_RATE);
            wake = Wake::Now;
        }
        let Some(process) = watch::current() else { return Ok(()) };
        let Some((kind, id)) = pipe(STDIN)? else { return Ok(()) };
        if !process.within_rate(len) {
            return Ok(());
        }
        let target = Target { record: kind::READ, fd: STDIN, id, kind, flags: 0, json: false, wake };
        process.parts(target, base, len, place, scratch)
    }
}
