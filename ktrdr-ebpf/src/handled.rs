//! Writes to sockets, told from all others without a look at what their descriptor stands for: the socket's program runs
//! within the system call and leaves a mark on its processor, where the program at the call's end finds it.
//!
//! A mark that was believed after its call would hide a line of a log. It is believed only where the thread that left it has
//! not given up the processor since, which the kernel counts: then nobody else ran there, and of this thread's writes the
//! first one to end is the mark's. That one takes it away, whether or not it believes it. After a switch, and where the
//! thread came to another processor, the descriptor is looked up.
//!
//! The end of a write may not be told to the program: where another thread was interrupted in it on that processor, the kernel
//! refuses the run. The mark stays then, and is the same thread's of the same switch until that thread gives way. But so long
//! the other one cannot go on, and the program is refused for each further write. Where `write` and `writev` have programs of
//! their own, one of them may be refused while the other is not, so neither goes by the other's marks. A write that began before
//! its program was there leaves such a mark, too.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use ktrdr_ebpf_common::maps::calls;

use crate::{
    error::Error,
    memory::Direct,
    probes::calls::wanted,
    syscall::{self, Call},
    task::Task,
};

/// The call that moved the bytes.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum By {
    Write,
    Writev,
}

/// The last write on this processor that moved bytes of a socket, until it ends.
#[derive(Clone, Copy)]
#[repr(C)]
struct Mark {
    /// Whose; 0 = nobody's.
    tid: u32,
    /// Its descriptor. With the length no proof, but a second reason to doubt.
    fd: u32,
    /// Bytes that it moved.
    bytes: u64,
    /// How often the thread had given up a processor.
    switches: u64,
}

/// One for each of [`By`].
#[map]
static MARKS: PerCpuArray<Mark> = PerCpuArray::with_max_entries(2, 0);

/// The running system call moved bytes of a socket, and what there is to tell of it was told: leaves the mark, if it is one
/// that [`take`] is asked about.
#[inline(always)]
pub fn leave(task: Task<Direct>, call: Call<Direct>, bytes: i64) -> Result<(), Error> {
    if !wanted(calls::WRITE) {
        return Ok(());
    }
    let by = match call.number()? {
        syscall::WRITE => By::Write,
        syscall::WRITEV => By::Writev,
        _ => return Ok(()),
    };
    let mark = Mark {
        tid: task.ids()?.1,
        fd: call.argument::<0>()? as u32,
        bytes: bytes as u64,
        switches: task.switches()?,
    };
    if let Some(place) = MARKS.get_ptr_mut(by as u32) {
        // SAFETY: a valid map value; see `take` for who else may be at it.
        unsafe { place.write_volatile(mark) };
    }
    Ok(())
}

/// Whether the write that ends here was to a socket whose program has seen it.
#[inline(always)]
pub fn take(task: Task<Direct>, call: Call<Direct>, result: i64, by: By) -> Result<bool, Error> {
    let Some(place) = MARKS.get_ptr_mut(by as u32) else { return Ok(false) };
    let switches = task.switches()?;
    // SAFETY: a valid map value. Where kernels let other threads interrupt a program, one of those may change it meanwhile;
    // the second look at the switches tells.
    let mark = unsafe { place.read_volatile() };
    if mark.tid != task.ids()?.1 {
        return Ok(false);
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*place).tid).write_volatile(0) };
    Ok(mark.switches == switches
        && mark.bytes == result as u64
        && mark.fd == call.argument::<0>()? as u32
        && task.switches()? == switches)
}
