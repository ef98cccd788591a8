//! Records in the ring: an [`EventHeader`], the body of its kind, then for some kinds a [`ConnTuple`] and payload.
//!
//! All numbers are in the host's byte order except addresses, which are network-order byte arrays.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Kinds of record. Numbers are never reused. Kernel kinds are below [`SHELL_KINDS`]; the agent's own, which it
/// inserts into the same stream (process metadata, listeners, clock), are from there on.
pub mod kind {
    /// A transfer on a TCP socket: [`super::DataBody`], [`super::ConnTuple`] if [`super::flags::TUPLE`], payload.
    pub const DATA: u16 = 1;
    /// A TCP socket changed its state: [`super::StateBody`].
    pub const STATE: u16 = 2;
    /// A process executed a program: [`super::ExecBody`], then its arguments, NUL-separated.
    pub const EXEC: u16 = 3;
    /// A task was created: [`super::ForkBody`].
    pub const FORK: u16 = 4;
    /// The last thread of a process ended: [`super::ExitBody`].
    pub const EXIT: u16 = 5;
    /// A `contextvars` context was copied in a Python process: [`super::PyCopyBody`].
    pub const PY_COPY: u16 = 6;
    /// A connect failed before any packet left (no route, no port, no permission): [`super::ConnectErrorBody`].
    pub const CONNECT_ERROR: u16 = 7;
    /// A watched process wrote to a pipe, a terminal, a file or a Unix socket: [`super::WriteBody`], payload.
    pub const WRITE: u16 = 8;
    /// A process that speaks JSON on standard input and output read from there: [`super::WriteBody`] (of what was read),
    /// payload.
    pub const READ: u16 = 9;
    /// A Python thread submitted a function to a pool of threads (`concurrent.futures`): [`super::PyWorkBody`].
    pub const PY_SUBMIT: u16 = 10;
    /// A thread of such a pool took it, to run it: [`super::PyWorkBody`].
    pub const PY_TAKE: u16 = 11;
    /// A Python loop that sends later was given bytes for a connection: [`super::PyWorkBody`].
    pub const PY_WRITE: u16 = 12;
    /// First kind of the agent's own records.
    pub const SHELL_KINDS: u16 = 0x8000;
}

/// Bits of [`EventHeader::flags`].
pub mod flags {
    /// A [`super::ConnTuple`] follows the body of a data record.
    pub const TUPLE: u16 = 1;
    /// The peer's end of stream: a receive that returned 0 although bytes were asked for.
    pub const EOF: u16 = 2;
    /// The transfer has no user buffer the programs can follow (sendfile, splice, io_uring, 32-bit task).
    pub const NO_BUFFER: u16 = 4;
    /// Reading the user's buffer faulted: fewer bytes than the policy allows were captured.
    pub const FAULT: u16 = 8;
    /// In a fork record: a new thread of the same process, not a new process.
    pub const THREAD: u16 = 16;
    /// In a write record: a regular file of which the agent has not said whether it is a log.
    pub const UNKNOWN_FILE: u16 = 32;
    /// In a data record: the second program at the tracepoint sent it, because the first was refused its run; or because a thread
    /// in between took away the sign that it was not, and then the transfer has two records.
    pub const SECOND: u16 = 128;
    /// In an exit record: the kernel chose the process to be killed because memory was short.
    pub const OUT_OF_MEMORY: u16 = 64;
    /// In a record of what a Python loop was given: for the same connection, behind bytes that were not sent yet. It has
    /// their number.
    pub const BEHIND: u16 = 256;
}

/// Values of `WriteBody::file`: what was written to.
pub mod file {
    /// A pipe or FIFO.
    pub const PIPE: u8 = 1;
    /// A terminal or another character device that keeps what it is given.
    pub const TERMINAL: u8 = 2;
    /// A regular file.
    pub const REGULAR: u8 = 3;
    /// A Unix socket.
    pub const UNIX_SOCKET: u8 = 4;
}

/// `DataBody::direction`: bytes the process received.
pub const RECV: u8 = 0;
/// `DataBody::direction`: bytes the process sent.
pub const SEND: u8 = 1;

/// Set in the address of a Python context that is its thread's own: made by the interpreter, never entered.
pub const THREADS_OWN_CONTEXT: u64 = 1;

