//! Writes of watched processes: standard output and error, and what the agent asks for besides.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    mem::offset_of,
};

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use ktrdr_ebpf_common::{
    Counter, WriteBody, file, flags, kind,
    limits::{MAX_FILES, MAX_PAYLOAD, MAX_WATCHED, MAX_WRITE_RECORDS, WATCH_WINDOW_NS},
    maps::{FileId, Watch},
};

use crate::{
    by_process::{ByProcess, Held},
    constants::HAS_LOGS,
    counters::Tally,
    error::Error,
    file::Inode,
    memory::Object,
    payload, python, ring,
    scratch::{self, Place, WRITE_HEAD, WriteHead},
    speakers,
    syscall::{Buffer, Call},
    task::{Task, current_ids},
};

#[map]
static WATCHED: Array<Watch> = Array::with_max_entries(MAX_WATCHED, 0);

#[map]
static WATCHED_BESIDE: HashMap<u32, Watch> = HashMap::with_max_entries(MAX_WATCHED, 0);

#[map]
static BESIDE: Array<u32> = Array::with_max_entries(MAX_WATCHED, 0);

const WATCHES: ByProcess<Watch> =
    ByProcess { places: &WATCHED, beside: &WATCHED_BESIDE, any_beside: &BESIDE };

impl Held for Watch {
    #[inline(always)]
    fn whose(entry: *mut Self) -> *mut u32 {
        entry.wrapping_byte_add(offset_of!(Watch, tgid)).cast()
    }
}

#[map]
static FILES: LruHashMap<FileId, u32> = LruHashMap::with_max_entries(MAX_FILES, 0);

const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// A watched process.
#[derive(Clone, Copy)]
pub struct Watched {
    watch: *mut Watch,
    tgid: u32,
    tid: u32,
}

/// The current process, if its writes are watched.
#[inline(always)]
pub fn current() -> Option<Watched> {
    let (tgid, tid) = current_ids();
    of(tgid, tid)
}

/// A thread's process, if its writes are watched: one look-up, and all that others pay.
#[inline(always)]
pub fn of(tgid: u32, tid: u32) -> Option<Watched> {
    if HAS_LOGS.get() == 0 {
        return None;
    }
    let watch = WATCHES.entry(tgid)?;
    Some(Watched { watch, tgid, tid })
}

/// The process ended: its number will be another's.
#[inline(always)]
pub fn forget(tgid: u32) {
    if HAS_LOGS.get() == 0 {
        return;
    }
    WATCHES.forget(tgid);
}

/// What is written to, or read from.
#[derive(Clone, Copy)]
pub struct Target {
    /// Kind of the record: `kind::WRITE` or `kind::READ`.
    pub record: u16,
    pub fd: u32,
    pub id: FileId,
    pub kind: u8,
    pub flags: u16,
    /// Of interest only if it begins like JSON.
    pub json: bool,
    pub wake: ring::Wake,
}

/// The process is watched from now on, and answers in JSON on what may not be its standard output any more.
#[inline(always)]
pub fn begin(tgid: u32, rate: u32) {
    const NO_EXIST: u64 = 1;
    if HAS_LOGS.get() == 0 {
        return;
    }
    match WATCHES.entry(tgid) {
        // SAFETY: a valid map value; one aligned `u32`. The agent, which may write it just now, says the same soon.
        Some(watch) => unsafe { (*watch).flags |= Watch::JSON },
        None => WATCHES.put_beside(tgid, &Watch::new(tgid, rate, Watch::JSON), NO_EXIST),
    }
}

impl Watched {
    /// A write of `len` bytes to a descriptor that is no TCP socket. `unix`: it is a Unix socket.
    #[inline(always)]
    pub fn wrote<C: Object, T: Object>(
        self,
        task: Task<T>,
        call: Call<C>,
        fd: u32,
        len: u32,
        unix: bool,
        place: Place,
    ) -> Result<(), Error> {
        let Some(target) = self.target(task, fd, unix)? else { return Ok(()) };
        if !self.within_rate(len) {
            // A write to a Unix socket is seen twice, and counted where sockets are seen.
            if !unix {
                // SAFETY: a valid place in a map's value.
                unsafe { self.flood(fd).write(fd.wrapping_add(1)) };
            }
            return Ok(());
        }
        let buffer = Buffer::of_send(call)?;
        let scratch = scratch::here(place)?;
        let Buffer::Flat { base, .. } = buffer else {
            let copied = payload::copy(buffer, (len as usize).min(MAX_PAYLOAD), place, scratch);
            if target.json && !begins_like_json(scratch) {
                return Ok(());
            }
            return self.send(target, len, 0, copied, scratch);
        };
        self.parts(target, base, len, place, scratch)
    }

