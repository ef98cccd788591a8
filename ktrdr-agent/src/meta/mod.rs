//! Who the observed processes are. The only module that reads `/proc` for facts about processes, containers,
//! listeners and the host.
//!
//! [`Metadata::observe`] sees every kernel record before the core does and returns the fact that has to go before
//! it. A known process costs one hash look-up.

mod addresses;
pub mod container;
mod describe;
#[cfg(test)]
mod fake;
mod files;
mod filter;
mod gpu;
mod guess;
pub mod host;
mod ktrdr;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod lifecycle;
pub mod listeners;
mod namespaces;
mod pattern;
pub mod process;
pub mod processors;
pub mod procfs;
pub mod service;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use hashlink::LruCache;
use ktrdr_ebpf_common::{EventHeader, ExecBody, ForkBody, StateBody, WriteBody, flags, kind};
use smallvec::SmallVec;
use zerocopy::FromBytes;

use self::{
    container::ContainerNames,
    files::Files,
    filter::Filter,
    lifecycle::{Budget, add_port},
    process::Process,
    procfs::ProcFs,
    service::{Namer, Service},
};
use crate::{
    event::{
        shell::{ShellEvent, Start},
        tcp,
    },
    mask::Mask,
    settings::Settings,
};

/// Processes that were forked or executed and have not used the network yet: only the latest matter, to describe
/// short-lived programs that are gone when their records arrive.
const MAX_PROSPECTS: usize = 2_048;
/// Container names kept; far more than containers run on a host.
const MAX_CONTAINERS: usize = 1_024;
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
    /// The [`Metadata::epoch`] in which it was last known to be this process.
    epoch: u32,
}

/// `host.*` and `os.*`, as every Resource says them.
pub fn host_attributes(settings: &Settings) -> Vec<(String, String)> {
    host::Host::read(&ProcFs::new(&settings.host.proc), settings.host.root.as_ref()).attributes
}

/// Metadata of the observed processes.
pub struct Metadata {
    proc: ProcFs,
    root: PathBuf,
    namer: Namer,
    /// Resource attributes for every service that does not give them itself.
    attributes: Vec<(String, String)>,
    filter: Filter,
    mask: Arc<Mask>,
    /// Processes that were reported.
    known: LruCache<u32, Entry>,
    prospects: LruCache<u32, Entry>,
    containers: LruCache<String, ContainerNames>,
    #[cfg(feature = "kubernetes")]
    kubernetes: Option<kubernetes::Kubernetes>,
    files: Files,
    addresses: addresses::Told,
    /// Names of programs that are commands.
    commands: Vec<String>,
    exec_budget: Budget,
    /// Raised when records were lost: an exit or a new process with an old number may be among them.
    epoch: u32,
}

