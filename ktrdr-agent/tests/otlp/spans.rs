//! Spans to send, and what must arrive.

use std::sync::Arc;

use ktrdr_agent::trace::model::{
    Attributes, Link, Resource, Span, SpanEvent, SpanId, SpanKind, Status, TraceId, Value as Attr,
};
use serde_json::{Map, Value, json};

fn resource(service: &str) -> Arc<Resource> {
    let mut attributes = Attributes::new();
    attributes.set("service.name", service.to_owned());
    attributes.set("process.pid", 4711_i64);
    Arc::new(Resource { service: service.to_owned(), attributes })
}

/// A small span with a number in it.
pub fn numbered(n: u64) -> Span {
    let mut trace = [7; 16];
    trace[8..].copy_from_slice(&n.to_be_bytes());
    let mut span = Span {
        trace_id: TraceId(trace),
        span_id: SpanId((n + 1).to_be_bytes()),
        parent_span_id: None,
        kind: SpanKind::Client,
        name: "GET /n".into(),
        start: 1_000,
        end: 2_000,
        wall_offset_ns: 1_763_036_106_000_000_000,
        status: Status::Unset,
        attributes: Attributes::new(),
        events: Vec::new(),
        links: Vec::new(),
        resource: resource("numbers"),
    };
    span.attributes.set("n", n);
    span
}

/// Spans of two services, in turns, that use every field, kind and value.
pub fn varied() -> Vec<Span> {
    let services = [resource("ktrdr-api"), resource("training-worker-ä")];
    let kinds = [SpanKind::Server, SpanKind::Client, SpanKind::Internal];
    (0..12_u64)
        .map(|n| {
            let mut span = numbered(n);
            span.resource = services[n as usize % 2].clone();
            span.kind = kinds[n as usize % 3];
            span.parent_span_id = (n % 4 > 0).then_some(SpanId([n as u8; 8]));
            span.name = format!("span {n} ✓");
            span.end += n * 1_000_000;
            if n % 2 == 1 {
                span.status =
                    Status::Error(if n % 4 == 1 { "it broke: \"why\"".into() } else { String::new() });
            }
            span.attributes.set("negative", -(n as i64) - 1);
            span.attributes.set("float", n as f64 / 4.0);
            span.attributes.set("bool", n % 2 == 0);
            span.attributes.set("static", "text");
            span.attributes.set("empty", String::new());
            span.attributes.set("max", i64::MAX);
            let items = (0..n % 4).map(|i| i.to_string()).collect();
            span.attributes.set("list", Attr::List(items));
            for i in 0..n % 3 {
                let attributes = span.attributes.clone();
                span.events.push(SpanEvent {
                    ts: span.start + i,
                    name: format!("event {i}").into(),
                    attributes,
                });
                let mut attributes = Attributes::new();
                attributes.set("why", i);
                span.links.push(Link { trace_id: TraceId([3; 16]), span_id: SpanId([4; 8]), attributes });
            }
            span
        })
        .collect()
}

/// The order in which they arrive: by service.
pub fn grouped(spans: &[Span]) -> Vec<Span> {
    let mut out = spans.to_vec();
    out.sort_by_key(|s| s.resource.service.clone());
    out
}

fn object(attributes: &Attributes) -> Value {
    let pairs = attributes.iter().map(|a| {
        let value = match &a.value {
            Attr::Static(s) => json!(s),
            Attr::Str(s) => json!(s),
            Attr::Id(_) => json!(a.value.text()),
            Attr::Int(n) => json!(n),
            Attr::Float(f) => json!(f),
            Attr::Bool(b) => json!(b),
            Attr::List(items) => json!(items),
        };
        (a.key.to_string(), value)
    });
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// What the receiver must say about a span. Numbers as in `trace.proto`: kinds 1 internal, 2 server, 3 client;
/// status 0 unset, 2 error; flags: sampled, "remote parent" known, and set for a server with a parent.
pub fn expected(span: &Span) -> Value {
    let wall = |ts: u64| ts + span.wall_offset_ns as u64;
    let remote = span.kind == SpanKind::Server && span.parent_span_id.is_some();
    let schema = "https://opentelemetry.io/schemas/1.37.0";
    json!({
        "resource": object(&span.resource.attributes),
        "resource_schema": schema,
        "scope": ["ktrdr-agent", env!("CARGO_PKG_VERSION")],
        "schema": schema,
        "trace_id": span.trace_id.to_string(),
        "span_id": span.span_id.to_string(),
        "parent_span_id": span.parent_span_id.map(|p| p.to_string()),
        "flags": if remote { 0x301 } else { 0x101 },
        "name": span.name,
        "kind": match span.kind { SpanKind::Internal => 1, SpanKind::Server => 2, SpanKind::Client => 3 },
        "start": wall(span.start),
        "end": wall(span.end),
        "status": if span.status == Status::Unset { 0 } else { 2 },
        "status_message": match &span.status { Status::Unset => "", Status::Error(m) => m },
        "attributes": object(&span.attributes),
        "events": span.events.iter().map(|e| json!([wall(e.ts), e.name, object(&e.attributes)])).collect::<Vec<_>>(),
        "links": span.links.iter()
            .map(|l| json!([l.trace_id.to_string(), l.span_id.to_string(), object(&l.attributes)]))
            .collect::<Vec<_>>(),
    })
}
