//! The span of a command: OpenTelemetry's conventions for CLI programs ("Execution (callee) spans"), named after the
//! program and its first subcommand.

use super::Over;
use super::name;
use crate::event::Ns;
use crate::trace::model::{Attributes, Span, SpanId, SpanKind, Status, TraceId};
use crate::trace::processes::{End, Processes};

/// How a command's time ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ended so.
    Ended(End),
    /// It became another program.
    Replaced(Ns),
    /// What came after that was not seen, for this reason (`ktrdr.incomplete`).
    Unknown(Ns, &'static str),
    /// It has not ended by now (`ktrdr.open`).
    Open(Ns),
}

/// The span, all but its place in a trace. `by`: the process whose facts describe it.
pub fn of(over: &Over, ending: Ending, by: u32, processes: &mut Processes, wall_offset_ns: i64) -> Span {
    let (end, status, incomplete) = match ending {
        Ending::Ended(end) => (end.ts, status(end), None),
        Ending::Replaced(ts) => (ts, Status::Unset, None),
        Ending::Unknown(ts, why) => (ts, Status::Unset, Some(why)),
        Ending::Open(now) => (now, Status::Unset, None),
    };
    let mut attributes = Attributes::with_capacity(10);
    let meta = processes.get(by).map(|p| &p.meta);
    let command = meta.map(|m| m.command.as_slice()).unwrap_or_default();
    let program = name::Program::of(command);
    let exe = meta.map(|m| m.exe.as_str()).filter(|exe| !exe.is_empty());
    let title = program.map_or_else(|| "command".to_owned(), |p| p.title());
    let executable = exe.and_then(|exe| exe.rsplit('/').next()).or(program.map(|p| p.name));
    if let Some(executable) = executable {
        attributes.push("process.executable.name", executable.to_owned());
    }
    if let Some(exe) = exe {
        attributes.push("process.executable.path", exe.to_owned());
    }
    if !command.is_empty() {
        attributes.push("process.command_args", command.to_vec());
    }
    attributes.push("process.pid", over.program.tgid);
    attributes.push("process.parent_pid", over.program.ppid);
    if let Ending::Ended(end) = ending {
        end.tell(&mut attributes);
        if let Some(kind) = end.error_type() {
            attributes.push("error.type", kind);
        }
    }
    if matches!(ending, Ending::Open(_)) {
        attributes.push("ktrdr.open", true);
    }
    if let Some(why) = incomplete {
        attributes.push("ktrdr.incomplete", why);
    }
    Span {
        trace_id: TraceId::default(),
        span_id: SpanId::default(),
        parent_span_id: None,
        kind: SpanKind::Internal,
        name: title,
        start: over.program.exec,
        end: end.max(over.program.exec),
        wall_offset_ns,
        status,
        attributes,
        events: Vec::new(),
        links: Vec::new(),
        resource: processes.resource_of(by),
    }
}

fn status(end: End) -> Status {
    match end.error_type() {
        Some(_) => Status::Error(end.to_string()),
        None => Status::Unset,
    }
}