impl Metadata {
    /// Knows nothing yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            proc: ProcFs::new(&settings.host.proc),
            root: PathBuf::from(&settings.host.root),
            namer: Namer::new(&settings.services),
            attributes: settings.services.attributes.clone().into_iter().collect(),
            filter: Filter::new(&settings.include, &settings.exclude),
            mask: settings.mask.clone(),
            known: LruCache::new(settings.limits.processes),
            prospects: LruCache::new(MAX_PROSPECTS),
            containers: LruCache::new(MAX_CONTAINERS),
            #[cfg(feature = "kubernetes")]
            kubernetes: None,
            files: Files::new(&settings.logs.files),
            addresses: addresses::Told::default(),
            commands: if settings.commands.enabled { settings.commands.programs.clone() } else { Vec::new() },
            exec_budget: Budget::default(),
            epoch: 0,
        }
    }

    /// The facts that begin a stream: the host and its addresses, then everybody who listens, then the listeners, and
    /// what they accepted.
    pub fn start(&mut self) -> Vec<ShellEvent> {
        let host = host::Host::read(&self.proc, &self.root);
        let mut events = vec![ShellEvent::Start(Start {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_tgid: self.proc.own_pid(),
            id_seed: host.id_seed(),
            wall_offset_ns: host::wall_offset_ns(),
            host: host.attributes,
        })];
        events.push(self.addresses.begin(&self.proc));
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
        events.extend(found.accepted.into_iter().map(ShellEvent::Accepted));
        events
    }

    /// Of processes that were named, those that do not exist.
    pub fn absent(&self, pids: &[u32]) -> Vec<u32> {
        pids.iter().copied().filter(|pid| !self.proc.of(*pid, "stat").exists()).collect()
    }

    /// Asks Kubernetes for the names of pods from now on, if the settings say so.
    #[cfg(feature = "kubernetes")]
    pub fn ask_kubernetes(&mut self, settings: &Settings) -> Result<(), kubernetes::ApiError> {
        self.kubernetes = kubernetes::Kubernetes::start(&settings.kubernetes)?;
        Ok(())
    }

    /// Processes that were reported before Kubernetes told their pod, or that it tells otherwise now, once more.
    #[cfg(feature = "kubernetes")]
    pub fn pods_known(&mut self) -> Vec<ShellEvent> {
        let news = self.kubernetes.as_mut().and_then(kubernetes::Kubernetes::news);
        let Some(pods) = news else { return Vec::new() };
        let mut changed = std::collections::BTreeSet::new();
        for (id, names) in self.containers.iter_mut() {
            // What is gone from the list keeps its names: its last spans are still to come.
            if let Some(pod) = pods.get(id)
                && names.known.as_ref() != Some(pod)
            {
                names.known = Some(pod.clone());
                changed.insert(id.clone());
            }
        }
        let mut pids = Vec::new();
        for (pid, entry) in self.known.iter_mut() {
            let container = entry.process.container.as_ref();
            if entry.ended.is_none() && container.is_some_and(|c| changed.contains(&c.id)) {
                // Its name is the same; what else is told about it is not.
                entry.service = None;
                pids.push(*pid);
            }
        }
        pids.into_iter().filter_map(|pid| self.report(pid)).collect()
    }

    /// The service expected behind each well-known port, for peers that are not observed.
    pub fn port_names(&self) -> Vec<(u16, String)> {
        self.namer.port_names()
    }

    /// Records were lost: every process is compared with `/proc` (its start) when it is next seen.
    pub fn doubt(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// What has to be told before this record: which addresses are this host's, if a failed connect is judged by that and they
    /// have changed.
    pub fn addresses(&mut self, header: &EventHeader, record: &[u8]) -> Option<ShellEvent> {
        let body = record.get(size_of::<EventHeader>()..).unwrap_or_default();
        self.addresses.before(header, body, &self.proc)
    }

    /// What has to be told before this record: who its process is, if that is not known yet or has changed.
    /// `record` is the whole record, header included; what it lacks is ignored here (the decoder counts it).
    pub fn observe(&mut self, header: &EventHeader, record: &[u8]) -> Option<ShellEvent> {
        let body = record.get(size_of::<EventHeader>()..).unwrap_or_default();
        match header.kind {
            kind::WRITE if header.flags & flags::UNKNOWN_FILE != 0 => {
                let (write, _) = WriteBody::read_from_prefix(body).ok()?;
                self.files.look(&self.proc, header.tgid, &write).map(ShellEvent::File)
            }
            kind::READ => {
                let mut told = self.active(header.tgid, header.ts);
                if let Some(ShellEvent::Process(p)) = &mut told {
                    p.starters = self.starters(p.ppid);
                }
                told
            }
            kind::DATA | kind::CONNECT_ERROR | kind::WRITE => self.active(header.tgid, header.ts),
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
                // A command is one whatever it does, and has to be known when it begins.
                let command = self.prospects.peek(&header.tgid).is_some_and(|e| self.is_command(&e.process));
                if command { self.active(header.tgid, header.ts) } else { None }
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
}
