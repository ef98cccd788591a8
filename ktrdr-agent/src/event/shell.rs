//! Facts that the shell inserts into the event stream: who a process is, who listens, what time it is, what was
//! lost. They travel as JSON records (low rate), so that a recorded trace replays without `/proc`.

use ktrdr_ebpf_common::{EventHeader, kind::SHELL_KINDS};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use super::Ns;
use super::gpu::{GpuSample, GpuStatus};

/// Record kind: time passed. Timers of the core run on these and on every other record's time stamp.
pub const TICK: u16 = SHELL_KINDS;
/// Record kind: a [`ShellEvent`] as JSON.
pub const JSON: u16 = SHELL_KINDS + 1;

/// A fact from the shell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum ShellEvent {
    /// First record of every stream.
    Start(Start),
    /// The offset between the boot clock and the wall clock changed.
    Clock(Clock),
    /// Who a process is. Sent before the first kernel record of that process, and again when it is known better.
    Process(ProcessMeta),
    /// A listener that existed before the agent.
    Listener(ListenerMeta),
    /// Connections that a process had accepted before the agent came.
    Accepted(Accepted),
    /// Which addresses are this host's.
    Addresses(Addresses),
    /// Records or transfers that were lost since the last such event, by counter name.
    Lost(Lost),
    /// How well Python causality works in one process.
    Python(PythonStatus),
    /// Which connections are left out from now on.
    Thinned(Thinned),
    /// What a file is that a watched process writes.
    File(FileMeta),
    /// Which GPUs there are, and how they are.
    Gpu(GpuStatus),
    /// What the GPUs did.
    GpuSample(GpuSample),
    /// The stream ends: everything still open is to be finished as it is.
    End,
}

/// Identity of the host and of this run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Version of the agent that wrote the stream.
    pub agent_version: String,
    /// The agent's own process: what it sends to its collector is nobody's call.
    #[serde(default)]
    pub agent_tgid: u32,
    /// Seed of all trace and span ids: the boot id, so that two agents on one host agree.
    pub id_seed: u64,
    /// Wall clock minus boot clock, in nanoseconds.
    pub wall_offset_ns: i64,
    /// Resource attributes of the host (`host.name`, `host.id`, `host.arch`, `os.type`, …).
    pub host: Vec<(String, String)>,
}

/// The wall clock was set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// Wall clock minus boot clock, in nanoseconds.
    pub wall_offset_ns: i64,
}

/// Where a service's name comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSource {
    /// A rule of the configuration.
    Config,
    /// `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` of the process.
    Environment,
    /// A built-in rule (KTRDR's layout).
    Builtin,
    /// Derived from the command line, the container or the parent.
    #[default]
    Guess,
}

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessMeta {
    /// Process id in the host's pid namespace.
    pub tgid: u32,
    /// Parent process.
    pub ppid: u32,
    /// Who started its parent, and so on, nearest first. Told of who reads requests on standard input: those between it and
    /// its client may do nothing else (a shell, `uv run`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starters: Vec<u32>,
    /// Threads it had when it was looked at; 0 = unknown.
    #[serde(default)]
    pub threads: u32,
    /// When it started, boot clock in ns; tells a reused pid.
    pub start_ns: Ns,
    /// `service.name`.
    pub service: String,
    /// Where the name comes from.
    pub source: NameSource,
    /// Executable path as the process sees it.
    pub exe: String,
    /// Arguments (bounded).
    pub command: Vec<String>,
    /// Arguments of the process whose work it does (a reloader, the owner of a pool), where its own name only
    /// `multiprocessing`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origin: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Network namespace (inode number), 0 = unknown.
    pub netns: u32,
    /// Container id, if it runs in one.
    pub container_id: Option<String>,
    /// Further resource attributes (`service.namespace`, `service.version`, `deployment.environment.name`, …).
    pub attributes: Vec<(String, String)>,
    /// Excluded by configuration: it gets no spans of its own.
    #[serde(default)]
    pub excluded: bool,
    /// The settings name its program as a command.
    #[serde(default)]
    pub command_line: bool,
}

