//! Processes that a GPU's driver names: whose pid is it, and who is that.
//!
//! A driver gives pids of the caller's pid namespace (or, older ones, of the host's). An agent on the host sees the
//! host's either way. An agent in a container, with the host's procfs mounted, finds the process by the numbers it has
//! in each of its namespaces (`NSpid`), and takes one only if it has an NVIDIA device open.

use std::path::Path;

use super::{Metadata, procfs::ProcFs};
use crate::event::ShellEvent;

/// The first pid namespace of a host has this inode number on every Linux (`PROC_PID_INIT_INO`).
const HOST_NAMESPACE: &str = "pid:[4026531836]";
/// Parents told along with a process that uses a GPU; its own and theirs are what spans belong to.
const PARENTS: usize = 4;
/// Open files looked through for a device.
const MAX_FILES: usize = 4096;

impl Metadata {
    /// Whether pids from the driver are the host's as they are.
    pub fn on_host(&self) -> bool {
        let own = std::fs::read_link("/proc/self/ns/pid");
        own.is_ok_and(|l| l == Path::new(HOST_NAMESPACE))
    }

    /// The host's pid of the process that the driver calls `pid`; `None` if that cannot be told.
    pub fn gpu_pid(&self, pid: u32) -> Option<u32> {
        host_pid(&self.proc, pid, &|host| has_device_open(&self.proc, host))
    }

    /// What is to be told of a process that uses a GPU, and of its parents, if they are not known yet.
    pub fn uses_gpu(&mut self, pid: u32, ts: u64) -> Vec<ShellEvent> {
        let mut facts = Vec::new();
        let mut at = pid;
        for _ in 0..=PARENTS {
            if at <= 1 {
                break;
            }
            facts.extend(self.active(at, ts));
            at = self.known.peek(&at).map_or(0, |e| e.process.ppid);
        }
        facts
    }

    /// Whether the process has ended, as far as is known.
    pub fn has_ended(&self, pid: u32) -> bool {
        self.known.peek(&pid).is_none_or(|e| e.ended.is_some())
    }
}

/// The process with this number in some pid namespace, for which `uses_gpu` holds; one, or it is not told.
fn host_pid(proc: &ProcFs, pid: u32, uses_gpu: &dyn Fn(u32) -> bool) -> Option<u32> {
    let mut found = proc.pids().ok()?.into_iter().filter(|host| {
        let numbers =
            || proc.read(*host, "status", 4096).ok().and_then(|s| namespaces(&s)).unwrap_or_default();
        (*host == pid || numbers().contains(&pid)) && uses_gpu(*host)
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Numbers of a process in its pid namespaces, the host's first.
fn namespaces(status: &[u8]) -> Option<Vec<u32>> {
    let text = String::from_utf8_lossy(status);
    let line = text.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|n| n.parse().ok()).collect()
}

fn has_device_open(proc: &ProcFs, pid: u32) -> bool {
    let Ok(files) = std::fs::read_dir(proc.of(pid, "fd")) else { return false };
    files.take(MAX_FILES).flatten().any(|f| {
        std::fs::read_link(f.path()).is_ok_and(|l| {
            let name = l.to_string_lossy();
            name.strip_prefix("/dev/nvidia").is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A process with numbers and an open file.
    fn process(root: &Path, numbers: &[u32], file: &str) {
        let dir = root.join(numbers[0].to_string());
        fs::create_dir_all(dir.join("fd")).unwrap();
        let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        fs::write(dir.join("status"), format!("Name:\tx\nNSpid:\t{}\nThreads:\t1\n", list.join("\t")))
            .unwrap();
        symlink(file, dir.join("fd/3")).unwrap();
    }

    #[test]
    fn a_number_of_a_namespace_leads_to_the_process_with_the_device() {
        let dir = tempfile::tempdir().unwrap();
        let proc = ProcFs::new(dir.path());
        process(dir.path(), &[900, 17], "/dev/nvidia0");
        process(dir.path(), &[901, 17], "/dev/null");
        process(dir.path(), &[17], "/dev/nvidiactl");
        process(dir.path(), &[950, 30, 4], "/dev/nvidia1");
        process(dir.path(), &[960, 5], "/dev/nvidia0");
        process(dir.path(), &[961, 5], "/dev/nvidia0");
        let host = |pid| host_pid(&proc, pid, &|host| has_device_open(&proc, host));
        assert_eq!(host(17), Some(900));
        assert_eq!((host(4), host(30), host(950)), (Some(950), Some(950), Some(950)));
        assert_eq!(host(5), None, "two containers have such a process");
        assert_eq!(host(77), None);
    }
}
