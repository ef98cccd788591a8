//! What a second program at a tracepoint goes by: whether the first one was run.
//!
//! From Linux 7.0 on ("tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with SRCU-fast") a thread may be
//! interrupted by another one inside a program at a tracepoint. The kernel does not run a program that is under way on that
//! processor, so for what the other thread sends or receives meanwhile the program is not run, which leaves a count and
//! nothing else. Another program at the same place is: the kernel counts for each of its own. So the first leaves a sign of
//! each transfer on its processor, and the second one takes it away, or tells what it finds no sign of.
//!
//! A sign is of one transfer: thread, socket and bytes. It may be gone without having been taken, when the thread was
//! moved to another processor or another one left its own there; then a transfer is told twice, and says so
//! (`flags::SECOND`). It stays if the second program is refused its run, which counts as a loss; then it may stand for the
//! next transfer of that thread, if that is as long and the first program is refused, too.

use aya_ebpf::{macros::map, maps::PerCpuArray};

use crate::{constants::SK_COOKIE, error::Error, memory::Object, scratch::Place, sock::Sock};

/// One transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Sign {
    /// 0 where nobody has asked for it yet; then the rest has to do.
    cookie: u64,
    /// 0: none.
    tid: u32,
    bytes: u32,
}

impl Sign {
    /// By a thread, of so many bytes.
    #[inline(always)]
    pub fn of<S: Object>(sock: Sock<S>, tid: u32, bytes: i64) -> Result<Sign, Error> {
        Ok(Sign { cookie: sock.0.load(&SK_COOKIE)?, tid, bytes: bytes as u32 })
    }
}

/// One for each direction: programs of both may be under way.
#[map]
static SIGNS: PerCpuArray<Sign> = PerCpuArray::with_max_entries(2, 0);

/// Whether the transfer was told by the first program. That one leaves the sign, and is never told so.
#[inline(always)]
pub fn was_told(sign: Sign, direction: u8, place: Place) -> Result<bool, Error> {
    let at = SIGNS.get_ptr_mut(direction.into()).ok_or(Error::MapEntry)?;
    if !place.is_second() {
        // SAFETY: a valid map value. Threads that interrupt this one may change it, never the first program: it is under way.
        unsafe { at.write_volatile(sign) };
        return Ok(false);
    }
    // SAFETY: as above. If another thread writes its own between, the two differ.
    if unsafe { at.read_volatile() } != sign {
        return Ok(false);
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*at).tid).write_volatile(0) };
    Ok(true)
}
