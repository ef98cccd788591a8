//! The agent's core: records in, spans and commands out. No clock, no task, no socket: the same records give the
//! same output, live or replayed.

#[cfg(test)]
mod scenario;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use ktrdr_ebpf_common::limits;

use crate::engine::conn::ConnSettings;
use crate::engine::pairing::{Began, Exchange, Paired};
use crate::engine::{Engine, EngineCounts, Outcome};
use crate::event::{
    Body, ConnId, ConnectError, Data, DecodeError, Direction, Event, Ns, ShellEvent, State, Task, Tuple,
    canonical, decode, tcp,
};
use crate::protocol::Role;
use crate::trace::assembly::{Assembler, AssemblyCounts, NewSpan};
use crate::trace::causality::{CallRef, Causality, SpanRef};
use crate::trace::connects::{Connecting, Connects};
use crate::trace::ids::{self, ExchangeId};
use crate::trace::listeners::Listeners;
use crate::trace::model::Span;
use crate::trace::operations::body::FailureRule;
use crate::trace::operations::{self, Operations};
use crate::trace::processes::Processes;
use crate::trace::spans::{self, Facts, OnConn};

/// Connections of the agent itself that are remembered, so that the collector's end of them is left alone.
const MAX_OWN: usize = 64;

/// What span builders may look at, borrowed from some of the core's fields.
macro_rules! facts {
    ($core:ident) => {
        Facts {
            processes: &mut $core.processes,
            listeners: &$core.listeners,
            port_names: &$core.config.port_names,
            wall_offset_ns: $core.wall_offset_ns,
        }
    };
}

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
        }
    }
}

/// What the core produces.
#[derive(Debug)]
pub enum Output {
    /// A finished span.
    Span(Box<Span>),
    /// Capture this many bytes per transfer of the connection from now on; 0 = none at all.
    Capture(ConnId, u32),
    /// The connection is over.
    Forget(ConnId),
}

/// What the core counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreCounts {
    /// Records decoded.
    pub decoded: u64,
    /// Records refused by the decoder, by reason.
    pub undecoded: BTreeMap<DecodeError, u64>,
    /// Transfers on connections whose addresses nobody told.
    pub unknown_conn: u64,
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
}

/// The core.
pub struct Core {
    config: CoreConfig,
    engine: Engine,
    assembler: Assembler,
    causality: Causality,
    processes: Processes,
    listeners: Listeners,
    connects: Connects,
    operations: Operations,
    wall_offset_ns: i64,
    agent_tgid: u32,
    own: BTreeSet<(SocketAddr, SocketAddr)>,
    own_connecting: BTreeSet<ConnId>,
    now: Ns,
    out: VecDeque<Output>,
    spans: Vec<Span>,
    counts: CoreCounts,
}

impl Core {
    /// A core that has seen nothing.
    pub fn new(config: CoreConfig) -> Self {
        let settings = ConnSettings { semconv_dup: config.semconv_dup, max_head: config.max_head };
        Self {
            config,
            engine: Engine::new(settings),
            assembler: Assembler::new(),
            causality: Causality::new(),
            processes: Processes::new(),
            listeners: Listeners::default(),
            connects: Connects::default(),
            operations: Operations::new(FailureRule::builtin()),
            wall_offset_ns: 0,
            agent_tgid: 0,
            own: BTreeSet::new(),
            own_connecting: BTreeSet::new(),
            now: 0,
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
        counts.connects_recovered = self.connects.recovered;
        counts.connects_abandoned = self.connects.abandoned;
        counts
    }

    /// Who the known processes are.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    fn handle(&mut self, event: Event<'_>) {
        let Event { ts, tgid, tid, body } = event;
        self.now = self.now.max(ts);
        match body {
            Body::Data(d) => self.data(ts, Task { tgid, tid, py_context: d.py_context }, &d),
            Body::State(s) => self.state(ts, Task { tgid, tid, py_context: s.py_context }, &s),
            Body::ConnectError(c) => self.connect_error(ts, Task { tgid, tid, py_context: c.py_context }, &c),
            Body::Fork(f) => self.causality.fork(Task { tgid, tid, py_context: f.py_context }, f, ts),
            Body::Exec(_) => self.causality.exec(tgid),
            Body::Exit(e) => {
                self.processes.exit(tgid, ts, &e);
                self.causality.exit(tgid);
            }
            Body::PyCopy(c) => self.causality.py_copy(tgid, tid, c, ts),
            Body::Tick => self.tick(),
            Body::Shell(s) => self.shell(*s),
        }
        self.advance();
    }

