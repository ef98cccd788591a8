//! The agent's core: records in, spans and commands out. No clock, no task, no socket: the same records give the
//! same output, live or replayed.

mod calls;
#[cfg(test)]
mod command_tests;
mod commands;
mod config;
#[cfg(test)]
mod death_tests;
mod deaths;
mod gpu;
#[cfg(test)]
mod handoff_tests;
#[cfg(test)]
mod hostile_tests;
mod lingering;
mod load;
#[cfg(test)]
mod log_bytes_laws;
#[cfg(test)]
mod log_laws;
#[cfg(test)]
mod log_tests;
mod logs;
mod measure;
#[cfg(test)]
mod measure_tests;
mod open;
#[cfg(test)]
mod operation_tests;
#[cfg(test)]
mod passing_tests;
#[cfg(test)]
mod rpc_tests;
#[cfg(test)]
mod scenario;
#[cfg(test)]
mod second_laws;
mod sockets;
mod standing;
#[cfg(test)]
mod standing_tests;
mod stdio;
#[cfg(test)]
mod stdio_tests;
#[cfg(test)]
mod tests;
mod thinning;
#[cfg(test)]
mod thinning_laws;
#[cfg(test)]
mod thinning_tests;
mod watching;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

pub use config::{CoreConfig, CoreCounts, Output};
pub use load::Load;
pub use watching::Watched;

use crate::engine::Engine;
use crate::engine::conn::ConnSettings;
use crate::event::losses::Losses;
use crate::event::shell::CALL_RUNS_MISSED;
use crate::event::{Body, ConnId, Event, Ns, ShellEvent, Task, canonical, decode};
use crate::metrics::Metrics;
use crate::trace::assembly::Assembler;
use crate::trace::causality::Causality;
use crate::trace::commands::Commands;
use crate::trace::connects::Connects;
use crate::trace::deaths::Deaths;
use crate::trace::gpu::Gpus;
use crate::trace::listeners::Listeners;
use crate::trace::logs::Logs;
use crate::trace::model::BoxedSpan;
use crate::trace::operations::Operations;
use crate::trace::operations::workers::Workers;
use crate::trace::processes::{End, Processes};
use crate::trace::stdio::Stdio;
use lingering::Lingering;
use load::Loads;
use standing::Standing;
use thinning::Thinning;
use watching::Watching;

/// What span builders may look at, borrowed from some of the core's fields.
macro_rules! facts {
    ($core:ident) => {
        crate::trace::spans::Facts {
            processes: &mut $core.processes,
            listeners: &$core.listeners,
            port_names: &$core.config.port_names,
            wall_offset_ns: $core.wall_offset_ns,
        }
    };
}
use facts;

/// Name of the counter of what the ring had no room for.
const RING_FULL: &str = ktrdr_ebpf_common::Counter::LostRingFull.name();

/// The core.
pub struct Core {
    config: CoreConfig,
    engine: Engine,
    assembler: Assembler,
    causality: Causality,
    commands: Commands,
    processes: Processes,
    listeners: Listeners,
    connects: Connects,
    deaths: Deaths,
    operations: Operations,
    gpus: Gpus,
    wall_offset_ns: i64,
    agent_tgid: u32,
    own: BTreeSet<(SocketAddr, SocketAddr)>,
    own_connecting: BTreeSet<ConnId>,
    lingering: Lingering,
    watching: Watching,
    thinning: Thinning,
    standing: Standing,
    loads: Loads,
    losses: Losses,
    metrics: Option<Box<Metrics>>,
    logs: Logs,
    stdio: Stdio,
    /// Calls on pipes that may not be shown.
    quiet: VecDeque<stdio::Quiet>,
    now: Ns,
    /// The newest of the kernel's records. What the shell says comes between them and may be of later, if it is busy.
    told: Ns,
    out: VecDeque<Output>,
    spans: Vec<BoxedSpan>,
    counts: CoreCounts,
}

