//! Log records, free of any wire format (OpenTelemetry Logs Data Model).

use std::sync::Arc;

use crate::event::Ns;
use crate::trace::model::{Attributes, Resource, SpanId, TraceId};

/// `SeverityNumber` of the Logs Data Model: the lowest of each range, 0 = unspecified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Severity(pub u8);

/// Length of `information`, the longest word for a level.
const LONGEST_WORD: usize = 11;

impl Severity {
    /// Nothing said.
    pub const UNSPECIFIED: Severity = Severity(0);
    /// `TRACE`.
    pub const TRACE: Severity = Severity(1);
    /// `DEBUG`.
    pub const DEBUG: Severity = Severity(5);
    /// `INFO`.
    pub const INFO: Severity = Severity(9);
    /// `WARN`.
    pub const WARN: Severity = Severity(13);
    /// `ERROR`.
    pub const ERROR: Severity = Severity(17);
    /// `FATAL`.
    pub const FATAL: Severity = Severity(21);

    /// Short name of the range; empty = unspecified.
    pub const fn name(self) -> &'static str {
        match self.0 {
            1..=4 => "TRACE",
            5..=8 => "DEBUG",
            9..=12 => "INFO",
            13..=16 => "WARN",
            17..=20 => "ERROR",
            21..=24 => "FATAL",
            _ => "",
        }
    }

    /// The word for a level that loggers of all kinds write, whatever its case.
    pub fn of_word(word: &str) -> Option<Severity> {
        let mut lower = [0; LONGEST_WORD];
        let lower = lower.get_mut(..word.len())?;
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"trace" | b"finest" | b"finer" => Self::TRACE,
            b"debug" | b"fine" => Self::DEBUG,
            b"info" | b"information" | b"notice" | b"success" | b"config" => Self::INFO,
            b"warn" | b"warning" => Self::WARN,
            b"error" | b"err" | b"severe" | b"exception" => Self::ERROR,
            b"critical" | b"crit" | b"fatal" | b"panic" | b"alert" | b"emerg" | b"emergency" => Self::FATAL,
            _ => return None,
        })
    }

    /// Of a number: Python's levels (10 to 50) and those of pino and bunyan (10 to 60), which agree but for an offset
    /// of ten, are told apart by the library's other fields.
    pub fn of_number(n: f64, pino: bool) -> Option<Severity> {
        let step = if pino { n - 10.0 } else { n };
        Some(match step {
            s if !(0.0..=60.0).contains(&s) => return None,
            s if s < 10.0 => Self::TRACE,
            s if s < 20.0 => Self::DEBUG,
            s if s < 30.0 => Self::INFO,
            s if s < 40.0 => Self::WARN,
            s if s < 50.0 => Self::ERROR,
            _ => Self::FATAL,
        })
    }
}

/// A finished log record.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// When it was written, boot clock in ns.
    pub ts: Ns,
    /// Wall clock minus boot clock in ns.
    pub wall_offset_ns: i64,
    /// How bad.
    pub severity: Severity,
    /// The program's own word for that; may be empty.
    pub severity_text: String,
    /// What it says.
    pub body: String,
    /// The trace it was written in, if that is known, …
    pub trace_id: Option<TraceId>,
    /// … and the span.
    pub span_id: Option<SpanId>,
    /// Attributes.
    pub attributes: Attributes,
    /// The service that wrote it.
    pub resource: Arc<Resource>,
}

impl LogRecord {
    /// When it was written, nanoseconds since the Unix epoch.
    pub fn wall_ns(&self) -> u64 {
        self.ts.saturating_add_signed(self.wall_offset_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_of_many_loggers() {
        for (word, want) in [
            ("INFO", "INFO"),
            ("warning", "WARN"),
            ("Error", "ERROR"),
            ("CRITICAL", "FATAL"),
            ("SUCCESS", "INFO"),
            ("Information", "INFO"),
            ("EMERGENCY", "FATAL"),
        ] {
            assert_eq!(Severity::of_word(word).map(Severity::name), Some(want), "{word}");
        }
        assert_eq!(Severity::of_word("message"), None);
        assert_eq!(Severity::of_number(40.0, false), Some(Severity::ERROR));
        assert_eq!(Severity::of_number(50.0, true), Some(Severity::ERROR));
        assert_eq!(Severity::of_number(1e9, false), None);
    }
}