    fn shell(&mut self, event: ShellEvent) {
        match event {
            ShellEvent::Start(s) => {
                self.assembler.seed(s.id_seed);
                self.wall_offset_ns = s.wall_offset_ns;
                self.agent_tgid = s.agent_tgid;
                self.processes.host(s.host, s.agent_version);
            }
            ShellEvent::Clock(c) => self.wall_offset_ns = c.wall_offset_ns,
            ShellEvent::Process(p) => self.processes.learn(p),
            ShellEvent::Listener(l) => {
                self.listeners.up(l.netns, SocketAddr::new(canonical(l.addr), l.port), l.tgid);
            }
            ShellEvent::Lost(l) => {
                for (name, n) in l.counts {
                    *self.counts.lost.entry(name).or_default() += n;
                }
            }
            ShellEvent::Python(p) => self.causality.python(p.tgid, p.exact),
            ShellEvent::End => self.end(),
        }
    }

    fn tick(&mut self) {
        for id in self.engine.waiting() {
            if let Some(outcome) = self.engine.expire(self.now, id) {
                let (on, paired) = digest(outcome);
                self.paired(id, on, paired);
            }
        }
        self.causality.expire(self.now);
        let ended = self.operations.finished(self.now);
        self.finish_operations(ended);
        self.settle_connects(self.now);
    }

    fn settle_connects(&mut self, now: Ns) {
        for f in self.connects.expire(now) {
            self.failed(&f);
        }
    }

    fn advance(&mut self) {
        self.assembler.advance(self.now, &mut self.causality, &mut self.spans);
        self.out.extend(self.spans.drain(..).map(|s| Output::Span(Box::new(s))));
    }

    /// The stream ends: what is open is finished as it is.
    fn end(&mut self) {
        for id in self.engine.ids() {
            if let Some(outcome) = self.engine.closed(self.now, id, "agent_stopped") {
                let (on, paired) = digest(outcome);
                self.paired(id, on, paired);
            }
            self.engine.forget(id);
        }
        self.settle_connects(Ns::MAX);
        self.assembler.advance(Ns::MAX, &mut self.causality, &mut self.spans);
        self.out.extend(self.spans.drain(..).map(|s| Output::Span(Box::new(s))));
        let ended = self.operations.drain(self.now);
        self.finish_operations(ended);
    }

    fn data(&mut self, ts: Ns, task: Task, d: &Data<'_>) {
        if let Some(t) = &d.tuple
            && (!self.wanted(t) || self.own.contains(&(t.remote, t.local)))
        {
            self.out.push_back(Output::Capture(d.conn, 0));
            return;
        }
        if d.direction == Direction::Recv {
            self.causality.received(task, d.conn, ts);
        }
        let listeners = &self.listeners;
        let role = |t: &Tuple| listeners.any(t.netns, t.local.port()).then_some(Role::Server);
        let Some(outcome) = self.engine.data(ts, task, d, &role) else {
            self.counts.unknown_conn += 1;
            return;
        };
        let capture = match (outcome.effects.opaque, outcome.effects.recognised) {
            (true, _) => Some(0),
            (false, true) => Some(self.config.capture),
            (false, false) => None,
        };
        let (on, paired) = digest(outcome);
        if let Some(bytes) = capture {
            self.out.push_back(Output::Capture(d.conn, bytes));
        }
        self.paired(d.conn, on, paired);
    }

    /// Whether the configuration lets this connection be looked at.
    fn wanted(&self, t: &Tuple) -> bool {
        let either = |ports: &[u16]| ports.contains(&t.local.port()) || ports.contains(&t.remote.port());
        (self.config.ports.is_empty() || either(&self.config.ports)) && !either(&self.config.excluded_ports)
    }

