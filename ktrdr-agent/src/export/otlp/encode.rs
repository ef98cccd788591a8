//! Spans and log records as protobuf without the detour over message structures: no copy of any text but the one into the
//! request.
//!
//! Gives the very bytes that [`super::convert`] and [`super::logs`] give by way of prost; tests say so. Field numbers are
//! those of `opentelemetry/proto/{trace,logs,common,resource}/v1/*.proto`, which are the same for requests with spans and with
//! records down to the items. Of each message the last field comes first: see [`Backwards`].

use std::sync::Arc;

use bytes::Bytes;

use super::convert::{LINK_FLAGS, SCHEMA_URL, SCOPE_NAME, SCOPE_VERSION, by_resource, span_flags, span_kind};
use super::logs::SAMPLED;
use super::wire::{Backwards, I64, Message, VARINT};
use crate::export::{Item, LogItem};
use crate::trace::logs::LogRecord;
use crate::trace::model::{Attribute, Attributes, Link, Resource, Span, SpanEvent, Status, Value, digits};

/// Room made for a span or a record. Most take 400 to 900 bytes.
const ITEM: usize = 1024;

/// An `ExportTraceServiceRequest`.
pub fn spans(spans: &[Item]) -> Bytes {
    request(spans, |span| &span.resource)
}

/// An `ExportLogsServiceRequest`.
pub fn logs(records: &[LogItem]) -> Bytes {
    request(records, |record| &record.resource)
}

fn request<T: Message>(items: &[Arc<T>], resource: fn(&T) -> &Arc<Resource>) -> Bytes {
    let mut out = Backwards::with_room(items.len() * ITEM);
    for (resource, items) in by_resource(items, resource).into_iter().rev() {
        out.message(1, &OfResource { resource, items });
    }
    out.finish()
}

/// `ResourceSpans`, `ResourceLogs`.
struct OfResource<'a, T> {
    resource: &'a Resource,
    items: Vec<&'a T>,
}

impl<T: Message> Message for OfResource<'_, T> {
    fn put(&self, out: &mut Backwards) {
        out.text(3, SCHEMA_URL.as_bytes());
        out.message(2, &OfScope(&self.items));
        out.message(1, self.resource);
    }
}

impl Message for Resource {
    fn put(&self, out: &mut Backwards) {
        if self.attributes.get("service.name").is_none() {
            out.message(1, &KeyText("service.name", &self.service));
        }
        put_attributes(out, 1, &self.attributes);
    }
}

/// `ScopeSpans`, `ScopeLogs`.
struct OfScope<'a, T>(&'a [&'a T]);

impl<T: Message> Message for OfScope<'_, T> {
    fn put(&self, out: &mut Backwards) {
        out.text(3, SCHEMA_URL.as_bytes());
        for item in self.0.iter().rev() {
            out.message(2, *item);
        }
        out.message(1, &Scope);
    }
}

/// `InstrumentationScope`.
struct Scope;

impl Message for Scope {
    fn put(&self, out: &mut Backwards) {
        out.text(2, SCOPE_VERSION.as_bytes());
        out.text(1, SCOPE_NAME.as_bytes());
    }
}

impl Message for Span {
    fn put(&self, out: &mut Backwards) {
        out.fixed32(16, span_flags(self));
        if let Status::Error(message) = &self.status {
            out.message(15, &Failed(message));
        }
        for link in self.links.iter().rev() {
            out.message(13, link);
        }
        for event in self.events.iter().rev() {
            out.message(11, &Event(self, event));
        }
        put_attributes(out, 9, &self.attributes);
        out.fixed64(8, self.end_wall_ns());
        out.fixed64(7, self.start_wall_ns());
        out.number(6, span_kind(self.kind) as u64);
        out.text(5, self.name.as_bytes());
        if let Some(parent) = &self.parent_span_id {
            out.text(4, &parent.0);
        }
        out.text(2, &self.span_id.0);
        out.text(1, &self.trace_id.0);
    }
}

impl Message for LogRecord {
    fn put(&self, out: &mut Backwards) {
        // Seen as it is written.
        out.fixed64(11, self.wall_ns());
        if let Some(id) = &self.span_id {
            out.text(10, &id.0);
        }
        if let Some(id) = &self.trace_id {
            out.text(9, &id.0);
            out.fixed32(8, SAMPLED);
        }
        put_attributes(out, 6, &self.attributes);
        out.message(5, &Text(&self.body));
        out.text(3, self.severity_text.as_bytes());
        out.number(2, self.severity.0.into());
        out.fixed64(1, self.wall_ns());
    }
}

