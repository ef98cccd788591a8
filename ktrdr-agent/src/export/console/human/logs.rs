//! Warnings and errors that services logged, on their way to the line of their span.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

use super::layout::{self, Style};
use super::text::{clean, fit};
use crate::export::LogItem;
use crate::export::time::Utc;
use crate::trace::logs::Severity;
use crate::trace::model::TraceId;

/// How long a record waits for its span to be printed. A request that takes longer is shown later than what it logged,
/// which is then worth a line of its own.
const PATIENCE: Duration = Duration::from_secs(2);
/// Records held; beyond, the oldest is printed by itself.
const MAX_HELD: usize = 1_000;
/// Columns of a record that is printed by itself, its time and service not counted.
const MIN_ROOM: usize = 40;

/// Records that are to be shown.
#[derive(Default)]
pub struct Logs {
    held: VecDeque<(Duration, LogItem)>,
    /// Printed without waiting for anything.
    ready: Vec<LogItem>,
}

/// `ERROR ib.connection: no gateway`, in one line; an exception says what was thrown.
pub fn sentence(record: &LogItem) -> String {
    let text = |key: &str| record.attributes.get(key).and_then(|v| v.as_str());
    let mut out = record.severity.name().to_owned();
    if let Some(logger) = text("log.logger") {
        let _ = write!(out, " {logger}:");
    }
    let body = record.body.lines().next().unwrap_or_default();
    let _ = write!(out, " {body}");
    if let (Some(kind), message) = (text("exception.type"), text("exception.message").unwrap_or_default())
        && !body.contains(kind)
    {
        let message = message.lines().next().unwrap_or_default();
        let _ = write!(out, " ({kind}{}{message})", if message.is_empty() { "" } else { ": " });
    }
    clean(&out)
}

impl Logs {
    /// Takes a record. Returns 1 if it is not to be shown.
    pub fn push(&mut self, record: LogItem, now: Duration) -> u64 {
        if record.severity < Severity::WARN {
            return 1;
        }
        if record.trace_id.is_none() {
            self.ready.push(record);
            return 0;
        }
        self.held.push_back((now, record));
        if self.held.len() > MAX_HELD {
            self.ready.extend(self.held.pop_front().map(|(_, r)| r));
        }
        0
    }

    /// Takes the records of a trace that is being printed.
    pub fn of(&mut self, trace: TraceId) -> Vec<LogItem> {
        let mut found = Vec::new();
        self.held.retain(|(_, r)| {
            let its = r.trace_id == Some(trace);
            if its {
                found.push(r.clone());
            }
            !its
        });
        found
    }

    /// Appends those of no trace, and those whose span did not come. Returns how many.
    pub fn poll(&mut self, now: Duration, style: &Style, out: &mut String) -> u64 {
        while let Some((_, record)) = self.held.pop_front_if(|(at, _)| now.saturating_sub(*at) >= PATIENCE) {
            self.ready.push(record);
        }
        let ready = std::mem::take(&mut self.ready);
        for record in &ready {
            print(record, style, out);
        }
        ready.len() as u64
    }

    /// Appends all that is left.
    pub fn finish(&mut self, style: &Style, out: &mut String) -> u64 {
        self.ready.extend(self.held.drain(..).map(|(_, r)| r));
        self.poll(Duration::ZERO, style, out)
    }
}

/// A record by itself: time, service, what it says.
fn print(record: &LogItem, style: &Style, out: &mut String) {
    let ns = record.wall_ns();
    let offset = (style.utc_offset)(ns / 1_000_000_000).saturating_mul(1_000_000_000);
    let Utc { time: (h, m, s), nanos, .. } = Utc::from_unix_ns(ns.saturating_add_signed(offset));
    let head =
        format!("{h:02}:{m:02}:{s:02}.{:03}  {}  ", nanos / 1_000_000, clean(&record.resource.service));
    let room = style.width.saturating_sub(head.len()).max(MIN_ROOM);
    out.push_str(&head);
    layout::put_log(style, record.severity, &fit(&sentence(record), room), out);
    out.push('\n');
    if let Some(trace) = record.trace_id {
        let _ = writeln!(out, "{:14}in trace {trace}", "");
    }
    out.push('\n');
}
