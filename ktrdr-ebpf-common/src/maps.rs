//! Names, keys and values of the maps, and the constants that the agent sets at load time.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ring buffer of records.
pub const EVENTS: &str = "EVENTS";
/// Per-CPU array with one entry: an array of `u64`, indexed by [`crate::Counter`]. One look-up serves all counters.
pub const COUNTERS: &str = "COUNTERS";
/// Array of [`Place`](crate::policies::Place) at [`place_of`](crate::policies::place_of) a connection: its policy, which the
/// agent writes into memory that both sides see.
pub const POLICIES: &str = "POLICIES";
/// Hash: tgid (`u32`) → `u32` (any value): processes whose transfers are left alone.
pub const EXCLUDED: &str = "EXCLUDED";
/// Array of `u32`, indexed by [`used`]: whether the agent ever put anything into a map. An array costs a program a tenth of
/// a hash, and on most hosts most of these hashes stay empty.
pub const USED: &str = "USED";
/// Places in [`USED`].
pub mod used {
    /// Of [`EXCLUDED`](super::EXCLUDED).
    pub const EXCLUDED: u32 = 0;
    /// Of [`PY_PROCESSES`](super::PY_PROCESSES).
    pub const PY_PROCESSES: u32 = 1;
    /// Of [`PY_THREADS`](super::PY_THREADS).
    pub const PY_THREADS: u32 = 2;
    /// Of [`LEFT_OUT`](super::LEFT_OUT).
    pub const LEFT_OUT: u32 = 3;
    /// Of [`PyContexts::writes`](super::PyContexts::writes) other than [`AT_ONCE`](super::PyContexts::AT_ONCE).
    pub const PY_WRITES: u32 = 4;
    /// How many.
    pub const PLACES: u32 = 5;
}
/// Array of `u32` at each port: how many of its connections are left out, as [`crate::thinning::left_out`] counts them.
pub const LEFT_OUT: &str = "LEFT_OUT";
/// Hash: tid (`u32`) → [`PyThread`].
pub const PY_THREADS: &str = "PY_THREADS";
/// Array of [`PyProcess`] at [`place_of`] a tgid: Python processes whose threads find their own state. Asked at every transfer
/// of a host with such processes, and at every copy of a context. The agent gives places to processes; the programs only
/// give them back.
pub const PY_PROCESSES: &str = "PY_PROCESSES";
/// Hash: tgid (`u32`) → [`PyProcess`]: those whose place another has, and forked ones that the agent has not named yet.
pub const PY_PROCESSES_BESIDE: &str = "PY_PROCESSES_BESIDE";
/// Array of `u32` at [`place_of`] a tgid: not 0 = one that would have this place is, or was, in [`PY_PROCESSES_BESIDE`].
pub const PY_BESIDE: &str = "PY_BESIDE";
/// Array of [`Watch`] at [`place_of`] a tgid: processes whose writes to pipes, terminals and files are captured. Asked at
/// every write of the host, and an array costs a program a tenth of a hash. The agent gives places to processes; the
/// programs only give them back, when a process ends.
pub const WATCHED: &str = "WATCHED";
/// Hash: tgid (`u32`) → [`Watch`]: those whose place another has.
pub const WATCHED_BESIDE: &str = "WATCHED_BESIDE";
/// Array of `u32` at [`place_of`] a tgid: not 0 = one that would have this place is, or was, in [`WATCHED_BESIDE`].
pub const BESIDE: &str = "BESIDE";
/// LRU hash: tgid (`u32`) → [`Speaker`]: processes that may speak JSON on standard input and output.
pub const SPEAKERS: &str = "SPEAKERS";
/// Array of `u32` at [`place_of`] a tgid: how many that would have this place are in [`SPEAKERS`], or more.
pub const SPEAKING: &str = "SPEAKING";

/// A process's place in the arrays. Process ids are given out in order, so that hardly two share one.
pub const fn place_of(tgid: u32) -> u32 {
    tgid % crate::limits::MAX_WATCHED
}
/// LRU hash: [`FileId`] → `u32`, 1 = a log, 0 = none: regular files that watched processes write.
pub const FILES: &str = "FILES";
/// Array of working memory, an entry per possible CPU for each of [`crate::limits::SCRATCH_PLACES`],
/// [`crate::limits::SCRATCH_PLACES_WITH_FUNCTIONS`] or [`crate::limits::SCRATCH_PLACES_WITH_SECONDS`] (the agent sizes it).
pub const SCRATCH: &str = "SCRATCH";