    fn paired(&mut self, id: ConnId, on: Option<OnConn>, paired: Vec<Paired>) {
        let Some(mut on) = on else { return };
        for p in paired {
            match p {
                Paired::Began(b) => self.began(id, &on, b),
                Paired::Read(span) => self.early_operation(id, span),
                Paired::Answered(span, mark) => {
                    if on.role == Role::Server {
                        self.causality.response_written(mark.task, span, mark.ts);
                    }
                }
                Paired::Done(x) => {
                    self.done(*x, &on);
                    // The connect belongs to the first call on the connection only.
                    on.connected = None;
                    self.engine.connect_told(id);
                }
            }
        }
    }

    fn exchange_id(&self, on: &OnConn, seq: u32) -> ExchangeId {
        let (client, server) = match on.role {
            Role::Client => (on.tuple.local, on.tuple.remote),
            Role::Server => (on.tuple.remote, on.tuple.local),
        };
        ExchangeId::new(self.assembler.id_seed(), client, server, on.tuple.netns, seq)
    }

    fn began(&mut self, conn: ConnId, on: &OnConn, b: Began) {
        let call = match on.role {
            Role::Client => Some(self.causality.call(b.start.task, b.start.ts)),
            Role::Server => {
                self.causality.request_read(b.head.task, conn, b.span, b.head.ts);
                None
            }
        };
        let exchange = self.exchange_id(on, b.start.seq);
        self.assembler.begin(NewSpan {
            span: b.span,
            role: on.role,
            exchange,
            start: b.start.ts,
            call,
            context: b.context,
        });
        self.early_operation(conn, b.span);
    }

    /// Learns the operation of a request while it is being served, for the calls made meanwhile.
    fn early_operation(&mut self, conn: ConnId, span: SpanRef) {
        let Some(x) = self.engine.get(conn).and_then(|c| c.pairing.get(span)) else { return };
        let url = ["url.path", "url.full"].iter().find_map(|k| x.request.attributes.get(k)?.as_str());
        let body = x.request_body.as_deref().unwrap_or_default();
        if let Some(id) = Operations::early(url.unwrap_or_default(), body) {
            self.assembler.operation(span, id);
        }
    }

    fn done(&mut self, mut x: Exchange, on: &OnConn) {
        let (span, end, tgid) = (x.span, x.end, x.start.task.tgid);
        if on.role == Role::Server {
            self.causality.request_done(span, end);
        }
        let id = self.exchange_id(on, x.start.seq);
        let excluded = self.processes.get(tgid).is_some_and(|p| p.meta.excluded);
        let (request, response) = (x.request_body.take(), x.response_body.take());
        let mut facts = facts!(self);
        let mut draft = spans::exchange(x, id, on, &mut facts);
        if excluded {
            return;
        }
        self.operation(
            span,
            id,
            on.role,
            &request.unwrap_or_default(),
            &response.unwrap_or_default(),
            &mut draft,
        );
        self.assembler.finish(span, draft, &mut self.spans);
    }

    /// Looks for an operation in a finished call.
    fn operation(
        &mut self,
        span: SpanRef,
        exchange: ExchangeId,
        role: Role,
        request: &[u8],
        response: &[u8],
        draft: &mut Span,
    ) {
        let peer = draft.attributes.get("peer.service").and_then(|v| v.as_str()).map(str::to_owned);
        let call = operations::Call { span, role, exchange, request, response, peer: peer.as_deref() };
        if let Some(op) = self.operations.observe(&call, draft) {
            if let Some(by) = self.operations.created_by(&op) {
                self.assembler.operation_created(op.clone(), by);
            }
            self.assembler.operation(span, op);
        }
    }

    /// Emits the spans of operations that ended long enough ago for their creator to have its place.
    fn finish_operations(&mut self, ended: Vec<(operations::Operation, Ns)>) {
        for (op, end) in ended {
            let (mut trace_id, span_id) = ids::operation(self.assembler.id_seed(), &op.id);
            let mut span = op.span(end, self.wall_offset_ns);
            if let Some((trace, parent)) = op.created_by.and_then(|(by, ..)| self.assembler.placed(by)) {
                trace_id = trace;
                span.parent_span_id = Some(parent);
            }
            span.trace_id = trace_id;
            span.span_id = span_id;
            self.out.push_back(Output::Span(Box::new(span)));
        }
    }

