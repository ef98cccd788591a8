//! What a record says of itself: level, logger, message, fields, in whichever of the usual formats it is written.

mod access;
mod header;
mod json;
mod logfmt;

use std::net::SocketAddr;

use super::record::Severity;
use crate::trace::model::{Key, Value};

/// Fields taken from one record, against records made of nothing else.
pub const MAX_FIELDS: usize = 32;
/// Longest key of a field.
const MAX_KEY: usize = 64;

/// The formats that are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// None that is known.
    #[default]
    Plain,
    /// A prefix of time, level and logger: Python's logging, structlog, loguru, uvicorn, tracing, logback.
    Prefixed,
    /// A line of uvicorn's access log.
    Access,
    /// A JSON object.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

impl Format {
    /// Name, for the attribute.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Plain => "plain",
            Format::Prefixed => "prefixed",
            Format::Access => "access",
            Format::Json => "json",
            Format::Logfmt => "logfmt",
        }
    }
}

/// A record taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Its format.
    pub format: Format,
    /// Level.
    pub severity: Severity,
    /// The program's own word for it.
    pub severity_text: String,
    /// Logger.
    pub logger: Option<String>,
    /// Message.
    pub message: String,
    /// Further fields.
    pub fields: Vec<(Key, Value)>,
    /// Of an access line: the client's end of the connection.
    pub peer: Option<SocketAddr>,
    /// A stack trace that stood in a field.
    pub stack: Option<String>,
}

/// Whether a line begins a record: it has the form of one.
pub fn begins(line: &str) -> bool {
    json::looks_like(line) || header::begins(line) || logfmt::parse(line).is_some()
}

/// Takes a record apart. `None`: it is no log record but a message of a protocol on standard output (JSON-RPC).
pub fn record(text: &str) -> Option<Parsed> {
    if json::looks_like(text) {
        match json::parse(text) {
            Some(json::Outcome::Record(parsed)) => return Some(parsed),
            Some(json::Outcome::Protocol) => return None,
            None => {}
        }
    }
    let (first, rest) = split_at(text, b'\n').map_or((text, ""), |(first, rest)| (first, rest));
    let parsed = header::parse(first).or_else(|| logfmt::parse(first));
    let mut parsed = parsed.unwrap_or_else(|| Parsed { message: first.to_owned(), ..Parsed::default() });
    if !rest.is_empty() {
        parsed.message.push('\n');
        parsed.message.push_str(rest);
    }
    Some(parsed)
}

/// Where a short text stands in another. The searchers of `str` and `memmem` take longer to set up than most lines take to
/// be searched for the one byte of `what` that is no blank.
pub(super) fn find(text: &str, what: &str) -> Option<usize> {
    let (text, what) = (text.as_bytes(), what.as_bytes());
    let (anchor, byte) = what.iter().enumerate().find(|(_, b)| **b != b' ')?;
    let stands = |at: &usize| text.get(*at..).is_some_and(|rest| rest.starts_with(what));
    memchr::memchr_iter(*byte, text).filter_map(|at| at.checked_sub(anchor)).find(stands)
}

/// As [`str::split_once`], by [`find`].
fn split_once<'a>(text: &'a str, what: &str) -> Option<(&'a str, &'a str)> {
    let at = find(text, what)?;
    Some((&text[..at], &text[at + what.len()..]))
}

/// As [`str::split_once`], at a byte of ASCII.
fn split_at(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = memchr::memchr(byte, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// As [`str::rsplit_once`], at a byte of ASCII.
fn rsplit_at(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = memchr::memrchr(byte, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// Whether a word can be the name of a logger, a thread or a place in the code.
fn is_name(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 120
        && word.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '/')
        && word.chars().all(|c| c.is_alphanumeric() || "._-:$/@".contains(c))
}

#[cfg(test)]
mod tests;
