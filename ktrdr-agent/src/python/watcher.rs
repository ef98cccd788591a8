//! When to look at a process, and what the kernel programs are told.
//!
//! A process is looked at when its first record arrives after it began (a server's is that it listens). Where the C
//! library's thread-specific values lead to the thread states, one look is enough for all threads to come. Elsewhere
//! each thread is resolved when it is first seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use ktrdr_ebpf_common::maps::{PyProcess, PyThread};
use ktrdr_ebpf_common::{EventHeader, kind};

use super::image::{CopySymbol, Image, ImageError};
use super::process::{PythonError, PythonProcess};
use crate::event::shell::PythonStatus;
use crate::event::{MS, Ns};

/// What the shell is to do.
#[derive(Debug)]
pub enum Action {
    /// Attach the probe to this file, once per file.
    Attach {
        /// The file, as the agent reaches it.
        path: PathBuf,
        /// Where copies are seen.
        copy: CopySymbol,
    },
    /// Tell the kernel programs where this process's threads find their contexts.
    Process(u32, PyProcess),
    /// Tell the kernel programs where this thread finds its context.
    Thread(u32, PyThread),
    /// The core and the reader of the logs want to know.
    Status(PythonStatus),
}

/// Processes remembered, Python or not; the oldest is looked at again when it shows up.
const MAX_PROCESSES: usize = 16_384;
/// Interpreter files remembered. Each is attached to once.
const MAX_FILES: usize = 256;
/// Threads resolved one by one that are remembered.
const MAX_THREADS: usize = 65_536;
/// Looks at a process that is not (yet) what it may become: an interpreter starts within milliseconds, then its
/// libraries are mapped; a program that embeds Python may take seconds.
const RETRY_NS: [Ns; 5] = [5 * MS, 20 * MS, 100 * MS, 500 * MS, 5_000 * MS];
/// Between two looks at the threads of one process, where they are resolved one by one.
const RESCAN_NS: Ns = 20 * MS;
/// Looks per call of [`Watcher::poll`]: each reads a few files and, at most, 16,384 thread states.
const MAX_LOOKS: usize = 16;

#[derive(Debug)]
enum State {
    /// Look again then.
    Due { at: Ns, tries: usize },
    /// No interpreter, or not one that can be followed.
    Settled,
    /// All threads find their own state.
    ByProcess,
    /// Each thread is resolved; the next look at the earliest then.
    ByThread { process: Box<PythonProcess>, next: Ns },
}

/// Follows the Python processes of the host.
#[derive(Debug, Default)]
pub struct Watcher {
    processes: BTreeMap<u32, State>,
    due: BTreeSet<(Ns, u32)>,
    files: BTreeMap<(String, u64), Option<Arc<Image>>>,
    attached: BTreeSet<(String, u64)>,
    threads: BTreeSet<u32>,
    statuses: BTreeMap<u32, PythonStatus>,
}

impl Watcher {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A record of the kernel programs: cheap for what is known.
    pub fn observe(&mut self, header: &EventHeader) {
        match header.kind {
            // The interpreter of the new program starts later; its first socket or context shows it.
            kind::EXEC | kind::EXIT => self.forget(header.tgid),
            // Its creator may serve anything; a Python thread shows itself soon after.
            kind::FORK => self.thread_seen(header.tgid, None),
            kind::DATA | kind::STATE | kind::PY_COPY | kind::CONNECT_ERROR => {
                self.seen(header.tgid, header.ts);
                self.thread_seen(header.tgid, Some(header.tid));
            }
            _ => {}
        }
    }

    /// A process that has sockets.
    pub fn seen(&mut self, tgid: u32, now: Ns) {
        if tgid == 0 || self.processes.contains_key(&tgid) {
            return;
        }
        if self.processes.len() >= MAX_PROCESSES
            && let Some((old, _)) = self.processes.pop_first()
        {
            self.statuses.remove(&old);
        }
        self.processes.insert(tgid, State::Due { at: now, tries: 0 });
        self.due.insert((now, tgid));
    }

    fn thread_seen(&mut self, tgid: u32, tid: Option<u32>) {
        let Some(State::ByThread { next, .. }) = self.processes.get(&tgid) else { return };
        if tid.is_none_or(|tid| !self.threads.contains(&tid)) {
            // Where that lies in the past, the next poll looks at once.
            self.due.insert((*next, tgid));
        }
    }

    fn forget(&mut self, tgid: u32) {
        self.processes.remove(&tgid);
        self.statuses.remove(&tgid);
        self.threads.remove(&tgid);
    }

