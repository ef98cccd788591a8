//! From finished exchanges to spans with a place in a trace.
//!
//! A span waits a moment after its end, so that what belongs to it can arrive: a completed send is stamped after
//! its peer may have received, so the server's end of a call can be known before the client's.

mod commands;
mod created;
mod due;
mod flags;
mod handoff;
mod node;
pub mod passing;
mod placing;
pub mod said;

use std::sync::Arc;

pub use commands::NewCommand;
use created::Created;
use due::Due;
pub use handoff::About;
use handoff::Handoff;
pub use node::{Node, Place};
use node::{Nodes, Rare};
use passing::Passing;
use placing::Placing;

use super::causality::{CallRef, Causality, SpanRef};
use super::ids::{self, ExchangeId, Positions};
use super::model::{BoxedSpan, Link, Span, SpanId, Status, TraceId};
use super::operations;
use super::relays::{Relays, Seen};
use crate::event::{MS, Ns};
use crate::protocol::{Role, TraceContext};

/// How long a span waits for the other end of its connection and for late evidence. Records are at most one reader
/// timer (50 ms) late; with the reader's own delay a lone request stays visible within 200 ms.
const GRACE_NS: Ns = 60 * MS;
/// Spans leave together, those of so long at a time, unless a tick comes before: the way from here out and that of records
/// into the core do not fit a processor's nearest memory both.
const TOGETHER_NS: Ns = 2 * MS;
/// How often a span that still waits for evidence is looked at again.
const RETRY_NS: Ns = 20 * MS;

/// Depth of a trace that is followed to its root; KTRDR's longest is 8.
const MAX_DEPTH: u32 = 64;

/// Counters of the assembler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssemblyCounts {
    /// Spans emitted.
    pub emitted: u64,
    /// Spans that ended after they were forgotten.
    pub orphans: u64,
}

/// Places spans in traces.
pub struct Assembler {
    seed: u64,
    nodes: Nodes,
    due: Due,
    created: Created,
    handoff: Handoff,
    passing: Passing,
    /// Connections that go through a process.
    pub relays: Relays,
    /// Counters.
    pub counts: AssemblyCounts,
    flags: flags::Flags,
    /// Spans of which something is still to be told, in order.
    held: Vec<SpanRef>,
    /// What services log is read.
    logs: bool,
}

/// What identifies a new span.
#[derive(Clone, Copy, Debug)]
pub struct NewSpan {
    /// Its number.
    pub span: SpanRef,
    /// Which end of its exchange.
    pub role: Role,
    /// Its exchange.
    pub exchange: ExchangeId,
    /// Its place on the connection, where the other end may see other addresses.
    pub positions: Option<Positions>,
    /// Start.
    pub start: Ns,
    /// Process.
    pub tgid: u32,
    /// For calls: whose work they are.
    pub call: Option<CallRef>,
    /// A trace context on the wire.
    pub context: Option<TraceContext>,
    /// Its place in the stream, for relays.
    pub relay: Option<Seen>,
    /// What tells who passes on what, where that is worth asking.
    pub passing: Option<passing::Head>,
}

impl Assembler {
    /// An assembler without spans.
    pub fn new() -> Self {
        Self {
            seed: 0,
            nodes: Nodes::new(),
            due: Due::default(),
            created: Created::default(),
            handoff: Handoff::default(),
            passing: Passing::default(),
            relays: Relays::default(),
            counts: AssemblyCounts::default(),
            flags: flags::Flags::default(),
            held: Vec::new(),
            logs: false,
        }
    }

    /// Has requests that failed wait for what their service logs about it.
    pub fn await_logs(&mut self) {
        self.logs = true;
    }

    /// Has spans say whether their trace's caller sampled it.
    pub fn follow_sampled(&mut self) {
        self.flags.remember();
    }

    /// Sets the seed of all ids.
    pub fn seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// The seed of all ids.
    pub fn id_seed(&self) -> u64 {
        self.seed
    }

    /// Records were lost.
    pub fn lost(&mut self, ts: Ns) {
        self.relays.lost(ts);
        self.passing.lost();
    }

    /// Requests are in flight that nobody sees, from now on or no more; `whole`: when all that are will have been seen.
    pub fn partial(&mut self, partial: bool, whole: Option<Ns>) {
        self.relays.partial(partial, whole);
        if whole.is_some() {
            self.passing.lost();
        }
    }

    /// A span ends because nobody looks at its connection any more: when it really does is not known.
    pub fn left(&mut self, span: SpanRef) {
        if let Some(node) = self.nodes.get_mut(span) {
            node.left = true;
        }
    }

