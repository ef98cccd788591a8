//! System calls: their numbers, their arguments in the saved registers, and where the user's bytes are.

use aya_ebpf::helpers::bpf_probe_read_user;

use crate::{error::Error, memory::Object};

/// Numbers of the calls that move bytes or connect.
#[cfg(not(bpf_target_arch = "aarch64"))]
mod nr {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const READV: u32 = 19;
    pub const WRITEV: u32 = 20;
    pub const SENDFILE: u32 = 40;
    pub const CONNECT: u32 = 42;
    pub const SENDTO: u32 = 44;
    pub const RECVFROM: u32 = 45;
    pub const SENDMSG: u32 = 46;
    pub const RECVMSG: u32 = 47;
    pub const SPLICE: u32 = 275;
    pub const RECVMMSG: u32 = 299;
    pub const SENDMMSG: u32 = 307;
    pub const PREADV2: u32 = 327;
    pub const PWRITEV2: u32 = 328;
}
#[cfg(bpf_target_arch = "aarch64")]
mod nr {
    pub const READ: u32 = 63;
    pub const WRITE: u32 = 64;
    pub const READV: u32 = 65;
    pub const WRITEV: u32 = 66;
    pub const SENDFILE: u32 = 71;
    pub const SPLICE: u32 = 76;
    pub const CONNECT: u32 = 203;
    pub const SENDTO: u32 = 206;
    pub const RECVFROM: u32 = 207;
    pub const SENDMSG: u32 = 211;
    pub const RECVMSG: u32 = 212;
    pub const RECVMMSG: u32 = 243;
    pub const SENDMMSG: u32 = 269;
    pub const PREADV2: u32 = 286;
    pub const PWRITEV2: u32 = 287;
}
pub use nr::*;

/// Byte offsets in `struct pt_regs`: user-space ABI (ptrace), so fixed.
#[cfg(not(bpf_target_arch = "aarch64"))]
mod regs {
    /// `orig_ax`
    pub const NUMBER: u32 = 15 * 8;
    /// `di, si, dx, r10`
    pub const ARGUMENTS: [u32; 4] = [14 * 8, 13 * 8, 12 * 8, 7 * 8];
}
#[cfg(bpf_target_arch = "aarch64")]
mod regs {
    /// `syscallno`
    pub const NUMBER: u32 = 35 * 8;
    /// `orig_x0` (`x0` already holds the result), `x1, x2, x3`
    pub const ARGUMENTS: [u32; 4] = [34 * 8, 8, 2 * 8, 3 * 8];
}

/// The registers a task entered the kernel with.
#[derive(Clone, Copy)]
pub struct Call<O>(pub O);

impl<O: Object> Call<O> {
    /// Number of the system call.
    #[inline(always)]
    pub fn number(self) -> Result<u32, Error> {
        self.0.load_at::<u32>(regs::NUMBER)
    }

    /// An argument, counted from 0.
    #[inline(always)]
    pub fn argument<const N: usize>(self) -> Result<u64, Error> {
        self.0.load_at::<u64>(regs::ARGUMENTS[N])
    }
}

/// Where the bytes of a transfer are in the process's memory.
#[derive(Clone, Copy)]
pub enum Buffer {
    /// Nowhere that can be followed.
    None,
    /// In one piece.
    Flat { base: u64, len: u64 },
    /// In `count` pieces, listed by the iovecs at `list`.
    Vectored { list: u64, count: u64 },
}

/// `struct user_msghdr`.
#[derive(Clone, Copy)]
#[repr(C)]
struct UserMsghdr {
    _name: u64,
    _name_len: u64,
    iov: u64,
    iov_len: u64,
}

/// Messages followed in one `sendmmsg` or `recvmmsg`, which hardly anybody uses with TCP.
const MAX_MESSAGES: u64 = 8;
/// `struct mmsghdr`: a `user_msghdr` (56 bytes), then the bytes moved; 64 in all.
const MESSAGE_BYTES: u64 = 64;
const MESSAGE_LEN: u64 = 56;

/// Bytes moved by the first `count` messages of a `sendmmsg` or `recvmmsg`.
#[inline(always)]
pub fn bytes_of_messages<O: Object>(call: Call<O>, count: i64) -> Result<i64, Error> {
    let list = call.argument::<1>()?;
    let mut bytes = 0;
    for index in 0..MAX_MESSAGES {
        if index as i64 >= count {
            break;
        }
        let len = list.wrapping_add(index * MESSAGE_BYTES + MESSAGE_LEN) as *const u32;
        // SAFETY: the helper checks the address and reports a fault.
        bytes += i64::from(unsafe { bpf_probe_read_user(len) }.unwrap_or(0));
    }
    Ok(bytes)
}

impl Buffer {
    /// Where a receiving call was told to put the bytes.
    #[inline(always)]
    pub fn of_receive<O: Object>(call: Call<O>) -> Result<Buffer, Error> {
        match call.number()? {
            READ | RECVFROM => Self::flat(call),
            READV | PREADV2 => Self::vectored(call),
            RECVMSG => Self::message(call),
            _ => Ok(Buffer::None),
        }
    }

    /// Where a sending call was told to take the bytes from.
    #[inline(always)]
    pub fn of_send<O: Object>(call: Call<O>) -> Result<Buffer, Error> {
        match call.number()? {
            WRITE | SENDTO => Self::flat(call),
            WRITEV | PWRITEV2 => Self::vectored(call),
            SENDMSG => Self::message(call),
            _ => Ok(Buffer::None),
        }
    }

    #[inline(always)]
    fn flat<O: Object>(call: Call<O>) -> Result<Buffer, Error> {
        Ok(Buffer::Flat { base: call.argument::<1>()?, len: call.argument::<2>()? })
    }

    #[inline(always)]
    fn vectored<O: Object>(call: Call<O>) -> Result<Buffer, Error> {
        Ok(Buffer::Vectored { list: call.argument::<1>()?, count: call.argument::<2>()? })
    }

    #[inline(always)]
    fn message<O: Object>(call: Call<O>) -> Result<Buffer, Error> {
        let message = call.argument::<1>()? as *const UserMsghdr;
        // SAFETY: the helper checks the address and reports a fault.
        Ok(match unsafe { bpf_probe_read_user(message) } {
            Ok(message) => Buffer::Vectored { list: message.iov, count: message.iov_len },
            // The kernel just read it, so it was unmapped meanwhile or is not resident: the payload is out of reach.
            Err(_) => Buffer::Vectored { list: 0, count: 1 },
        })
    }
}
