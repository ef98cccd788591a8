//! When to look at a process, and what the kernel programs are told.
//!
//! A process is looked at when its first record arrives after it began (a server's is that it listens). Where the C
//! library's thread-specific values lead to the thread states, one look is enough for all threads to come. Elsewhere
//! each thread is resolved when it is first seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ktrdr_ebpf_common::maps::{PyForetelling, PyProcess, PyThread};
use ktrdr_ebpf_common::{EventHeader, kind};

use super::image::{Image, ImageError};
use super::maps;
use super::pool::Pools;
use super::probed::{FileId, ProbeId, Probed};
use super::process::{PythonError, PythonProcess, Tls};
use super::queue::Queue;
use super::stream::Stream;
use super::uvloop::{Loop, Uvloops};
use super::walk::ThreadState;
use crate::event::shell::PythonStatus;
use crate::event::{MS, Ns};

/// The kernel side, as far as the watcher needs it. Errors are in words: they become the status of a process.
pub trait Probes {
    /// Sees context copies in this file (as the agent reaches it), of all processes that map it. `copy` is where
    /// `PyContext_CopyCurrent` begins in it.
    ///
    /// # Errors
    /// Why they cannot be seen.
    fn attach(&mut self, path: &Path, copy: u64) -> Result<ProbeId, String>;
    /// Sees what pools of threads are given through the queues of this file, and what their threads take.
    ///
    /// # Errors
    /// Why that cannot be seen.
    fn attach_pool(&mut self, path: &Path, queue: &Queue) -> Result<ProbeId, String>;
    /// Sees what is written to the streams of a loop that sends later, through the functions of this file.
    ///
    /// # Errors
    /// Why that cannot be seen.
    fn attach_stream(&mut self, path: &Path, stream: &Stream) -> Result<ProbeId, String>;
    /// Ends any of them.
    fn detach(&mut self, probe: ProbeId);
    /// Tells where this process's threads find their contexts.
    ///
    /// # Errors
    /// Why that is not known to the programs now.
    fn process(&mut self, process: PyProcess) -> Result<(), String>;
    /// Tells where this thread finds its context.
    ///
    /// # Errors
    /// Why that is not known to the programs now.
    fn thread(&mut self, tid: u32, thread: PyThread) -> Result<(), String>;
}

/// Processes remembered, Python or not; the oldest is looked at again when it shows up.
const MAX_PROCESSES: usize = 16_384;
/// Interpreter files remembered.
const MAX_FILES: usize = 256;
/// Threads resolved one by one that are remembered.
const MAX_THREADS: usize = 65_536;
/// Looks at a process that is not (yet) what it may become: an interpreter starts within milliseconds, then its
/// libraries are mapped; a program that embeds Python may take seconds.
const RETRY_NS: [Ns; 5] = [5 * MS, 20 * MS, 100 * MS, 500 * MS, 5_000 * MS];
/// Between two looks at the threads of one process, where they are resolved one by one.
const RESCAN_NS: Ns = 20 * MS;
/// Searches for what was not found at once, each after the copy of a context. The interpreter's free list of them is empty
/// while a process makes more of them than it frees; and uvloop is loaded after the first socket was opened, perhaps.
const SEARCHES: u32 = 10;
/// Before the second of them; the time doubles with each.
const SEARCH_NS: Ns = 20 * MS;
/// Looks per call of [`Watcher::poll`]: each reads a few files and, at most, 16,384 thread states.
const MAX_LOOKS: usize = 16;

#[derive(Debug)]
enum State {
    /// Look again then.
    Due { at: Ns, tries: usize },
    /// No interpreter, or not one that can be followed.
    Settled,
    /// All threads find their own state; what is not found yet, if anything.
    ByProcess(Option<Box<Search>>),
    /// Each thread is resolved; the next look at the earliest then.
    ByThread { process: Box<PythonProcess>, next: Ns },
}

/// For the interpreter's free list, and the loop.
#[derive(Debug)]
struct Search {
    process: PythonProcess,
    tls: Tls,
    /// What the kernel programs know.
    told: PyProcess,
    next: Ns,
    tries: u32,
}