    /// A thread connects that read this request just before.
    pub fn connects_after(&mut self, tgid: u32, read: SpanRef) {
        self.passing.connects(tgid, read);
    }

    /// A process ended, or became another program.
    pub fn program_ended(&mut self, tgid: u32) {
        self.passing.ended(tgid);
    }

    /// Spans forgotten before they ended or were emitted.
    pub fn forgotten(&self) -> u64 {
        self.nodes.forgotten
    }

    /// A span began.
    pub fn begin(&mut self, new: NewSpan) -> SpanId {
        let span_id = new.exchange.span_id(self.seed, new.role);
        if let Some(context) = &new.context {
            self.flags.note(context);
        }
        let mut passed_on = None;
        if let Some(seen) = new.relay {
            match new.role {
                Role::Server => self.relays.served(seen, new.tgid),
                Role::Client => passed_on = self.relays.sent(seen),
            }
        }
        let repeats = new.passing.filter(|_| new.role == Role::Client);
        let repeats = repeats.and_then(|head| self.passing.sent(new.tgid, &head, &self.nodes));
        self.nodes.insert(
            new.span,
            Node {
                positions: new.positions,
                rare: Rare::of(new.context, passed_on, repeats),
                ..Node::new(new.role, new.exchange, span_id, (new.tgid, new.start), new.call)
            },
        );
        if new.role == Role::Server {
            if let Some(head) = &new.passing {
                self.passing.served(new.tgid, new.span, head);
            }
            self.handoff.began(new.tgid, new.span, &self.nodes);
        }
        span_id
    }

    /// A span belongs to an operation.
    pub fn operation(&mut self, span: SpanRef, id: Arc<str>) {
        if let Some(node) = self.nodes.get_mut(span) {
            node.operation = Some(id);
        }
    }

    /// What a span is about.
    pub fn about(&mut self, span: SpanRef, about: About) {
        if let Some(node) = self.nodes.get_mut(span) {
            node.about = (about != About::default()).then(|| Box::new(about));
        }
    }

    /// A trace context in a request's body; one in its head goes before.
    pub fn context(&mut self, span: SpanRef, context: TraceContext) {
        if let Some(node) = self.nodes.get_mut(span) {
            let rare = node.rare.get_or_insert_default();
            if rare.context.is_none() {
                self.flags.note(&context);
            }
            rare.context.get_or_insert(context);
        }
    }

    /// This call created the operation, which is about these symbols.
    pub fn operation_created(&mut self, id: Arc<str>, by: SpanRef, symbols: &[Box<str>]) {
        self.created.insert(id, by, symbols);
    }

    /// The operation was said to have ended.
    pub fn operation_ended(&mut self, id: &str, at: Ns) {
        self.created.ended(id, at);
    }

    /// The exchange that a span is one end of.
    pub fn exchange(&self, span: SpanRef) -> Option<ExchangeId> {
        self.nodes.get(span).map(|n| n.exchange)
    }

    /// Trace and id of a span, once it has its place.
    pub fn placed(&self, span: SpanRef) -> Option<(TraceId, SpanId)> {
        let node = self.nodes.get(span)?;
        Some((node.place?.trace_id, node.span_id))
    }

    /// The process at the other end of a call, if it is seen here.
    pub fn other_process(&self, span: SpanRef) -> Option<u32> {
        let other = self.nodes.get(span)?.other?;
        Some(self.nodes.get(other)?.tgid)
    }

    /// The operation a span belongs to, by itself or through what it hangs below.
    fn operation_of(&self, span: SpanRef) -> Option<Arc<str>> {
        let mut at = Some(span);
        for _ in 0..MAX_DEPTH {
            let node = self.nodes.get(at?)?;
            if let Some(id) = &node.operation {
                return Some(id.clone());
            }
            at = node.above;
        }
        None
    }

    /// A span ended; `draft` lacks only its place in a trace.
    pub fn finish(&mut self, span: SpanRef, mut draft: BoxedSpan, out: &mut Vec<BoxedSpan>) {
        let Some(node) = self.nodes.get_mut(span) else {
            // Forgotten while it was open: a root of its own, under ids that its number gives.
            let ids = ExchangeId((u128::from(span.0) << 64) | u128::from(draft.start));
            draft.span_id = ids.span_id(self.seed, Role::Client);
            draft.trace_id = ids.trace_id(self.seed, Role::Client);
            draft.attributes.set("ktrdr.incomplete", "forgotten_while_open");
            self.counts.orphans += 1;
            self.counts.emitted += 1;
            out.push(draft);
            return;
        };
        let (end, under) = (draft.end, node.under);
        node.end = Some(end);
        let failed = node.role == Role::Server && draft.status != Status::Unset;
        let grace = if failed && self.logs { said::FAILED_NS } else { GRACE_NS };
        self.due.insert(end.saturating_add(grace), span);
        node.finished = Some(draft);
        self.within_command(under, end);
    }