struct Event<'a>(&'a Span, &'a SpanEvent);

impl Message for Event<'_> {
    fn put(&self, out: &mut Backwards) {
        let Event(span, event) = self;
        put_attributes(out, 3, &event.attributes);
        out.text(2, event.name.as_bytes());
        out.fixed64(1, span.wall_ns(event.ts));
    }
}

impl Message for Link {
    fn put(&self, out: &mut Backwards) {
        out.fixed32(6, LINK_FLAGS);
        put_attributes(out, 4, &self.attributes);
        out.text(2, &self.span_id.0);
        out.text(1, &self.trace_id.0);
    }
}

/// `Status` with `STATUS_CODE_ERROR`.
struct Failed<'a>(&'a str);

impl Message for Failed<'_> {
    fn put(&self, out: &mut Backwards) {
        out.number(3, 2);
        out.text(2, self.0.as_bytes());
    }
}

fn put_attributes(out: &mut Backwards, field: u32, attributes: &Attributes) {
    for attribute in attributes.iter().rev() {
        out.message(field, attribute);
    }
}

/// `KeyValue`.
impl Message for Attribute {
    fn put(&self, out: &mut Backwards) {
        out.message(2, &self.value);
        out.text(1, self.key.as_bytes());
    }
}

struct KeyText<'a>(&'a str, &'a str);

impl Message for KeyText<'_> {
    fn put(&self, out: &mut Backwards) {
        out.message(2, &Text(self.1));
        out.text(1, self.0.as_bytes());
    }
}

/// `AnyValue`. The fields of a `oneof` are there even with their default value.
impl Message for Value {
    fn put(&self, out: &mut Backwards) {
        match self {
            Value::Static(s) => Text(s).put(out),
            Value::Str(s) => Text(s).put(out),
            Value::Id(id) => Text(digits(id).as_str()).put(out),
            Value::Bool(b) => {
                out.varint(u64::from(*b));
                out.key(2, VARINT);
            }
            Value::Int(n) => {
                // Two's complement: negative numbers take ten bytes.
                out.varint(*n as u64);
                out.key(3, VARINT);
            }
            Value::Float(f) => {
                out.bytes(&f.to_le_bytes());
                out.key(4, I64);
            }
            Value::List(items) => out.message(5, &Array(items)),
        }
    }
}

/// `AnyValue` with a text.
struct Text<'a>(&'a str);

impl Message for Text<'_> {
    fn put(&self, out: &mut Backwards) {
        out.delimited(1, self.0.as_bytes());
    }
}

/// `ArrayValue`.
struct Array<'a>(&'a [String]);

impl Message for Array<'_> {
    fn put(&self, out: &mut Backwards) {
        for item in self.0.iter().rev() {
            out.message(1, &Text(item));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fixture;
    use crate::export::otlp::{convert, logs};
    use crate::trace::logs::Severity;
    use crate::trace::model::{SpanId, SpanKind, TraceId};
    use proptest::prelude::*;

    fn assert_as_prost(items: &[Item]) {
        let want = prost::Message::encode_to_vec(&convert::request(items));
        assert!(spans(items) == want, "{items:#?}");
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

    prop_compose! {
        fn record()(
            ids in any::<(Option<[u8; 16]>, Option<[u8; 8]>)>(),
            time in any::<(u64, i64)>(),
            severity in 0..25_u8,
            texts in (".*", ".*"),
            attributes in attributes(),
        ) -> LogRecord {
            LogRecord {
                ts: time.0,
                wall_offset_ns: time.1,
                severity: Severity(severity),
                severity_text: texts.0,
                body: texts.1,
                trace_id: ids.0.map(TraceId),
                span_id: ids.1.map(SpanId),
                attributes,
                resource: Arc::default(),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_records_give_the_bytes_of_prost(
            records in prop::collection::vec((record(), 0..2_usize), 0..6),
            resources in prop::collection::vec((".*", attributes()), 2),
        ) {
            let resources: Vec<_> = resources
                .into_iter()
                .map(|(service, attributes)| Arc::new(Resource { service, attributes }))
                .collect();
            let records: Vec<LogItem> = records
                .into_iter()
                .map(|(record, n)| Arc::new(LogRecord { resource: resources[n].clone(), ..record }))
                .collect();
            let want = prost::Message::encode_to_vec(&logs::request(&records));
            prop_assert!(super::logs(&records) == want, "{records:#?}");
        }

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
