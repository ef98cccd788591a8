//! What the agent's core is fed: decoded records of the kernel programs, and the shell's own facts, in one stream.
//!
//! The stream is exactly what a recorded trace file stores, so a replay feeds the same core the same way.

pub mod decode;
pub mod file;
pub mod gpu;
pub mod losses;
pub mod shell;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub use decode::{DecodeError, decode};
pub use shell::ShellEvent;

/// Boot clock in nanoseconds (`CLOCK_BOOTTIME`): the only clock of the core.
pub type Ns = u64;

/// One millisecond in [`Ns`].
pub const MS: Ns = 1_000_000;

/// Identity of a socket as long as it lives: its cookie, or its address where the kernel offers no cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Where in a process something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// Process (thread group id).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Address of the Python context current on the thread; 0 = none known.
    pub py_context: u64,
}

/// Both ends of a connection as one socket sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// This socket's end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// Inode number of the network namespace.
    pub netns: u32,
}

/// An address as records carry it: v4-mapped IPv6 becomes the IPv4 address it stands for.
pub fn canonical(addr: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(addr).to_canonical()
}

/// An event, borrowed from its record.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// When.
    pub ts: Ns,
    /// Process of the task in whose context the hook ran.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// For [`losses::Losses`]; `None` for the shell's own.
    pub losses: Option<u16>,
    /// What.
    pub body: Body<'a>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// Bytes moved on a TCP socket.
    Data(Data<'a>),
    /// A TCP socket changed its state.
    State(State),
    /// A connect failed without a SYN.
    ConnectError(ConnectError),
    /// A program was executed.
    Exec(Exec<'a>),
    /// A task was created by the header's task.
    Fork(Fork),
    /// The header's process ended.
    Exit(Exit),
    /// A Python context was copied on the header's thread.
    PyCopy(PyCopy),
    /// The header's thread submitted a function to a pool of Python threads.
    PySubmit(PyWork),
    /// The header's thread, which is of such a pool, took it.
    PyTake(PyWork),
    /// The header's thread wrote what its loop will send later.
    PyWrite(PyWrite),
    /// The header's process, which is watched, wrote to something that is no TCP socket.
    Write(Write<'a>),
    /// The header's process, which speaks JSON on standard input, read from there.
    Read(Write<'a>),
    /// Time passed; nothing else happened.
    Tick,
    /// A fact from the shell.
    Shell(Box<ShellEvent>),
}

/// Direction of a transfer, from the socket's owner's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The owner received.
    Recv,
    /// The owner sent.
    Send,
}

/// Bytes moved on a TCP socket: sequence numbers `[seq_end − len, seq_end)`.
#[derive(Clone, Debug)]
pub struct Data<'a> {
    /// Socket.
    pub conn: ConnId,
    /// Python context current on the thread, 0 = none known.
    pub py_context: u64,
    /// Received or sent.
    pub direction: Direction,
    /// TCP sequence number of the byte after the last one moved.
    pub seq_end: u32,
    /// Bytes moved.
    pub len: u32,
    /// The first bytes of them that were captured.
    pub payload: &'a [u8],
    /// Addresses, on connections that have no policy yet.
    pub tuple: Option<Tuple>,
    /// The peer's end of stream (then `len` is 0).
    pub eof: bool,
    /// No user buffer to follow (sendfile, splice, io_uring, 32-bit task).
    pub no_buffer: bool,
    /// Reading the user's buffer faulted.
    pub fault: bool,
    /// It may have been told before ([`ktrdr_ebpf_common::flags::SECOND`]).
    pub second: bool,
}

/// TCP states that matter here (`include/net/tcp_states.h`).
pub mod tcp {
    /// `TCP_ESTABLISHED`.
    pub const ESTABLISHED: u8 = 1;
    /// `TCP_SYN_SENT`.
    pub const SYN_SENT: u8 = 2;
    /// `TCP_SYN_RECV`.
    pub const SYN_RECV: u8 = 3;
    /// `TCP_FIN_WAIT1`.
    pub const FIN_WAIT1: u8 = 4;
    /// `TCP_FIN_WAIT2`.
    pub const FIN_WAIT2: u8 = 5;
    /// `TCP_CLOSE`.
    pub const CLOSE: u8 = 7;
    /// `TCP_LISTEN`.
    pub const LISTEN: u8 = 10;
    /// `TCP_CLOSING`.
    pub const CLOSING: u8 = 11;
}

/// A TCP socket changed its state.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Socket.
    pub conn: ConnId,
    /// Python context current on the thread; meaningful for CLOSE → SYN_SENT only.
    pub py_context: u64,
    /// State left, see [`tcp`].
    pub old: u8,
    /// State entered.
    pub new: u8,
    /// `sk_err`, 0 = none.
    pub error: u16,
    /// Sequence number of the next byte to send.
    pub write_seq: u32,
    /// Sequence number of the next byte to receive.
    pub copied_seq: u32,
    /// Addresses. The local port is 0 at CLOSE → SYN_SENT.
    pub tuple: Tuple,
}

