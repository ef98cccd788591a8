//! One CPython process: its threads, and where each keeps its current context.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ktrdr_ebpf_common::maps::{PyContexts, PyForetelling, PyThread};

use super::freelist;
use super::image::{Image, ImageError};
use super::maps::{self, Mapping};
use super::memory::{Memory, ProcessMemory};
use super::offsets::{self, Offsets, Version};
use super::probed::FileId;
use super::tls;
use super::uvloop::Loop;
use super::walk::{self, ThreadState};

/// Why a process's contexts cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// No interpreter in it (yet).
    #[error("not a CPython process")]
    NotPython,
    /// The process cannot be read, or is gone.
    #[error("its memory cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Its interpreter's file cannot be used.
    #[error("{0}")]
    Image(#[from] ImageError),
    /// The file that it maps was replaced since, so what is at its path says nothing of it and cannot be probed for it.
    #[error("its interpreter {0} was replaced since it started; restart it")]
    Replaced(String),
    /// A version outside the table.
    #[error("CPython {0} is not known to this build")]
    Version(String),
    /// The layout is not the expected one, or the interpreter has not started yet.
    #[error("no thread state of the interpreter belongs to a thread of the process")]
    NoThread,
    /// The field does not hold contexts.
    #[error("the thread states do not hold contexts where CPython {0} keeps them")]
    NoContext(Version),
}

impl PythonError {
    /// May be different in a moment: the interpreter is starting.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NotPython | Self::NoThread | Self::NoContext(_))
    }
}

/// Where every thread of a process finds its own thread state: the interpreter's thread-specific value
/// (`autoTSSkey`, up to 3.14), or its thread-local variable (`_Py_tss_gilstate`), at this offset from the thread pointer
/// (x86_64: `fs` base, aarch64: `tpidr_el0`; glibc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Bytes from the thread pointer.
    pub offset: i32,
    /// The way from there to its contexts.
    pub contexts: PyContexts,
}

/// A process whose interpreter was found.
#[derive(Debug)]
pub struct PythonProcess {
    /// Process id.
    pub tgid: u32,
    /// Version.
    pub version: Version,
    /// Offsets in use.
    pub offsets: Offsets,
    /// The interpreter's file, as the agent reaches it.
    pub path: PathBuf,
    /// Which file that is.
    pub file: FileId,
    /// What the file says.
    pub image: Arc<Image>,
    /// The loop that it runs, as far as was looked for.
    pub uvloop: Loop,
    runtime: u64,
    context_type: u64,
    /// Offset of an object's type.
    object_type: u64,
    memory: ProcessMemory,
}

/// Offset of `ob_type` in an object.
const OB_TYPE: u64 = 8;
/// The same in a free-threaded build.
const OB_TYPE_FREE_THREADED: u64 = 24;

/// Offset of `tid` in glibc's `struct pthread` (x86_64: `nptl/descr.h` behind a 704-byte `tcbhead_t`).
const PTHREAD_TID: u64 = 0x2d0;
/// Bytes of a pthread structure searched for the thread id and the thread-specific values: glibc 2.36 has 0x900.
const PTHREAD_SIZE: usize = 0x900;
/// Bytes beside the thread pointer that are searched for the interpreter's thread-local variables: the executable's and
/// its libraries' lie there side by side, a few hundred bytes in all.
pub(super) const STATIC_TLS: usize = 0x1000;

