//! JSON-RPC on pipes, from lines to spans.

use super::{Core, Output, Watched, facts};
use crate::event::{FileId, FileKind, Ns, Task, Write};
use crate::protocol::Role;
use crate::protocol::jsonrpc::describe::{self, Answered, Asked};
use crate::protocol::jsonrpc::json::Raw;
use crate::protocol::jsonrpc::message::{Body, Id, Message};
use crate::trace::assembly::NewSpan;
use crate::trace::causality::{AskedOn, Delivered, SpanRef};
use crate::trace::ids::ExchangeId;
use crate::trace::model::{Attributes, BoxedSpan, Status};
use crate::trace::processes::Processes;
use crate::trace::spans::{self, PipeCall};
use crate::trace::stdio::{self, Open, Parked};

/// Starters of a server that may have kept the other end of its pipes: `uv run`, `npx` and shells stand between.
const MAX_ANCESTORS: usize = 4;

/// Calls kept of servers that have not used the ports which are looked at, the oldest is forgotten; about 2 kB each. What a
/// server is asked before its first tool call are a handful.
const MAX_QUIET: usize = 256;

/// A call of a server that has not used the ports which are looked at.
pub(super) struct Quiet {
    server: u32,
    span: SpanRef,
    draft: BoxedSpan,
}

/// A line, taken from its stream.
struct Said {
    hash: u64,
    bytes: Vec<u8>,
}

impl Core {
    /// A process that may be a server read from standard input.
    pub(super) fn read(&mut self, ts: Ns, task: Task, w: &Write<'_>) {
        self.stdio.counts.bytes += w.payload.len() as u64;
        let excluded = self.processes.get(task.tgid).is_some_and(|p| p.meta.excluded);
        if excluded || task.tgid == self.agent_tgid || self.stdio.passes_on(task.tgid) {
            return;
        }
        let mut lines = Vec::new();
        let new = self.stdio.read(task.tgid, w, &mut |l| lines.push(Said::new(l.bytes)));
        for line in lines {
            let body = Body::json(&line.bytes);
            if self.stdio.spoke(task.tgid, line.hash, !body.messages.is_empty()) {
                self.out.push_back(Output::Deaf(task.tgid));
                return;
            }
            for m in body.messages.iter().filter(|m| m.asks()) {
                self.asked(ts, task, m, line.hash);
            }
        }
        if new && self.stdio.serves(task.tgid) {
            // It may answer on another descriptor than it was given.
            self.watch(task.tgid, Watched::Json);
            for tgid in self.ancestors(task.tgid) {
                self.watch(tgid, Watched::Json);
            }
        }
    }

    /// A process wrote to a pipe. Whether that was a message, and so no log.
    pub(super) fn conversed(&mut self, ts: Ns, task: Task, w: &Write<'_>) -> bool {
        const STDOUT: u32 = 1;
        const STDERR: u32 = 2;
        if self.stdio.passes_on(task.tgid) && w.fd != STDERR {
            // What it was told, once more: to whoever it is meant for, and in copies.
            return true;
        }
        if self.stdio.serves(task.tgid) && w.fd == STDOUT {
            let mut lines = Vec::new();
            self.stdio.wrote(task.tgid, w, &mut |l| lines.push(Said::new(l.bytes)));
            for line in lines {
                if self.repeated(ts, task.tgid, line.hash, w.id) {
                    return true;
                }
                for m in Body::json(&line.bytes).messages.iter().filter(|m| m.answers()) {
                    self.answered(ts, task.tgid, m);
                }
            }
            return true;
        }
        let pipe = matches!(w.kind, FileKind::Pipe | FileKind::UnixSocket);
        if pipe && w.fd > 2 && self.watching.pipes(task.tgid) {
            let mut lines = Vec::new();
            self.stdio.asked(task.tgid, w, &mut |l| lines.push(Said::new(l.bytes)));
            for line in lines {
                if Body::json(&line.bytes).messages.iter().any(Message::asks) {
                    let call = self.causality.call(task, ts);
                    self.wrote_request(ts, Parked { task, ts, call, file: w.id, hash: line.hash });
                }
            }
            return true;
        }
        false
    }

    /// Who started the process, nearest first.
    pub(super) fn ancestors(&self, tgid: u32) -> Vec<u32> {
        ancestors(&self.processes, tgid)
    }

