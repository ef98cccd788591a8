//! Who the observed processes are. The only module that reads `/proc` for facts about processes, containers,
//! listeners and the host.
//!
//! [`Metadata::observe`] sees every kernel record before the core does and returns the fact that has to go before
//! it. A known process costs one hash look-up.

pub mod container;
#[cfg(test)]
mod fake;
mod filter;
mod guess;
pub mod host;
mod ktrdr;
pub mod listeners;
mod pattern;
pub mod process;
pub mod procfs;
pub mod service;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use hashlink::LruCache;
use ktrdr_ebpf_common::{EventHeader, ExecBody, ForkBody, StateBody, flags, kind};
use smallvec::SmallVec;
use zerocopy::FromBytes;

use self::{
    container::ContainerNames,
    filter::Filter,
    process::Process,
    procfs::ProcFs,
    service::{Namer, Service, Subject},
};
use crate::{
    event::{
        shell::{ProcessMeta, ShellEvent, Start},
        tcp,
    },
    settings::Settings,
};

/// Processes that were forked or executed and have not used the network yet: only the latest matter, to describe
/// short-lived programs that are gone when their records arrive.
const MAX_PROSPECTS: usize = 2_048;
/// Container names kept; far more than containers run on a host.
const MAX_CONTAINERS: usize = 1_024;
/// Executions per second that are looked up in `/proc` at once (about 0.1 ms each); beyond, a busy build is not
/// worth the time, and the exec record's own arguments have to do.
const EXEC_READS_PER_SECOND: u32 = 200;
/// Generations followed upwards. Reloaders and pre-forking servers add one or two each.
const MAX_GENERATIONS: usize = 16;

/// Ports a process listens on, ascending. Servers have one or two.
type Ports = SmallVec<[u16; 4]>;

/// A process as known so far.
#[derive(Clone, Debug, Default)]
struct Entry {
    process: Arc<Process>,
    ports: Ports,
    /// What was last reported about it.
    service: Option<Service>,
    /// When it ended. It is kept, since records of other CPUs may still be under way.
    ended: Option<u64>,
}

/// Metadata of the observed processes.
pub struct Metadata {
    proc: ProcFs,
    root: PathBuf,
    namer: Namer,
    filter: Filter,
    /// Processes that were reported.
    known: LruCache<u32, Entry>,
    prospects: LruCache<u32, Entry>,
    containers: LruCache<String, ContainerNames>,
    exec_budget: Budget,
}

/// So many per second of record time.
#[derive(Debug, Default)]
struct Budget {
    second: u64,
    used: u32,
}

impl Budget {
    fn take(&mut self, ts: u64, per_second: u32) -> bool {
        let second = ts / 1_000_000_000;
        if second != self.second {
            *self = Self { second, used: 0 };
        }
        self.used = self.used.saturating_add(1);
        self.used <= per_second
    }
}