/// Follows the Python processes of the host.
#[derive(Debug, Default)]
pub struct Watcher {
    processes: BTreeMap<u32, State>,
    due: BTreeSet<(Ns, u32)>,
    files: BTreeMap<FileId, Option<Arc<Image>>>,
    probed: Probed,
    pools: Pools,
    uvloops: Uvloops,
    /// Of interpreters' files: where the free list of contexts is, as found in one process.
    free_lists: BTreeMap<FileId, u32>,
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
            kind::EXEC | kind::EXIT => self.forget(header.tgid, header.ts),
            // Its creator may serve anything; a Python thread shows itself soon after.
            kind::FORK => self.thread_seen(header.tgid, None),
            kind::DATA
            | kind::STATE
            | kind::PY_COPY
            | kind::PY_SUBMIT
            | kind::PY_TAKE
            | kind::PY_WRITE
            | kind::CONNECT_ERROR
            | kind::READ => {
                self.seen(header.tgid, header.ts);
                self.thread_seen(header.tgid, Some(header.tid));
                if header.kind == kind::PY_COPY {
                    self.copy_seen(header.tgid);
                }
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
            && self.statuses.remove(&old).is_some()
        {
            self.left(old, now);
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

    fn copy_seen(&mut self, tgid: u32) {
        if let Some(State::ByProcess(Some(search))) = self.processes.get(&tgid) {
            self.due.insert((search.next, tgid));
        }
    }

    fn forget(&mut self, tgid: u32, now: Ns) {
        self.processes.remove(&tgid);
        self.threads.remove(&tgid);
        // Most programs of a host are no interpreters.
        if self.statuses.remove(&tgid).is_some() {
            self.left(tgid, now);
        }
    }

    fn left(&mut self, tgid: u32, now: Ns) {
        self.probed.left(tgid, now);
        self.pools.left(tgid, now);
        self.uvloops.left(tgid, now);
    }

    /// How Python causality stands, by process: for the start-up report and the self-metrics.
    pub fn statuses(&self) -> impl Iterator<Item = &PythonStatus> {
        self.statuses.values()
    }

    /// Looks at what is due. Returns what became known of processes.
    pub fn poll(&mut self, now: Ns, probes: &mut dyn Probes) -> Vec<PythonStatus> {
        let mut news = Vec::new();
        for _ in 0..MAX_LOOKS {
            let Some(&(at, tgid)) = self.due.first() else { break };
            if at > now {
                break;
            }
            self.due.pop_first();
            self.look(tgid, now, probes, &mut news);
        }
        let mut unused = self.probed.unused(now);
        unused.extend(self.pools.unused(now));
        unused.extend(self.uvloops.unused(now));
        for probe in unused {
            probes.detach(probe);
        }
        news
    }

    fn look(&mut self, tgid: u32, now: Ns, probes: &mut dyn Probes, news: &mut Vec<PythonStatus>) {
        match self.processes.remove(&tgid) {
            None => {}
            Some(State::Due { tries, .. }) => {
                let state = self.open(tgid, tries, now, probes, news);
                if let State::Due { at, .. } = state {
                    self.due.insert((at, tgid));
                }
                self.processes.insert(tgid, state);
            }
            Some(State::ByProcess(Some(search))) => {
                let state = State::ByProcess(self.search(*search, now, probes));
                self.processes.insert(tgid, state);
            }
            Some(State::ByThread { mut process, .. }) => {
                // Its status has been said, and the log says why not.
                let _ = self.find_loop(&mut process, probes);
                // Two places may have looked right at the first look; one is enough to need no more of them.
                let tls = process.threads().ok().and_then(|threads| process.tls(&threads));
                if let Some(tls) = tls
                    && probes.process(self.value(&process, tls)).is_ok()
                {
                    let search = self.begin_search(*process, tls, now);
                    self.processes.insert(tgid, State::ByProcess(search));
                    return;
                }
                // Read errors: the process is gone, or will be seen again.
                let told = process.resolve_threads().map_or(Ok(()), |threads| self.resolved(threads, probes));
                if let Err(why) = told
                    && self.statuses.get(&tgid).is_some_and(|s| s.exact)
                {
                    self.status(degraded(tgid, process.version.to_string(), why), news);
                }
                self.processes.insert(tgid, State::ByThread { process, next: now.saturating_add(RESCAN_NS) });
            }
            Some(state @ (State::Settled | State::ByProcess(None))) => {
                self.processes.insert(tgid, state);
            }
        }
    }

    fn open(
        &mut self,
        tgid: u32,
        tries: usize,
        now: Ns,
        probes: &mut dyn Probes,
        news: &mut Vec<PythonStatus>,
    ) -> State {
        let files = &mut self.files;
        let opened = PythonProcess::open(tgid, |file, path, name| {
            if let Some(known) = files.get(&file) {
                return known.clone().ok_or(ImageError::NotPython);
            }
            let image = Image::open(path, name).map(Arc::new);
            if files.len() >= MAX_FILES {
                files.pop_first();
            }
            match &image {
                Ok(i) => files.insert(file, Some(i.clone())),
                Err(ImageError::NotPython) => files.insert(file, None),
                Err(_) => None,
            };
            image
        });
        let followed = opened.and_then(|p| p.threads().map(|threads| (p, threads)));
        match followed {
            Ok((process, threads)) => self.follow(process, &threads, now, probes, news),
            Err(e) => match RETRY_NS.get(tries) {
                Some(after) if e.may_pass() => {
                    State::Due { at: now.saturating_add(*after), tries: tries + 1 }
                }
                _ => {
                    if !matches!(e, PythonError::NotPython | PythonError::Io(_)) {
                        self.status(degraded(tgid, String::new(), e.to_string()), news);
                    }
                    State::Settled
                }
            },
        }
    }

    /// Has another look for uvloop, if there was none.
    fn find_loop(&mut self, process: &mut PythonProcess, probes: &mut dyn Probes) -> Result<(), String> {
        if process.uvloop == Loop::Unknown {
            let found = self.uvloops.attach(process, probes);
            process.uvloop = *found.as_ref().unwrap_or(&Loop::AtOnce);
            found?;
        }
        Ok(())
    }

    fn follow(
        &mut self,
        mut process: PythonProcess,
        threads: &[(u32, ThreadState)],
        now: Ns,
        probes: &mut dyn Probes,
        news: &mut Vec<PythonStatus>,
    ) -> State {
        let (tgid, version) = (process.tgid, process.version.to_string());
        let seen_loop = self.find_loop(&mut process, probes);
        let told = self.tell(&process, threads, probes);
        // The status comes last: from then on all copies are seen.
        let status = match &told {
            Ok(_) => {
                let pools =
                    self.pools.attach(&process, probes).map_err(|why| format!("pools of threads: {why}"));
                let seen_loop = seen_loop.map_err(|why| format!("what tasks write through uvloop: {why}"));
                let why: Vec<String> = [pools, seen_loop].into_iter().filter_map(Result::err).collect();
                let greenlets =
                    maps::extension(tgid, "gevent", "_gevent_c").is_ok_and(|found| found.is_some());
                PythonStatus { tgid, version, exact: true, greenlets, why: why.join("; ") }
            }
            Err(why) => degraded(tgid, version, why.clone()),
        };
        self.status(status, news);
        match told {
            Ok(Told::Process(tls)) => State::ByProcess(self.begin_search(process, tls, now)),
            Ok(Told::Threads) => {
                State::ByThread { process: Box::new(process), next: now.saturating_add(RESCAN_NS) }
            }
            Err(_) => State::Settled,
        }
    }

    /// Tells the kernel programs all they need. Contexts without their copies would be worse than none, so the
    /// probe comes first.
    fn tell(
        &mut self,
        process: &PythonProcess,
        threads: &[(u32, ThreadState)],
        probes: &mut dyn Probes,
    ) -> Result<Told, String> {
        self.probed.uses(process.file, process.tgid, || probes.attach(&process.path, process.image.copy))?;
        if let Some(tls) = process.tls(threads) {
            return probes.process(self.value(process, tls)).map(|()| Told::Process(tls));
        }
        // Read errors: the process is gone, or its threads will be seen again.
        let threads = process.resolve_threads().unwrap_or_default();
        self.resolved(threads, probes).map(|()| Told::Threads)
    }

    /// With the free list, if it was found in another process of the same interpreter.
    fn value(&self, process: &PythonProcess, tls: Tls) -> PyProcess {
        let head = self.free_lists.get(&process.file).copied().unwrap_or_default();
        PyProcess {
            tls_offset: tls.offset,
            tgid: process.tgid,
            contexts: tls.contexts,
            foretelling: PyForetelling::new(head),
        }
    }

    fn begin_search(&self, process: PythonProcess, tls: Tls, now: Ns) -> Option<Box<Search>> {
        let sought = self.seeks_list(&process) || process.uvloop == Loop::Unknown;
        let told = self.value(&process, tls);
        sought.then(|| Box::new(Search { process, tls, told, next: now, tries: 0 }))
    }

    fn seeks_list(&self, process: &PythonProcess) -> bool {
        process.has_free_contexts() && !self.free_lists.contains_key(&process.file)
    }

    /// Another look for what is not known. What is left to do of it.
    fn search(&mut self, search: Search, now: Ns, probes: &mut dyn Probes) -> Option<Box<Search>> {
        let Search { mut process, tls, tries, told, .. } = search;
        if self.seeks_list(&process)
            && let Some(head) = process.free_contexts()
        {
            if self.free_lists.len() >= MAX_FILES {
                self.free_lists.pop_first();
            }
            tracing::debug!("free contexts of {}: at {head}, after {tries} looks", process.path.display());
            self.free_lists.insert(process.file, head);
        }
        // Its status has been said, and the log says why not.
        let _ = self.find_loop(&mut process, probes);
        let tls = process.tls_at(tls.offset);
        let value = self.value(&process, tls);
        // Only what is new: what the list named so far would have to be confirmed again.
        if value != told {
            // Refused: all is seen as before.
            let _ = probes.process(value);
        }
        let more = self.seeks_list(&process) || process.uvloop == Loop::Unknown;
        let next = now.saturating_add(SEARCH_NS << tries);
        let tries = tries + 1;
        (more && tries < SEARCHES).then(|| Box::new(Search { process, tls, next, tries, told: value }))
    }

    fn resolved(&mut self, threads: Vec<(u32, PyThread)>, probes: &mut dyn Probes) -> Result<(), String> {
        for (tid, thread) in threads {
            if self.threads.len() >= MAX_THREADS {
                self.threads.pop_first();
            }
            self.threads.insert(tid);
            // Also a known one: its number may be another thread's by now.
            probes.thread(tid, thread)?;
        }
        Ok(())
    }

    fn status(&mut self, status: PythonStatus, news: &mut Vec<PythonStatus>) {
        self.statuses.insert(status.tgid, status.clone());
        news.push(status);
    }
}

/// How the kernel programs find the contexts of a process.
enum Told {
    Process(Tls),
    Threads,
}

fn degraded(tgid: u32, version: String, why: String) -> PythonStatus {
    PythonStatus { tgid, version, exact: false, greenlets: false, why }
}