    fn asked(&mut self, ts: Ns, task: Task, m: &Message<'_>, line: u64) {
        if let Some(cancelled) = cancels(m).and_then(|key| self.stdio.close(task.tgid, key)) {
            self.unanswered(task.tgid, cancelled, ts, "cancelled");
        }
        let asked = describe::asked(m, false, &self.config.mask);
        let key = m.id.map(Id::key);
        let span = self.engine.next_span();
        let exchange = ExchangeId::of_line(task.tgid, ts, line, key.unwrap_or_default());
        let context = asked.context;
        self.assembler.begin(NewSpan {
            span,
            role: Role::Server,
            exchange,
            positions: None,
            start: ts,
            tgid: task.tgid,
            call: None,
            context,
            relay: None,
            passing: None,
        });
        self.no_command(task.tgid);
        let on = AskedOn { conn: stdio::conn(task.tgid), opened: None };
        self.causality.request_read(task, on, span, ts);
        let method = m.method.as_deref().map_or(0, |m| stdio::hash(m.as_bytes()));
        let notification = m.id.is_none();
        self.causality.message(task.tgid, Delivered { span, session: 0, method, notification, ts });
        let server = (span, task, ts);
        if let Some(old) = self.stdio.open(task.tgid, key, line, asked.clone(), exchange, server) {
            self.unanswered(task.tgid, old, ts, "too_many_open");
        }
        let ancestors = self.ancestors(task.tgid);
        if let Some(parked) = self.stdio.client_of(task.tgid, line, ts, &ancestors) {
            self.join(task.tgid, exchange, &asked, parked);
        }
        if key.is_none()
            && let Some(open) = self.stdio.notified(task.tgid)
        {
            self.over(task.tgid, open, ts, &Answered::default(), None);
        }
    }

    /// A client wrote a request, or a filter passed it on.
    fn wrote_request(&mut self, now: Ns, written: Parked) {
        let processes = &self.processes;
        let read = self.stdio.server_of(&written, now, &|tgid| ancestors(processes, tgid));
        match read.map(|open| (open.server.1.tgid, open.exchange, open.asked.clone())) {
            Some((server, exchange, asked)) => self.join(server, exchange, &asked, written),
            None => self.stdio.park(written),
        }
    }

    /// A process wrote a line to standard output. Whether it only passes on what it reads: then nobody asked it anything, and
    /// who is asked reads the same behind it.
    fn repeated(&mut self, ts: Ns, tgid: u32, line: u64, output: FileId) -> bool {
        let Some(dismissed) = self.stdio.repeated(tgid, line, output) else { return false };
        self.out.push_back(Output::Deaf(tgid));
        self.quiet.retain(|quiet| quiet.server != tgid);
        for span in dismissed.spans {
            self.causality.request_done(span, ts);
            self.assembler.dismiss(span);
        }
        for written in dismissed.written {
            self.wrote_request(ts, written);
        }
        true
    }

    /// Both ends of a request are known.
    fn join(&mut self, server: u32, exchange: ExchangeId, asked: &Asked, written: Parked) {
        let Parked { task, ts, call, .. } = written;
        let span = self.engine.next_span();
        self.assembler.begin(NewSpan {
            span,
            role: Role::Client,
            exchange,
            positions: None,
            start: ts,
            tgid: task.tgid,
            call: Some(call),
            context: asked.context,
            relay: None,
            passing: None,
        });
        self.called(span, task, ts);
        if let Some(id) = self.logs.hints.of(task, ts) {
            self.assembler.hint(span, id);
        }
        self.stdio.joined(server, exchange, (span, written));
    }

    fn answered(&mut self, ts: Ns, tgid: u32, m: &Message<'_>) {
        let Some(open) = m.id.and_then(|id| self.stdio.answered(tgid, id.key())) else { return };
        let answered = describe::answered(m, &self.config.mask);
        self.over(tgid, open, ts, &answered, None);
    }

