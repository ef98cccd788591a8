//! Spans from the lines that `--spans-out` and `--console json` write.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::export::time::parse_rfc3339;
use crate::trace::logs::{LogRecord, Severity};
use crate::trace::model::{
    Attributes, Link, Resource, Span, SpanEvent, SpanId, SpanKind, Status, TraceId, Value,
};

/// A line of the file. Unknown fields are ignored, so that newer files can be read.
#[derive(Deserialize)]
struct Line {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: Option<String>,
    name: String,
    kind: String,
    #[serde(default)]
    service: String,
    start_time: String,
    end_time: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    status_message: String,
    #[serde(default)]
    attributes: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    events: Vec<Event>,
    #[serde(default)]
    links: Vec<Linked>,
    #[serde(default)]
    resource: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Event {
    time: String,
    name: String,
    #[serde(default)]
    attributes: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Linked {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    attributes: serde_json::Map<String, serde_json::Value>,
}

/// Why a line is no span.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No JSON, or a field is missing.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A field has an impossible value.
    #[error("{0} is not a valid {1}")]
    Field(String, &'static str),
}

/// A line of a log record.
#[derive(Deserialize)]
struct LogLine {
    log: Said,
    #[serde(default)]
    trace_id: Option<String>,
    #[serde(default)]
    span_id: Option<String>,
    #[serde(default)]
    service: String,
    #[serde(default)]
    attributes: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    resource: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Said {
    time: String,
    #[serde(default)]
    severity_number: u8,
    #[serde(default)]
    severity_text: String,
    body: String,
}

/// What a line holds.
#[derive(Debug)]
pub enum Parsed {
    /// A span.
    Span(Box<Span>),
    /// A log record.
    Log(Box<LogRecord>),
}

/// Begin of a log record's line.
const LOG: &str = "{\"log\":";

/// Reads lines; spans of one service share their resource.
#[derive(Debug, Default)]
pub struct Parser {
    resources: BTreeMap<String, Arc<Resource>>,
}

/// Resources shared at most; services on one host are dozens.
const MAX_RESOURCES: usize = 4_096;

impl Parser {
    /// The span or log record of a line.
    pub fn any(&mut self, line: &str) -> Result<Parsed, LineError> {
        if line.starts_with(LOG) {
            return self.log(line).map(|r| Parsed::Log(Box::new(r)));
        }
        self.line(line).map(|s| Parsed::Span(Box::new(s)))
    }

    /// The log record of a line.
    pub fn log(&mut self, line: &str) -> Result<LogRecord, LineError> {
        let LogLine { log, trace_id: trace, span_id: span, service, attributes: of, resource } =
            serde_json::from_str(line)?;
        Ok(LogRecord {
            ts: parse_rfc3339(&log.time).ok_or_else(|| bad(&log.time, "time (RFC 3339)"))?,
            // Times in the file are wall clock already.
            wall_offset_ns: 0,
            severity: Severity(log.severity_number),
            severity_text: log.severity_text,
            body: log.body,
            trace_id: trace.as_deref().map(trace_id).transpose()?,
            span_id: span.as_deref().map(span_id).transpose()?,
            attributes: attributes(of),
            resource: self.resource(&service, resource),
        })
    }

    /// The span of a line.
    pub fn line(&mut self, line: &str) -> Result<Span, LineError> {
        let line: Line = serde_json::from_str(line)?;
        let time = |text: &str| parse_rfc3339(text).ok_or_else(|| bad(text, "time (RFC 3339)"));
        let (start, end) = (time(&line.start_time)?, time(&line.end_time)?);
        let kind = match line.kind.to_ascii_lowercase().as_str() {
            "server" | "consumer" => SpanKind::Server,
            "client" | "producer" => SpanKind::Client,
            "internal" => SpanKind::Internal,
            _ => return Err(bad(&line.kind, "span kind")),
        };
        let mut events = Vec::new();
        for e in line.events {
            events.push(SpanEvent {
                ts: time(&e.time)?,
                name: e.name.into(),
                attributes: attributes(e.attributes),
            });
        }
        let mut links = Vec::new();
        for l in line.links {
            let (trace_id, span_id) = (trace_id(&l.trace_id)?, span_id(&l.span_id)?);
            links.push(Link { trace_id, span_id, attributes: attributes(l.attributes) });
        }
        let parent = line.parent_span_id.as_deref().filter(|p| !p.is_empty());
        Ok(Span {
            trace_id: trace_id(&line.trace_id)?,
            span_id: span_id(&line.span_id)?,
            parent_span_id: parent.map(span_id).transpose()?,
            kind,
            name: line.name,
            start,
            end: end.max(start),
            // Times in the file are wall clock already.
            wall_offset_ns: 0,
            status: match line.status.to_ascii_lowercase().as_str() {
                "error" => Status::Error(line.status_message),
                _ => Status::Unset,
            },
            attributes: attributes(line.attributes),
            events,
            links,
            resource: self.resource(&line.service, line.resource),
        })
    }

    fn resource(
        &mut self,
        service: &str,
        attributes_of: serde_json::Map<String, serde_json::Value>,
    ) -> Arc<Resource> {
        let key = format!("{service}\n{}", serde_json::Value::Object(attributes_of.clone()));
        if let Some(known) = self.resources.get(&key) {
            return known.clone();
        }
        let resource =
            Arc::new(Resource { service: service.to_owned(), attributes: attributes(attributes_of) });
        if self.resources.len() < MAX_RESOURCES {
            self.resources.insert(key, resource.clone());
        }
        resource
    }
}

fn bad(text: &str, what: &'static str) -> LineError {
    LineError::Field(format!("`{}`", super::hints::shorten(text, 60)), what)
}

fn attributes(map: serde_json::Map<String, serde_json::Value>) -> Attributes {
    let mut out = Attributes::with_capacity(map.len());
    for (key, value) in map {
        let value = match value {
            serde_json::Value::String(s) => s.into(),
            serde_json::Value::Bool(b) => Value::Bool(b),
            serde_json::Value::Number(n) => match n.as_i64() {
                Some(n) => Value::Int(n),
                None => Value::Float(n.as_f64().unwrap_or_default()),
            },
            serde_json::Value::Array(items) => Value::List(
                items
                    .into_iter()
                    .map(|i| match i {
                        serde_json::Value::String(s) => s,
                        other => other.to_string(),
                    })
                    .collect(),
            ),
            // No attribute has these forms.
            serde_json::Value::Null | serde_json::Value::Object(_) => continue,
        };
        // A JSON object has each key once by now.
        out.push(key, value);
    }
    out
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let hex = text.as_bytes();
    if hex.len() != 2 * N {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16);
    let mut out = [0u8; N];
    for (i, pair) in hex.chunks_exact(2).enumerate() {
        out[i] = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(out)
}

/// A trace id in hexadecimal.
pub fn trace_id(text: &str) -> Result<TraceId, LineError> {
    bytes(text).map(TraceId).ok_or_else(|| bad(text, "trace id (32 hexadecimal digits)"))
}

/// A span id in hexadecimal.
pub fn span_id(text: &str) -> Result<SpanId, LineError> {
    bytes(text).map(SpanId).ok_or_else(|| bad(text, "span id (16 hexadecimal digits)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::console::json;
    use crate::export::fixture;

    #[test]
    fn what_is_written_is_read_back() {
        let mut parser = Parser::default();
        for mut span in fixture::download().iter().map(|s| (**s).clone()).chain([fixture::everything()]) {
            let mut text = Vec::new();
            json::line(&span, &mut text);
            let read = parser.line(std::str::from_utf8(&text).unwrap()).unwrap();
            // The file has one clock, and texts do not remember whether the program knew them.
            (span.start, span.end) = (span.start_wall_ns(), span.end_wall_ns());
            let offset = std::mem::take(&mut span.wall_offset_ns);
            span.events.iter_mut().for_each(|e| e.ts = e.ts.saturating_add_signed(offset));
            let mut again = Vec::new();
            json::line(&read, &mut again);
            assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(text).unwrap());
            assert_eq!((read.start, read.end, read.kind), (span.start, span.end, span.kind));
        }
    }

    #[test]
    fn log_records_are_read_back_among_spans() {
        let mut parser = Parser::default();
        let resource = fixture::service("ktrdr-api");
        let mut attributes = Attributes::new();
        attributes.set("log.logger", "app");
        let mut record = LogRecord {
            ts: 7_000,
            wall_offset_ns: fixture::EPOCH_NS,
            severity: Severity::ERROR,
            severity_text: "CRITICAL".to_owned(),
            body: "a \"quoted\"\nline".to_owned(),
            trace_id: Some(TraceId([7; 16])),
            span_id: None,
            attributes,
            resource,
        };
        let mut text = Vec::new();
        json::log_line(&record, &mut text);
        let Ok(Parsed::Log(read)) = parser.any(std::str::from_utf8(&text).unwrap()) else {
            panic!("no record")
        };
        (record.ts, record.wall_offset_ns) = (record.wall_ns(), 0);
        assert_eq!(read.resource.service, "ktrdr-api");
        record.resource = read.resource.clone();
        record.attributes = read.attributes.clone();
        assert_eq!(*read, record);
        assert!(parser.any("{\"log\":{\"time\":\"x\",\"body\":\"\"}}").is_err());
    }

    #[test]
    fn lines_that_are_no_spans_say_why() {
        let mut parser = Parser::default();
        let mut text = Vec::new();
        json::line(&fixture::everything(), &mut text);
        let good = String::from_utf8(text).unwrap();
        for (from, to, want) in [
            ("\"trace_id\":\"ab", "\"trace_id\":\"xy", "is not a valid trace id"),
            ("\"span_id\":\"cd", "\"span_id\":\"", "is not a valid span id"),
            ("\"kind\":\"client\"", "\"kind\":\"peer\"", "`peer` is not a valid span kind"),
            ("\"start_time\":\"20", "\"start_time\":\"x0", "is not a valid time"),
            ("{\"trace_id\"", "{\"no_trace_id\"", "missing field `trace_id`"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            let error = parser.line(&bad).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        assert!(parser.line("").is_err() && parser.line("[1]").is_err() && parser.line("\u{feff}{").is_err());
    }
}