/// Set in [`DataBody::py_context`] of a send whose bytes a Python loop was given before: no address of a context but the
/// number of the [`kind::PY_WRITE`] that told who gave them, [`PyWorkBody::item`]. Objects are aligned, so no address has it.
pub const GIVEN_BEFORE: u64 = 2;

/// Starts every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EventHeader {
    /// Boot clock in nanoseconds (`bpf_ktime_get_boot_ns`). 0 in a [`kind::PY_COPY`]: what counts there is its place in the
    /// stream, and asking the clock would be a tenth of what its program does.
    pub ts: u64,
    /// Process (thread group) and …
    pub tgid: u32,
    /// … thread in whose context the hook ran. Without meaning where the hook may run in softirq.
    pub tid: u32,
    /// Length of the whole record in bytes, header included: of a kernel record the lower half. Its upper half is
    /// [`EventHeader::losses`].
    pub len: u32,
    /// See [`kind`].
    pub kind: u16,
    /// See [`flags`].
    pub flags: u16,
}

impl EventHeader {
    /// Of a kernel record, none of which is longer than [`u16::MAX`].
    pub const fn length_and_losses(length: u32, losses: u32) -> u32 {
        length | losses << 16
    }

    /// Length of the whole record in bytes, header included.
    pub const fn length(&self) -> u32 {
        if self.kind < kind::SHELL_KINDS { self.len & u16::MAX as u32 } else { self.len }
    }

    /// Records that the ring had no room for before this one was begun, modulo 65,536; 0 in the agent's own. A change from
    /// one record to the next says that others are missing there.
    pub const fn losses(&self) -> u16 {
        if self.kind < kind::SHELL_KINDS { (self.len >> 16) as u16 } else { 0 }
    }

    /// The same header for another length in bytes.
    pub const fn with_length(self, length: u32) -> Self {
        let len = if self.kind < kind::SHELL_KINDS {
            Self::length_and_losses(length, self.losses() as u32)
        } else {
            length
        };
        Self { len, ..self }
    }
}

/// Both ends of a connection as this socket sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnTuple {
    /// Local address; IPv4 as v4-mapped IPv6 (`::ffff:a.b.c.d`).
    pub local_addr: [u8; 16],
    /// Remote address, likewise.
    pub remote_addr: [u8; 16],
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// `AF_INET` (2) or `AF_INET6` (10): the socket's own family, also where addresses are v4-mapped.
    pub family: u16,
    /// TCP state (`include/net/tcp_states.h`) when the record was made.
    pub state: u16,
}

/// A transfer. `[seq_end − len, seq_end)` are the TCP sequence numbers it covers, captured or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DataBody {
    /// Identity of the socket: its cookie, or where a kernel offers none its address (top bit set).
    pub conn: u64,
    /// Address of the Python context current on the thread, with [`THREADS_OWN_CONTEXT`]; 0 = not a known Python
    /// thread, or none yet. Or, with [`GIVEN_BEFORE`], the number under which it is known whose bytes these are.
    pub py_context: u64,
    /// TCP sequence number of the byte after the last one moved (`copied_seq` or `write_seq`).
    pub seq_end: u32,
    /// Bytes moved.
    pub len: u32,
    /// Bytes of payload in this record: a prefix of the bytes moved.
    pub captured: u32,
    /// [`RECV`] or [`SEND`].
    pub direction: u8,
    /// Reserved, 0.
    pub reserved: [u8; 3],
}

/// A TCP socket changed its state. States as in `include/net/tcp_states.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StateBody {
    /// As [`DataBody::conn`].
    pub conn: u64,
    /// As [`DataBody::py_context`]; meaningful for CLOSE → SYN_SENT and CLOSE → LISTEN only.
    pub py_context: u64,
    /// `write_seq`: sequence number of the next byte to send.
    pub write_seq: u32,
    /// `copied_seq`: sequence number of the next byte to receive.
    pub copied_seq: u32,
    /// State left.
    pub old: u8,
    /// State entered.
    pub new: u8,
    /// `sk_err` (errno) at that moment, 0 = none.
    pub error: u16,
    /// Addresses; the local port is 0 at CLOSE → SYN_SENT, before the kernel chose one.
    pub tuple: ConnTuple,
}