    /// There is no such call, as it turns out: it shows nowhere, and nothing hangs below it.
    pub fn dismiss(&mut self, span: SpanRef) {
        if let Some(node) = self.nodes.remove(span) {
            self.uncounted(span, &node);
        }
    }

    /// Whether spans have been due for so long that it is worth looking at them.
    pub fn is_late(&self, now: Ns) -> bool {
        self.due.first().is_some_and(|at| at.saturating_add(TOGETHER_NS) <= now)
    }

    /// Emits what is due at `now`.
    pub fn advance(&mut self, now: Ns, causality: &mut Causality, out: &mut Vec<BoxedSpan>) {
        while let Some(span) = self.due.pop(now) {
            self.look(span, now, causality, out);
        }
    }

    /// Emits a span that is due, unless something it waits for is still to come.
    fn look(&mut self, span: SpanRef, now: Ns, causality: &mut Causality, out: &mut Vec<BoxedSpan>) {
        if self.nodes.get(span).is_none() {
            return;
        }
        if self.command_waits(span, now) || self.is_held(span, now) {
            return self.due.insert(now + RETRY_NS, span);
        }
        let place = match self.place(span, now, causality, 0) {
            Placing::At(place) => Some(place),
            Placing::Wait | Placing::In(_) if now == Ns::MAX => None,
            Placing::Wait | Placing::In(_) => return self.due.insert(now + RETRY_NS, span),
        };
        self.emit(span, place, out);
    }

    /// Gives a span that is still open its ids and its place, if that is known by now. Whether the span is known.
    pub fn place_open(&mut self, span: SpanRef, now: Ns, causality: &mut Causality, s: &mut Span) -> bool {
        let placing = self.place(span, now, causality, 0);
        let operation = self.operation_of(span);
        let Some(node) = self.nodes.get(span) else { return false };
        s.span_id = node.span_id;
        match placing {
            Placing::At(place) => place.put(s),
            Placing::In(trace_id) => s.trace_id = trace_id,
            Placing::Wait => s.trace_id = node.exchange.trace_id(self.seed, node.role),
        }
        if let Some(id) = operation {
            operations::tag(s, &id, operations::ids::kind(&id));
        }
        true
    }

    fn emit(&mut self, span: SpanRef, place: Option<Place>, out: &mut Vec<BoxedSpan>) {
        let operation = self.operation_of(span);
        let created = operation.as_ref().and_then(|id| self.placed(self.created.by(id)?));
        if self.dismissed(span) {
            return;
        }
        let Some(node) = self.nodes.get(span) else { return };
        let other = node.other.and_then(|o| self.nodes.get(o)).filter(|o| !o.left);
        let (other_start, other_end) = (other.map(|o| o.start), other.and_then(|o| o.end));
        let Some(node) = self.nodes.get_mut(span) else { return };
        let Some(mut s) = node.finished.take() else { return };
        // Both ends of a call stamp their transfers after they are complete, so a client's send may be stamped
        // after its server's receive. The server's time bounds the client's, never the other way round.
        match node.role {
            Role::Client => s.start = s.start.min(other_start.unwrap_or(s.start)),
            Role::Server => {
                if let Some(end) = other_end
                    && end < s.end
                    && s.end - end < GRACE_NS
                {
                    s.end = end.max(s.start);
                }
            }
        }
        s.span_id = node.span_id;
        if let Some(positions) = node.positions {
            s.attributes.set("ktrdr.exchange.positions", positions.to_hex());
        }
        if let Some(said) = node.rare.as_mut().and_then(|rare| rare.said.take()) {
            said.tell(&mut s);
        }
        if let Some(id) = operation {
            if s.attributes.get("operation.id").is_none() {
                operations::tag(&mut s, &id, operations::ids::kind(&id));
            }
            if let (Some((trace_id, _)), Some(place)) = (created, place)
                && trace_id != place.trace_id
            {
                let (_, span_id) = ids::operation(self.seed, &id);
                let mut attributes = super::model::Attributes::new();
                attributes.set("ktrdr.link.kind", "operation");
                s.links.push(Link { trace_id, span_id, attributes });
            }
            node.operation = Some(id);
        }
        if let Some(place) = place {
            place.put(&mut s);
        } else {
            s.trace_id = node.exchange.trace_id(self.seed, node.role);
        }
        self.flags.tell(&mut s);
        self.counts.emitted += 1;
        out.push(s);
    }
}

impl Default for Assembler {
    fn default() -> Self {
        Self::new()
    }
}