/// Which writes of a process are captured: those to standard output and error always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Watch {
    /// Begin of the current window of the rate; the programs' own.
    pub window: u64,
    /// Bytes captured in it; the programs' own.
    pub used: u64,
    /// Writes not captured because of the rate, ever; the programs' own.
    pub lost: u64,
    /// The kernel's tick in which the window was last seen not to be over; the programs' own.
    pub tick: u64,
    /// Bytes that may be captured per [`crate::limits::WATCH_WINDOW_NS`].
    pub rate: u32,
    /// [`Watch::PIPES`], [`Watch::FILES`] and [`Watch::JSON`].
    pub flags: u32,
    /// Descriptors, each plus one, whose writes were beyond the rate in this window; the programs' own.
    pub flooding: [u32; Watch::FLOODS],
    /// Whose; 0 = nobody's.
    pub tgid: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

impl Watch {
    /// Also writes to any pipe or Unix socket, whatever its descriptor.
    pub const PIPES: u32 = 1;
    /// Also writes to regular files that are not known to be no logs.
    pub const FILES: u32 = 2;
    /// Also writes to any pipe or Unix socket that begin like a JSON object or array.
    pub const JSON: u32 = 4;

    /// Descriptors that flood side by side and are each known: a console and a file.
    pub const FLOODS: usize = 2;

    /// A watch that has seen nothing yet.
    pub const fn new(tgid: u32, rate: u32, flags: u32) -> Watch {
        let flooding = [0; Watch::FLOODS];
        Watch { window: 0, used: 0, lost: 0, tick: 0, rate, flags, flooding, tgid, reserved: 0 }
    }
}

/// A process whose standard input and output were both pipes or Unix sockets when its program began. It may move them to
/// other descriptors, as MCP's Python library does, so the open files are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Speaker {
    /// Address of the `struct file` that was standard input.
    pub input: u64,
    /// Address of the one that was standard output.
    pub output: u64,
    /// [`Speaker::CANDIDATE`] or [`Speaker::SPEAKS`].
    pub state: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

impl Speaker {
    /// Nothing was read yet.
    pub const CANDIDATE: u32 = 1;
    /// What it read first begins like a JSON object or array.
    pub const SPEAKS: u32 = 2;
}

/// Identity of an open file's inode.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct FileId {
    /// `i_ino`.
    pub inode: u64,
    /// `i_sb->s_dev`: device number as the kernel keeps it, major << 20 | minor.
    pub device: u32,
    /// `i_generation`: tells an inode number that was given to another file.
    pub generation: u32,
}

/// Where contexts are found from a `PyThreadState`, and what tells a task's from a thread's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PyContexts {
    /// Offset of `context` in the thread state.
    pub current: u16,
    /// Offset of `ctx_entered` in a context: one that is current without having been entered is the thread's own.
    pub entered: u16,
    /// 1 = `threading` runs each thread inside a context of its own (3.14): the one that was entered first, with nothing in
    /// `ctx_prev`, on any thread but the first of the process. 0 = it does not.
    pub threads_enter: u16,
    /// What is written to a connection is sent later, by a loop, under a context of its own: how the function is called that
    /// puts it there. [`PyContexts::AT_ONCE`], [`PyContexts::OBJECT`] or [`PyContexts::ARGUMENTS`].
    pub writes: u16,
}

impl PyContexts {
    /// The writer sends itself.
    pub const AT_ONCE: u16 = 0;
    /// The second argument is what is written (`METH_O`).
    pub const OBJECT: u16 = 1;
    /// The second argument leads to what is written (`METH_FASTCALL`).
    pub const ARGUMENTS: u16 = 2;
    /// Bytes from `ctx_prev` to `ctx_entered` in a context: `ctx_vars` and `ctx_weakreflist` are in between (3.8 to 3.15).
    pub const PREV_TO_ENTERED: u16 = 24;
}

/// Where a Python thread keeps its current `contextvars` context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PyThread {
    /// Address of the thread's `PyThreadState` in the process.
    pub tstate: u64,
    /// The way from there to its contexts.
    pub contexts: PyContexts,
    /// Process the thread belongs to: an entry of a reused tid must not be believed.
    pub tgid: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// Something of a process in an array at [`place_of`] it, or in a hash beside that where another has the place.
pub trait OfProcess: Copy {
    /// Whose; 0 = nobody's.
    fn tgid(&self) -> u32;
    /// The same, and nobody's.
    fn nobodys(self) -> Self;
}

impl OfProcess for Watch {
    fn tgid(&self) -> u32 {
        self.tgid
    }

    fn nobodys(self) -> Self {
        Watch { tgid: 0, ..self }
    }
}