/// A listening socket found at start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerMeta {
    /// Network namespace (inode number).
    pub netns: u32,
    /// Address; IPv4 as v4-mapped IPv6; all zero = any IPv6 (and, unless `v6only`, any IPv4).
    pub addr: [u8; 16],
    /// Port.
    pub port: u16,
    /// A process that holds the socket, 0 = unknown.
    pub tgid: u32,
}

/// Connections that a process had accepted when the agent began to observe: requests may be under way on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// A process that holds them.
    pub tgid: u32,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Their end here.
    pub local: SocketAddr,
    /// Their other ends.
    pub peers: Vec<SocketAddr>,
    /// There are more than are told of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// The addresses of this host, all of them: what was told before does not hold any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// By network namespace.
    pub namespaces: Vec<NamespaceMeta>,
    /// There are others that could not be told.
    #[serde(default)]
    pub partial: bool,
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceMeta {
    /// Inode number.
    pub netns: u32,
    /// It is the host's own.
    #[serde(default)]
    pub host: bool,
    /// Id of the container that its first process is in.
    #[serde(default)]
    pub container: Option<String>,
    /// Local networks, by address and length of the prefix (32 or 128 for most), without those that others may have alike:
    /// of loopback and links.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// Runs of kernel programs that the kernel refused, but for those below: records may be missing.
pub const PROGRAM_RUNS_MISSED: &str = "program_runs_missed";
/// Such runs at the end of system calls: a line of a log, say, and nothing that a call's parent depends on.
pub const CALL_RUNS_MISSED: &str = "call_runs_missed";

/// What was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// (counter name, how many since the last such event). Of the kernel's counters, or one of the above.
    pub counts: Vec<(String, u64)>,
}

/// What is left out of the connections of some ports. Every such record says it of all ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thinned {
    /// (port, share as [`ktrdr_ebpf_common::thinning::left_out`] counts them); of a port that is not here, none is.
    pub ports: Vec<(u16, u32)>,
}

/// How well Python causality works in one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonStatus {
    /// Process.
    pub tgid: u32,
    /// Version as found, e.g. `3.13.0`; empty = unknown.
    pub version: String,
    /// Contexts are followed; otherwise `why` says what is missing.
    pub exact: bool,
    /// Its threads may switch between greenlets: gevent is loaded.
    #[serde(default)]
    pub greenlets: bool,
    /// Why not. Of one that is exact: what is not known nevertheless, and why; empty = nothing.
    pub why: String,
}

/// A regular file that a watched process writes. Sent before its first write record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// `i_ino`.
    pub inode: u64,
    /// Device, as the kernel keeps it.
    pub device: u32,
    /// `i_generation`.
    pub generation: u32,
    /// Path as the process sees it; empty = unknown.
    pub path: String,
    /// The settings say that it is a log.
    pub log: bool,
}

impl FileMeta {
    /// The file's identity.
    pub fn id(&self) -> super::FileId {
        super::FileId { inode: self.inode, device: self.device, generation: self.generation }
    }
}

impl ShellEvent {
    /// Parses the payload of a [`JSON`] record.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The event as a record, ready to be fed and stored.
    pub fn to_record(&self, ts: Ns) -> Vec<u8> {
        // A struct of plain fields always serialises; should it ever not, the record is refused by the decoder
        // and counted there.
        let json = serde_json::to_vec(self).unwrap_or_default();
        record(JSON, ts, &json)
    }
}

/// A [`TICK`] record.
pub fn tick(ts: Ns) -> Vec<u8> {
    record(TICK, ts, &[])
}

fn record(kind: u16, ts: Ns, payload: &[u8]) -> Vec<u8> {
    let len = size_of::<EventHeader>() + payload.len();
    let header =
        EventHeader { ts, tgid: 0, tid: 0, len: u32::try_from(len).unwrap_or(u32::MAX), kind, flags: 0 };
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(payload);
    out
}
