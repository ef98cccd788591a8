//! Spans as protobuf without the detour over message structures: no copy of any text but the one into the request.
//!
//! Gives the very bytes that [`super::convert`] gives by way of prost; a test says so. Field numbers are those of
//! `opentelemetry/proto/{trace,common,resource}/v1/*.proto`.

use std::sync::Arc;

use super::convert::{LINK_FLAGS, SCHEMA_URL, SCOPE_NAME, SCOPE_VERSION, by_resource, span_flags, span_kind};
use super::wire::{I64, Message, Sink, VARINT, measure};
use crate::export::Item;
use crate::trace::model::{Attribute, Attributes, Link, Resource, Span, SpanEvent, Status, Value, digits};

/// An `ExportTraceServiceRequest`.
pub fn request(spans: &[Item]) -> Vec<u8> {
    let groups: Vec<Group<'_>> = by_resource(spans).into_iter().map(Group::new).collect();
    let mut lengths = Vec::with_capacity(groups.len());
    lengths.extend(groups.iter().map(measure));
    // Ten bytes hold any key and length.
    let mut out = Vec::with_capacity(lengths.iter().map(|n| n + 10).sum());
    for (group, len) in groups.iter().zip(lengths) {
        out.message_of(1, len, group);
    }
    out
}

/// `ResourceSpans`.
struct Group<'a> {
    resource: &'a Resource,
    scope: ScopeSpans<'a>,
    scope_len: usize,
}

impl<'a> Group<'a> {
    fn new((resource, spans): (&'a Arc<Resource>, Vec<&'a Span>)) -> Self {
        // Measured once and kept: nested three deep, every attribute would be measured five times otherwise.
        let spans = spans.into_iter().map(|span| (measure(span), span)).collect();
        let scope = ScopeSpans { spans };
        Self { resource, scope_len: measure(&scope), scope }
    }
}

impl Message for Group<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.message(1, self.resource);
        sink.message_of(2, self.scope_len, &self.scope);
        sink.text(3, SCHEMA_URL.as_bytes());
    }
}

impl Message for Resource {
    fn put<S: Sink>(&self, sink: &mut S) {
        put_attributes(sink, 1, &self.attributes);
        if self.attributes.get("service.name").is_none() {
            sink.message(1, &KeyText("service.name", &self.service));
        }
    }
}

struct ScopeSpans<'a> {
    spans: Vec<(usize, &'a Span)>,
}

impl Message for ScopeSpans<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.message(1, &Scope);
        for (len, span) in &self.spans {
            sink.message_of(2, *len, *span);
        }
        sink.text(3, SCHEMA_URL.as_bytes());
    }
}

/// `InstrumentationScope`.
struct Scope;

impl Message for Scope {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.text(1, SCOPE_NAME.as_bytes());
        sink.text(2, SCOPE_VERSION.as_bytes());
    }
}

impl Message for Span {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.text(1, &self.trace_id.0);
        sink.text(2, &self.span_id.0);
        if let Some(parent) = &self.parent_span_id {
            sink.text(4, &parent.0);
        }
        sink.text(5, self.name.as_bytes());
        sink.number(6, span_kind(self.kind) as u64);
        sink.fixed64(7, self.start_wall_ns());
        sink.fixed64(8, self.end_wall_ns());
        put_attributes(sink, 9, &self.attributes);
        for event in &self.events {
            sink.message(11, &Event(self, event));
        }
        for link in &self.links {
            sink.message(13, link);
        }
        if let Status::Error(message) = &self.status {
            sink.message(15, &Failed(message));
        }
        sink.fixed32(16, span_flags(self));
    }
}

struct Event<'a>(&'a Span, &'a SpanEvent);

impl Message for Event<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        let Event(span, event) = self;
        sink.fixed64(1, span.wall_ns(event.ts));
        sink.text(2, event.name.as_bytes());
        put_attributes(sink, 3, &event.attributes);
    }
}

impl Message for Link {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.text(1, &self.trace_id.0);
        sink.text(2, &self.span_id.0);
        put_attributes(sink, 4, &self.attributes);
        sink.fixed32(6, LINK_FLAGS);
    }
}

/// `Status` with `STATUS_CODE_ERROR`.
struct Failed<'a>(&'a str);

impl Message for Failed<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.text(2, self.0.as_bytes());
        sink.number(3, 2);
    }
}

fn put_attributes<S: Sink>(sink: &mut S, field: u32, attributes: &Attributes) {
    for attribute in attributes {
        sink.message(field, attribute);
    }
}

