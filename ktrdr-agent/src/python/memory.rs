//! Reading another process's memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Memory that may be gone, unmapped or hostile.
pub trait Memory {
    /// Fills `buf` from `addr`.
    ///
    /// # Errors
    /// Not all of it is mapped, or the process is gone.
    fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()>;

    /// A number at `addr`.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn u64(&self, addr: u64) -> io::Result<u64> {
        let mut buf = [0; 8];
        self.read(addr, &mut buf)?;
        Ok(u64::from_ne_bytes(buf))
    }
}

/// `/proc/PID/mem`: one descriptor of one process image; after an exec or an exit it reads nothing.
#[derive(Debug)]
pub struct ProcessMemory(File);

impl ProcessMemory {
    /// Opens a process's memory (needs `CAP_SYS_PTRACE` or root).
    ///
    /// # Errors
    /// No such process, or no permission.
    pub fn open(tgid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{tgid}/mem")).map(Self)
    }
}

impl Memory for ProcessMemory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        // Addresses above are the kernel's; the offset is signed there.
        if addr > i64::MAX as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.read_exact_at(buf, addr)
    }
}
