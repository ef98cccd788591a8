//! From transfers to calls, and from calls to spans and operations.

use super::{Core, Output, facts};
use crate::engine::Outcome;
use crate::engine::half::MAX_SAMPLE;
use crate::engine::pairing::{Began, Exchange, Paired};
use crate::event::{ConnId, Data, Direction, Ns, Task, Tuple};
use crate::protocol::{Role, jsonrpc};
use crate::trace::assembly::passing::{Head, Moment};
use crate::trace::assembly::{About, NewSpan};
use crate::trace::causality::{AskedOn, Delivered, SpanRef};
use crate::trace::gpu::demand::Call as Demand;
use crate::trace::ids::{self, ExchangeId, Positions};
use crate::trace::model::{Attributes, Span};
use crate::trace::operations;
use crate::trace::relays::{At, Ends, Seen};
use crate::trace::spans::{self, LEFT_OUT, OnConn};
use xxhash_rust::xxh3::xxh3_64;

impl Core {
    pub(super) fn data(&mut self, ts: Ns, task: Task, d: &Data<'_>) {
        // A receive that is told again would be one with nothing in it: the thread went on to other work.
        if d.second && d.len > 0 && self.engine.get(d.conn).is_some_and(|conn| conn.has(d)) {
            self.counts.told_twice += 1;
            return;
        }
        if let Some(t) = &d.tuple
            && (!self.wanted(t) || self.own.contains(&(t.remote, t.local)))
        {
            self.out.push_back(Output::Capture(d.conn, 0));
            return;
        }
        if self.is_left_out(d) {
            self.passed_over(ts, task, d);
            return;
        }
        if d.direction == Direction::Recv {
            // Of a service older than the agent, whose listener was told before who it is.
            // On a Python thread receives are also told on connections that are none of ours; they make nobody a user.
            if d.tuple.is_some() || self.engine.get(d.conn).is_some() {
                self.watch_user(task.tgid);
            }
            self.causality.received(task, d.conn, ts);
        }
        let listeners = &self.listeners;
        let role = |t: &Tuple| listeners.any(t.netns, t.local.port()).then_some(Role::Server);
        let Some(outcome) = self.engine.data(ts, task, d, &role) else {
            // What is told for the sake of causality alone (above) brings nothing along, and is no loss.
            if d.direction == Direction::Send || !d.payload.is_empty() {
                self.counts.unknown_conn += 1;
            }
            return;
        };
        if outcome.effects.served {
            // Whoever serves logs, also where the kernel side was kept from telling that it listens.
            self.logs.serves(task.tgid);
        }
        let capture = match (outcome.effects.opaque, outcome.effects.recognised) {
            (true, _) => Some(0),
            (false, true) => Some(self.config.capture),
            (false, false) => None,
        };
        self.loads.of_conn(outcome.conn);
        let (on, paired) = digest(outcome);
        if let Some(bytes) = capture {
            self.out.push_back(Output::Capture(d.conn, bytes));
        }
        self.paired(d.conn, on, paired);
    }

    /// Whether the configuration lets this connection be looked at. Never one to the agent itself: a scraper would
    /// make spans and metrics of its own scraping.
    pub(super) fn wanted(&self, t: &Tuple) -> bool {
        let agents = |end| self.listeners.accepts(t.netns, end, self.agent_tgid);
        self.wanted_ports(t.local.port(), t.remote.port()) && !agents(t.remote) && !agents(t.local)
    }

    pub(super) fn wanted_ports(&self, local: u16, remote: u16) -> bool {
        self.config.wanted_ports(local, remote)
    }

    pub(super) fn paired(&mut self, id: ConnId, on: Option<OnConn>, mut paired: Vec<Paired>) {
        let Some(mut on) = on else { return self.engine.reuse(paired) };
        for p in paired.drain(..) {
            match p {
                Paired::Began(b) => self.began(id, &on, b),
                Paired::Read(span) => {
                    if on.role == Role::Server {
                        self.message_read(id, span);
                    }
                    self.early_operation(id, span);
                }
                Paired::Answered(span, mark) => {
                    if on.role == Role::Server {
                        self.causality.response_written(mark.task, span, mark.ts);
                        self.session_began(id, span);
                    }
                }
                Paired::Unasked(mark) => {
                    if on.role == Role::Server {
                        self.causality.unasked(mark.task, mark.ts);
                        self.stands_no_more(&on.tuple);
                    }
                }
                Paired::Done(x) => {
                    self.done(x, &on);
                    // The connect belongs to the first call on the connection only.
                    on.connected = None;
                    self.engine.connect_told(id);
                }
            }
        }
        self.engine.reuse(paired);
    }