impl Core {
    /// A core that has seen nothing.
    pub fn new(config: CoreConfig) -> Self {
        let connects = Connects::with_fallback(config.connect_grace);
        let connections = config.connections;
        let logs = Logs::new(config.max_record);
        let rules = config.operations.clone();
        let metrics = config.metrics.then(Box::default);
        let settings = ConnSettings {
            semconv_dup: config.semconv_dup,
            max_head: config.max_head,
            kept_headers: rules.headers.clone().into(),
            mask: config.mask.clone(),
            shared: Default::default(),
        };
        let mut assembler = Assembler::new();
        if config.follow_sampled {
            assembler.follow_sampled();
        }
        if config.watch {
            assembler.await_logs();
        }
        Self {
            config,
            engine: Engine::new(settings, connections),
            assembler,
            causality: Causality::new(),
            commands: Commands::default(),
            processes: Processes::new(),
            listeners: Listeners::default(),
            connects,
            deaths: Deaths::default(),
            operations: Operations::new(rules),
            gpus: Gpus::new(),
            wall_offset_ns: 0,
            agent_tgid: 0,
            own: BTreeSet::new(),
            own_connecting: BTreeSet::new(),
            lingering: Lingering::default(),
            watching: Watching::default(),
            thinning: Thinning::default(),
            standing: Standing::default(),
            loads: Loads::default(),
            losses: Losses::default(),
            metrics,
            logs,
            stdio: Stdio::new(),
            quiet: VecDeque::new(),
            now: 0,
            told: 0,
            out: VecDeque::new(),
            spans: Vec::new(),
            counts: CoreCounts::default(),
        }
    }

    /// Takes one record.
    pub fn feed(&mut self, record: &[u8]) {
        match decode(record) {
            Ok(event) => {
                self.counts.decoded += 1;
                self.handle(event);
            }
            Err(e) => *self.counts.undecoded.entry(e).or_default() += 1,
        }
    }

    /// The next product, if there is one.
    pub fn next_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What was counted so far.
    pub fn counts(&self) -> CoreCounts {
        let mut counts = self.counts.clone();
        counts.engine = self.engine.counts;
        counts.assembly = self.assembler.counts;
        counts.logs = self.logs.counts;
        counts.stdio = self.stdio.counts;
        counts.connects_recovered = self.connects.recovered;
        counts.connects_abandoned = self.connects.abandoned;
        counts.gpu = self.gpus.counts;
        counts
    }

    /// What of the load came from which port since this was asked last.
    pub fn take_load(&mut self) -> Load {
        self.loads.take()
    }

    /// Who the known processes are.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The workers, as far as they are known.
    pub fn workers(&self) -> &Workers {
        self.operations.workers()
    }

    fn handle(&mut self, event: Event<'_>) {
        let Event { mut ts, tgid, tid, losses, body } = event;
        self.now = self.now.max(ts);
        self.loads.all += u64::from(losses.is_some());
        if losses.is_some() {
            self.told = self.told.max(ts);
        }
        // Without a time of its own: it was made after all before it in the stream.
        if let (0, Body::PyCopy(_)) = (ts, &body) {
            ts = self.told;
        }
        if losses.is_some_and(|mark| self.losses.advance(mark)) {
            // Copies of contexts may be missing right before this record.
            self.causality.lost(ts);
            self.assembler.lost(ts);
            self.commands.lost();
        }
        let ticked = matches!(body, Body::Tick);
        match body {
            // The large ones stay where they were decoded.
            Body::Data(ref d) => self.data(ts, Task { tgid, tid, py_context: d.py_context }, d),
            Body::State(ref s) => self.state(ts, Task { tgid, tid, py_context: s.py_context }, s),
            Body::ConnectError(ref c) => {
                self.connect_error(ts, Task { tgid, tid, py_context: c.py_context }, c);
            }
            Body::Fork(f) => {
                self.causality.fork(Task { tgid, tid, py_context: f.py_context }, f, ts);
                self.process_forked(tgid, f);
            }
            Body::Exec(e) => {
                self.causality.exec(tgid, ts);
                self.stdio.executed(tgid);
                self.assembler.program_ended(tgid);
                self.program_executed(tgid, e.ppid, ts);
            }
            Body::Exit(e) => {
                self.last_lines(tgid, ts);
                self.processes.exit(tgid, ts, &e);
                self.measure_exit(tgid);
                self.stdio_ended(tgid, ts);
                self.program_ended(tgid, End::of(ts, &e));
                self.service_ended(tgid, ts);
                self.causality.exit(tgid);
                self.assembler.program_ended(tgid);
                self.watching.ended(tgid);
            }
            Body::PyCopy(c) => self.causality.py_copy(tgid, tid, c, ts, self.now),
            Body::PySubmit(w) => {
                self.causality.py_submit(Task { tgid, tid, py_context: w.py_context }, w.item, ts);
            }
            Body::PyWrite(w) => {
                self.causality.py_write(Task { tgid, tid, py_context: w.py_context }, w.number, w.behind, ts);
            }
            Body::PyTake(w) => self.causality.py_take(tgid, tid, w.item, ts),
            Body::Read(ref r) => self.read(ts, Task { tgid, tid, py_context: r.py_context }, r),
            Body::Write(ref w) => self.wrote(ts, Task { tgid, tid, py_context: w.py_context }, w),
            Body::Tick => self.tick(),
            Body::Shell(s) => self.shell(*s, ts),
        }
        self.advance(ticked);
    }