impl Metadata {
    /// Knows nothing yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            proc: ProcFs::new(&settings.host.proc),
            root: PathBuf::from(&settings.host.root),
            namer: Namer::new(&settings.services),
            filter: Filter::new(&settings.include, &settings.exclude),
            known: LruCache::new(settings.limits.processes),
            prospects: LruCache::new(MAX_PROSPECTS),
            containers: LruCache::new(MAX_CONTAINERS),
            exec_budget: Budget::default(),
        }
    }

    /// The facts that begin a stream: the host, then everybody who listens, then the listeners.
    pub fn start(&mut self) -> Vec<ShellEvent> {
        let host = host::Host::read(&self.proc, &self.root);
        let mut events = vec![ShellEvent::Start(Start {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_tgid: self.proc.own_pid(),
            id_seed: host.id_seed(),
            wall_offset_ns: host::wall_offset_ns(),
            host: host.attributes,
        })];
        let found = listeners::snapshot(&self.proc);
        if found.skipped {
            tracing::warn!("too many open files on this host: some listeners have no known process");
        }
        for l in found.listeners.iter().filter(|l| l.tgid != 0) {
            self.learn(l.tgid, u64::MAX);
            if let Some(entry) = self.known.get_mut(&l.tgid) {
                add_port(&mut entry.ports, l.port);
            }
        }
        // Named when all ports are known: a child's name may depend on its parent's.
        let mut pids: Vec<u32> = found.listeners.iter().map(|l| l.tgid).filter(|pid| *pid != 0).collect();
        pids.sort_unstable();
        pids.dedup();
        events.extend(pids.into_iter().filter_map(|pid| self.report(pid)));
        events.extend(found.listeners.into_iter().map(ShellEvent::Listener));
        events
    }

    /// The service expected behind each well-known port, for peers that are not observed.
    pub fn port_names(&self) -> Vec<(u16, String)> {
        self.namer.port_names()
    }

    /// What has to be told before this record: who its process is, if that is not known yet or has changed.
    /// `record` is the whole record, header included; what it lacks is ignored here (the decoder counts it).
    pub fn observe(&mut self, header: &EventHeader, record: &[u8]) -> Option<ShellEvent> {
        let body = record.get(size_of::<EventHeader>()..).unwrap_or_default();
        match header.kind {
            kind::DATA | kind::CONNECT_ERROR => self.active(header.tgid, header.ts),
            kind::STATE => {
                let (state, _) = StateBody::read_from_prefix(body).ok()?;
                match state.new {
                    tcp::LISTEN => self.listens(header.tgid, header.ts, state.tuple.local_port),
                    tcp::SYN_SENT => self.active(header.tgid, header.ts),
                    // Other changes may happen in interrupts, in the context of anybody.
                    _ => None,
                }
            }
            kind::EXEC => {
                let (exec, args) = ExecBody::read_from_prefix(body).ok()?;
                let args = args.get(..exec.args_len as usize).unwrap_or(args);
                self.executed(header, &exec, args);
                None
            }
            kind::FORK if header.flags & flags::THREAD == 0 => {
                let (fork, _) = ForkBody::read_from_prefix(body).ok()?;
                self.forked(header.tgid, fork.child_tgid, header.ts);
                None
            }
            kind::EXIT => {
                if let Some(entry) = self.known.peek_mut(&header.tgid) {
                    entry.ended = Some(header.ts);
                }
                None
            }
            _ => None,
        }
    }

    /// The process did something on the network.
    fn active(&mut self, pid: u32, ts: u64) -> Option<ShellEvent> {
        match self.known.get(&pid) {
            Some(e) if e.service.is_some() && e.ended.is_none_or(|end| ts <= end) => return None,
            _ if pid == 0 => return None,
            _ => {}
        }
        self.learn(pid, ts);
        self.report(pid)
    }

    fn listens(&mut self, pid: u32, ts: u64, port: u16) -> Option<ShellEvent> {
        let first = self.active(pid, ts);
        let entry = self.known.get_mut(&pid)?;
        if !add_port(&mut entry.ports, port) {
            return first;
        }
        // A second report replaces the first one, which nobody has seen yet.
        self.report(pid).or(first)
    }

    /// A new process: until it executes something it is a copy of its parent.
    fn forked(&mut self, parent: u32, child: u32, ts: u64) {
        self.known.remove(&child);
        self.prospects.remove(&child);
        let parent_entry = self.known.peek(&parent).or_else(|| self.prospects.peek(&parent));
        if let Some(entry) = parent_entry {
            let copy = Process { pid: child, ppid: parent, start_ns: ts, ..(*entry.process).clone() };
            self.prospects.insert(child, Entry { process: Arc::new(copy), ..Entry::default() });
        }
    }

    /// A process became another program. It is read at once, because it may be gone when it first uses the network.
    fn executed(&mut self, header: &EventHeader, exec: &ExecBody, args: &[u8]) {
        let pid = header.tgid;
        let before = self.known.remove(&pid).or_else(|| self.prospects.remove(&pid)).unwrap_or_default();
        let read = if self.exec_budget.take(header.ts, EXEC_READS_PER_SECOND) {
            self.read(pid, header.ts)
        } else {
            None
        };
        let process = read.unwrap_or_else(|| {
            let said = Process::from_exec(pid, exec.ppid, &exec.comm, args, header.ts);
            // What an exec leaves as it was.
            let old = before.process;
            Process {
                cwd: old.cwd.clone(),
                uid: old.uid,
                netns: old.netns,
                container: old.container.clone(),
                otel: old.otel.clone(),
                ..said
            }
        });
        // Sockets may be handed through an exec (a server that upgrades itself).
        let entry = Entry { process: Arc::new(process), ports: before.ports, ..Entry::default() };
        self.prospects.insert(pid, entry);
    }

    /// Reads a process unless it is gone, or started after `ts` and so is another one with the same number.
    fn read(&self, pid: u32, ts: u64) -> Option<Process> {
        match Process::read(&self.proc, pid) {
            Ok(p) => (p.start_ns <= ts).then_some(p),
            Err(e) => {
                tracing::debug!("{e}");
                None
            }
        }
    }

    /// Makes the process known, as well as it can be.
    fn learn(&mut self, pid: u32, ts: u64) {
        if self.known.peek(&pid).is_some_and(|e| e.ended.is_none_or(|end| ts <= end)) {
            return;
        }
        self.known.remove(&pid);
        let prospect = self.prospects.remove(&pid);
        let read = self.read(pid, ts).map(Arc::new);
        let entry = match (read, prospect) {
            (Some(process), before) => {
                Entry { process, ports: before.map(|e| e.ports).unwrap_or_default(), ..Entry::default() }
            }
            (None, Some(before)) => before,
            (None, None) => {
                Entry { process: Arc::new(Process { pid, ..Process::default() }), ..Entry::default() }
            }
        };
        self.known.insert(pid, entry);
    }

    /// The process's own description or, if it is not known, one read now. Does not make it known.
    fn look(&self, pid: u32) -> Option<(Arc<Process>, Ports)> {
        let entry = self.known.peek(&pid).or_else(|| self.prospects.peek(&pid));
        entry.map(|e| (e.process.clone(), e.ports.clone())).or_else(|| {
            let process = self.read(pid, u64::MAX)?;
            Some((Arc::new(process), Ports::new()))
        })
    }

    /// Names the process; `None` if that was reported already.
    fn report(&mut self, pid: u32) -> Option<ShellEvent> {
        let entry = self.known.peek(&pid)?;
        let (process, mut ports) = (entry.process.clone(), entry.ports.clone());
        let mut origin = process.clone();
        for _ in 0..MAX_GENERATIONS {
            let Some((parent, parent_ports)) = self.look(origin.ppid).filter(|_| origin.ppid > 1) else {
                break;
            };
            if !guess::is_spawned(&origin) && parent.args != origin.args {
                break;
            }
            if ports.is_empty() {
                ports = parent_ports;
            }
            origin = parent;
        }
        let names = self.container_names(&process);
        let subject = Subject { process: &process, origin: &origin, ports: &ports, container: &names };
        let service = self.namer.name(&subject);
        let excluded = self.filter.excludes(&process, &self.ancestors(&process));
        let entry = self.known.peek_mut(&pid)?;
        if entry.service.as_ref() == Some(&service) {
            return None;
        }
        entry.service = Some(service.clone());
        Some(ShellEvent::Process(describe(&process, service, &names, excluded)))
    }

    fn ancestors(&self, process: &Process) -> Vec<u32> {
        let mut found = Vec::new();
        let mut pid = process.ppid;
        while self.filter.by_pid() && pid > 1 && found.len() < MAX_GENERATIONS {
            found.push(pid);
            pid = self.look(pid).map_or(0, |(p, _)| p.ppid);
        }
        found
    }

    fn container_names(&mut self, process: &Process) -> ContainerNames {
        let Some(container) = &process.container else { return ContainerNames::default() };
        if let Some(names) = self.containers.get(&container.id) {
            return names.clone();
        }
        let names = container::names(&self.root, container);
        self.containers.insert(container.id.clone(), names.clone());
        names
    }
}