    /// A request was read whole: it may bring a message to a session.
    fn message_read(&mut self, conn: ConnId, span: SpanRef) {
        let Some(x) = self.engine.get(conn).and_then(|c| c.pairing.get(span)) else { return };
        let Some(session) = session(&x.request.attributes) else { return };
        let message = x.request_body.as_deref().and_then(jsonrpc::http::message);
        let Some((method, notification)) = message else { return };
        let (tgid, ts) = (x.start.task.tgid, x.request_end.unwrap_or(x.start.ts));
        self.causality.message(tgid, Delivered { span, session, method, notification, ts });
    }

    /// The answer to a call that named no session may begin one.
    fn session_began(&mut self, conn: ConnId, span: SpanRef) {
        let Some(x) = self.engine.get(conn).and_then(|c| c.pairing.get(span)) else { return };
        let Some(began) = x.response.as_ref().and_then(|r| session(&r.attributes)) else { return };
        if session(&x.request.attributes).is_none() {
            self.causality.session(span, began);
        }
    }

    fn exchange_id(&self, on: &OnConn, seq: u32) -> ExchangeId {
        let (client, server) = match on.role {
            Role::Client => (on.tuple.local, on.tuple.remote),
            Role::Server => (on.tuple.remote, on.tuple.local),
        };
        ExchangeId::new(self.assembler.id_seed(), client, server, on.tuple.netns, seq)
    }

    /// What both ends see of an exchange where addresses are translated between them. Inside one host's loopback
    /// they are not, as far as anybody does that, and the bulk of a host's calls need no second look-up.
    fn positions(&self, conn: ConnId, on: &OnConn, request: u32) -> Option<Positions> {
        let loopback = |a: std::net::SocketAddr| a.ip().is_loopback();
        if loopback(on.tuple.local) && loopback(on.tuple.remote) {
            return None;
        }
        let answer = match on.role {
            Role::Client => Direction::Recv,
            Role::Server => Direction::Send,
        };
        let response = self.engine.get(conn)?.position(answer)?;
        Some(Positions::new(request, response))
    }

    /// Where in its stream a request stands, for those whose beginning was seen.
    fn in_stream(&self, conn: ConnId, on: &OnConn, b: &Began) -> Option<Seen> {
        let request = match on.role {
            Role::Client => Direction::Send,
            Role::Server => Direction::Recv,
        };
        let at = At { offset: self.engine.get(conn)?.offset(request, b.start.seq)?, digest: b.digest? };
        Some(Seen { ends: Ends::of(&on.tuple, on.role), at, span: b.span, ts: b.start.ts })
    }

    /// What tells whether this request is repeated, or repeats one.
    fn passing(&self, conn: ConnId, on: &OnConn, b: &Began) -> Option<Head> {
        let task = b.start.task;
        let calls = on.role == Role::Client;
        if calls && self.causality.is_partial(b.start.ts) {
            // Of requests alike, or with the same id, one may be in flight that nobody sees.
            return None;
        }
        let mut gist = self.engine.get(conn)?.pairing.get(b.span)?.request.gist;
        if self.causality.follows_contexts(task.tgid) {
            // What its contexts do not tell is not for guessing.
            gist.said = None;
        }
        let after = calls.then(|| self.causality.just_read(task, b.start.ts)).flatten();
        Some(Head {
            gist: Some(gist),
            connect: on.connected.filter(|_| calls).map(|c| Moment { ts: c.start, after: c.after }),
            begin: Moment { ts: b.start.ts, after },
            thread: b.head.task.tid,
        })
    }

    fn began(&mut self, conn: ConnId, on: &OnConn, b: Began) {
        let call = match on.role {
            Role::Client => Some(self.causality.call(b.start.task, b.start.ts)),
            Role::Server => {
                self.stands_no_more(&on.tuple);
                let asked = AskedOn { conn, opened: on.opened };
                self.causality.request_read(b.head.task, asked, b.span, b.head.ts);
                let request = self.engine.get(conn).and_then(|c| c.pairing.get(b.span)).map(|x| &x.request);
                let path = request.and_then(|r| r.attributes.get("url.path")?.as_str()).unwrap_or_default();
                self.logs.request(b.head.task.tgid, on.tuple.remote, (b.span, b.head.ts), path);
                None
            }
        };
        let exchange = self.exchange_id(on, b.start.seq);
        let positions = self.positions(conn, on, b.start.seq);
        let relay = self.in_stream(conn, on, &b);
        let passing = self.passing(conn, on, &b);
        self.assembler.begin(NewSpan {
            span: b.span,
            role: on.role,
            exchange,
            positions,
            start: b.start.ts,
            tgid: b.start.task.tgid,
            call,
            context: b.context,
            relay,
            passing,
        });
        match on.role {
            Role::Client => self.called(b.span, b.start.task, b.start.ts),
            Role::Server => self.no_command(b.head.task.tgid),
        }
        if let Some(id) = self
            .logs
            .hints
            .of(self.causality.writing(b.start.task), b.start.ts)
            .filter(|_| on.role == Role::Client)
        {
            self.assembler.hint(b.span, id);
        }
        self.early_operation(conn, b.span);
    }

