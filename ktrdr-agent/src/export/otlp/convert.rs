//! Spans as the messages of `opentelemetry-proto`: the plain way, which the fast encoding is tested against, and
//! the way to OTLP/JSON.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as ProtoSpan, Status as ProtoStatus, span, status::StatusCode,
};

use crate::export::Item;
use crate::trace::model::{Attributes, Resource, Span, SpanKind, Status, Value, digits};

/// Name of the instrumentation scope.
pub const SCOPE_NAME: &str = "ktrdr-agent";
/// Its version.
pub const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The semantic conventions that the attributes follow (stable HTTP conventions).
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// W3C trace flag `sampled`: what the agent reports, it has recorded.
const SAMPLED: u32 = 1;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`: bit 9 says whether the parent is remote.
const HAS_IS_REMOTE: u32 = 0x100;
/// `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`.
const IS_REMOTE: u32 = 0x200;

/// `flags` of a link: nothing is known of the other span but that it was recorded.
pub const LINK_FLAGS: u32 = SAMPLED;

/// `flags` of a span. A server span's parent lies in another process, if it has one; any other span's in its own.
pub fn span_flags(span: &Span) -> u32 {
    let remote = span.kind == SpanKind::Server && span.parent_span_id.is_some();
    SAMPLED | HAS_IS_REMOTE | if remote { IS_REMOTE } else { 0 }
}

/// `kind` of a span.
pub const fn span_kind(kind: SpanKind) -> span::SpanKind {
    match kind {
        SpanKind::Internal => span::SpanKind::Internal,
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Client => span::SpanKind::Client,
    }
}

/// Groups items by their resource, in the order the resources first occur. Those of one service share the allocation;
/// equal resources in two allocations stay two groups, which receivers accept.
pub fn by_resource<T>(items: &[Arc<T>], of: fn(&T) -> &Arc<Resource>) -> Vec<(&Resource, Vec<&T>)> {
    let mut index: HashMap<*const Resource, usize, foldhash::fast::FixedState> = HashMap::default();
    let mut groups: Vec<(&Resource, Vec<&T>)> = Vec::new();
    for item in items {
        let resource = of(item);
        let at = *index.entry(Arc::as_ptr(resource)).or_insert_with(|| {
            groups.push((resource, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(item);
    }
    groups
}

/// One request with all spans, a `ResourceSpans` per service.
pub fn request(spans: &[Item]) -> ExportTraceServiceRequest {
    let group = |(resource, spans): (&Resource, Vec<&Span>)| ResourceSpans {
        resource: Some(ProtoResource {
            attributes: resource_attributes(resource),
            dropped_attributes_count: 0,
            entity_refs: Vec::new(),
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: SCOPE_NAME.into(),
                version: SCOPE_VERSION.into(),
                attributes: Vec::new(),
                dropped_attributes_count: 0,
            }),
            spans: spans.into_iter().map(convert).collect(),
            schema_url: SCHEMA_URL.into(),
        }],
        schema_url: SCHEMA_URL.into(),
    };
    let groups = by_resource(spans, |span| &span.resource);
    ExportTraceServiceRequest { resource_spans: groups.into_iter().map(group).collect() }
}

/// A resource without `service.name` would become `unknown_service` at the receiver: the field counts.
pub fn resource_attributes(resource: &Resource) -> Vec<KeyValue> {
    let mut out = attributes(&resource.attributes);
    if resource.attributes.get("service.name").is_none() {
        out.push(key_value("service.name", any_value::Value::StringValue(resource.service.clone())));
    }
    out
}

fn convert(span: &Span) -> ProtoSpan {
    ProtoSpan {
        trace_id: span.trace_id.0.to_vec(),
        span_id: span.span_id.0.to_vec(),
        trace_state: String::new(),
        parent_span_id: span.parent_span_id.map(|p| p.0.to_vec()).unwrap_or_default(),
        flags: span_flags(span),
        name: span.name.clone(),
        kind: span_kind(span.kind) as i32,
        start_time_unix_nano: span.start_wall_ns(),
        end_time_unix_nano: span.end_wall_ns(),
        attributes: attributes(&span.attributes),
        dropped_attributes_count: 0,
        events: span
            .events
            .iter()
            .map(|e| span::Event {
                time_unix_nano: span.wall_ns(e.ts),
                name: e.name.clone().into_owned(),
                attributes: attributes(&e.attributes),
                dropped_attributes_count: 0,
            })
            .collect(),
        dropped_events_count: 0,
        links: span
            .links
            .iter()
            .map(|l| span::Link {
                trace_id: l.trace_id.0.to_vec(),
                span_id: l.span_id.0.to_vec(),
                trace_state: String::new(),
                attributes: attributes(&l.attributes),
                dropped_attributes_count: 0,
                flags: LINK_FLAGS,
            })
            .collect(),
        dropped_links_count: 0,
        status: match &span.status {
            Status::Unset => None,
            Status::Error(message) => {
                Some(ProtoStatus { message: message.clone(), code: StatusCode::Error as i32 })
            }
        },
    }
}

/// Attributes as OTLP has them.
pub fn attributes(attributes: &Attributes) -> Vec<KeyValue> {
    attributes.iter().map(|a| key_value(&a.key, value(&a.value))).collect()
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
}

fn value(value: &Value) -> any_value::Value {
    let text = |s: &str| any_value::Value::StringValue(s.to_owned());
    match value {
        Value::Static(s) => text(s),
        Value::Str(s) => text(s),
        Value::Id(id) => text(digits(id).as_str()),
        Value::Int(n) => any_value::Value::IntValue(*n),
        Value::Float(f) => any_value::Value::DoubleValue(*f),
        Value::Bool(b) => any_value::Value::BoolValue(*b),
        Value::List(items) => any_value::Value::ArrayValue(ArrayValue {
            values: items.iter().map(|s| AnyValue { value: Some(text(s)) }).collect(),
        }),
    }
}
