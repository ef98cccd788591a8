//! Reading files of procfs: bounded, and with "the process is gone" as a value.
//!
//! The root is a parameter, so that tests use a directory of their own and an agent in a container the host's.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It ended, or never was.
    #[error("process {0} is gone")]
    Gone(u32),
    /// Its `stat` is not what procfs writes.
    #[error("process {0}: malformed stat")]
    Malformed(u32),
    /// Anything else.
    #[error("process {0}: {1}")]
    Io(u32, io::Error),
}

/// A procfs.
#[derive(Clone, Debug)]
pub struct ProcFs {
    root: PathBuf,
}

impl ProcFs {
    /// The procfs mounted at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file that belongs to no process: `sys/kernel/hostname`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A file of a process.
    pub fn of(&self, pid: u32, name: &str) -> PathBuf {
        let mut path = self.root.join(pid.to_string());
        path.push(name);
        path
    }

    /// The first `limit` bytes of a file of a process.
    pub fn read(&self, pid: u32, name: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        read_bounded(&self.of(pid, name), limit).map_err(|e| classify(pid, e))
    }

    /// What a link of a process points to; `None` if it cannot be read (kernel threads, no permission, gone).
    pub fn link(&self, pid: u32, name: &str) -> Option<String> {
        let target = std::fs::read_link(self.of(pid, name)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    /// This process as that procfs numbers it (it may belong to another pid namespace).
    pub fn own_pid(&self) -> u32 {
        let link = std::fs::read_link(self.root.join("self"));
        link.ok().and_then(|l| l.to_str()?.parse().ok()).unwrap_or_else(std::process::id)
    }

    /// All processes, in ascending order.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let entries = std::fs::read_dir(&self.root)?;
        let mut pids: Vec<u32> = entries
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != 0)
            .collect();
        pids.sort_unstable();
        Ok(pids)
    }
}

/// The first `limit` bytes of a file.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut out)?;
    Ok(out)
}

/// A short text file without the white space around it; `None` if it cannot be read or is empty.
pub fn read_line(path: &Path) -> Option<String> {
    let bytes = read_bounded(path, 4096).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn classify(pid: u32, e: io::Error) -> ReadError {
    // A process that ends while its file is open gives ESRCH.
    if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) {
        ReadError::Gone(pid)
    } else {
        ReadError::Io(pid, e)
    }
}