impl OfProcess for PyProcess {
    fn tgid(&self) -> u32 {
        self.tgid
    }

    fn nobodys(self) -> Self {
        PyProcess { tgid: 0, ..self }
    }
}

/// Where all threads of a Python process find their own thread state, also those that do not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PyProcess {
    /// Offset from the thread pointer of the word that holds the address of the `PyThreadState`.
    pub tls_offset: i32,
    /// Whose; 0 = nobody's.
    pub tgid: u32,
    /// The way from there to its contexts.
    pub contexts: PyContexts,
    /// Where new contexts come from, so that one can be told before it is made.
    pub foretelling: PyForetelling,
}

/// The interpreter's free list of contexts: `PyContext_CopyCurrent` takes the new one from its head. It is believed as
/// long as it is right: first every copy is awaited, later one of [`PyForetelling::CHECK`] still is, and after a
/// single one that it did not name it is not asked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PyForetelling {
    /// What the list says of the copy that is being made, 0 = nothing; the programs' own. One place for all threads: who
    /// copies holds the interpreter's lock.
    pub expected: u64,
    /// Offset of its head in `PyInterpreterState`; 0 = not known, or not believed any more.
    pub head: u32,
    /// Copies that it named rightly, up to [`PyForetelling::CONFIRMED`], and from there on copies; the programs' own.
    pub copies: u32,
}

impl PyForetelling {
    /// Offset of `interp` in a `PyThreadState` (3.8 to 3.15: behind `prev` and `next`).
    pub const TSTATE_INTERP: u16 = 16;
    /// Copies that it must have named before it is believed. Another word of the interpreter that looked like a list of
    /// contexts once does not name as many in a row.
    pub const CONFIRMED: u32 = 64;
    /// One copy of so many is awaited all the same: a busy service has its list checked some hundred times a second. A power
    /// of two. Each takes as long as half a copy, so of fewer it would show.
    pub const CHECK: u32 = 64;

    /// Nothing confirmed yet; `head` 0 for a list that is not known.
    pub const fn new(head: u32) -> PyForetelling {
        PyForetelling { expected: 0, head, copies: 0 }
    }
}

/// Names of the constants (read-only globals) that the agent sets at load time. `u32` unless said otherwise.
/// Field offsets are in bytes, from the running kernel's BTF.
pub mod constants {
    /// tgid of the agent: its own transfers are never recorded.
    pub const AGENT_TGID: &str = "AGENT_TGID";
    /// Payload bytes copied per transfer on a connection without a policy.
    pub const UNKNOWN_CAPTURE: &str = "UNKNOWN_CAPTURE";
    /// `u64`, a power of two: unread ring bytes from which, and from whose multiples, a record wakes the reader.
    pub const WAKE_BYTES: &str = "WAKE_BYTES";
    /// 1 = `bpf_get_socket_cookie` takes a `struct sock` in tracing programs (kernel 5.12 and later).
    pub const HAS_SOCKET_COOKIE: &str = "HAS_SOCKET_COOKIE";
    /// 1 = `sched_process_exit` says itself whether the whole group is dead (kernel 6.16 and later).
    pub const HAS_GROUP_DEAD: &str = "HAS_GROUP_DEAD";
    /// Offset in `task_struct` of the `u32` that tells a 32-bit system call from a 64-bit one.
    pub const TASK_COMPAT: &str = "TASK_COMPAT";
    /// Offset in `task_struct` of the thread pointer of user code; 0 = not known.
    pub const TASK_THREAD_POINTER: &str = "TASK_THREAD_POINTER";
    /// 1 = `bpf_get_current_task_btf` gives the current task as a pointer whose type the verifier knows (kernel 5.11 and later).
    pub const HAS_TASK_BTF: &str = "HAS_TASK_BTF";
    /// 1 = writes of watched processes are captured.
    pub const HAS_LOGS: &str = "HAS_LOGS";
    /// 1 = `mark_victim` gives the task (kernel 6.8 and later), 0 = its process id.
    pub const HAS_VICTIM_TASK: &str = "HAS_VICTIM_TASK";
    /// Calls whose end is of interest: of [`super::calls`].
    pub const CALLS: &str = "CALLS";
    /// 1 = a second program at each socket tracepoint makes good for runs that the kernel refuses the first.
    pub const SECONDS: &str = "SECONDS";
    /// Possible CPUs.
    pub const CPUS: &str = "CPUS";
}

/// System calls, as bits.
pub mod calls {
    /// `connect`.
    pub const CONNECT: u32 = 1;
    /// `write` and `writev`.
    pub const WRITE: u32 = 2;
    /// `read`.
    pub const READ: u32 = 4;
}