/// A connect failed without a SYN.
#[derive(Clone, Copy, Debug)]
pub struct ConnectError {
    /// Python context current on the thread.
    pub py_context: u64,
    /// errno, positive.
    pub error: u16,
    /// Where to.
    pub remote: SocketAddr,
    /// Network namespace of the task.
    pub netns: u32,
}

/// A program was executed.
#[derive(Clone, Copy, Debug)]
pub struct Exec<'a> {
    /// Parent process.
    pub ppid: u32,
    /// `task->comm`, NUL-padded.
    pub comm: [u8; 16],
    /// Arguments, NUL-separated, truncated at the kernel programs' limit.
    pub args: &'a [u8],
}

/// A task was created.
#[derive(Clone, Copy, Debug)]
pub struct Fork {
    /// Process of the new task; the creator's own for a thread.
    pub child_tgid: u32,
    /// The new task.
    pub child_tid: u32,
    /// Python context current on the creating thread.
    pub py_context: u64,
    /// A thread, not a process.
    pub thread: bool,
}

/// A process ended.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// As `wait(2)` reports it: status << 8, or signal (+ 0x80 with a core dump).
    pub code: u32,
    /// Parent process.
    pub ppid: u32,
    /// The kernel chose it to be killed because memory was short.
    pub out_of_memory: bool,
}

/// A Python context was copied.
#[derive(Clone, Copy, Debug)]
pub struct PyCopy {
    /// The context copied, 0 = unknown.
    pub parent: u64,
    /// The copy.
    pub child: u64,
}

/// One call of a function that a pool of Python threads is to make.
#[derive(Clone, Copy, Debug)]
pub struct PyWork {
    /// Python context current on the thread, 0 = none known.
    pub py_context: u64,
    /// Address of the pool's `_WorkItem`: another one may have it once this one was taken. 0 = none was there to take: the
    /// thread, which may be one that gave up the pool's calls and made none, works for nobody now.
    pub item: u64,
}

/// Bytes that a Python loop was given for a connection, to send later.
#[derive(Clone, Copy, Debug)]
pub struct PyWrite {
    /// Python context current on the thread, 0 = none known.
    pub py_context: u64,
    /// The send of them has it in the place of its context. With [`ktrdr_ebpf_common::GIVEN_BEFORE`].
    pub number: u64,
    /// Not the first under that number.
    pub behind: bool,
}

/// What a watched process wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A pipe or FIFO.
    Pipe,
    /// A terminal.
    Terminal,
    /// A regular file.
    Regular,
    /// A Unix socket.
    UnixSocket,
}

/// Identity of a file while it is open anywhere. Both ends of a pipe are the same file.
pub type FileId = ktrdr_ebpf_common::maps::FileId;

/// A watched process wrote, or read. A long write comes in several parts, in order.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// Python context current on the thread, 0 = none known.
    pub py_context: u64,
    /// The file.
    pub id: FileId,
    /// What it is.
    pub kind: FileKind,
    /// File descriptor.
    pub fd: u32,
    /// Bytes written by the call.
    pub len: u32,
    /// Where in them the payload begins.
    pub offset: u32,
    /// This part of them, or what of it could be captured.
    pub payload: &'a [u8],
    /// Writes of this process not captured because of its rate, until now.
    pub lost: u64,
}