impl PythonProcess {
    /// Looks at a process. `image` gives the parsed file at a path (cached by the caller), of this name to the process.
    ///
    /// # Errors
    /// It is no CPython process, or not one that can be followed.
    pub fn open(
        tgid: u32,
        mut image: impl FnMut(FileId, &Path, &str) -> Result<Arc<Image>, ImageError>,
    ) -> Result<Self, PythonError> {
        for mapping in maps::candidates(tgid)? {
            let path = reachable(tgid, &mapping);
            if mapping.deleted {
                // Whatever else it may be: without Python's name it is not said to be one.
                match mapping.path.contains("python") {
                    true => return Err(PythonError::Replaced(mapping.path)),
                    false => continue,
                }
            }
            let file = FileId::of(&path).map_err(ImageError::from)?;
            let image = match image(file, &path, &mapping.path) {
                Ok(image) => image,
                Err(ImageError::NotPython) => continue,
                Err(e) => return Err(e.into()),
            };
            let Some(bias) = image.bias(mapping.start, mapping.offset) else { continue };
            let memory = ProcessMemory::open(tgid)?;
            let runtime = image.runtime.wrapping_add(bias);
            let published = offsets::published(&memory, runtime)?;
            let version = published.map(|p| p.version).or(image.version);
            let Some(version) = version else {
                return Err(PythonError::Version("of unknown version".into()));
            };
            let mut offsets = offsets::by_version(version.minor)
                .ok_or_else(|| PythonError::Version(version.to_string()))?;
            if let Some(p) = published {
                offsets.interpreters = p.interpreters;
                offsets.interp_next = p.interp_next;
                offsets.threads = p.threads;
            }
            let free_threaded = published.is_some_and(|p| p.free_threaded);
            return Ok(Self {
                tgid,
                version,
                offsets,
                path,
                file,
                context_type: image.context_type.wrapping_add(bias),
                image,
                uvloop: Loop::Unknown,
                runtime,
                object_type: if free_threaded { OB_TYPE_FREE_THREADED } else { OB_TYPE },
                memory,
            });
        }
        Err(PythonError::NotPython)
    }

    /// The threads of the process that run Python, with their thread states.
    ///
    /// # Errors
    /// Nothing in the interpreter's list belongs to this process, or it holds no contexts: the layout is not what
    /// was expected, or the interpreter has not started.
    pub fn threads(&self) -> Result<Vec<(u32, ThreadState)>, PythonError> {
        let states = walk::thread_states(&self.memory, self.runtime, &self.offsets)?;
        let live = live_threads(self.tgid)?;
        let found = match_threads(&self.memory, &states, &live);
        if found.is_empty() {
            return Err(PythonError::NoThread);
        }
        // A context may go while it is looked at, so one proof is enough; but something else in all of them is not.
        let contexts = found.iter().map(|(_, s)| s.context).filter(|c| *c != 0);
        let kinds: Vec<bool> = contexts
            .map(|c| {
                self.memory.u64(c.wrapping_add(self.object_type)).is_ok_and(|kind| kind == self.context_type)
            })
            .collect();
        if !kinds.is_empty() && !kinds.contains(&true) {
            return Err(PythonError::NoContext(self.version));
        }
        Ok(found)
    }

    /// What the kernel programs need of each thread.
    ///
    /// # Errors
    /// As [`Self::threads`].
    pub fn resolve_threads(&self) -> Result<Vec<(u32, PyThread)>, PythonError> {
        Ok(self.threads()?.into_iter().map(|(tid, state)| (tid, self.kernel_thread(&state))).collect())
    }

    fn kernel_thread(&self, state: &ThreadState) -> PyThread {
        PyThread { tstate: state.addr, contexts: self.contexts(), tgid: self.tgid, reserved: 0 }
    }

    /// Where each thread, also one that does not exist yet, finds its thread state; `None` where that is not known
    /// (other C libraries, other machines, no agreement between the threads, or too much of it).
    pub fn tls(&self, threads: &[(u32, ThreadState)]) -> Option<Tls> {
        let (mut specific, mut local): (Option<Vec<i32>>, Option<Vec<i32>>) = (None, None);
        // A few threads tell as much as ten thousand.
        for (_, state) in threads.iter().take(16) {
            let (pointer, locals) = tls::layout(&self.memory, state.pthread)?;
            let mut raw = [0; PTHREAD_SIZE];
            let values = readable_prefix(&self.memory, state.pthread, &mut raw);
            // Behind the structure other variables begin, where it lies before the thread pointer.
            let structure = usize::try_from(pointer - state.pthread).ok().filter(|size| *size > 0);
            let values = values.get(..structure.unwrap_or(values.len())).unwrap_or(values);
            let begin = state.pthread.wrapping_sub(pointer) as i32;
            common(&mut specific, values, begin, state.addr);
            let mut raw = [0; STATIC_TLS];
            let variables =
                readable_prefix(&self.memory, pointer.wrapping_add_signed(locals.into()), &mut raw);
            common(&mut local, variables, locals, state.addr);
        }
        let offset = match (specific?.first(), local?.as_slice()) {
            (Some(offset), _) => *offset,
            // Of two one is `_Py_tss_tstate`, which is null while the thread waits: another look will tell.
            (None, [offset]) => *offset,
            (None, _) => return None,
        };
        Some(self.tls_at(offset))
    }

