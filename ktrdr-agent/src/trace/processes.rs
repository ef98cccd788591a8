//! What the core knows of processes: who they are, whose child, how they ended.

use std::sync::Arc;

use hashlink::LruCache;

use super::model::{Attributes, Resource};
use crate::event::shell::ProcessMeta;
use crate::event::{Exit, Ns};

/// Processes remembered, ended ones included: a host's busy day of short-lived commands, about 1 KB each.
const MAX_PROCESSES: usize = 16 * 1024;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub ts: Ns,
    /// As `wait(2)` reports it.
    pub code: u32,
}

impl std::fmt::Display for End {
    /// "exited with status 1", "was killed by SIGKILL".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code & 0x7f {
            0 => write!(f, "exited with status {}", (self.code >> 8) & 0xff),
            signal => {
                let core = if self.code & 0x80 != 0 { " (core dumped)" } else { "" };
                match signal_name(signal) {
                    Some(name) => write!(f, "was killed by {name}{core}"),
                    None => write!(f, "was killed by signal {signal}{core}"),
                }
            }
        }
    }
}

/// Names of the signals that end processes (`signal(7)`).
pub fn signal_name(n: u32) -> Option<&'static str> {
    Some(match n {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Who it is.
    pub meta: ProcessMeta,
    /// The Resource of its spans.
    pub resource: Arc<Resource>,
    /// How it ended, if it did.
    pub end: Option<End>,
}

impl Process {
    /// Its command line, shortened for a sentence.
    pub fn command(&self) -> String {
        const SHOWN: usize = 60;
        let mut text = self.meta.command.join(" ");
        if text.is_empty() {
            text.clone_from(&self.meta.exe);
        }
        if text.chars().count() > SHOWN {
            text = text.chars().take(SHOWN).chain(['…']).collect();
        }
        text
    }
}

/// All known processes.
pub struct Processes {
    by_tgid: LruCache<u32, Process, foldhash::fast::FixedState>,
    host: Vec<(String, String)>,
    agent_version: String,
    agent: Arc<Resource>,
}

impl Processes {
    /// None known.
    pub fn new() -> Self {
        Self {
            by_tgid: LruCache::with_hasher(MAX_PROCESSES, foldhash::fast::FixedState::default()),
            host: Vec::new(),
            agent_version: String::new(),
            agent: Arc::new(agent(&[], "")),
        }
    }

    /// The host's resource attributes, for all processes told from now on.
    pub fn host(&mut self, host: Vec<(String, String)>, agent_version: String) {
        self.agent = Arc::new(agent(&host, &agent_version));
        self.host = host;
        self.agent_version = agent_version;
    }

    /// Learns who a process is.
    pub fn learn(&mut self, meta: ProcessMeta) {
        let resource = Arc::new(self.resource(&meta));
        self.by_tgid.insert(meta.tgid, Process { meta, resource, end: None });
    }

    /// The process, if it is known.
    pub fn get(&self, tgid: u32) -> Option<&Process> {
        self.by_tgid.peek(&tgid)
    }

    /// A process ended.
    pub fn exit(&mut self, tgid: u32, ts: Ns, exit: &Exit) {
        if let Some(p) = self.by_tgid.get_mut(&tgid) {
            p.end = Some(End { ts, code: exit.code });
        }
    }

    /// The Resource of a process, also of one nobody told about.
    pub fn resource_of(&mut self, tgid: u32) -> Arc<Resource> {
        if let Some(p) = self.by_tgid.get(&tgid) {
            return p.resource.clone();
        }
        let meta = ProcessMeta { tgid, service: "unknown_service".to_owned(), ..ProcessMeta::default() };
        self.learn(meta);
        self.by_tgid.peek(&tgid).map(|p| p.resource.clone()).unwrap_or_default()
    }

    /// `service.name` of a process.
    pub fn service(&self, tgid: u32) -> Option<&str> {
        self.get(tgid).map(|p| p.meta.service.as_str())
    }

    /// The Resource of the agent itself, the same one each time.
    pub fn agent(&self) -> Arc<Resource> {
        self.agent.clone()
    }

    fn resource(&self, meta: &ProcessMeta) -> Resource {
        let mut a = Attributes::new();
        a.set("service.name", meta.service.clone());
        for (k, v) in &meta.attributes {
            a.set(k.clone(), v.clone());
        }
        a.set("process.pid", meta.tgid);
        if meta.ppid != 0 {
            a.set("process.parent_pid", meta.ppid);
        }
        if !meta.exe.is_empty() {
            a.set("process.executable.path", meta.exe.clone());
        }
        if !meta.command.is_empty() {
            a.set("process.command_args", super::model::Value::List(meta.command.clone()));
        }
        if let Some(id) = &meta.container_id {
            a.set("container.id", id.clone());
        }
        for (k, v) in &self.host {
            a.set(k.clone(), v.clone());
        }
        a.set("telemetry.sdk.name", "ktrdr-agent");
        a.set("telemetry.sdk.language", "rust");
        a.set("telemetry.sdk.version", self.agent_version.clone());
        Resource { service: meta.service.clone(), attributes: a }
    }
}

fn agent(host: &[(String, String)], version: &str) -> Resource {
    let mut a = Attributes::new();
    a.set("service.name", "ktrdr-agent");
    a.set("service.version", version.to_owned());
    for (k, v) in host {
        a.set(k.clone(), v.clone());
    }
    Resource { service: "ktrdr-agent".to_owned(), attributes: a }
}

impl Default for Processes {
    fn default() -> Self {
        Self::new()
    }
}
