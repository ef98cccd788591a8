//! What the core is told, what it produces and what it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use ktrdr_ebpf_common::limits;

use super::watching::Watched;
use crate::engine::EngineCounts;
use crate::event::{ConnId, DecodeError, Ns};
use crate::mask::Mask;
use crate::trace::assembly::AssemblyCounts;
use crate::trace::gpu::GpuCounts;
use crate::trace::logs::{LogCounts, LogRecord};
use crate::trace::model::BoxedSpan;
use crate::trace::operations::rules::Rules;
use crate::trace::stdio::StdioCounts;

/// Settings of the core.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Payload bytes captured per transfer on a connection whose protocol is known.
    pub capture: u32,
    /// Longest head waited for, in bytes.
    pub max_head: usize,
    /// Give old HTTP attribute names too.
    pub semconv_dup: bool,
    /// Names of services by port, for peers nobody is seen to be.
    pub port_names: Vec<(u16, String)>,
    /// Only connections with one of these ports at either end; empty = all.
    pub ports: Vec<u16>,
    /// No connections with one of these ports at either end.
    pub excluded_ports: Vec<u16>,
    /// What tells operations and failures.
    pub operations: Rules,
    /// Connections followed at once; the least recently used is given up.
    pub connections: usize,
    /// Make metrics.
    pub metrics: bool,
    /// What is secret.
    pub mask: Arc<Mask>,
    /// How long a failed connect waits for another address of the same name.
    pub connect_grace: Ns,
    /// Have spans say whether their trace's caller sampled it.
    pub follow_sampled: bool,
    /// Have what services write captured.
    pub watch: bool,
    /// Longest log record in bytes.
    pub max_record: usize,
    /// Give commands spans.
    pub commands: bool,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            capture: limits::DEFAULT_CAPTURE,
            max_head: 64 * 1024,
            semconv_dup: false,
            port_names: Vec::new(),
            ports: Vec::new(),
            excluded_ports: Vec::new(),
            operations: Rules::default(),
            connections: crate::engine::MAX_CONNS,
            metrics: false,
            mask: Arc::default(),
            connect_grace: crate::trace::connects::FALLBACK_NS,
            follow_sampled: false,
            watch: true,
            max_record: 64 * 1024,
            commands: true,
        }
    }
}

impl CoreConfig {
    /// Whether a connection with these ports is to be looked at.
    pub fn wanted_ports(&self, local: u16, remote: u16) -> bool {
        let either = |ports: &[u16]| ports.contains(&local) || ports.contains(&remote);
        (self.ports.is_empty() || either(&self.ports)) && !either(&self.excluded_ports)
    }
}

/// What the core produces.
#[derive(Debug)]
pub enum Output {
    /// A finished span.
    Span(BoxedSpan),
    /// A log record.
    Log(Box<LogRecord>),
    /// Capture this many bytes per transfer of the connection from now on; 0 = none at all.
    Capture(ConnId, u32),
    /// The connection is over.
    Forget(ConnId),
    /// Capture what a process writes from now on, see [`Watched`](super::watching::Watched).
    Watch(u32, Watched),
    /// What this process reads from standard input is no JSON-RPC: capture no more of it.
    Deaf(u32),
}

/// What the core counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreCounts {
    /// Records decoded.
    pub decoded: u64,
    /// Records refused by the decoder, by reason.
    pub undecoded: BTreeMap<DecodeError, u64>,
    /// Spans handed out: calls, connects, operations.
    pub spans: u64,
    /// Transfers on followed connections that were given up meanwhile: they came without addresses.
    pub unknown_conn: u64,
    /// Transfers told again, because it was not certain that they had been.
    pub told_twice: u64,
    /// Transfers on connections that are left out, told for the sake of causality or before the kernel programs knew.
    pub left_out: u64,
    /// Losses that the shell reported, by counter name.
    pub lost: BTreeMap<String, u64>,
    /// Failed connects made good by another address.
    pub connects_recovered: u64,
    /// Connecting sockets closed early.
    pub connects_abandoned: u64,
    /// Of the engine.
    pub engine: EngineCounts,
    /// Of the assembler.
    pub assembly: AssemblyCounts,
    /// Of what is known of GPUs.
    pub gpu: GpuCounts,
    /// Of log records.
    pub logs: LogCounts,
    /// Of JSON-RPC on pipes.
    pub stdio: StdioCounts,
}
