//! One JSON object per span per line.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::export::time::rfc3339;
use crate::trace::logs::LogRecord;
use crate::trace::model::{Attributes, Link, Span, SpanEvent, SpanKind, Status, Value, digits};

/// Appends the span's line.
pub fn line(span: &Span, out: &mut Vec<u8>) {
    let before = out.len();
    // Writing to memory cannot fail, and every key is a text; half a line must not survive if it does.
    if serde_json::to_writer(&mut *out, &Line::new(span)).is_err() {
        out.truncate(before);
        return;
    }
    out.push(b'\n');
}

/// The fields, in the order they are written. This is an interface for scripts: fields are added, never changed.
#[derive(Serialize)]
struct Line<'a> {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    name: &'a str,
    kind: &'static str,
    service: &'a str,
    start_time: String,
    end_time: String,
    duration_ms: f64,
    status: &'static str,
    status_message: &'a str,
    attributes: Object<'a>,
    events: Events<'a>,
    links: Links<'a>,
    resource: Object<'a>,
}

impl<'a> Line<'a> {
    fn new(span: &'a Span) -> Self {
        let (status, status_message) = match &span.status {
            Status::Unset => ("unset", ""),
            Status::Error(message) => ("error", message.as_str()),
        };
        Line {
            trace_id: span.trace_id.to_string(),
            span_id: span.span_id.to_string(),
            parent_span_id: span.parent_span_id.map(|id| id.to_string()),
            name: &span.name,
            kind: match span.kind {
                SpanKind::Server => "server",
                SpanKind::Client => "client",
                SpanKind::Internal => "internal",
            },
            service: &span.resource.service,
            start_time: rfc3339(span.start_wall_ns()),
            end_time: rfc3339(span.end_wall_ns()),
            duration_ms: span.end.saturating_sub(span.start) as f64 / 1e6,
            status,
            status_message,
            attributes: Object(&span.attributes),
            events: Events(span),
            links: Links(&span.links),
            resource: Object(&span.resource.attributes),
        }
    }
}

struct Object<'a>(&'a Attributes);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for attribute in self.0 {
            map.serialize_key(&attribute.key)?;
            match &attribute.value {
                Value::Static(s) => map.serialize_value(s)?,
                Value::Str(s) => map.serialize_value(s)?,
                Value::Id(id) => map.serialize_value(digits(id).as_str())?,
                Value::Int(n) => map.serialize_value(n)?,
                Value::Float(f) => map.serialize_value(f)?,
                Value::Bool(b) => map.serialize_value(b)?,
                Value::List(items) => map.serialize_value(items)?,
            }
        }
        map.end()
    }
}

struct Events<'a>(&'a Span);

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Event<'a> {
            time: String,
            name: &'a str,
            attributes: Object<'a>,
        }
        let mut list = serializer.serialize_seq(Some(self.0.events.len()))?;
        for SpanEvent { ts, name, attributes } in &self.0.events {
            let time = rfc3339(self.0.wall_ns(*ts));
            list.serialize_element(&Event { time, name, attributes: Object(attributes) })?;
        }
        list.end()
    }
}

struct Links<'a>(&'a [Link]);

impl Serialize for Links<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Linked<'a> {
            trace_id: String,
            span_id: String,
            attributes: Object<'a>,
        }
        serializer.collect_seq(self.0.iter().map(|link| Linked {
            trace_id: link.trace_id.to_string(),
            span_id: link.span_id.to_string(),
            attributes: Object(&link.attributes),
        }))
    }
}

/// Appends a log record's line: an object of its own, told apart by `log`.
pub fn log_line(record: &LogRecord, out: &mut Vec<u8>) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, &LogLine::new(record)).is_err() {
        out.truncate(before);
        return;
    }
    out.push(b'\n');
}

/// The fields, in the order they are written; an interface as that of spans is.
#[derive(Serialize)]
struct LogLine<'a> {
    log: Said<'a>,
    trace_id: Option<String>,
    span_id: Option<String>,
    service: &'a str,
    attributes: Object<'a>,
    resource: Object<'a>,
}

#[derive(Serialize)]
struct Said<'a> {
    time: String,
    severity: &'static str,
    severity_number: u8,
    severity_text: &'a str,
    body: &'a str,
}

impl<'a> LogLine<'a> {
    fn new(record: &'a LogRecord) -> Self {
        LogLine {
            log: Said {
                time: rfc3339(record.wall_ns()),
                severity: record.severity.name(),
                severity_number: record.severity.0,
                severity_text: &record.severity_text,
                body: &record.body,
            },
            trace_id: record.trace_id.map(|id| id.to_string()),
            span_id: record.span_id.map(|id| id.to_string()),
            service: &record.resource.service,
            attributes: Object(&record.attributes),
            resource: Object(&record.resource.attributes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fixture;

    #[test]
    fn every_field_is_there() {
        let mut out = Vec::new();
        line(&fixture::everything(), &mut out);
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap());
    }
}
