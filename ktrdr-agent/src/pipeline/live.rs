//! The live agent: kernel → metadata → core → exporters, in one loop on one thread; every sink has its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use ktrdr_ebpf_common::limits;
use ktrdr_ebpf_common::policies::Policy;
use ktrdr_ebpf_common::{Counter, EventHeader};
use zerocopy::FromBytes;

use super::budget::{self, Governor};
use super::gpu::Gpu;
use super::metrics::Measures;
use super::python::Python;
use super::recorder::Recorder;
use super::remember::Remember;
use super::scope::Scope;
use super::selfmon::{self, LOSSES};
use super::signals::Signals;
use super::stats::{self, Stats};
use super::stream::Stream;
use super::{FLUSH, RunOptions, announce, options, watch};
use crate::core::{Core, Output};
use crate::event::Ns;
use crate::event::shell::{CALL_RUNS_MISSED, FileMeta, Lost, PROGRAM_RUNS_MISSED, ShellEvent, tick};
use crate::export::Exporters;
use crate::kernel::{CounterValues, Kernel, Misses};
use crate::meta::{Metadata, host as clock};
use crate::privileges::{self, Capability};
use crate::settings::Settings;
use crate::telemetry::{if_slow, step};

/// Longest time a record waits in the ring: with the assembler's grace, a lone request is out within 200 ms.
const FLUSH_INTERVAL: Duration = Duration::from_millis(40);
/// How often counters and clocks are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Runs until SIGINT, SIGTERM or the end of the duration. [`privileges::confine`] has been said before.
pub fn run(settings: &Settings, run: &RunOptions) -> anyhow::Result<()> {
    let started = Instant::now();
    let starting = step!("start").entered();
    let signals = Signals::listen()?;
    privileges::require()?;
    // What is written at the end is opened now: later the agent may not be allowed to.
    let stats_out = run.stats_out.as_deref().map(stats::Out::create).transpose()?;
    let sinks = step!("start.sinks").entered();
    let mut exporters = match run.export {
        true => Exporters::start(options::export(settings, run.spans_out.as_deref()))?,
        false => Exporters::default(),
    };
    let remember = Remember::start(settings, run, &mut exporters)?;
    let measures = Measures::start(settings, run.export)?;
    let recorder = run.record.as_deref().map(Recorder::create).transpose()?;
    drop(sinks);
    let kernel = Kernel::load(&options::kernel(settings))?;
    let mut meta = Metadata::new(settings);
    #[cfg(feature = "kubernetes")]
    meta.ask_kubernetes(settings)?;
    let config = options::core(settings, meta.port_names());
    let recorder = recorder.map(|r| (r, Scope::new(config.clone())));
    let core = Core::new(config);
    let stream = Stream { core, recorder, shell_records: 0 };
    for pid in meta.absent(&settings.include.pids) {
        tracing::warn!("process {pid} does not exist: nothing can be observed of it (--pid, include.pids)");
    }
    let facts = step!("start.processes").in_scope(|| meta.start());
    let python = Python::new(settings.python.causality);
    let gpu = Gpu::start(settings, &meta)?;
    let lost = [0; LOSSES.len()];
    let (exclusions, excluded) = (Vec::new(), BTreeSet::new());
    let mut live = Live {
        kernel,
        meta,
        python,
        gpu,
        stream,
        started,
        exporters,
        exclusions,
        excluded,
        files: Vec::new(),
        rate: settings.logs.rate,
        remember,
        measures,
        governor: Governor::start(settings.budget),
        lost,
        misses: Misses::default(),
        wall: 0,
        stopping: false,
    };
    let python = step!("start.python").entered();
    for fact in facts {
        // What runs already is followed from its next request on.
        if let ShellEvent::Listener(l) = &fact {
            live.python.seen(l.tgid, 0);
        }
        live.fact(&fact)?;
    }
    live.look_at_python()?;
    drop(python);
    let ready = started.elapsed();
    let admin: &[Capability] =
        if live.kernel.later_probes_need_admin() { &[Capability::CAP_SYS_ADMIN] } else { &[] };
    let settled = step!("start.confine").in_scope(|| privileges::settle(admin));
    announce::shortfalls(&live.kernel, &settled);
    live.python.announce();
    announce::ready(
        settings,
        run,
        live.remember.as_ref().is_some_and(Remember::answers),
        live.kernel.hook(),
        ready,
    );
    drop(starting);
    let mut silent = run.export;
    let mut next_housekeeping = Instant::now() + HOUSEKEEPING;
    while !signals.stop() && !live.exporters.gone() && run.duration.is_none_or(|d| started.elapsed() < d) {
        live.turn(FLUSH_INTERVAL)?;
        if Instant::now() >= next_housekeeping {
            next_housekeeping += HOUSEKEEPING;
            step!("housekeeping").in_scope(|| live.housekeeping().and_then(|now| live.keep_budget(&now)))?;
            live.stream.flush()?;
            silent = silent && live.stream.core.counts().spans == 0;
            if silent && started.elapsed() >= ready + announce::SILENCE {
                silent = false;
                announce::nothing_seen(settings);
            }
        }
        live.measure();
    }
    live.stop(ready, stats_out)
}