    fn state(&mut self, ts: Ns, task: Task, s: &State) {
        match (s.old, s.new) {
            (tcp::CLOSE, tcp::SYN_SENT) => {
                if task.tgid == self.agent_tgid {
                    while self.own_connecting.len() >= MAX_OWN {
                        self.own_connecting.pop_first();
                    }
                    self.own_connecting.insert(s.conn);
                }
                if !self.wanted(&s.tuple) || task.tgid == self.agent_tgid {
                    return;
                }
                let call = self.causality.call(task, ts);
                let connecting =
                    Connecting { task, call, start: ts, remote: s.tuple.remote, netns: s.tuple.netns };
                self.connects.started(s.conn, connecting);
            }
            (tcp::SYN_SENT, tcp::CLOSE) => {
                let engine = &mut self.engine;
                self.connects.failed(s.conn, s.error, ts, || engine.next_span());
            }
            (tcp::SYN_SENT | tcp::SYN_RECV, tcp::ESTABLISHED) => {
                let connecting = self.connects.succeeded(s.conn);
                if self.own_connecting.remove(&s.conn) {
                    self.remember_own(&s.tuple);
                } else if self.wanted(&s.tuple) {
                    let owner = connecting.map_or(0, |c| c.task.tgid);
                    self.engine.established(ts, s, owner, connecting.map(|c| c.start));
                }
            }
            (_, tcp::LISTEN) => self.listeners.up(s.tuple.netns, s.tuple.local, task.tgid),
            (tcp::LISTEN, _) => self.listeners.down(s.tuple.netns, s.tuple.local, task.tgid, ts),
            (_, tcp::CLOSE) => {
                let why = match s.error {
                    104 | 32 => "connection_reset",
                    110 => "connection_timeout",
                    _ => "connection_closed",
                };
                if let Some(outcome) = self.engine.closed(ts, s.conn, why) {
                    let (on, paired) = digest(outcome);
                    self.paired(s.conn, on, paired);
                }
                self.engine.forget(s.conn);
                self.own.remove(&(s.tuple.local, s.tuple.remote));
                self.out.push_back(Output::Forget(s.conn));
            }
            _ => {}
        }
    }

    fn remember_own(&mut self, t: &Tuple) {
        while self.own.len() >= MAX_OWN {
            self.own.pop_first();
        }
        self.own.insert((t.local, t.remote));
    }

    fn connect_error(&mut self, ts: Ns, task: Task, c: &ConnectError) {
        let call = self.causality.call(task, ts);
        let connecting = Connecting { task, call, start: ts, remote: c.remote, netns: c.netns };
        let span = self.engine.next_span();
        self.connects.failed_at_once(connecting, c.error, ts, span);
    }

    fn failed(&mut self, f: &crate::trace::connects::Failed) {
        let c = f.connect;
        if self.processes.get(c.task.tgid).is_some_and(|p| p.meta.excluded) {
            return;
        }
        // A failed connect has no sequence number; its process, thread and time name it.
        let client = SocketAddr::new(std::net::Ipv6Addr::from(u128::from(c.start)).into(), 0);
        let exchange = ExchangeId::new(
            self.assembler.id_seed() ^ u64::from(c.task.tgid),
            client,
            c.remote,
            c.netns,
            c.task.tid,
        );
        let call: Option<CallRef> = Some(c.call);
        self.assembler.begin(NewSpan {
            span: f.span,
            role: Role::Client,
            exchange,
            start: c.start,
            call,
            context: None,
        });
        let mut facts = facts!(self);
        let draft = spans::failed_connect(f, &mut facts);
        self.assembler.finish(f.span, draft, &mut self.spans);
    }
}

/// Takes what an outcome says, so that the engine is free again.
fn digest(outcome: Outcome<'_>) -> (Option<OnConn>, Vec<Paired>) {
    if outcome.effects.paired.is_empty() {
        return (None, Vec::new());
    }
    (OnConn::of(outcome.conn), outcome.effects.paired)
}
