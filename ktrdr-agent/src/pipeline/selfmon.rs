//! The agent's own metrics: what it saw, lost and spent, from who counts it.

use std::time::Duration;

use ktrdr_ebpf_common::Counter;

use super::python::Python;
use super::stream::Stream;
use crate::core::Core;
use crate::event::Ns;
use crate::export::Books;
use crate::kernel::{Kernel, ProbeStatus};
use crate::meta::host;
use crate::metrics::{Id, Snapshot};

/// Kernel counters that mean something is missing from the traces.
pub const LOSSES: &[Counter] =
    &[Counter::LostRingFull, Counter::CopyFault, Counter::KernelReadFault, Counter::MapFault];

/// What only the live loop knows.
struct Own<'a> {
    /// The kernel side.
    kernel: &'a Kernel,
    /// Records that the shell put into the stream.
    shell_records: u64,
    /// Python processes whose causality is exact, and degraded.
    python: (usize, usize),
    /// Part of the connections that is observed, of ports of which not all are.
    observed: Vec<(u16, f64)>,
    /// Time since the agent was started.
    uptime: Duration,
    /// The sinks.
    sinks: Vec<(&'static str, Books)>,
}

/// All metrics now, the agent's own with them; `None` = nobody wants any.
pub fn snapshot(
    kernel: &Kernel,
    python: &Python,
    observed: Vec<(u16, f64)>,
    stream: &mut Stream,
    uptime: Duration,
    sinks: Vec<(&'static str, Books)>,
) -> Option<Snapshot> {
    stream.core.metrics()?;
    let exact = python.statuses().filter(|s| s.exact).count();
    let python = (exact, python.statuses().count() - exact);
    let own = Own { kernel, shell_records: stream.shell_records, python, observed, uptime, sinks };
    let now = host::boot_now_ns();
    measure(&mut stream.core, &own, now);
    stream.core.snapshot(now)
}

/// Says that these ports are complete again. A moment later nothing more is said of them.
pub fn complete(core: &mut Core, ports: impl Iterator<Item = u16>) {
    let (agent, now) = (core.agent(), host::boot_now_ns());
    let Some(m) = core.metrics() else { return };
    let me = m.registry.service(&agent);
    for port in ports {
        m.registry.set(me, Id::AgentObservedShare, &[("server.port", i64::from(port).into())], 1.0, now);
    }
}

/// Puts all of it into the metrics, as those of the agent's own Resource.
fn measure(core: &mut Core, own: &Own<'_>, now: Ns) {
    let (agent, counts, connections) = (core.agent(), core.counts(), core.connections());
    let Some(m) = core.metrics() else { return };
    let me = m.registry.service(&agent);
    let r = &mut m.registry;
    let read = own.kernel.records_read();
    let undecoded: u64 = counts.undecoded.values().sum();
    if let Ok(counters) = own.kernel.counters() {
        let submitted = counters[Counter::Submitted as usize];
        r.total(me, Id::AgentRecords, &[("stage", "submitted".into())], submitted);
        for (what, counter) in [("transfers", Counter::TransfersLeftOut), ("states", Counter::StatesLeftOut)]
        {
            r.total(me, Id::AgentLeftOut, &[("what", what.into())], counters[counter as usize]);
        }
        for loss in LOSSES {
            r.total(me, Id::AgentLost, &[("reason", loss.name().into())], counters[*loss as usize]);
        }
    }
    for (port, part) in &own.observed {
        r.set(me, Id::AgentObservedShare, &[("server.port", i64::from(*port).into())], *part, now);
    }
    // The least of them, which is there always.
    let least = own.observed.iter().map(|(_, part)| *part).fold(1.0, f64::min);
    r.set(me, Id::AgentObservedShare, &[], least, now);
    r.total(me, Id::AgentLeftOut, &[("what", "told".into())], counts.left_out);
    for (stage, n) in
        [("read", read), ("shell", own.shell_records), ("decoded", counts.decoded), ("undecoded", undecoded)]
    {
        r.total(me, Id::AgentRecords, &[("stage", stage.into())], n);
    }
    let engine = &counts.engine;
    for (reason, n) in [
        ("undecoded", undecoded),
        ("transfers_without_address", counts.unknown_conn),
        ("connections_evicted", engine.conns_evicted),
        ("unpaired_responses", engine.unpaired_responses),
        ("requests_given_up", engine.requests_given_up),
        ("orphan_spans", counts.assembly.orphans),
    ] {
        r.total(me, Id::AgentLost, &[("reason", reason.into())], n);
    }
    r.total(me, Id::AgentSpans, &[], counts.spans);
    for (fate, n) in [("moved", engine.moved), ("gaps", engine.bytes.gaps), ("parsed", engine.bytes.parsed)]
        .into_iter()
        .chain([("skipped", engine.bytes.skipped), ("lost", engine.bytes.lost)])
    {
        r.total(me, Id::AgentBytes, &[("fate", fate.into())], n);
    }
    // What was read and what the shell told is what was decoded or refused, at any moment.
    let decoded = counts.decoded + undecoded;
    let off = (read + own.shell_records).abs_diff(decoded);
    r.set(me, Id::AgentImbalance, &[("book", "records".into())], float(off), now);
    for (sink, b) in &own.sinks {
        let off = b.submitted.abs_diff(b.settled() + b.waiting);
        r.set(me, Id::AgentImbalance, &[("book", (*sink).into())], float(off), now);
        let name = ("sink", (*sink).into());
        r.total(me, Id::AgentSinkItems, &[name], b.submitted);
        r.total(me, Id::AgentSinkRetries, &[name], b.retried);
        r.set(me, Id::AgentSinkQueue, &[name], float(b.waiting), now);
        for (outcome, n) in [
            ("exported", b.exported),
            ("rejected", b.rejected),
            ("dropped_full", b.dropped_full),
            ("dropped_stop", b.dropped_stop),
            ("sampled_out", b.sampled_out),
        ] {
            r.total(me, Id::AgentSinkOutcomes, &[name, ("outcome", outcome.into())], n);
        }
    }
    for p in own.kernel.program_stats() {
        let program = [("program", p.name.as_str().into())];
        r.total(me, Id::AgentProgramMissed, &program, p.recursion_misses);
        if p.runs > 0 {
            r.total(me, Id::AgentProgramRuns, &program, p.runs);
            r.total_float(me, Id::AgentProgramTime, &program, float(p.run_ns) / 1e9);
        }
    }
    let state = |of: fn(&ProbeStatus) -> bool| own.kernel.probes().iter().filter(|p| of(&p.status)).count();
    for (name, n) in [
        ("attached", state(|s| matches!(s, ProbeStatus::Attached))),
        ("skipped", state(|s| matches!(s, ProbeStatus::Skipped(_)))),
        ("failed", state(|s| matches!(s, ProbeStatus::Failed(_)))),
    ] {
        r.set(me, Id::AgentProbes, &[("state", name.into())], float(n as u64), now);
    }
    for (name, n) in [("exact", own.python.0), ("degraded", own.python.1)] {
        r.set(me, Id::AgentPython, &[("causality", name.into())], float(n as u64), now);
    }
    r.set(me, Id::AgentConnections, &[], float(connections as u64), now);
    let series = r.len() as u64;
    r.set(me, Id::AgentSeries, &[], float(series), now);
    // Told as 0 before the first one, which would be no increase otherwise; a few attributes are what overflows.
    for id in Id::ALL.iter().filter(|id| id.instrument().attributes.len() > 1) {
        let n = r.overflow().get(id).copied().unwrap_or(0);
        r.total(me, Id::AgentOverflow, &[("metric", id.instrument().name.into())], n);
    }
    if let Some(bytes) = host::own_memory() {
        r.set(me, Id::ProcessMemory, &[], float(bytes), now);
    }
    r.set(me, Id::ProcessUptime, &[], own.uptime.as_secs_f64(), now);
    for (mode, seconds) in host::own_cpu() {
        r.total_float(me, Id::ProcessCpu, &[("cpu.mode", mode.into())], seconds);
    }
}

/// Exact up to 2^53.
fn float(n: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let f = n as f64;
    f
}