/// `KeyValue`.
impl Message for Attribute {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.text(1, self.key.as_bytes());
        sink.message(2, &self.value);
    }
}

struct KeyText<'a>(&'a str, &'a str);

impl Message for KeyText<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.text(1, self.0.as_bytes());
        sink.message(2, &Text(self.1));
    }
}

/// `AnyValue`. The fields of a `oneof` are there even with their default value.
impl Message for Value {
    fn put<S: Sink>(&self, sink: &mut S) {
        match self {
            Value::Static(s) => Text(s).put(sink),
            Value::Str(s) => Text(s).put(sink),
            Value::Id(id) => Text(digits(id).as_str()).put(sink),
            Value::Bool(b) => {
                sink.key(2, VARINT);
                sink.varint(u64::from(*b));
            }
            Value::Int(n) => {
                sink.key(3, VARINT);
                // Two's complement: negative numbers take ten bytes.
                sink.varint(*n as u64);
            }
            Value::Float(f) => {
                sink.key(4, I64);
                sink.bytes(&f.to_le_bytes());
            }
            Value::List(items) => sink.message(5, &Array(items)),
        }
    }
}

/// `AnyValue` with a text.
struct Text<'a>(&'a str);

impl Message for Text<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.delimited(1, self.0.as_bytes());
    }
}

/// `ArrayValue`.
struct Array<'a>(&'a [String]);

impl Message for Array<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        for item in self.0 {
            sink.message(1, &Text(item));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fixture;
    use crate::export::otlp::convert;
    use crate::trace::model::{SpanId, SpanKind, TraceId};
    use proptest::prelude::*;

    fn assert_as_prost(spans: &[Item]) {
        let want = prost::Message::encode_to_vec(&convert::request(spans));
        assert!(request(spans) == want, "{spans:#?}");
    }

    #[test]
    fn the_fixtures_give_the_bytes_of_prost() {
        assert_as_prost(&[]);
        assert_as_prost(&fixture::download());
        assert_as_prost(&[Arc::new(fixture::everything())]);
        let mut nameless = fixture::everything();
        nameless.resource = Arc::new(Resource { service: "x".into(), attributes: Attributes::new() });
        assert_as_prost(&[Arc::new(nameless)]);
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Static("static")),
            ".*".prop_map(Value::from),
            any::<[u8; 16]>().prop_map(Value::Id),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Float),
            any::<bool>().prop_map(Value::Bool),
            prop::collection::vec(".*", 0..4).prop_map(Value::from),
        ]
    }

    prop_compose! {
        fn attributes()(pairs in prop::collection::vec((".*", value()), 0..6)) -> Attributes {
            let mut out = Attributes::new();
            pairs.into_iter().for_each(|(k, v)| out.set(k, v));
            out
        }
    }

    prop_compose! {
        fn span()(
            ids in any::<([u8; 16], [u8; 8], Option<[u8; 8]>)>(),
            kind in prop::sample::select(vec![SpanKind::Internal, SpanKind::Server, SpanKind::Client]),
            name in ".*",
            times in any::<(u64, u64, i64)>(),
            status in prop::option::of(".{0,200}"),
            attributes in attributes(),
            events in prop::collection::vec((any::<u64>(), ".*", attributes()), 0..3),
            links in prop::collection::vec((any::<([u8; 16], [u8; 8])>(), attributes()), 0..3),
        ) -> Span {
            Span {
                trace_id: TraceId(ids.0),
                span_id: SpanId(ids.1),
                parent_span_id: ids.2.map(SpanId),
                kind,
                name,
                start: times.0,
                end: times.1,
                wall_offset_ns: times.2,
                status: status.map_or(Status::Unset, Status::Error),
                attributes,
                events: events
                    .into_iter()
                    .map(|(ts, name, attributes)| SpanEvent { ts, name: name.into(), attributes })
                    .collect(),
                links: links
                    .into_iter()
                    .map(|((t, s), attributes)| Link { trace_id: TraceId(t), span_id: SpanId(s), attributes })
                    .collect(),
                resource: Arc::default(),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_spans_give_the_bytes_of_prost(
            spans in prop::collection::vec((span(), 0..3_usize), 0..6),
            resources in prop::collection::vec((".*", attributes()), 3),
        ) {
            let resources: Vec<_> = resources
                .into_iter()
                .map(|(service, attributes)| Arc::new(Resource { service, attributes }))
                .collect();
            let spans: Vec<Item> = spans
                .into_iter()
                .map(|(span, n)| Arc::new(Span { resource: resources[n].clone(), ..span }))
                .collect();
            assert_as_prost(&spans);
        }
    }
}