    fn shell(&mut self, event: ShellEvent, ts: Ns) {
        match event {
            ShellEvent::Start(s) => {
                self.assembler.seed(s.id_seed);
                self.wall_offset_ns = s.wall_offset_ns;
                self.agent_tgid = s.agent_tgid;
                self.processes.host(s.host, s.agent_version);
                self.measure_from_now();
            }
            ShellEvent::Clock(c) => self.wall_offset_ns = c.wall_offset_ns,
            ShellEvent::Process(mut p) => {
                self.config.mask.process(&mut p);
                self.watch_service(&p);
                self.causality.threads(p.tgid, p.threads);
                self.processes.learn(p);
            }
            ShellEvent::File(f) => self.logs.file(f.id(), &f.path, f.log),
            ShellEvent::Addresses(a) => self.listeners.addresses(a),
            ShellEvent::Listener(l) => {
                self.serves(l.tgid);
                self.listeners.up(l.netns, SocketAddr::new(canonical(l.addr), l.port), l.tgid, None);
                self.measure_listener(l.tgid);
                if self.wanted_ports(l.port, 0) {
                    self.causality.serves(l.tgid);
                    self.watch_user(l.tgid);
                }
            }
            ShellEvent::Accepted(a) => self.accepted_before(a),
            ShellEvent::Lost(l) => {
                // A full ring was told by the records behind the loss; another loss is known by its number only.
                let told = self.losses.told();
                let untold = |name: &str| name != CALL_RUNS_MISSED && !(told && name == RING_FULL);
                if l.counts.iter().any(|(name, _)| untold(name)) {
                    self.causality.lost(self.now);
                    self.assembler.lost(self.now);
                    self.commands.lost();
                }
                for (name, n) in l.counts {
                    *self.counts.lost.entry(name).or_default() += n;
                }
            }
            ShellEvent::Python(p) => {
                self.causality.python(p.tgid, p.exact, self.now);
                if p.greenlets {
                    self.causality.greenlets(p.tgid);
                }
            }
            ShellEvent::Thinned(t) => self.thinned(t),
            ShellEvent::Gpu(g) => self.gpus.status_is(g),
            ShellEvent::GpuSample(g) => self.gpu_sample(ts, &g),
            ShellEvent::End => self.end(),
        }
    }

    fn tick(&mut self) {
        for id in self.engine.waiting() {
            if let Some(outcome) = self.engine.expire(self.now, id) {
                let (on, paired) = calls::digest(outcome);
                self.paired(id, on, paired);
            }
        }
        self.causality.expire(self.now);
        self.operations.watch(self.now, &|port| self.thinning.observed(port).is_some());
        let ended = self.operations.finished(self.now);
        self.finish_operations(ended);
        self.settle_connects(self.now);
        self.settle_lingering(self.now);
        self.thinning.expire(self.now);
    }

    fn settle_connects(&mut self, now: Ns) {
        for f in self.connects.expire(now) {
            self.failed(&f);
        }
    }

    /// What time brings with it. `all`: also what may wait for more of its kind.
    fn advance(&mut self, all: bool) {
        // Before the spans: what is said of them goes with them.
        self.settle_logs(self.now);
        if all || self.assembler.is_late(self.now) {
            self.assembler.advance(self.now, &mut self.causality, &mut self.spans);
        }
        // After most records there is none.
        if !self.spans.is_empty() {
            self.emit();
        }
    }

    /// The stream ends: what is open is finished as it is.
    fn end(&mut self) {
        self.causality.ends();
        self.settle_lingering(Ns::MAX);
        for id in self.engine.ids() {
            if let Some(outcome) = self.engine.closed(self.now, id, "agent_stopped") {
                let (on, paired) = calls::digest(outcome);
                self.paired(id, on, paired);
            }
            self.engine.forget(id);
        }
        self.settle_connects(Ns::MAX);
        self.end_stdio();
        self.end_commands();
        self.end_logs();
        self.assembler.advance(Ns::MAX, &mut self.causality, &mut self.spans);
        self.emit();
        let ended = self.operations.drain(self.now);
        self.finish_operations(ended);
    }
}