/// Everything a running agent consists of.
struct Live {
    kernel: Kernel,
    meta: Metadata,
    python: Python,
    gpu: Gpu,
    stream: Stream,
    started: Instant,
    exporters: Exporters,
    /// Processes told since the last turn, and whether they are excluded.
    exclusions: Vec<(u32, bool)>,
    /// Processes excluded in the kernel.
    excluded: BTreeSet<u32>,
    /// Files told since the last turn.
    files: Vec<FileMeta>,
    /// Bytes a second that may be captured of one process's writes.
    rate: u32,
    remember: Option<Remember>,
    measures: Measures,
    governor: Option<Governor>,
    lost: [u64; LOSSES.len()],
    misses: Misses,
    wall: i64,
    /// Nothing more is attached.
    stopping: bool,
}

impl Live {
    /// One turn: what the kernel has, then time, then what came out.
    fn turn(&mut self, wait: Duration) -> anyhow::Result<usize> {
        let Self { kernel, meta, python, gpu, stream, exclusions, files, .. } = self;
        let mut failed = None;
        let mut newest = 0;
        let mut each = |record: &[u8]| {
            if let Ok((header, _)) = EventHeader::read_from_prefix(record) {
                newest = newest.max(header.ts);
                python.observe(&header);
                let facts = [meta.addresses(&header, record), meta.observe(&header, record)];
                for fact in facts.into_iter().flatten() {
                    match &fact {
                        ShellEvent::Process(p) => {
                            exclusions.push((p.tgid, p.excluded));
                            gpu.process(p);
                        }
                        ShellEvent::File(f) => files.push(f.clone()),
                        _ => {}
                    }
                    if let Err(e) = stream.fact(&fact.to_record(header.ts)) {
                        failed = Some(e);
                    }
                }
            }
            if let Err(e) = stream.feed(record) {
                failed = Some(e);
            }
        };
        let mut n = kernel.poll(wait, &mut each)?;
        // A span is not to leave before what the kernel saw earlier is read. On a busy machine much time may pass between a
        // look at the ring and one at the clock, so the clock comes first; what is left unread tells the time by itself.
        let mut now = None;
        if kernel.is_drained() {
            let before = clock::boot_now_ns();
            n += kernel.poll(Duration::ZERO, &mut each)?;
            now = kernel.is_drained().then_some(before);
        }
        if let Some(e) = failed {
            return Err(e);
        }
        let now = now.unwrap_or(newest);
        self.exclude()?;
        watch::files(&mut self.kernel, &mut self.files);
        if !self.stopping {
            if_slow("python", || self.look_at_python())?;
        }
        if_slow("gpus", || self.look_at_gpus())?;
        #[cfg(feature = "kubernetes")]
        for fact in self.meta.pods_known() {
            self.fact(&fact)?;
        }
        self.stream.fact(&tick(now))?;
        if_slow("outputs", || self.outputs())?;
        if let Some(r) = &self.remember {
            r.under_way(&mut self.stream.core);
        }
        Ok(n)
    }

