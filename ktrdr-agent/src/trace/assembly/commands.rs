//! Commands among the spans: which calls hang below them, and whether there is a command at all.
//!
//! Whether a young process is a command is known at its end. Until then its calls wait, for [`HOLD_NS`] at most; what
//! hangs below the first of them need not, because a command's trace is that of its first call.

use super::node::Node;
use super::{Assembler, GRACE_NS, MAX_DEPTH};
use crate::event::{MS, Ns};
use crate::protocol::Role;
use crate::trace::causality::{CallRef, Method, Origin, SpanRef};
use crate::trace::ids::ExchangeId;
use crate::trace::model::{SpanId, TraceId};

/// How long a finished call waits to learn whether its process is a command: longer than people wait for a program
/// that does nothing but ask, and not too long for the calls of a program that goes on.
const HOLD_NS: Ns = 2_000 * MS;

/// Calls that wait for that, of one program. What people run makes tens; a load generator's calls are worth neither the
/// memory (about 3 kB each) nor looking at each of them again and again.
const MAX_WAITING: u32 = 256;

/// Whether there is a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It will be known at the end of the process, or at this time, if one is set.
    Open(Option<Ns>),
    Yes,
    No,
}

/// What there is to know of a command.
#[derive(Debug)]
pub struct Command {
    standing: Standing,
    /// The settings name it: it shows whatever it did.
    known: bool,
    /// The first call, which gives its trace to a command that would begin one.
    leads: Option<SpanRef>,
    /// Calls of its processes, and how many of them have their place.
    calls: u32,
    placed: u32,
    /// Something hangs below it.
    used: bool,
}

impl Command {
    /// Whether there is a span to be shown.
    fn shows(&self) -> bool {
        match self.standing {
            Standing::No => false,
            _ if self.known => true,
            _ => self.used || self.placed < self.calls,
        }
    }
}

/// What identifies a new command.
#[derive(Clone, Copy, Debug)]
pub struct NewCommand {
    /// Its number.
    pub span: SpanRef,
    /// Process.
    pub tgid: u32,
    /// When it was executed.
    pub exec: Ns,
    /// Whose work it is, if that was asked.
    pub call: Option<CallRef>,
    /// The command that started it.
    pub above: Option<SpanRef>,
    /// The settings name it: that it is a command is sure.
    pub known: bool,
}

/// Where a call hangs once commands are considered.
pub(super) enum Origins {
    At(Option<Origin>),
    /// Not known yet.
    Later,
    /// Not known yet, but it leads this command, whose trace is its own.
    Leads(SpanRef),
}

impl Assembler {
    /// A command began.
    pub fn begin_command(&mut self, new: NewCommand) -> SpanId {
        let exchange = ExchangeId::of_command(self.seed, new.tgid, new.exec);
        let span_id = exchange.span_id(self.seed, Role::Client);
        self.nodes.insert(
            new.span,
            Node {
                under: new.above,
                command: Some(Box::new(Command {
                    standing: if new.known { Standing::Yes } else { Standing::Open(None) },
                    known: new.known,
                    leads: None,
                    calls: 0,
                    placed: 0,
                    used: false,
                })),
                ..Node::new(Role::Client, exchange, span_id, (new.tgid, new.exec), new.call)
            },
        );
        if let Some(above) = new.above {
            self.counted(above, new.span);
        }
        span_id
    }

    /// The call is one of this command's processes.
    pub fn under(&mut self, call: SpanRef, command: SpanRef) {
        if let Some(node) = self.nodes.get_mut(call) {
            node.under = Some(command);
            self.counted(command, call);
        }
    }

    fn counted(&mut self, command: SpanRef, call: SpanRef) {
        let Some(c) = self.nodes.get_mut(command).and_then(|n| n.command.as_deref_mut()) else { return };
        c.calls = c.calls.saturating_add(1);
        c.leads.get_or_insert(call);
        if c.calls > MAX_WAITING && matches!(c.standing, Standing::Open(_)) {
            c.standing = Standing::No;
        }
    }

    /// A call of the command that was none.
    pub(super) fn uncounted(&mut self, call: SpanRef, node: &Node) {
        let Some(c) = node.under.and_then(|u| self.nodes.get_mut(u)?.command.as_deref_mut()) else { return };
        c.calls = c.calls.saturating_sub(1);
        c.placed = c.placed.saturating_sub(u32::from(node.place.is_some()));
        c.leads = c.leads.filter(|leads| *leads != call);
    }

    /// The process of what may be a command serves, so it is none. Whether it has to be shown all the same, as things
    /// hang below it.
    pub fn is_no_command(&mut self, command: SpanRef) -> bool {
        let Some(c) = self.nodes.get_mut(command).and_then(|n| n.command.as_deref_mut()) else {
            return false;
        };
        if !c.used {
            c.standing = Standing::No;
        }
        c.used
    }