    /// `PyContextObject`: the object's head, then `ctx_prev`, `ctx_vars`, `ctx_weakreflist`, `ctx_entered`, in this
    /// order from 3.7 to 3.15. The head ends behind the type.
    fn entered_offset(&self) -> u16 {
        self.object_type as u16 + 8 + 3 * 8
    }

    /// Where a thread state has its context, and a context what tells whose it is.
    fn contexts(&self) -> PyContexts {
        PyContexts {
            current: self.offsets.context as u16,
            entered: self.entered_offset(),
            threads_enter: self.offsets.threads_in_contexts.into(),
            writes: match self.uvloop {
                Loop::Unknown | Loop::AtOnce => PyContexts::AT_ONCE,
                Loop::Later(passed) => passed,
            },
        }
    }

    /// The same for a process of which more is known now.
    pub fn tls_at(&self, offset: i32) -> Tls {
        Tls { offset, contexts: self.contexts() }
    }

    /// Offset of the free list of contexts in the interpreter's structure. `None`: it is empty now, or changes, and another
    /// look may find it.
    pub fn free_contexts(&self) -> Option<u32> {
        let interpreter = self.memory.u64(self.runtime.wrapping_add(self.offsets.interpreters)).ok()?;
        let thread = self.memory.u64(interpreter.wrapping_add(self.offsets.threads)).ok()?;
        // A thread state leads to its interpreter where the kernel programs will go that way.
        let back = self.memory.u64(thread.wrapping_add(PyForetelling::TSTATE_INTERP.into())).ok()?;
        let weak_references = self.object_type + 8 + 2 * 8;
        let contexts = freelist::Contexts {
            kind: self.context_type,
            object_type: self.object_type,
            links: [weak_references, 0],
        };
        (back == interpreter).then(|| freelist::find(&self.memory, interpreter, contexts))?
    }

    /// The context at the head of that list, 0 for none: the next copy, as the kernel programs see it.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn free_context(&self, head: u32) -> io::Result<u64> {
        let interpreter = self.memory.u64(self.runtime.wrapping_add(self.offsets.interpreters))?;
        self.memory.u64(interpreter.wrapping_add(head.into()))
    }

    /// Whether it has such a list at all: not before 3.10, and one for each thread where there is no lock for all.
    pub fn has_free_contexts(&self) -> bool {
        self.version.minor >= 10 && self.object_type == OB_TYPE
    }

    /// Built without a lock for all threads: objects and thread states are laid out differently.
    pub fn is_free_threaded(&self) -> bool {
        self.object_type == OB_TYPE_FREE_THREADED
    }

    /// Whether the context current on this thread is a task's, i.e. not the thread's own. As the kernel programs see it.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn of_a_task(&self, tid: u32, context: u64) -> io::Result<bool> {
        let PyContexts { entered, threads_enter, .. } = self.contexts();
        let mut times = [0; 4];
        self.memory.read(context.wrapping_add(entered.into()), &mut times)?;
        let prev = u64::from(entered - PyContexts::PREV_TO_ENTERED);
        let threads =
            threads_enter != 0 && tid != self.tgid && self.memory.u64(context.wrapping_add(prev))? == 0;
        Ok(u32::from_ne_bytes(times) != 0 && !threads)
    }
}

/// Keeps the offsets, counted from `begin`, at which `raw` has this word, as did all before.
fn common(known: &mut Option<Vec<i32>>, raw: &[u8], begin: i32, sought: u64) {
    let here = |at: &i32| usize::try_from(at - begin).is_ok_and(|at| word(raw, at) == Some(sought));
    *known = Some(match known.take() {
        None => (begin..begin + raw.len() as i32).step_by(8).filter(here).collect(),
        Some(known) => known.into_iter().filter(here).collect(),
    });
}

