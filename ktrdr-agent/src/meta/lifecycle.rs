//! What becomes of processes: forked, executed, on the network, ended. Who is gone before it can be read is
//! described by what its records and its parent left.

use std::sync::Arc;

use ktrdr_ebpf_common::{EventHeader, ExecBody};

use super::{Entry, Metadata, Ports, process::Process};
use crate::event::ShellEvent;

/// Executions per second that are looked up in `/proc` at once (about 0.1 ms each); beyond, a busy build is not
/// worth the time, and the exec record's own arguments have to do.
const EXEC_READS_PER_SECOND: u32 = 200;
/// Starters told of a process that is asked on standard input: `npx` puts two between, a shell one.
const MAX_STARTERS: usize = 3;
/// Start times of `/proc` come in clock ticks, those of fork and exec records in nanoseconds.
const TICK_NS: u64 = 10_000_000;

impl Metadata {
    /// The process did something on the network.
    pub(super) fn active(&mut self, pid: u32, ts: u64) -> Option<ShellEvent> {
        match self.known.get(&pid) {
            Some(e) if e.epoch == self.epoch && e.holds(ts) => return None,
            _ if pid == 0 => return None,
            _ => {}
        }
        self.learn(pid, ts);
        self.report(pid)
    }

    pub(super) fn listens(&mut self, pid: u32, ts: u64, port: u16) -> Option<ShellEvent> {
        let first = self.active(pid, ts);
        let entry = self.known.get_mut(&pid)?;
        if !add_port(&mut entry.ports, port) {
            return first;
        }
        // A second report replaces the first one, which nobody has seen yet.
        self.report(pid).or(first)
    }

    /// A new process: until it executes something it is a copy of its parent.
    pub(super) fn forked(&mut self, parent: u32, child: u32, ts: u64) {
        self.known.remove(&child);
        self.prospects.remove(&child);
        let parent_entry = self.known.peek(&parent).or_else(|| self.prospects.peek(&parent));
        if let Some(entry) = parent_entry {
            let copy = Process { pid: child, ppid: parent, start_ns: ts, ..(*entry.process).clone() };
            self.prospects.insert(child, Entry { process: Arc::new(copy), ..Entry::default() });
        }
    }

    /// A process became another program. It is read at once, because it may be gone when it first uses the network.
    pub(super) fn executed(&mut self, header: &EventHeader, exec: &ExecBody, args: &[u8]) {
        let pid = header.tgid;
        let before = self.known.remove(&pid).or_else(|| self.prospects.remove(&pid)).unwrap_or_default();
        let read = if self.exec_budget.take(header.ts, EXEC_READS_PER_SECOND) {
            self.read(pid, header.ts)
        } else {
            None
        };
        // What an exec leaves as it was, and what its record says.
        let old = &before.process;
        let said = Process {
            cwd: old.cwd.clone(),
            uid: old.uid,
            netns: old.netns,
            container: old.container.clone(),
            otel: old.otel.clone(),
            ..Process::from_exec(pid, exec.ppid, &exec.comm, args, header.ts)
        };
        let process = match read {
            Some(read) => read.completed_by(&said),
            None => said,
        };
        // Sockets may be handed through an exec (a server that upgrades itself).
        let entry = Entry { process: Arc::new(process), ports: before.ports, ..Entry::default() };
        self.prospects.insert(pid, entry);
    }

    /// Who started this process, and so on, nearest first.
    pub(super) fn starters(&self, pid: u32) -> Vec<u32> {
        let known = |pid: u32| self.known.peek(&pid).or_else(|| self.prospects.peek(&pid));
        let above = |pid: u32| match known(pid).map(|e| e.process.ppid).filter(|ppid| *ppid != 0) {
            None => self.proc.parent(pid),
            known => known,
        };
        let parent = |pid: u32| above(pid).filter(|ppid| *ppid > 1);
        std::iter::successors(parent(pid), |pid| parent(*pid)).take(MAX_STARTERS).collect()
    }

    /// Reads a process unless it is gone, or started after `ts` and so is another one with the same number.
    pub(super) fn read(&self, pid: u32, ts: u64) -> Option<Process> {
        match Process::read(&self.proc, pid) {
            Ok(p) => (p.start_ns <= ts).then_some(p),
            Err(e) => {
                tracing::debug!("{e}");
                None
            }
        }
    }

    /// Makes the process known, as well as it can be.
    pub(super) fn learn(&mut self, pid: u32, ts: u64) {
        let (epoch, start) = (self.epoch, self.proc.start_ns(pid));
        if let Some(e) = self.known.peek_mut(&pid)
            && e.holds(ts)
        {
            // Gone, unread so far or the same: still this process. Younger than the record: not yet another one.
            let same = start.is_none_or(|s| e.process.start_ns.abs_diff(s) <= TICK_NS || s > ts);
            if e.epoch == epoch || same {
                e.epoch = epoch;
                return;
            }
        }
        self.known.remove(&pid);
        let prospect = self.prospects.remove(&pid);
        let entry = match (self.read(pid, ts), prospect) {
            (Some(read), Some(before)) => {
                Entry { process: Arc::new(read.completed_by(&before.process)), ..before }
            }
            (Some(read), None) => Entry { process: Arc::new(read), ..Entry::default() },
            (None, Some(before)) => before,
            (None, None) => {
                Entry { process: Arc::new(Process { pid, ..Process::default() }), ..Entry::default() }
            }
        };
        self.known.insert(pid, Entry { epoch, ..entry });
    }
}

/// So many per second of record time.
#[derive(Debug, Default)]
pub(super) struct Budget {
    second: u64,
    used: u32,
}

impl Budget {
    pub(super) fn take(&mut self, ts: u64, per_second: u32) -> bool {
        let second = ts / 1_000_000_000;
        if second != self.second {
            *self = Self { second, used: 0 };
        }
        self.used = self.used.saturating_add(1);
        self.used <= per_second
    }
}

impl Entry {
    /// Whether a record made at `ts` can be about this process.
    fn holds(&self, ts: u64) -> bool {
        self.ended.is_none_or(|end| ts <= end)
    }
}

/// Adds a port in its place; false if it was there.
pub(super) fn add_port(ports: &mut Ports, port: u16) -> bool {
    match ports.binary_search(&port) {
        Ok(_) => false,
        Err(at) => {
            ports.insert(at, port);
            true
        }
    }
}