    /// What the configuration excludes costs nothing more than one look in the kernel.
    fn exclude(&mut self) -> anyhow::Result<()> {
        for (tgid, excluded) in std::mem::take(&mut self.exclusions) {
            match (excluded, self.excluded.contains(&tgid)) {
                (true, false) if self.excluded.len() < limits::MAX_EXCLUDED as usize => {
                    self.kernel.exclude(tgid)?;
                    self.excluded.insert(tgid);
                }
                // Beyond the kernel's room, the core leaves it out.
                (true, _) | (false, false) => {}
                (false, true) => {
                    // The number is another's now.
                    self.kernel.include(tgid)?;
                    self.excluded.remove(&tgid);
                }
            }
        }
        Ok(())
    }

    /// Python processes that showed up: where their contexts are.
    fn look_at_python(&mut self) -> anyhow::Result<()> {
        for fact in self.python.poll(clock::boot_now_ns(), &mut self.kernel) {
            self.fact(&fact)?;
        }
        Ok(())
    }

    /// What the GPUs did, as of when they did it.
    fn look_at_gpus(&mut self) -> anyhow::Result<()> {
        let processes = self.stream.core.processes();
        let observed = |pid| processes.get(pid).is_some_and(|p| !p.meta.excluded);
        for (ts, fact) in self.gpu.poll(&mut self.meta, &observed) {
            self.fact_at(ts, &fact)?;
        }
        Ok(())
    }

    /// Does what the core asks for.
    fn outputs(&mut self) -> anyhow::Result<()> {
        while let Some(output) = self.stream.core.next_output() {
            match output {
                Output::Span(span) => self.exporters.submit(span),
                Output::Log(record) => self.exporters.submit_log(*record),
                Output::Capture(conn, bytes) => {
                    self.kernel.set_policy(conn.0, Policy::capture(bytes));
                }
                Output::Deaf(tgid) => watch::deaf(&mut self.kernel, tgid),
                Output::Watch(tgid, much) => watch::process(&mut self.kernel, tgid, much, self.rate),
                Output::Forget(conn) => self.kernel.forget_policy(conn.0),
            }
        }
        Ok(())
    }

    fn fact(&mut self, fact: &ShellEvent) -> anyhow::Result<()> {
        self.fact_at(clock::boot_now_ns(), fact)
    }

    fn fact_at(&mut self, ts: Ns, fact: &ShellEvent) -> anyhow::Result<()> {
        if let ShellEvent::Process(p) = fact {
            self.exclusions.push((p.tgid, p.excluded));
            self.gpu.process(p);
        }
        self.stream.fact(&fact.to_record(ts))
    }

    /// Losses and clock changes become part of the stream. Returns what the kernel programs have counted.
    fn housekeeping(&mut self) -> anyhow::Result<CounterValues> {
        let counters = self.kernel.counters()?;
        let mut counts = Vec::new();
        for (i, counter) in LOSSES.iter().enumerate() {
            let total = counters[*counter as usize];
            let new = total.saturating_sub(self.lost[i]);
            self.lost[i] = total;
            if new > 0 {
                tracing::warn!("{new} × {}: {}", counter.name(), counter.help().trim());
                counts.push((counter.name().to_owned(), new));
            }
        }
        let before = (self.misses.others(), self.misses.calls());
        self.misses.raise(self.kernel.misses());
        let mut missed = |name: &str, now: u64, before: u64| {
            if now > before {
                counts.push((name.to_owned(), now - before));
            }
        };
        missed(PROGRAM_RUNS_MISSED, self.misses.others(), before.0);
        missed(CALL_RUNS_MISSED, self.misses.calls(), before.1);
        if !counts.is_empty() {
            // `explain` says of what it remembers that calls may be missing.
            let calls =
                counts.iter().filter(|(name, _)| name != CALL_RUNS_MISSED).cloned().collect::<Vec<_>>();
            if let Some(r) = self.remember.as_ref().filter(|_| !calls.is_empty()) {
                r.lost(clock::boot_now_ns().saturating_add_signed(self.wall), &calls);
            }
            self.fact(&ShellEvent::Lost(Lost { counts }))?;
        }
        let wall = clock::wall_offset_ns();
        // Below a millisecond it is the reading's own jitter or slewing, which one span does not show.
        if wall.abs_diff(self.wall) > 1_000_000 {
            self.wall = wall;
            self.fact(&ShellEvent::Clock(crate::event::shell::Clock { wall_offset_ns: wall }))?;
        }
        Ok(counters)
    }