    fn unanswered(&mut self, tgid: u32, open: Open, ts: Ns, why: &'static str) {
        let service = self.processes.service(tgid).unwrap_or("the server").to_owned();
        let text = match why {
            "cancelled" => "the client cancelled the request".to_owned(),
            "process_ended" => format!("{service} ended without an answer"),
            _ => String::new(),
        };
        let mut answered = Answered::default();
        if !text.is_empty() {
            answered.attributes.set("error.type", why);
            answered.status = Status::Error(text);
        }
        self.over(tgid, open, ts, &answered, Some(why));
    }

    fn over(
        &mut self,
        tgid: u32,
        open: Open,
        end: Ns,
        answered: &Answered,
        incomplete: Option<&'static str>,
    ) {
        let Open { asked, exchange, server, client, .. } = open;
        self.causality.request_done(server.0, end);
        let peer = self.processes.service(tgid).map(str::to_owned);
        let client = client.map(|(span, w)| (span, w.task, w.ts));
        let ends = [Some((server, Role::Server)), client.map(|c| (c, Role::Client))];
        for ((span, task, start), role) in ends.into_iter().flatten() {
            if self.processes.get(task.tgid).is_some_and(|p| p.meta.excluded) {
                continue;
            }
            let mut attributes: Attributes = asked.attributes.clone();
            attributes.extend(answered.attributes.clone());
            let call = PipeCall {
                name: asked.name.clone().unwrap_or_else(|| "jsonrpc".into()),
                attributes,
                status: answered.status.clone(),
                role,
                task,
                start,
                end,
                exchange,
                peer: peer.clone().filter(|_| role == Role::Client),
                incomplete,
            };
            let draft = spans::on_pipe(call, &mut facts!(self));
            self.finish_piped(tgid, span, draft);
        }
    }

    /// Where only some ports are looked at, conversations are shown of servers that use them, themselves or by a program that
    /// they started. That shows later than they are first spoken to: until then the calls are kept.
    fn finish_piped(&mut self, server: u32, span: SpanRef, draft: BoxedSpan) {
        if self.config.ports.is_empty() || self.watching.uses_ports(server) {
            self.assembler.finish(span, draft, &mut self.spans);
            return;
        }
        self.quiet.push_back(Quiet { server, span, draft });
        if self.quiet.len() > MAX_QUIET {
            self.quiet.pop_front();
        }
    }

    /// Shows what was kept of servers that use the ports, as is known now.
    pub(super) fn show_conversations(&mut self) {
        for quiet in std::mem::take(&mut self.quiet) {
            if self.watching.uses_ports(quiet.server) {
                self.assembler.finish(quiet.span, quiet.draft, &mut self.spans);
            } else {
                self.quiet.push_back(quiet);
            }
        }
    }

    /// A process ended: nothing will be answered any more.
    pub(super) fn stdio_ended(&mut self, tgid: u32, ts: Ns) {
        for open in self.stdio.ended(tgid) {
            self.unanswered(tgid, open, ts, "process_ended");
        }
        self.quiet.retain(|quiet| quiet.server != tgid);
    }

    /// The stream ends.
    pub(super) fn end_stdio(&mut self) {
        for tgid in self.stdio.all() {
            for open in self.stdio.ended(tgid) {
                self.unanswered(tgid, open, self.now, "agent_stopped");
            }
        }
    }
}

/// Who started a process, nearest first: as was told of it, or as far as those between are known themselves.
fn ancestors(processes: &Processes, tgid: u32) -> Vec<u32> {
    let parent = |tgid: u32| processes.get(tgid).map(|p| p.meta.ppid).filter(|p| *p > 1);
    let told = processes.get(tgid).map(|p| p.meta.starters.as_slice()).filter(|told| !told.is_empty());
    match told {
        Some(told) => parent(tgid).into_iter().chain(told.iter().copied()).take(MAX_ANCESTORS).collect(),
        None => std::iter::successors(parent(tgid), |t| parent(*t)).take(MAX_ANCESTORS).collect(),
    }
}

impl Said {
    fn new(bytes: &[u8]) -> Self {
        Self { hash: stdio::hash(bytes), bytes: bytes.to_vec() }
    }
}

/// The key of the request that a notification cancels.
fn cancels(m: &Message<'_>) -> Option<u64> {
    let cancel = m.method.as_deref() == Some("notifications/cancelled");
    let id: Raw<'_> = m.params.filter(|_| cancel)?.member("requestId")?;
    Some(Id::of(id).key())
}
