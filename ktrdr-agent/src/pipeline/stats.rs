//! The books of a run, for `--stats-out`: what the kernel saw, what was read, what became of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ktrdr_ebpf_common::Counter;
use serde::Serialize;

use super::budget;
use crate::core::CoreCounts;
use crate::export::Books;
use crate::kernel::CounterValues;
use crate::trace::logs::Unlinked;

/// The books of a run that ended. `submitted = read + unread`, `read + shell_records = decoded + undecoded`, and what
/// the kernel produced is `submitted` plus its counted losses.
#[derive(Debug, Serialize)]
pub struct Stats {
    /// From start to observing, in milliseconds.
    pub ready_ms: u64,
    /// Counters of the kernel programs, by name.
    pub kernel: BTreeMap<&'static str, u64>,
    /// Program runs that the kernel refused.
    pub program_runs_missed: u64,
    /// The same by program.
    pub program_runs_missed_by: BTreeMap<String, u64>,
    /// Records read from the ring.
    pub records_read: u64,
    /// Records given up at the end, because reading them would have taken too long.
    pub records_unread: u64,
    /// Records that the shell put into the stream.
    pub shell_records: u64,
    /// Records decoded.
    pub decoded: u64,
    /// Records refused by the decoder, by reason.
    pub undecoded: BTreeMap<String, u64>,
    /// Bytes of followed connections: `moved + gaps = parsed + skipped + lost`.
    pub bytes: Bytes,
    /// Transfers on followed connections that were given up meanwhile: they came without addresses.
    pub transfers_without_address: u64,
    /// Transfers that two records told (`transfers_by_second` in `kernel`).
    pub transfers_told_twice: u64,
    /// Transfers on connections that are left out, told nevertheless: for the sake of causality, or before the kernel programs
    /// knew. What these did not tell is in their counters.
    pub transfers_left_out_told: u64,
    /// What the agent did to stay within its budget.
    pub budget: budget::Counts,
    /// Connections given up because too many were open.
    pub connections_evicted: u64,
    /// Responses that belong to no known request.
    pub unpaired_responses: u64,
    /// Requests given up because too many were open on one connection.
    pub requests_given_up: u64,
    /// Failed connects made good by another address.
    pub connects_recovered: u64,
    /// Connecting sockets closed early.
    pub connects_abandoned: u64,
    /// Spans emitted.
    pub spans: u64,
    /// What became of what services wrote.
    pub logs: Logs,
    /// What became of requests on standard input.
    pub stdio: Stdio,
    /// Spans that ended after they were forgotten.
    pub orphan_spans: u64,
    /// What became of GPU samples.
    pub gpu: Gpu,
    /// What became of the spans, by sink.
    pub sinks: BTreeMap<&'static str, Sink>,
}

/// What became of captured writes. What the kernel side did not capture is in its counters.
#[derive(Debug, Serialize)]
pub struct Logs {
    /// Log records made.
    pub records: u64,
    /// Of these, with a trace.
    pub linked: u64,
    /// Copies of a record in a second file.
    pub copies: u64,
    /// Lines of a command's output and messages of protocols.
    pub output: u64,
    /// Lines that were no text.
    pub binary_lines: u64,
    /// Bytes beyond the longest record.
    pub cut_bytes: u64,
    /// Bytes of long writes that were not captured.
    pub uncaptured_bytes: u64,
    /// `bytes` of captured writes, and by name what became of them; the sum of the others.
    #[serde(flatten)]
    pub bytes: BTreeMap<&'static str, u64>,
    /// Records without a trace, by reason: `unlinked_…`.
    #[serde(flatten)]
    pub unlinked: BTreeMap<String, u64>,
}

/// What became of JSON-RPC on pipes.
#[derive(Debug, Serialize)]
pub struct Stdio {
    /// Bytes captured of what was read.
    pub bytes: u64,
    /// Requests and notifications that servers read.
    pub requests: u64,
    /// Of these, with the client's end.
    pub joined: u64,
    /// Answers to requests that were not seen, or were given up.
    pub unpaired: u64,
    /// Requests given up because too many were open on one server.
    pub given_up: u64,
    /// Processes that pass on what they read, as `tee` does: they are asked nothing.
    pub relays: u64,
}

/// What became of the bytes that moved.
#[derive(Debug, Serialize)]
pub struct Bytes {
    /// Moved by recorded transfers.
    pub moved: u64,
    /// Of records that never came.
    pub gaps: u64,
    /// Consumed by a parser.
    pub parsed: u64,
    /// Passed as bodies, captured or not.
    pub skipped: u64,
    /// Not understood.
    pub lost: u64,
}

/// What became of GPU samples.
#[derive(Debug, Serialize)]
pub struct Gpu {
    /// Taken in.
    pub samples: u64,
    /// Dropped, because the agent was too busy to take them.
    pub dropped: u64,
    /// Readings that were not younger than the one before.
    pub refused: u64,
    /// Processes forgotten because too many used GPUs.
    pub processes_forgotten: u64,
    /// Spans that were told what a GPU did.
    pub spans: u64,
}

/// The books of one sink, as in [`Books`].
#[derive(Debug, Serialize)]
pub struct Sink {
    submitted: u64,
    exported: u64,
    dropped_full: u64,
    dropped_stop: u64,
    rejected: u64,
    sampled_out: u64,
    retried: u64,
}

