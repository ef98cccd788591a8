//! The task a program runs in, and tasks in general.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf};

use crate::{
    constants::*,
    error::Error,
    file::File,
    memory::{Direct, Object, Probed},
    sock::Sock,
};

/// (tgid, tid) of the current task, in the initial pid namespace.
#[inline(always)]
pub fn current_ids() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// A task as the verifier (`Direct`) or the probe helpers (`Probed`) see it.
#[derive(Clone, Copy)]
pub struct Task<O>(pub O);

impl Task<Direct> {
    /// The current task; kernel 5.11 and later.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: a helper without arguments.
        Task(Direct::at(unsafe { bpf_get_current_task_btf() }.cast()))
    }
}

impl Task<Probed> {
    /// The current task, on any kernel.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: a helper without arguments.
        Task(Probed::at(unsafe { bpf_get_current_task() } as *const u8))
    }
}

/// Set in the word at `TASK_COMPAT` while a 32-bit system call runs: x86 `TS_COMPAT` in `thread_info.status`,
/// arm64 `_TIF_32BIT` in `thread_info.flags`.
#[cfg(not(bpf_target_arch = "aarch64"))]
const COMPAT_BIT: u32 = 1 << 1;
#[cfg(bpf_target_arch = "aarch64")]
const COMPAT_BIT: u32 = 1 << 22;

impl<O: Object> Task<O> {
    /// Whether the task is in a 32-bit system call, whose numbers and structures are not ours.
    #[inline(always)]
    pub fn is_compat(self) -> Result<bool, Error> {
        Ok(self.0.load::<u32>(&TASK_COMPAT)? & COMPAT_BIT != 0)
    }

    /// (tgid, tid) in the initial pid namespace: what [`current_ids`] gives, where the task is at hand already.
    #[inline(always)]
    pub fn ids(self) -> Result<(u32, u32), Error> {
        Ok((self.0.load(&TASK_TGID)?, self.0.load(&TASK_PID)?))
    }

    /// How often the task has given up a processor, of its own accord or not.
    #[inline(always)]
    pub fn switches(self) -> Result<u64, Error> {
        Ok(self.0.load::<u64>(&TASK_NVCSW)?.wrapping_add(self.0.load(&TASK_NIVCSW)?))
    }

    /// Inode number of the task's network namespace.
    #[inline(always)]
    pub fn netns(self) -> Result<u32, Error> {
        self.0.follow(&TASK_NSPROXY)?.follow(&NSPROXY_NET)?.load(&NET_INUM)
    }

    /// Process id of the parent.
    #[inline(always)]
    pub fn parent(self) -> Result<u32, Error> {
        self.0.follow(&TASK_PARENT)?.load(&TASK_TGID)
    }

    /// Command name, NUL-padded.
    #[inline(always)]
    pub fn comm(self) -> Result<[u8; 16], Error> {
        // Probed: a plain 16-byte load would be split into bytes.
        Probed::at(self.0.address()).load(&TASK_COMM)
    }

    /// The file behind a descriptor, `None` if it is closed. Through a typed pointer only the last of its five reads is
    /// a helper's call.
    #[inline(always)]
    pub fn file(self, fd: u32) -> Result<Option<File>, Error> {
        let table = self.0.follow(&TASK_FILES)?.follow(&FILES_FDT)?;
        if fd >= table.load::<u32>(&FDT_MAX_FDS)? {
            return Ok(None);
        }
        let slot = table.follow(&FDT_FD)?.address().wrapping_add(fd as usize * size_of::<u64>());
        let file = Probed::at(Probed::at(slot).load_at::<*const u8>(0)?);
        Ok((!file.address().is_null()).then_some(File(file)))
    }
}

/// The socket behind a file, `None` for anything else.
#[inline(always)]
pub fn socket(file: File) -> Result<Option<Sock<Probed>>, Error> {
    if !file.inode()?.is_socket()? {
        return Ok(None);
    }
    let sock = file.0.follow(&FILE_PRIVATE)?.follow(&SOCKET_SK)?;
    // A socket being closed by another thread has lost it.
    Ok((!sock.address().is_null()).then_some(Sock(sock)))
}
