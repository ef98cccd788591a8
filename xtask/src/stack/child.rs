//! A process of ours, which never outlives us.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// From the request to end to the kill. Uvicorn waits for open requests; the agent drains in under a second.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Child {
    name: String,
    child: std::process::Child,
}

impl Child {
    /// Starts `command`; what it prints on stdout and stderr goes into the file `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdout(log.try_clone()?).stderr(log);
        Self::spawn_as_is(name, command)
    }

    /// Starts `command` with the output streams it was given.
    pub fn spawn_as_is(name: &str, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null());
        // SAFETY: prctl is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal to it and the processes it started, these first.
    pub fn signal(&self, signal: i32) {
        for pid in descendants(self.child.id()).into_iter().rev() {
            // SAFETY: a plain system call. Ours is not yet waited for, so the id is its own; the others are its own
            // as long as it does not wait for them at this very moment.
            unsafe { libc::kill(pid.cast_signed(), signal) };
        }
    }

    /// Asks it to end, and insists if it does not.
    pub fn stop(&mut self) {
        if self.exited().is_some() {
            return;
        }
        // One that was halted does not hear.
        self.signal(libc::SIGCONT);
        // SAFETY: a plain system call; the process is ours and not yet waited for, so the id is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        if wait::until(PATIENCE, || self.exited()).is_none() {
            eprintln!("xtask: {} (pid {}) did not end when asked; killing it", self.name, self.child.id());
            self.signal(libc::SIGKILL);
            if self.child.wait().is_err() {
                eprintln!("xtask: {} could not be killed", self.name);
            }
        }
    }
}

/// The process and all it started, parents first.
fn descendants(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        // Children are listed by the thread that started them.
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    all
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_reaches_grandchildren() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut shell = Command::new("sh");
        let child = Child::spawn("sh", shell.args(["-c", "sleep 600 & wait"]), log.path()).unwrap();
        let family = || descendants(child.id());
        wait::until(PATIENCE, || (family().len() == 2).then_some(())).unwrap();
        let sleep = family()[1];
        child.signal(libc::SIGKILL);
        let gone = wait::until(PATIENCE, || {
            let stat = std::fs::read_to_string(format!("/proc/{sleep}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z")).then_some(())
        });
        assert!(gone.is_some());
    }

    #[test]
    fn a_child_ends_with_its_owner() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = Child::spawn("sleep", Command::new("sleep").arg("600"), log.path()).unwrap();
        let process = format!("/proc/{}", child.id());
        assert!(Path::new(&process).exists());
        drop(child);
        assert!(!Path::new(&process).exists());
    }
}