/// Where the agent reaches the mapped file. `maps` names it as the process's mount namespace does, from the namespace's
/// root; below the process's own root, if it changed that within the agent's namespace (chroot), the name is another.
pub(super) fn reachable(tgid: u32, mapping: &Mapping) -> PathBuf {
    let inside = PathBuf::from(format!("/proc/{tgid}/root{}", mapping.path));
    let here = PathBuf::from(&mapping.path);
    let same = || here.metadata().is_ok_and(|m| m.ino() == mapping.inode);
    if !inside.exists() && same() { here } else { inside }
}

/// As much of `buf` as is mapped, in whole pages' steps.
fn readable_prefix<'b>(memory: &impl Memory, addr: u64, buf: &'b mut [u8]) -> &'b [u8] {
    let mut len = buf.len();
    while len > 0 && memory.read(addr, &mut buf[..len]).is_err() {
        len = len.saturating_sub(256);
    }
    &buf[..len]
}

fn word(raw: &[u8], at: usize) -> Option<u64> {
    raw.get(at..)?.first_chunk::<8>().map(|b| u64::from_ne_bytes(*b))
}

/// The threads of a process: id in its own pid namespace → id in the initial one.
fn live_threads(tgid: u32) -> io::Result<BTreeMap<u32, u32>> {
    /// As many as are followed in a process, and then some.
    const MAX: usize = 32_768;
    let own = innermost_pid(&fs::read_to_string(format!("/proc/{tgid}/status"))?);
    let nested = own.is_some_and(|own| own != tgid);
    let mut live = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{tgid}/task"))?.take(MAX) {
        let Some(tid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let inner = if nested {
            let Ok(status) = fs::read_to_string(format!("/proc/{tgid}/task/{tid}/status")) else { continue };
            innermost_pid(&status).unwrap_or(tid)
        } else {
            tid
        };
        live.insert(inner, tid);
    }
    Ok(live)
}

fn innermost_pid(status: &str) -> Option<u32> {
    status.lines().find_map(|l| l.strip_prefix("NSpid:"))?.split_ascii_whitespace().last()?.parse().ok()
}

fn match_threads(
    memory: &impl Memory,
    states: &[ThreadState],
    live: &BTreeMap<u32, u32>,
) -> Vec<(u32, ThreadState)> {
    let mut found: Vec<(u32, ThreadState)> = match states.first().map(|s| s.native) {
        None => Vec::new(),
        Some(Some(_)) => states.iter().filter_map(|s| Some((*live.get(&s.native?)?, *s))).collect(),
        Some(None) => match_by_pthread(memory, states, live),
    };
    // The only thread of a forked child may still carry its parent's id.
    if found.is_empty()
        && let ([state], Some((_, tid)), 1) = (states, live.first_key_value(), live.len())
    {
        found.push((*tid, *state));
    }
    found
}

/// Before 3.11 a thread state knows its pthread structure only: the C library keeps the thread id somewhere in it.
fn match_by_pthread(
    memory: &impl Memory,
    states: &[ThreadState],
    live: &BTreeMap<u32, u32>,
) -> Vec<(u32, ThreadState)> {
    let tid_at = |s: &ThreadState, offset: u64| {
        let mut raw = [0; 4];
        memory.read(s.pthread.wrapping_add(offset), &mut raw).ok()?;
        live.get(&u32::from_ne_bytes(raw)).copied()
    };
    let all = |offset: u64| -> Vec<(u32, ThreadState)> {
        states.iter().filter_map(|s| Some((tid_at(s, offset)?, *s))).collect()
    };
    let distinct = |found: &[(u32, ThreadState)]| {
        let tids: std::collections::BTreeSet<_> = found.iter().map(|(tid, _)| tid).collect();
        tids.len() == found.len()
    };
    let known = all(PTHREAD_TID);
    if !known.is_empty() && distinct(&known) {
        return known;
    }
    // Another C library: the place where most structures hold different live thread ids.
    (0..PTHREAD_SIZE as u64)
        .step_by(4)
        .map(all)
        .filter(|found| distinct(found))
        .max_by_key(Vec::len)
        .unwrap_or_default()
}
