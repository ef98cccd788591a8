//! Copying the user's bytes into a record.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use ktrdr_ebpf_common::limits::{MAX_IOVECS, MAX_PAYLOAD};

use crate::{
    scratch::{self, Iovec, Place, Scratch, length},
    syscall::Buffer,
};

/// What came of a copy.
#[derive(Clone, Copy)]
pub struct Copied {
    /// Bytes in the scratch payload, at most `MAX_PAYLOAD`.
    pub bytes: usize,
    /// The copy ended early because memory could not be read.
    pub fault: bool,
}

const NOTHING: Copied = Copied { bytes: 0, fault: false };

/// Copies the first `limit` bytes of a transfer.
#[inline(always)]
pub fn copy(buffer: Buffer, limit: usize, place: Place, scratch: &mut Scratch) -> Copied {
    let limit = limit.min(MAX_PAYLOAD);
    match buffer {
        Buffer::None => NOTHING,
        Buffer::Flat { base, .. } => {
            let fault = limit != 0 && !read(scratch, 0, base, limit);
            Copied { bytes: if fault { 0 } else { limit }, fault }
        }
        Buffer::Vectored { list, count } => {
            let gathered = gather(list, count, limit as u64, place as u64);
            Copied { bytes: (gathered & !FAULT) as usize, fault: gathered & FAULT != 0 }
        }
    }
}

/// Whether a receive asked for any bytes at all: one that did not says nothing about the end of the stream.
#[inline(always)]
pub fn asked_for_bytes(buffer: Buffer, scratch: &mut Scratch) -> Option<bool> {
    match buffer {
        Buffer::None => None,
        Buffer::Flat { len, .. } => Some(len != 0),
        Buffer::Vectored { list, count } => {
            let count = read_iovecs(scratch, list, count)?;
            Some(scratch.iovecs.iter().take(count).any(|iovec| iovec.len != 0))
        }
    }
}

/// Beside a number of bytes: the copy ended early.
const FAULT: u64 = 1 << 32;

/// Copies the pieces of a vectored transfer, and gives the number of bytes and [`FAULT`].
///
/// A global function: the verifier judges it once, for any arguments. Inlined, its loop was walked again for each of the
/// many ways that lead to it, near the verifier's limit on older kernels.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn gather(list: u64, count: u64, limit: u64, place: u64) -> u64 {
    let limit = (limit as usize).min(MAX_PAYLOAD);
    let Ok(scratch) = scratch::at(place as u32) else { return FAULT };
    if limit == 0 {
        return 0;
    }
    let Some(count) = read_iovecs(scratch, list, count) else { return FAULT };
    // The fill level lives in memory: what the verifier learns about a register would differ from iteration to
    // iteration, and it would walk every combination of them.
    let filled = core::ptr::from_mut(&mut scratch.filled);
    // SAFETY: a field of the scratch memory, of which this is the only user.
    let fill = || unsafe { filled.read_volatile() } as usize;
    unsafe { filled.write_volatile(0) };
    for index in 0..MAX_IOVECS {
        let bytes = fill();
        if index >= count || bytes >= limit {
            break;
        }
        let Iovec { base, len } = scratch.iovecs[index];
        // Masked before it is used, so that the verifier sees the same range in every iteration and not the difference
        // of two others, whose combinations it would walk.
        let part = length((limit - bytes).min(len as usize));
        if part == 0 {
            continue;
        }
        if part > MAX_PAYLOAD || !read(scratch, bytes, base, part) {
            return bytes as u64 | FAULT;
        }
        // SAFETY: as above.
        unsafe { filled.write_volatile((bytes + part) as u64) };
    }
    fill() as u64
}

/// Fetches the iovecs and gives their number, at most [`MAX_IOVECS`].
#[inline(always)]
fn read_iovecs(scratch: &mut Scratch, list: u64, count: u64) -> Option<usize> {
    let count = (count as usize).min(MAX_IOVECS);
    if count == 0 {
        return Some(0);
    }
    let to = scratch.iovecs.as_mut_ptr();
    // No change, but the verifier's proof, as in `length`.
    let bytes = (core::hint::black_box(count) & (2 * MAX_IOVECS - 1)) * size_of::<Iovec>();
    // SAFETY: there is room for `2 * MAX_IOVECS`; the helper checks the user address.
    let result = unsafe { bpf_probe_read_user(to.cast(), bytes as u32, list as *const _) };
    (result == 0).then_some(count)
}

/// Reads `len` user bytes to position `at` of the payload. `at` is below `MAX_PAYLOAD`, `len` at most that.
#[inline(always)]
fn read(scratch: &mut Scratch, at: usize, from: u64, len: usize) -> bool {
    // No change, but the verifier's proof, as in `length`.
    let at = core::hint::black_box(at) & (MAX_PAYLOAD - 1);
    let len = length(len);
    // SAFETY: the payload is `3 * MAX_PAYLOAD` long; the helper checks the user address.
    unsafe {
        let to = scratch.payload.as_mut_ptr().add(at);
        bpf_probe_read_user(to.cast(), len as u32, from as *const _) == 0
    }
}