    /// Learns the operation of a request while it is being served, for the calls made meanwhile.
    fn early_operation(&mut self, conn: ConnId, span: SpanRef) {
        let Some(x) = self.engine.get(conn).and_then(|c| c.pairing.get(span)) else { return };
        let head = self.operations.head(&x.request.attributes);
        let fields = self.operations.fields(x.request_body.as_deref().unwrap_or_default());
        let partly = x.request.has_body && x.request_body.as_ref().is_none_or(|b| b.len() >= MAX_SAMPLE);
        let about = match fields.symbols().next() {
            // The head's own come behind those of the body.
            Some(_) => About::request(&x.request.attributes, fields.symbols(), partly),
            None => About { partly, ..head.about.clone() },
        };
        if let Some(context) = x.request_body.as_deref().and_then(jsonrpc::http::context) {
            self.assembler.context(span, context);
        }
        let id = self.operations.early(&head, &fields);
        self.assembler.about(span, about);
        if let Some(id) = id {
            self.assembler.operation(span, id);
        }
    }

    fn done(&mut self, mut x: Box<Exchange>, on: &OnConn) {
        let (span, end, tgid) = (x.span, x.end, x.start.task.tgid);
        if on.role == Role::Server {
            // An answer that came whole was never seen open.
            if session(&x.request.attributes).is_none()
                && let Some(began) = x.response.as_ref().and_then(|r| session(&r.attributes))
            {
                self.causality.session(span, began);
            }
            match x.incomplete == Some(LEFT_OUT) {
                true => self.causality.request_left(span, end),
                false => self.causality.request_done(span, end),
            }
        }
        if x.incomplete == Some(LEFT_OUT) {
            self.assembler.left(span);
        }
        let known = self.assembler.exchange(span);
        let id = known.unwrap_or_else(|| self.exchange_id(on, x.start.seq));
        let excluded = self.processes.get(tgid).is_some_and(|p| p.meta.excluded);
        let (request, response) = (x.request_body.take(), x.response_body.take());
        let mut facts = facts!(self);
        let mut draft = spans::exchange(*x, id, on, &mut facts);
        if excluded {
            return;
        }
        if let Some(share) = self.thinning.observed(on.service_port()) {
            draft.attributes.push("ktrdr.observed.share", share);
        }
        self.tell_ends(span, &mut draft, on, tgid);
        let (request, response) = (request.unwrap_or_default(), response.unwrap_or_default());
        jsonrpc::http::tell(&mut draft, &request, &response, &self.config.mask);
        self.operation(span, id, (on, tgid), &request, &response, &mut draft);
        self.assembler.finish(span, draft, &mut self.spans);
    }

    /// Looks for an operation in a finished call.
    fn operation(
        &mut self,
        span: SpanRef,
        exchange: ExchangeId,
        (on, tgid): (&OnConn, u32),
        request: &[u8],
        response: &[u8],
        draft: &mut Span,
    ) {
        let role = on.role;
        let call = operations::Call { span, role, exchange, port: on.service_port(), request, response };
        let about = self.operations.observe(&call, draft);
        self.gpu_demand(about.as_ref(), &Demand { role, tgid, name: &draft.name, request });
        if let Some(op) = about {
            if let Some((by, symbols)) = self.operations.created_by(&op) {
                self.assembler.operation_created(op.clone(), by, symbols);
            }
            if let Some(end) = self.operations.ended(&op) {
                self.assembler.operation_ended(&op, end);
            }
            self.tell_unknown(span, (role, tgid), &op, draft);
            self.assembler.operation(span, op);
        }
    }

    /// Emits the spans of operations that ended long enough ago for their creator to have its place.
    pub(super) fn finish_operations(&mut self, ended: Vec<(operations::Operation, Ns)>) {
        for (op, end) in ended {
            let (mut trace_id, span_id) = ids::operation(self.assembler.id_seed(), &op.id);
            let mut span = op.span(end, self.wall_offset_ns);
            if self.gpus.annotate_operation(&mut span, &op.id) {
                self.gpus.counts.spans += 1;
            }
            if let Some((trace, parent)) = op.created_by.and_then(|(by, ..)| self.assembler.placed(by)) {
                trace_id = trace;
                span.parent_span_id = Some(parent);
            }
            span.trace_id = trace_id;
            span.span_id = span_id;
            self.spans.push(Box::new(span));
        }
        self.emit();
    }
}

/// The session of the Model Context Protocol that a message names.
fn session(a: &Attributes) -> Option<u64> {
    Some(xxh3_64(a.get("mcp.session.id")?.as_str()?.as_bytes()).max(1))
}

/// Takes what an outcome says, so that the engine is free again.
pub(super) fn digest(outcome: Outcome<'_>) -> (Option<OnConn>, Vec<Paired>) {
    if outcome.effects.paired.is_empty() {
        return (None, outcome.effects.paired);
    }
    (OnConn::of(outcome.conn), outcome.effects.paired)
}