    /// How the process of what may be a command ends is not known, so neither is whether it is one.
    pub fn may_be_no_command(&mut self, command: SpanRef) {
        if let Some(c) = self.nodes.get_mut(command).and_then(|n| n.command.as_deref_mut())
            && matches!(c.standing, Standing::Open(_))
        {
            c.standing = Standing::No;
        }
    }

    /// Whether the span has ended, or is forgotten.
    pub fn has_ended(&self, span: SpanRef) -> bool {
        self.nodes.get(span).is_none_or(|n| n.end.is_some())
    }

    /// Whether it is sure to be a command, and goes on.
    pub fn is_open_command(&self, span: SpanRef) -> bool {
        let node = self.nodes.get(span).filter(|n| n.end.is_none());
        node.and_then(|n| n.command.as_deref()).is_some_and(|c| c.standing == Standing::Yes)
    }

    /// The process of what may be a command has ended, so it is one, unless its calls have not waited for that.
    pub fn is_command(&mut self, command: SpanRef) {
        if let Some(c) = self.nodes.get_mut(command).and_then(|n| n.command.as_deref_mut())
            && matches!(c.standing, Standing::Open(_))
        {
            c.standing = Standing::Yes;
        }
    }

    /// The trace that a span begins if it hangs below nothing.
    pub(super) fn own_trace(&self, node: &Node) -> TraceId {
        let mut at = node;
        for _ in 0..MAX_DEPTH {
            let leads = at.command.as_deref().filter(|c| !c.known).and_then(|c| c.leads);
            match leads.and_then(|l| self.nodes.get(l)) {
                Some(first) => at = first,
                None => break,
            }
        }
        at.exchange.trace_id(self.seed, at.role)
    }

    /// Where a call, or a command, hangs: on `origin`, or on the command that made it. `left_out`: the origin may be a request
    /// that nobody sees.
    pub(super) fn command_of(
        &mut self,
        span: SpanRef,
        origin: Option<Origin>,
        left_out: bool,
        now: Ns,
        depth: u32,
    ) -> Origins {
        let Some((tgid, start, under)) = self.nodes.get(span).map(|n| (n.tgid, n.start, n.under)) else {
            return Origins::At(origin);
        };
        let Some(under) = under else { return Origins::At(origin) };
        let elsewhere = origin.is_some_and(|o| self.nodes.get(o.span).is_some_and(|n| n.tgid != tgid));
        let Some(command) = self.nodes.get_mut(under) else { return Origins::At(origin) };
        let over = command.end.is_some_and(|end| start > end);
        let Some(c) = command.command.as_deref_mut() else { return Origins::At(origin) };
        // A command that is known to be one stands between the request that started it and its calls.
        let none = origin.is_none() && (c.known || !left_out);
        let takes = !over && (none || (c.known && elsewhere));
        if takes && let Standing::Open(until) = &mut c.standing {
            let leads = c.leads == Some(span);
            // Asked for what hangs below it.
            if leads && depth > 0 {
                return Origins::Leads(under);
            }
            let until = *until.get_or_insert(now.saturating_add(HOLD_NS));
            if now < until {
                return if leads { Origins::Leads(under) } else { Origins::Later };
            }
            c.standing = Standing::No;
        }
        match takes && c.standing == Standing::Yes {
            true => Origins::At(Some(Origin { span: under, method: Method::Process })),
            false => Origins::At(origin),
        }
    }

    /// A call has its place, below its command or not.
    pub(super) fn placed_under(&mut self, under: Option<SpanRef>, below: bool) {
        if let Some(c) = under.and_then(|u| self.nodes.get_mut(u)?.command.as_deref_mut()) {
            c.placed = c.placed.saturating_add(1);
            c.used |= below;
        }
    }

    /// Whether the span is a command that shows nothing; then it is none from now on.
    pub(super) fn dismissed(&mut self, span: SpanRef) -> bool {
        let Some(node) = self.nodes.get_mut(span) else { return false };
        let Some(c) = node.command.as_deref_mut().filter(|c| !c.shows()) else { return false };
        c.standing = Standing::No;
        node.finished = None;
        true
    }

    /// A call ended: its command did not end before (sockets are closed a moment after their process has ended).
    pub(super) fn within_command(&mut self, under: Option<SpanRef>, end: Ns) {
        let Some(command) = under.and_then(|u| self.nodes.get_mut(u)) else { return };
        if let Some(s) = command.finished.as_mut()
            && s.end < end
            && end - s.end < GRACE_NS
        {
            s.end = end;
            command.end = Some(end);
        }
    }

    /// Whether a command that has ended waits for calls that have not: they would hang below nothing.
    pub(super) fn command_waits(&self, span: SpanRef, now: Ns) -> bool {
        let Some(node) = self.nodes.get(span) else { return false };
        let Some(c) = node.command.as_deref() else { return false };
        let undecided = !c.known && !c.used && c.placed < c.calls && c.standing == Standing::Yes;
        undecided && now < node.end.unwrap_or(now).saturating_add(HOLD_NS)
    }
}