    /// A transfer of `len` bytes at `base`, in parts.
    #[inline(always)]
    pub fn parts(
        self,
        target: Target,
        base: u64,
        len: u32,
        place: Place,
        scratch: &mut scratch::Scratch,
    ) -> Result<(), Error> {
        for part in 0..MAX_WRITE_RECORDS {
            let offset = part * MAX_PAYLOAD as u32;
            if part > 0 && offset >= len {
                break;
            }
            let buffer = Buffer::Flat { base: base.wrapping_add(offset.into()), len: 0 };
            let copied = payload::copy(buffer, (len - offset) as usize, place, scratch);
            if part == 0 && target.json && !begins_like_json(scratch) {
                return Ok(());
            }
            self.send(target, len, offset, copied, scratch)?;
            if copied.fault {
                break;
            }
        }
        Ok(())
    }

    /// The file, if writes to it are of interest.
    #[inline(always)]
    fn target<T: Object>(self, task: Task<T>, fd: u32, unix: bool) -> Result<Option<Target>, Error> {
        let Some(file) = task.file(fd)? else { return Ok(None) };
        let inode = file.inode()?;
        let kind = if unix { file::UNIX_SOCKET } else { inode.kind()? };
        if kind == 0 {
            return Ok(None);
        }
        let id = inode.id()?;
        // SAFETY: a valid map value; one aligned `u32`.
        let wanted = unsafe { (*self.watch).flags };
        let (mut flags, mut json) = (0, false);
        let mut fd = fd;
        if wanted & Watch::JSON != 0
            && let Some(answers) = speakers::answers(self.tgid, file)
        {
            // Told under the number it had when the program began; what has taken its place since is no answer.
            fd = match (answers, fd) {
                (true, _) => STDOUT,
                (false, STDOUT) => STDERR,
                (false, fd) => fd,
            };
        }
        let standard = fd == STDOUT || fd == STDERR;
        if !standard {
            let pipe = kind == file::PIPE || unix;
            let piped = wanted & (Watch::PIPES | Watch::JSON) != 0 && pipe;
            json = piped && wanted & Watch::PIPES == 0;
            if !piped && !same(task, STDOUT, inode)? && !same(task, STDERR, inode)? {
                if kind != file::REGULAR || wanted & Watch::FILES == 0 {
                    return Ok(None);
                }
                // SAFETY: a valid map value; one aligned `u32`.
                match FILES.get_ptr(id).map(|log| unsafe { *log }) {
                    Some(0) => return Ok(None),
                    Some(_) => {}
                    None => flags = flags::UNKNOWN_FILE,
                }
            }
        }
        Ok(Some(Target { record: kind::WRITE, fd, id, kind, flags, json, wake: ring::Wake::IfFull }))
    }

    /// Takes `len` bytes from what the process may still write in this window. Processors that do so at once may let a
    /// write more or less pass; what is not captured is counted exactly.
    #[inline(always)]
    pub fn within_rate(self, len: u32) -> bool {
        // SAFETY: a valid map value, whose numbers are aligned.
        unsafe {
            let watch = self.watch;
            let now = aya_ebpf::helpers::bpf_ktime_get_boot_ns();
            if now.wrapping_sub((*watch).window) >= WATCH_WINDOW_NS {
                (*watch).window = now;
                (*watch).used = 0;
                (*watch).flooding = [0; Watch::FLOODS];
            }
            if (*watch).used < (*watch).rate as u64 {
                (*watch).used += u64::from(len.min(MAX_WRITE_RECORDS * MAX_PAYLOAD as u32));
                return true;
            }
        }
        self.beyond(len);
        false
    }

