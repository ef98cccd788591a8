//! Bounds shared by both sides, each with its reason.

/// Most payload bytes one data record carries. A power of two, because the verifier follows a mask; 16 KiB holds
/// the largest request head that common servers accept (uvicorn/h11 64 KiB is the exception, nginx 8 KiB × 4).
pub const MAX_PAYLOAD: usize = 16 * 1024;

/// Payload captured per transfer on a connection without a policy, and the agent's default for HTTP: enough for
/// KTRDR's heads (143–278 bytes) and JSON bodies (up to 2.2 kB) with room for cookies.
pub const DEFAULT_CAPTURE: u32 = 8 * 1024;

/// Payload bytes copied in one direction from which on the rest, until the direction turns, is taken for a body. Above what
/// common servers accept as a head, and far above what is kept of a body.
pub const RUN_BYTES: u32 = 64 * 1024;
/// So much is copied then of each transfer that is too long to be copied whole: the size of a chunk stands at the
/// beginning, where a transfer begins with one.
pub const RUN_CAPTURE: u32 = 128;

/// Connections whose bodies are told apart: transfers under way at once are few. A power of two, so that the place is a
/// mask away; 8 bytes each.
pub const RUNS: u32 = 4_096;
const _: () = assert!(RUNS.is_power_of_two());

/// iovec entries followed per transfer: nginx sends head + body in 2–4, asyncio `writelines` rarely more than 8, Node
/// four per chunk of a response, and all chunks that are ready at once.
/// What lies in later entries counts as not captured.
pub const MAX_IOVECS: usize = 64;

/// Programs that may interrupt each other on one CPU, each with working memory of its own (51 KB): the two socket
/// tracepoints, and the one at the end of system calls.
pub const SCRATCH_PLACES: u32 = 3;

/// The same where those of single system calls may have programs of their own: `read`, `write` and `writev` (`connect` copies
/// nothing).
pub const SCRATCH_PLACES_WITH_FUNCTIONS: u32 = 5;

/// The same with the second programs at the socket tracepoints ([`crate::maps::constants::SECONDS`]).
pub const SCRATCH_PLACES_WITH_SECONDS: u32 = 7;

/// Command-line bytes carried by an exec record, for processes that are gone before `/proc` can be read.
pub const MAX_ARGS: usize = 1024;

/// Records that one write of a watched process is divided into: 64 KiB, more than any traceback, and what a pipe takes
/// at once.
pub const MAX_WRITE_RECORDS: u32 = 4;

/// Processes whose writes are watched, and again as many whose place in the array another has. As many as are excluded: more
/// than a host of KTRDR's size runs. A power of two, so that the place is a mask away.
pub const MAX_WATCHED: u32 = 4_096;
const _: () = assert!(MAX_WATCHED.is_power_of_two());

/// Processes whose standard input and output are both pipes or Unix sockets, until they show what they speak. LRU: shell
/// pipelines and daemons come and go.
pub const MAX_SPEAKERS: u32 = 4_096;

/// Bytes a second captured of what such a process reads and writes, until the agent says otherwise: as `logs.rate`.
pub const SPEAKER_RATE: u32 = 1024 * 1024;

/// Files of watched processes about which the agent has said whether they are logs. LRU: an evicted one is asked about
/// again.
pub const MAX_FILES: u32 = 16_384;

/// Span of time over which a watched process's rate is counted: a burst within it may take all of it.
pub const WATCH_WINDOW_NS: u64 = 1_000_000_000;

/// Connections with a policy. Where there is no room for one, the one that has been there longest is unknown again and sends
/// its tuple.
pub const MAX_POLICIES: u32 = 65_536;

/// Processes that are being killed for want of memory. LRU; the kernel kills them one by one.
pub const MAX_VICTIMS: u32 = 64;

/// Ports there are: what is kept by port has a place for each, so that none has to be looked for.
pub const PORTS: u32 = 1 << 16;

/// Processes that are excluded in the kernel.
pub const MAX_EXCLUDED: u32 = 4_096;

/// Python processes whose threads find their own state, and again as many whose place in the array another has. More than a
/// host of KTRDR's size runs.
pub const MAX_PY_PROCESSES: u32 = MAX_WATCHED;

/// Python threads whose thread state is known to the kernel programs.
pub const MAX_PY_THREADS: u32 = 65_536;

/// Threads of pools that have something to do, or had when it was last told. LRU; a pool has 32 threads if nobody says more,
/// and who empties a pool's queue is done within microseconds.
pub const MAX_PY_TAKERS: u32 = 4_096;

/// Connections for which a Python loop was given bytes that it has not sent yet. LRU; most are sent within a turn of the loop,
/// and of one that is forgotten it is not known who wrote.
pub const MAX_PY_WRITES: u32 = 16_384;

/// Default size of the event ring in bytes, mapped twice: 8 MiB holds about 20,000 requests with 300-byte heads, i.e. more
/// than a second of the highest rate measured while the agent is descheduled. A power of two and page multiple.
pub const RING_BYTES: u32 = 8 * 1024 * 1024;

/// Unread ring bytes from which a record wakes the reader; below, the reader's own timer finds it.
/// A wake-up costs about 1.4 µs, a quiet submit 25 ns.
pub const WAKE_BYTES: u64 = 1024 * 1024;
