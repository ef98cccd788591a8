//! From writes to log records with a place in a trace.

use super::{Core, Output};
use crate::event::{Ns, Task, Write};
use crate::trace::assembly::said::{HOLD_NS, exception_attributes};
use crate::trace::causality::{Method, Origin, Written};
use crate::trace::logs::{Aside, Draft, LogRecord, PLACE_NS, Settled, Severity, Unlinked};
use crate::trace::model::{Attributes, SpanEvent, SpanId, TraceId};
use crate::trace::operations::ids;

impl Core {
    pub(super) fn wrote(&mut self, ts: Ns, task: Task, w: &Write<'_>) {
        let excluded = self.processes.get(task.tgid).is_some_and(|p| p.meta.excluded);
        if excluded || task.tgid == self.agent_tgid {
            return self.logs.aside(Aside::Unobserved, w);
        }
        if self.conversed(ts, task, w) {
            return self.logs.aside(Aside::Conversation, w);
        }
        if !self.logs.concerns(w, self.watching.pipes(task.tgid)) {
            return self.logs.aside(Aside::NoLog, w);
        }
        // A long write is one, whatever it is divided into.
        let origin = if w.offset == 0 { self.causality.written(task, ts) } else { Written::Known(None) };
        let origin = match origin {
            // Nobody else's: a command's own words.
            Written::Known(None) => Written::Known(self.command_writes(task, ts)),
            Written::LeftOut => self.command_writes(task, ts).map_or(origin, |own| Written::Known(Some(own))),
            other => other,
        };
        self.logs.write(ts, task, w, origin);
    }

    /// Gives records that waited long enough their place, and tells spans what was said of them.
    pub(super) fn settle_logs(&mut self, now: Ns) {
        if !self.logs.pending.due(now) {
            return;
        }
        let drafts = self.logs.expire(now);
        self.settle_drafts(drafts, now);
        self.hold_spans(now);
    }

    /// A process ended: what it wrote is complete, and its last lines may say why it did.
    pub(super) fn last_lines(&mut self, tgid: u32, ts: Ns) {
        let drafts = self.logs.ended(tgid);
        self.settle_drafts(drafts, ts);
        let lines = self.logs.last_lines(tgid, ts, &self.config.mask);
        self.processes.last_lines(tgid, lines);
    }

    pub(super) fn end_logs(&mut self) {
        let drafts = self.logs.end();
        self.settle_drafts(drafts, Ns::MAX);
        self.assembler.hold(Vec::new());
    }

    fn settle_drafts(&mut self, drafts: Vec<Draft>, now: Ns) {
        for draft in drafts {
            if let Some(oldest) = self.logs.pending.add(draft) {
                self.log(oldest, Err(Unlinked::Hurried));
            }
        }
        // Each once, in their order: those that go on waiting are put back behind all of them.
        for _ in 0..self.logs.pending.len() {
            let Some(mut settled) = self.logs.pending.pop() else { break };
            if now < settled.look_at {
                self.logs.pending.back(settled);
                continue;
            }
            settled.origin = self.causality.ask_again(settled.origin, now);
            self.connection(&mut settled);
            let Some(origin) = settled.known() else {
                if now == Ns::MAX {
                    self.log(settled, Err(Unlinked::Ended));
                } else {
                    self.logs.pending.back(settled);
                }
                continue;
            };
            let Some(origin) = origin else {
                let why = settled.why();
                self.log(settled, Err(why));
                continue;
            };
            self.tell(&mut settled, origin);
            let since = *settled.since.get_or_insert(now);
            match self.assembler.locate(origin.span, now, &mut self.causality) {
                None if self.assembler.remembers(origin.span) && now < since.saturating_add(PLACE_NS) => {
                    settled.wait(now);
                    self.logs.pending.back(settled);
                }
                place => self.log(settled, place.ok_or(Unlinked::NoPlace)),
            }
        }
    }

    /// Spans of which exceptions and errors are still to be told do not leave yet.
    fn hold_spans(&mut self, now: Ns) {
        let recent = self.logs.untold().filter(|(ts, _)| now.saturating_sub(*ts) < HOLD_NS);
        let spans = recent.flat_map(|(ts, origin)| self.causality.candidates(origin, ts)).flatten();
        self.assembler.hold(spans.collect());
    }

    /// Where nothing is known of its writer, the request of an access line is the one on the connection that it names.
    /// That is its word, so it counts for a line that was written by itself only, and as inferred.
    fn connection(&self, settled: &mut Settled) {
        let Draft { raw, parsed, .. } = &settled.draft;
        if settled.told || settled.known() != Some(None) || raw.origin.is_none() {
            return;
        }
        if self.causality.is_partial(raw.ts) {
            // It may be of a request that nobody sees, on a connection that had the client's port before or to another port.
            return;
        }
        let path = parsed.fields.iter().find(|(key, _)| key == "url.path").and_then(|(_, v)| v.as_str());
        let (Some(peer), Some(path)) = (parsed.peer, path) else { return };
        if let Some(span) = self.logs.request_of(raw.task.tgid, peer, path, raw.ts) {
            settled.origin = Written::Known(Some(Origin { span, method: Method::Connection }));
            settled.named = true;
        }
    }