    /// Leaves out what would take more than the budget.
    fn keep_budget(&mut self, counters: &CounterValues) -> anyhow::Result<()> {
        let Some(governor) = &mut self.governor else { return Ok(()) };
        let counted = budget::Kernel {
            left_out: counters[Counter::TransfersLeftOut as usize],
            lost: counters[Counter::LostRingFull as usize],
        };
        let Some(change) = governor.look(self.stream.core.take_load(), counted) else { return Ok(()) };
        self.fact(&ShellEvent::Thinned(change.both))?;
        for (port, share) in &change.kernel {
            self.kernel.leave_out(*port, *share).context("what is left out")?;
        }
        self.fact(&ShellEvent::Thinned(change.after))?;
        let complete = change.kernel.into_iter().filter(|(_, share)| *share == 0).map(|(port, _)| port);
        selfmon::complete(&mut self.stream.core, complete);
        Ok(())
    }

    /// Metrics for those who wait for them.
    fn measure(&mut self) {
        let Self { kernel, python, governor, stream, started, exporters, measures, .. } = self;
        let sinks = exporters.books().into_iter().chain(measures.books());
        let observed = governor.iter().flat_map(Governor::observed);
        let take = || {
            selfmon::snapshot(kernel, python, observed.collect(), stream, started.elapsed(), sinks.collect())
        };
        measures.turn(|| step!("metrics").in_scope(take));
    }

    /// Detaches, takes what the ring still holds, finishes what is open, delivers.
    fn stop(mut self, ready: Duration, stats_out: Option<stats::Out>) -> anyhow::Result<()> {
        const DRAIN: Duration = Duration::from_millis(150);
        /// How often it is looked whether the programs are gone, which takes the kernel a tenth of a second or two.
        const LOOK: Duration = Duration::from_millis(5);
        /// From the signal to the last delivery; what the kernel and the process take to be gone comes on top.
        const END: Duration = Duration::from_millis(850);
        let begin = Instant::now();
        let _stopping = step!("stop").entered();
        self.housekeeping()?;
        // First of all: what is counted from here on could not be read any more.
        self.stopping = true;
        let detaching = self.kernel.detach();
        let until = Instant::now() + DRAIN;
        // What the ring holds is understood meanwhile: lines of logs are all that comes after it.
        while !detaching.is_done() {
            self.turn(LOOK)?;
        }
        detaching.wait();
        while self.turn(Duration::ZERO)? > 0 && Instant::now() < until {}
        // What is left after that is too much to be understood in time: it is counted.
        let mut unread = 0;
        while self.kernel.poll(Duration::ZERO, &mut |_| unread += 1)? > 0 {}
        self.housekeeping()?;
        self.fact(&ShellEvent::End)?;
        self.outputs()?;
        let run = stats::Run {
            ready_ms: u64::try_from(ready.as_millis()).unwrap_or(u64::MAX),
            kernel: self.kernel.counters()?,
            program_runs_missed: self.misses.by_program().clone(),
            records_read: self.kernel.records_read() - unread,
            records_unread: unread,
            shell_records: self.stream.shell_records,
            gpu_samples_dropped: self.gpu.dropped(),
            budget: self.governor.as_ref().map(Governor::counts).unwrap_or_default(),
        };
        let sinks = self.exporters.books().into_iter().chain(self.measures.books()).collect();
        let up = self.started.elapsed();
        let observed = self.governor.iter().flat_map(Governor::observed).collect();
        let last = selfmon::snapshot(&self.kernel, &self.python, observed, &mut self.stream, up, sinks);
        self.measures.last(last);
        step!("stop.unload").in_scope(|| drop(self.kernel));
        let measured = self.measures;
        let flush = FLUSH.min(END.saturating_sub(begin.elapsed()));
        let books = step!("stop.flush").in_scope(|| self.exporters.flush_and_stop(flush));
        measured.stop();
        if let Some((recorder, _)) = self.stream.recorder {
            tracing::info!("{} records written", recorder.finish()?);
        }
        let stats = Stats::new(&run, &self.stream.core.counts(), &books);
        stats.report();
        stats_out.map_or(Ok(()), |out| stats.write(out))
    }
}