    /// Whether a write goes on with a flood: the process may not write more in this window, and what it wrote to this
    /// descriptor was beyond that before. It is counted, and not looked at: a flood of 100,000 lines a second must cost
    /// its process next to nothing. That the descriptor stands for another file meanwhile shows with the next window.
    #[inline(always)]
    pub fn floods(self, fd: u32, len: u32) -> bool {
        // SAFETY: a valid map value, whose numbers are aligned.
        unsafe {
            let watch = self.watch;
            if self.flood(fd).read() != fd.wrapping_add(1) || (*watch).used < (*watch).rate as u64 {
                return false;
            }
            // The clock is asked once a tick (1 to 10 ms): asking it is the dearest part of this.
            let tick = aya_ebpf::helpers::bpf_jiffies64();
            if (*watch).tick != tick {
                let now = aya_ebpf::helpers::bpf_ktime_get_boot_ns();
                if now.wrapping_sub((*watch).window) >= WATCH_WINDOW_NS {
                    return false;
                }
                (*watch).tick = tick;
            }
        }
        self.beyond(len);
        true
    }

    /// Where a descriptor's flood is noted.
    #[inline(always)]
    fn flood(self, fd: u32) -> *mut u32 {
        let slot = fd as usize & (Watch::FLOODS - 1);
        // SAFETY: a valid map value, and a place within it.
        unsafe { core::ptr::addr_of_mut!((*self.watch).flooding).cast::<u32>().add(slot) }
    }

    /// Counts a write that is not captured.
    #[inline(always)]
    fn beyond(self, len: u32) {
        // SAFETY: a valid map value; one aligned `u64`.
        unsafe {
            let lost = core::ptr::addr_of_mut!((*self.watch).lost);
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(lost, 1);
        }
        if let Some(tally) = Tally::here() {
            tally.add(Counter::WritesOverRate, 1);
            tally.add(Counter::WriteBytesOverRate, len.into());
        }
    }

    #[inline(always)]
    fn send(
        self,
        target: Target,
        len: u32,
        offset: u32,
        copied: payload::Copied,
        scratch: &mut scratch::Scratch,
    ) -> Result<(), Error> {
        let captured = copied.bytes;
        if captured > MAX_PAYLOAD {
            return Err(Error::MapEntry);
        }
        let body = WriteBody {
            py_context: python::current_context(self.tgid, self.tid),
            id: target.id,
            // SAFETY: a valid map value; one aligned `u64`.
            lost: unsafe { (*self.watch).lost },
            fd: target.fd,
            len,
            offset,
            captured: captured as u32,
            file: target.kind,
            reserved: [0; 7],
        };
        let flags = target.flags | if copied.fault { flags::FAULT } else { 0 };
        let length = (WRITE_HEAD + captured) as u32;
        let header = ring::header_of(target.record, flags, length, self.tgid, self.tid);
        let record = scratch.write_record(WriteHead { header, body }, captured);
        let tally = ring::submit(record, target.wake)?;
        tally.add(Counter::WriteBytesCaptured, captured as u64);
        let last =
            offset / MAX_PAYLOAD as u32 + 1 == MAX_WRITE_RECORDS || captured < MAX_PAYLOAD || copied.fault;
        let end = offset + captured as u32;
        if last && end < len {
            tally.add(Counter::WriteBytesTruncated, (len - end).into());
        }
        if copied.fault {
            tally.add(Counter::CopyFault, 1);
        }
        Ok(())
    }
}

/// Whether what was copied begins like a JSON object or array.
#[inline(always)]
pub fn begins_like_json(scratch: &scratch::Scratch) -> bool {
    let first = core::ptr::from_ref(&scratch.payload[0]);
    // SAFETY: a valid reference; volatile because the copy was made behind the compiler's back.
    matches!(unsafe { first.read_volatile() }, b'{' | b'[')
}

/// Whether another descriptor of the process stands for the same file.
#[inline(always)]
fn same<T: Object>(task: Task<T>, fd: u32, inode: Inode) -> Result<bool, Error> {
    match task.file(fd)? {
        Some(file) => Ok(file.inode()?.is(inode)),
        None => Ok(false),
    }
}
