//! Spans as Jaeger's JSON model.

use std::sync::Arc;

use serde_json::{Value, json};

use super::query::text;
use crate::export::Item;
use crate::trace::model::{self, Attributes, Resource, Span, SpanKind, Status};

/// `span.kind` as Jaeger says it.
pub const fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
    }
}

/// A trace as text, oldest span first. Spans that do not fit in `room` bytes are left out, which its warnings say.
pub fn trace(spans: &[Item], dropped: u64, room: usize) -> String {
    let mut spans: Vec<&Item> = spans.iter().collect();
    spans.sort_by_key(|s| (s.start_wall_ns(), s.span_id));
    let mut resources: Vec<&Arc<Resource>> = Vec::new();
    let id = spans.first().map(|s| s.trace_id.to_string()).unwrap_or_default();
    let mut out = format!(r#"{{"traceID":"{id}","spans":["#);
    let mut written = 0;
    for s in &spans {
        let at = resources.iter().position(|r| Arc::ptr_eq(r, &s.resource) || **r == s.resource);
        let at = at.unwrap_or_else(|| {
            resources.push(&s.resource);
            resources.len() - 1
        });
        let text = span(s, at).to_string();
        if written > 0 && out.len() + text.len() > room {
            break;
        }
        if written > 0 {
            out.push(',');
        }
        out.push_str(&text);
        written += 1;
    }
    let processes: serde_json::Map<String, Value> =
        resources.iter().enumerate().map(|(i, r)| (process_id(i), process(r))).collect();
    let mut warnings = Vec::new();
    if dropped > 0 {
        warnings.push(format!("{dropped} spans of this trace were not kept: it has too many"));
    }
    if written < spans.len() {
        let left = spans.len() - written;
        warnings.push(format!("the last {left} spans were left out: the answer would be too long"));
    }
    let warnings = if warnings.is_empty() { Value::Null } else { Value::from(warnings) };
    out.push_str(&format!(r#"],"processes":{},"warnings":{warnings}}}"#, Value::Object(processes)));
    out
}

fn process_id(index: usize) -> String {
    format!("p{}", index + 1)
}

fn process(resource: &Resource) -> Value {
    let others = resource.attributes.iter().filter(|a| a.key != "service.name");
    let tags: Vec<Value> = others.map(|a| tag(&a.key, &a.value)).collect();
    json!({"serviceName": resource.service, "tags": tags})
}

fn span(span: &Span, process: usize) -> Value {
    let mut tags = tags(&span.attributes);
    tags.push(json!({"key": "span.kind", "type": "string", "value": kind(span.kind)}));
    if let Status::Error(message) = &span.status {
        tags.push(json!({"key": "error", "type": "bool", "value": true}));
        tags.push(json!({"key": "otel.status_code", "type": "string", "value": "ERROR"}));
        if !message.is_empty() {
            tags.push(json!({"key": "otel.status_description", "type": "string", "value": message}));
        }
    }
    let parent = span.parent_span_id.map(|id| reference("CHILD_OF", span.trace_id, id));
    let links = span.links.iter().map(|l| reference("FOLLOWS_FROM", l.trace_id, l.span_id));
    let logs: Vec<Value> = span
        .events
        .iter()
        .map(|e| {
            let mut fields = vec![json!({"key": "event", "type": "string", "value": e.name})];
            fields.extend(self::tags(&e.attributes));
            json!({"timestamp": span.wall_ns(e.ts) / 1_000, "fields": fields})
        })
        .collect();
    json!({
        "traceID": span.trace_id.to_string(),
        "spanID": span.span_id.to_string(),
        "operationName": span.name,
        "references": parent.into_iter().chain(links).collect::<Vec<Value>>(),
        "startTime": span.start_wall_ns() / 1_000,
        "duration": span.end.saturating_sub(span.start) / 1_000,
        "tags": tags,
        "logs": logs,
        "processID": process_id(process),
        "warnings": null,
    })
}

fn reference(kind: &str, trace: model::TraceId, span: model::SpanId) -> Value {
    json!({"refType": kind, "traceID": trace.to_string(), "spanID": span.to_string()})
}

fn tags(attributes: &Attributes) -> Vec<Value> {
    attributes.iter().map(|a| tag(&a.key, &a.value)).collect()
}

fn tag(key: &str, value: &model::Value) -> Value {
    match value {
        model::Value::Int(n) => json!({"key": key, "type": "int64", "value": n}),
        model::Value::Float(f) => json!({"key": key, "type": "float64", "value": f}),
        model::Value::Bool(b) => json!({"key": key, "type": "bool", "value": b}),
        model::Value::Static(_) | model::Value::Str(_) | model::Value::Id(_) | model::Value::List(_) => {
            json!({"key": key, "type": "string", "value": text(value)})
        }
    }
}