    /// How Python causality stands, by process: for the start-up report and the self-metrics.
    pub fn statuses(&self) -> impl Iterator<Item = &PythonStatus> {
        self.statuses.values()
    }

    /// Looks at what is due.
    pub fn poll(&mut self, now: Ns) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..MAX_LOOKS {
            let Some(&(at, tgid)) = self.due.first() else { break };
            if at > now {
                break;
            }
            self.due.pop_first();
            self.look(tgid, now, &mut actions);
        }
        actions
    }

    fn look(&mut self, tgid: u32, now: Ns, actions: &mut Vec<Action>) {
        match self.processes.remove(&tgid) {
            None => {}
            Some(State::Due { tries, .. }) => {
                let state = self.open(tgid, tries, now, actions);
                if let State::Due { at, .. } = state {
                    self.due.insert((at, tgid));
                }
                self.processes.insert(tgid, state);
            }
            Some(State::ByThread { process, .. }) => {
                // Read errors: the process is gone, or will be seen again.
                if let Ok(threads) = process.resolve_threads() {
                    self.resolved(threads, actions);
                }
                self.processes.insert(tgid, State::ByThread { process, next: now.saturating_add(RESCAN_NS) });
            }
            Some(state @ (State::Settled | State::ByProcess)) => {
                self.processes.insert(tgid, state);
            }
        }
    }

    fn open(&mut self, tgid: u32, tries: usize, now: Ns, actions: &mut Vec<Action>) -> State {
        let files = &mut self.files;
        let opened = PythonProcess::open(tgid, |mapping, path| {
            let key = (mapping.dev.clone(), mapping.inode);
            if let Some(known) = files.get(&key) {
                return known.clone().ok_or(ImageError::NotPython);
            }
            let image = Image::open(&path, &mapping.path).map(Arc::new);
            if files.len() >= MAX_FILES {
                files.pop_first();
            }
            match &image {
                Ok(i) => files.insert(key, Some(i.clone())),
                Err(ImageError::NotPython) => files.insert(key, None),
                Err(_) => None,
            };
            image
        });
        let followed = opened.and_then(|p| p.threads().map(|threads| (p, threads)));
        match followed {
            Ok((process, threads)) => self.follow(process, &threads, now, actions),
            Err(e) => match RETRY_NS.get(tries) {
                Some(after) if e.may_pass() => {
                    State::Due { at: now.saturating_add(*after), tries: tries + 1 }
                }
                _ => {
                    if !matches!(e, PythonError::NotPython | PythonError::Io(_)) {
                        let status =
                            PythonStatus { tgid, version: String::new(), exact: false, why: e.to_string() };
                        self.status(status, actions);
                    }
                    State::Settled
                }
            },
        }
    }

    fn follow(
        &mut self,
        process: PythonProcess,
        threads: &[(u32, super::walk::ThreadState)],
        now: Ns,
        actions: &mut Vec<Action>,
    ) -> State {
        if self.attached.insert(process.file.clone()) {
            let copy = process.image.copy.clone();
            actions.push(Action::Attach { path: process.path.clone(), copy });
        }
        let status = PythonStatus {
            tgid: process.tgid,
            version: process.version.to_string(),
            exact: true,
            why: String::new(),
        };
        // The status comes last: from then on all copies are seen.
        if let Some(tls) = process.tls(threads) {
            let value = PyProcess {
                tls_offset: tls.offset,
                context_offset: tls.context,
                entered_offset: tls.entered,
            };
            actions.push(Action::Process(process.tgid, value));
            self.status(status, actions);
            return State::ByProcess;
        }
        if let Ok(threads) = process.resolve_threads() {
            self.resolved(threads, actions);
        }
        self.status(status, actions);
        State::ByThread { process: Box::new(process), next: now.saturating_add(RESCAN_NS) }
    }

    fn resolved(&mut self, threads: Vec<(u32, PyThread)>, actions: &mut Vec<Action>) {
        for (tid, thread) in threads {
            if self.threads.len() >= MAX_THREADS {
                self.threads.pop_first();
            }
            self.threads.insert(tid);
            // Also a known one: its number may be another thread's by now.
            actions.push(Action::Thread(tid, thread));
        }
    }

    fn status(&mut self, status: PythonStatus, actions: &mut Vec<Action>) {
        self.statuses.insert(status.tgid, status.clone());
        actions.push(Action::Status(status));
    }
}
