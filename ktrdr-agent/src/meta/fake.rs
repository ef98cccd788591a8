//! A procfs made of ordinary files, for tests.

use std::{fmt::Write, fs, os::unix::fs::symlink, path::PathBuf};

use super::procfs::ProcFs;

/// The directory; removed when dropped.
pub struct FakeProc {
    dir: tempfile::TempDir,
}

/// One process of it.
pub struct FakeProcess {
    dir: PathBuf,
}

impl FakeProc {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn proc(&self) -> ProcFs {
        ProcFs::new(self.dir.path())
    }

    pub fn root(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Adds a process that started at the clock tick of its own number.
    pub fn process(&self, pid: u32, ppid: u32, args: &[&str]) -> FakeProcess {
        self.started(pid, ppid, args, u64::from(pid))
    }

    pub fn started(&self, pid: u32, ppid: u32, args: &[&str], ticks: u64) -> FakeProcess {
        let dir = self.dir.path().join(pid.to_string());
        fs::create_dir_all(dir.join("ns")).unwrap();
        fs::create_dir_all(dir.join("net")).unwrap();
        fs::create_dir_all(dir.join("fd")).unwrap();
        let comm = args.first().map_or("", |a| a.rsplit('/').next().unwrap());
        let zeros = "0 ".repeat(17);
        let process = FakeProcess { dir };
        let cmdline = args.iter().fold(String::new(), |mut all, a| {
            write!(all, "{a}\0").unwrap();
            all
        });
        process.file("stat", format!("{pid} ({comm}) S {ppid} {zeros}{ticks} 0 0\n")).file("cmdline", cmdline)
    }

    pub fn end(&self, pid: u32) {
        fs::remove_dir_all(self.dir.path().join(pid.to_string())).unwrap();
    }
}

impl FakeProcess {
    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.dir.join(name), text).unwrap();
        self
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        symlink(target, self.dir.join(name)).unwrap();
        self
    }
}