/// A process executed a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExecBody {
    /// Parent process.
    pub ppid: u32,
    /// Length of the arguments that follow (truncated at [`crate::limits::MAX_ARGS`]).
    pub args_len: u32,
    /// `task->comm`, NUL-padded.
    pub comm: [u8; 16],
}

/// A task was created. The header names the creating task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ForkBody {
    /// Process of the new task.
    pub child_tgid: u32,
    /// Thread id of the new task.
    pub child_tid: u32,
    /// Python context current on the creating thread, as [`DataBody::py_context`].
    pub py_context: u64,
}

/// A process ended. The header names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExitBody {
    /// `task->exit_code`: exit status << 8, or the signal in the low 7 bits and 0x80 for a core dump.
    pub code: u32,
    /// Parent process.
    pub ppid: u32,
    /// `task->comm`, NUL-padded.
    pub comm: [u8; 16],
}

/// A `contextvars` context was copied; the header names the thread, and no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PyCopyBody {
    /// Address of the context copied: the one current on the thread; 0 = unknown or none yet.
    pub parent: u64,
    /// Address of the copy.
    pub child: u64,
}

/// What a pool of Python threads is to run was submitted, or taken by one of them; or a loop was given what it is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PyWorkBody {
    /// As [`DataBody::py_context`].
    pub py_context: u64,
    /// Address of the `_WorkItem`, which is one function's call: it is put into the pool's queue once, and taken once.
    ///
    /// 0 in a [`kind::PY_TAKE`]: the thread found a queue empty and has none. Who gives up a pool's calls
    /// (`shutdown(cancel_futures=True)`) takes them all, makes none, and stops there.
    ///
    /// In a [`kind::PY_WRITE`] a number with [`GIVEN_BEFORE`], which its thread gives to nothing else: of all that is written
    /// for the connection until something is sent there.
    pub item: u64,
}

/// `connect` failed at once, without a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectErrorBody {
    /// As [`DataBody::py_context`].
    pub py_context: u64,
    /// errno, positive.
    pub error: u32,
    /// Destination port, host byte order.
    pub remote_port: u16,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u16,
    /// Destination address; IPv4 as v4-mapped IPv6.
    pub remote_addr: [u8; 16],
    /// Inode number of the network namespace of the task.
    pub netns: u32,
    /// File descriptor.
    pub fd: u32,
}

/// A watched process wrote. A long write is several records, in order, of one thread and with one `len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WriteBody {
    /// As [`DataBody::py_context`].
    pub py_context: u64,
    /// The file written to. Both ends of a pipe are the same file.
    pub id: crate::maps::FileId,
    /// Writes and reads of this process that were not captured because of its rate, until now.
    pub lost: u64,
    /// File descriptor.
    pub fd: u32,
    /// Bytes written by the call.
    pub len: u32,
    /// Where in them this record's payload begins.
    pub offset: u32,
    /// Bytes of payload in this record.
    pub captured: u32,
    /// Kind of the file, see [`file`].
    pub file: u8,
    /// Reserved, 0.
    pub reserved: [u8; 7],
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{offset_of, size_of};

    /// Golden table: a change here changes the recorded format, so raise `ABI_VERSION` with it.
    #[test]
    fn layout_is_frozen() {
        assert_eq!(size_of::<EventHeader>(), 24);
        assert_eq!(offset_of!(EventHeader, kind), 20);
        assert_eq!(size_of::<ConnTuple>(), 44);
        assert_eq!(offset_of!(ConnTuple, netns), 36);
        assert_eq!(size_of::<DataBody>(), 32);
        assert_eq!(offset_of!(DataBody, direction), 28);
        assert_eq!(size_of::<StateBody>(), 72);
        assert_eq!(offset_of!(StateBody, tuple), 28);
        assert_eq!(size_of::<ExecBody>(), 24);
        assert_eq!(size_of::<ForkBody>(), 16);
        assert_eq!(size_of::<ExitBody>(), 24);
        assert_eq!(size_of::<PyCopyBody>(), 16);
        assert_eq!(size_of::<PyWorkBody>(), 16);
        assert_eq!(size_of::<ConnectErrorBody>(), 40);
        assert_eq!(size_of::<WriteBody>(), 56);
        assert_eq!(offset_of!(WriteBody, fd), 32);
        assert_eq!(crate::ABI_VERSION, 2);
    }
}