/// Adds a port in its place; false if it was there.
fn add_port(ports: &mut Ports, port: u16) -> bool {
    match ports.binary_search(&port) {
        Ok(_) => false,
        Err(at) => {
            ports.insert(at, port);
            true
        }
    }
}

/// The record about a process.
fn describe(p: &Process, service: Service, names: &ContainerNames, excluded: bool) -> ProcessMeta {
    let container = p.container.as_ref();
    let runtime = container.map(|c| c.runtime.to_owned()).unwrap_or_default();
    let pod_uid = container.and_then(|c| c.pod_uid.clone()).unwrap_or_default();
    let own = [
        ("service.namespace", service.namespace),
        ("service.version", service.version),
        ("container.name", names.name.clone()),
        ("container.runtime", runtime),
        ("k8s.namespace.name", names.namespace.clone()),
        ("k8s.pod.name", names.pod.clone()),
        ("k8s.pod.uid", pod_uid),
    ];
    let mut attributes: Vec<(String, String)> =
        own.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v)).collect();
    for (key, value) in &p.otel.attributes {
        let known = key == "service.name" || attributes.iter().any(|(k, _)| k == key);
        if !known {
            attributes.push((key.clone(), value.clone()));
        }
    }
    ProcessMeta {
        tgid: p.pid,
        ppid: p.ppid,
        start_ns: p.start_ns,
        service: service.name,
        source: service.source,
        exe: p.exe.clone(),
        command: p.args.clone(),
        cwd: p.cwd.clone(),
        netns: p.netns,
        container_id: container.map(|c| c.id.clone()),
        attributes,
        excluded,
    }
}