/// What only the live loop knows.
pub struct Run {
    /// From start to observing, in milliseconds.
    pub ready_ms: u64,
    /// Counters of the kernel programs.
    pub kernel: CounterValues,
    /// Program runs that the kernel refused, by program.
    pub program_runs_missed: BTreeMap<String, u64>,
    /// Records read from the ring.
    pub records_read: u64,
    /// Records given up at the end, because reading them would have taken too long.
    pub records_unread: u64,
    /// Records that the shell put into the stream.
    pub shell_records: u64,
    /// GPU samples dropped before they came into the stream.
    pub gpu_samples_dropped: u64,
    /// What the agent did to stay within its budget.
    pub budget: budget::Counts,
}

impl Stats {
    /// Puts the books together.
    pub fn new(run: &Run, core: &CoreCounts, sinks: &[(&'static str, Books)]) -> Self {
        let engine = &core.engine;
        Self {
            ready_ms: run.ready_ms,
            kernel: Counter::ALL.iter().map(|c| (c.name(), run.kernel[*c as usize])).collect(),
            program_runs_missed: run.program_runs_missed.values().sum(),
            program_runs_missed_by: run.program_runs_missed.clone(),
            records_read: run.records_read,
            records_unread: run.records_unread,
            shell_records: run.shell_records,
            decoded: core.decoded,
            undecoded: core.undecoded.iter().map(|(why, n)| (format!("{why:?}"), *n)).collect(),
            bytes: Bytes {
                moved: engine.moved,
                gaps: engine.bytes.gaps,
                parsed: engine.bytes.parsed,
                skipped: engine.bytes.skipped,
                lost: engine.bytes.lost,
            },
            transfers_without_address: core.unknown_conn,
            transfers_told_twice: core.told_twice,
            transfers_left_out_told: core.left_out,
            budget: run.budget.clone(),
            connections_evicted: engine.conns_evicted,
            unpaired_responses: engine.unpaired_responses,
            requests_given_up: engine.requests_given_up,
            connects_recovered: core.connects_recovered,
            connects_abandoned: core.connects_abandoned,
            spans: core.spans,
            logs: Logs {
                records: core.logs.records,
                linked: core.logs.linked,
                copies: core.logs.copies,
                output: core.logs.output,
                binary_lines: core.logs.join.binary_lines,
                cut_bytes: core.logs.join.cut_bytes,
                uncaptured_bytes: core.logs.join.uncaptured_bytes,
                bytes: core.logs.bytes.named().into(),
                unlinked: Unlinked::ALL
                    .iter()
                    .map(|why| (format!("unlinked_{}", why.name()), core.logs.unlinked[*why as usize]))
                    .collect(),
            },
            stdio: Stdio {
                bytes: core.stdio.bytes,
                requests: core.stdio.requests,
                joined: core.stdio.joined,
                unpaired: core.stdio.unpaired,
                given_up: core.stdio.given_up,
                relays: core.stdio.relays,
            },
            orphan_spans: core.assembly.orphans,
            gpu: Gpu {
                samples: core.gpu.samples,
                dropped: run.gpu_samples_dropped,
                refused: core.gpu.refused,
                processes_forgotten: core.gpu.forgotten,
                spans: core.gpu.spans,
            },
            sinks: sinks
                .iter()
                .map(|(name, b)| {
                    let sink = Sink {
                        submitted: b.submitted,
                        exported: b.exported,
                        dropped_full: b.dropped_full,
                        dropped_stop: b.dropped_stop,
                        rejected: b.rejected,
                        sampled_out: b.sampled_out,
                        retried: b.retried,
                    };
                    (*name, sink)
                })
                .collect(),
        }
    }

    /// Says on standard error how complete the run was.
    pub fn report(&self) {
        let submitted = self.kernel.get(Counter::Submitted.name()).copied().unwrap_or(0);
        tracing::info!("{} of {submitted} records read, {} spans", self.records_read, self.spans);
        if self.records_unread > 0 {
            tracing::warn!("{} records were given up, so as to end in time", self.records_unread);
        }
        if self.budget.changes > 0 {
            let left_out = self.kernel.get(Counter::TransfersLeftOut.name()).copied().unwrap_or(0);
            tracing::info!(
                "to stay within the budget, {left_out} transfers were left out in {:.0} s",
                self.budget.thinned_seconds
            );
        }
        let refused: u64 = self.undecoded.values().sum();
        if refused > 0 {
            tracing::warn!("{refused} records were not understood: {:?}", self.undecoded);
        }
        for (name, s) in &self.sinks {
            let dropped = s.dropped_full + s.dropped_stop;
            if dropped > 0 || s.rejected > 0 {
                tracing::warn!("{name}: {dropped} spans dropped, {} rejected of {}", s.rejected, s.submitted);
            }
        }
    }

    /// Writes the books as JSON.
    pub fn write(&self, mut out: Out) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("the books as JSON")?;
        let written = out.file.write_all((text + "\n").as_bytes());
        written.with_context(|| format!("cannot write {}", out.path.display()))
    }
}

/// Where the books will go.
pub struct Out {
    path: PathBuf,
    file: File,
}

impl Out {
    /// Makes the file, empty until the end.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }
}