    /// What a record says of its span: an exception, or an error.
    fn tell(&mut self, settled: &mut Settled, origin: Origin) {
        if std::mem::replace(&mut settled.told, true) {
            return;
        }
        let Draft { raw, parsed, exception, .. } = &settled.draft;
        let bad = parsed.severity >= Severity::ERROR;
        let (name, attributes) = match exception {
            Some(e) => ("exception", exception_attributes(e)),
            None if bad => ("log", said_attributes(&settled.draft)),
            None => return,
        };
        if let (Some(_), true, Some(id)) = (exception, bad, self.assembler.operation_at(origin.span)) {
            self.operations.threw(&id, raw.ts, attributes.clone());
        }
        let event = SpanEvent { ts: raw.ts, name: name.into(), attributes };
        self.assembler.happened(origin.span, event, exception.as_ref().filter(|_| bad));
    }

    fn log(&mut self, settled: Box<Settled>, place: Result<(TraceId, SpanId), Unlinked>) {
        let why = place.err();
        let place = place.ok();
        let origin = settled.known().flatten().filter(|_| place.is_some());
        let named = settled.named;
        let Draft { raw, parsed, exception, operation, path } = settled.draft;
        let mut a = Attributes::with_capacity(8 + parsed.fields.len());
        for (key, value) in parsed.fields {
            a.set(key, value);
        }
        if let Some(logger) = parsed.logger {
            a.set("log.logger", logger);
        }
        match (&path, raw.fd) {
            (Some(path), _) => a.set("log.file.path", path.to_string()),
            (None, 1) => a.set("log.iostream", "stdout"),
            (None, 2) => a.set("log.iostream", "stderr"),
            _ => {}
        }
        a.set("thread.id", raw.task.tid);
        a.set("ktrdr.log.format", parsed.format.name());
        if let Some(e) = &exception {
            a.extend(exception_attributes(e));
        }
        if let Some(o) = origin {
            a.set("ktrdr.link.method", o.method.name());
            let exact = o.method.exact() && !named;
            a.set("ktrdr.link.certainty", if exact { "exact" } else { "inferred" });
        }
        let of_span = origin.and_then(|o| self.assembler.operation_at(o.span));
        // An id in the text is a word, not a proof.
        let inferred = of_span.is_none();
        if let Some(id) = of_span.or(operation) {
            if let Some(kind) = ids::kind(&id) {
                a.set("operation.type", kind.to_owned());
            }
            a.set("operation.id", id.to_string());
            if inferred {
                a.set("ktrdr.operation.certainty", "inferred");
            }
        }
        let raw_cut = raw.cut;
        if raw.cut > 0 {
            a.set("ktrdr.log.cut_bytes", raw.cut as u64);
        }
        if raw.lost > 0 {
            a.set("ktrdr.log.lost_before", raw.lost);
        }
        match why {
            None => self.logs.counts.linked += 1,
            Some(why) => self.logs.counts.unlinked[why as usize] += 1,
        }
        if let Some(why) = why.filter(|why| *why != Unlinked::NoEvidence) {
            a.set("ktrdr.log.unlinked", why.name());
        }
        let mut record = LogRecord {
            ts: raw.ts,
            wall_offset_ns: self.wall_offset_ns,
            severity: parsed.severity,
            severity_text: parsed.severity_text,
            body: parsed.message,
            trace_id: place.map(|p| p.0),
            span_id: place.map(|p| p.1),
            attributes: a,
            resource: self.processes.resource_of(raw.task.tgid),
        };
        self.config.mask.log(&mut record);
        // A mask may be longer than what it stands for, and an exception's summary than its text.
        let end = record.body.floor_char_boundary(self.config.max_record);
        if end < record.body.len() {
            let more = record.body.len() - end;
            record.body.truncate(end);
            record.attributes.set("ktrdr.log.cut_bytes", (raw_cut + more) as u64);
        }
        self.out.push_back(Output::Log(Box::new(record)));
    }
}

/// An error without a stack trace, as an event of its span.
fn said_attributes(draft: &Draft) -> Attributes {
    let mut a = Attributes::with_capacity(3);
    a.push("log.severity", draft.parsed.severity.name());
    a.push("log.message", draft.parsed.message.clone());
    if let Some(logger) = &draft.parsed.logger {
        a.push("log.logger", logger.clone());
    }
    a
}
