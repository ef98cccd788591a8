//! Commands: from the life of processes to spans that their calls hang below.

use super::Core;
use crate::event::{Fork, Ns, Task};
use crate::trace::assembly::NewCommand;
use crate::trace::causality::{Method, Origin, SpanRef};
use crate::trace::commands::Over;
use crate::trace::commands::span::{self, Ending};
use crate::trace::model::Span;
use crate::trace::processes::End;

impl Core {
    pub(super) fn process_forked(&mut self, parent: u32, fork: Fork) {
        if !fork.thread && self.config.commands {
            let displaced = self.commands.forked(parent, fork.child_tgid);
            self.unseen(displaced, "exit_not_seen");
        }
    }

    /// A program begins. One that the settings name is a command from now on; unless the connections are narrowed,
    /// whatever it does.
    pub(super) fn program_executed(&mut self, tgid: u32, ppid: u32, ts: Ns) {
        if !self.config.commands || tgid == self.agent_tgid {
            return;
        }
        // Told right before its exec record.
        let known = self.processes.get(tgid).is_some_and(|p| p.end.is_none() && p.meta.command_line);
        let [replaced, forgotten] = self.commands.executed(tgid, ppid, ts, known);
        if let Some(over) = replaced {
            self.finish_command(&over, Ending::Replaced(ts));
        }
        self.unseen(forgotten, "forgotten_while_open");
        if known && self.config.ports.is_empty() && self.config.excluded_ports.is_empty() {
            let task = Task { tgid, tid: tgid, py_context: 0 };
            self.command_at(task, ts);
        }
    }

    /// A call was made: by a command, perhaps.
    pub(super) fn called(&mut self, call: SpanRef, task: Task, ts: Ns) {
        if let Some(command) = self.command_at(task, ts) {
            self.assembler.under(call, command);
            // It was told late: the program may have ended since.
            let ended = self.commands.at(task.tgid, ts, 0).filter(|p| p.end.is_some()).map(|p| p.clone());
            if let Some(program) = ended.filter(|_| !self.assembler.has_ended(command))
                && let Some(end) = self.processes.get(program.tgid).and_then(|p| p.end)
            {
                self.finish_command(&Over { program, span: command }, Ending::Ended(end));
            }
        }
    }

    /// Whose a line is that a process of a command wrote.
    pub(super) fn command_writes(&mut self, task: Task, ts: Ns) -> Option<Origin> {
        let started = self.processes.get(task.tgid)?.meta.start_ns;
        let span = self.commands.at(task.tgid, ts, started)?.span?;
        Some(Origin { span, method: Method::Process })
    }

    /// The span of the command that a process belonged to at `ts`, made if there was none.
    fn command_at(&mut self, task: Task, ts: Ns) -> Option<SpanRef> {
        if !self.config.commands || task.tgid == self.agent_tgid {
            return None;
        }
        let process = self.processes.get(task.tgid);
        if process.is_some_and(|p| p.meta.excluded) {
            return None;
        }
        let started = process.map_or(0, |p| p.meta.start_ns);
        let program = self.commands.at(task.tgid, ts, started)?;
        if let Some(span) = program.span {
            return Some(span);
        }
        let span = self.engine.next_span();
        program.span = Some(span);
        program.by = task.tgid;
        let program = program.clone();
        let above = self.commands.above(&program);
        let call = program.known.then(|| self.causality.program(program.tgid, ts));
        let (tgid, exec, known) = (program.tgid, program.exec, program.known);
        self.assembler.begin_command(NewCommand { span, tgid, exec, call, above, known });
        Some(span)
    }

    /// A process listens: it is a service.
    pub(super) fn serves(&mut self, tgid: u32) {
        self.logs.serves(tgid);
        self.deaths.serves(tgid);
        self.no_command(tgid);
    }

    /// A process serves.
    pub(super) fn no_command(&mut self, tgid: u32) {
        let Some(over) = self.commands.serves(tgid) else { return };
        if self.assembler.is_no_command(over.span) {
            // It was named a command, and things hang below it: it was one until now.
            let span = self.command_span(&over, Ending::Replaced(self.now));
            self.assembler.finish(over.span, Box::new(span), &mut self.spans);
        }
    }

    pub(super) fn program_ended(&mut self, tgid: u32, end: End) {
        if let Some(over) = self.commands.ended(tgid, end.ts) {
            self.finish_command(&over, Ending::Ended(end));
        }
    }

    /// The stream ends.
    pub(super) fn end_commands(&mut self) {
        let now = self.now;
        for over in self.commands.under_way() {
            self.finish_command(&over, Ending::Unknown(now, "agent_stopped"));
        }
    }

    /// Commands under way that are known to be some; at most so many.
    pub(super) fn open_commands(&mut self, most: usize) -> Vec<Span> {
        let now = self.now;
        let mut spans = Vec::new();
        for over in self.commands.under_way() {
            if spans.len() >= most {
                break;
            }
            if self.assembler.is_open_command(over.span) {
                let mut span = self.command_span(&over, Ending::Open(now));
                if self.assembler.place_open(over.span, now, &mut self.causality, &mut span) {
                    spans.push(span);
                }
            }
        }
        spans
    }

    fn unseen(&mut self, over: Option<Over>, why: &'static str) {
        if let Some(over) = over {
            let last = over.program.end.unwrap_or(self.now);
            self.finish_command(&over, Ending::Unknown(last, why));
        }
    }

    fn finish_command(&mut self, over: &Over, ending: Ending) {
        match ending {
            // Whether it would have ended soon is not known.
            Ending::Unknown(..) => self.assembler.may_be_no_command(over.span),
            _ => self.assembler.is_command(over.span),
        }
        let span = self.command_span(over, ending);
        self.assembler.finish(over.span, Box::new(span), &mut self.spans);
    }

    fn command_span(&mut self, over: &Over, ending: Ending) -> Span {
        let own = over.program.tgid;
        let by = if self.processes.get(own).is_some() { own } else { over.program.by };
        span::of(over, ending, by, &mut self.processes, self.wall_offset_ns)
    }
}
