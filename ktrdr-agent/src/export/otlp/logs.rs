//! Log records as messages of `opentelemetry-proto`: the plain way, which the fast encoding is tested against, and the way to
//! OTLP/JSON.

use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord as ProtoRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;

use super::convert::{SCHEMA_URL, SCOPE_NAME, SCOPE_VERSION, attributes, by_resource, resource_attributes};
use super::{OtlpSink, Payload, Protocol, Signal, encode};
use crate::export::queue::Books;
use crate::export::{Item, LogItem, SpanSink};
use crate::trace::logs::LogRecord;
use crate::trace::model::Resource;

/// `TraceFlags`: what the agent reports, it has recorded.
pub const SAMPLED: u32 = 1;

impl Payload for LogItem {
    const SIGNAL: Signal = Signal::Logs;
    fn encode(records: &[LogItem], protocol: Protocol) -> Bytes {
        match protocol {
            Protocol::Grpc | Protocol::HttpProtobuf => encode::logs(records),
            // The messages hold no map with other than string keys, so this cannot fail; an empty request at worst.
            Protocol::HttpJson => serde_json::to_vec(&request(records)).unwrap_or_default().into(),
        }
    }
}

/// One request with all records, a `ResourceLogs` per service.
pub fn request(records: &[LogItem]) -> ExportLogsServiceRequest {
    let group = |(resource, records): (&Resource, Vec<&LogRecord>)| ResourceLogs {
        resource: Some(ProtoResource {
            attributes: resource_attributes(resource),
            dropped_attributes_count: 0,
            entity_refs: Vec::new(),
        }),
        scope_logs: vec![ScopeLogs {
            scope: Some(InstrumentationScope {
                name: SCOPE_NAME.into(),
                version: SCOPE_VERSION.into(),
                attributes: Vec::new(),
                dropped_attributes_count: 0,
            }),
            log_records: records.into_iter().map(convert).collect(),
            schema_url: SCHEMA_URL.into(),
        }],
        schema_url: SCHEMA_URL.into(),
    };
    let groups = by_resource(records, |record| &record.resource);
    ExportLogsServiceRequest { resource_logs: groups.into_iter().map(group).collect() }
}

fn convert(record: &LogRecord) -> ProtoRecord {
    let text = any_value::Value::StringValue(record.body.clone());
    ProtoRecord {
        time_unix_nano: record.wall_ns(),
        // Seen as it is written.
        observed_time_unix_nano: record.wall_ns(),
        severity_number: record.severity.0.into(),
        severity_text: record.severity_text.clone(),
        body: Some(AnyValue { value: Some(text) }),
        attributes: attributes(&record.attributes),
        dropped_attributes_count: 0,
        flags: if record.trace_id.is_some() { SAMPLED } else { 0 },
        trace_id: record.trace_id.map(|id| id.0.to_vec()).unwrap_or_default(),
        span_id: record.span_id.map(|id| id.0.to_vec()).unwrap_or_default(),
        event_name: String::new(),
    }
}

/// Log records to a receiver. Spans are another sink's.
impl SpanSink for OtlpSink<LogItem> {
    fn name(&self) -> &'static str {
        Signal::Logs.sink()
    }
    fn submit(&self, _span: &Item) {}
    fn submit_log(&self, record: &LogItem) {
        self.take(record.clone());
    }
    fn wait_for_room(&self, patience: Duration) {
        self.wait_for_room(patience);
    }
    fn books(&self) -> Books {
        self.books()
    }
    fn begin_stop(&self, deadline: Instant) {
        self.begin_stop(deadline);
    }
    fn wait_stopped(&self, deadline: Instant) {
        self.wait_stopped(deadline);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message as _;

    use super::*;
    use crate::export::fixture;
    use crate::trace::logs::Severity;
    use crate::trace::model::{Attributes, SpanId, TraceId};

    fn record(service: &Arc<Resource>, body: &str, trace: Option<u8>) -> LogItem {
        let mut attributes = Attributes::new();
        attributes.set("log.logger", "a.b".to_owned());
        Arc::new(LogRecord {
            ts: 7,
            wall_offset_ns: fixture::EPOCH_NS,
            severity: Severity::ERROR,
            severity_text: "ERROR".into(),
            body: body.into(),
            trace_id: trace.map(|t| TraceId([t; 16])),
            span_id: trace.map(|t| SpanId([t; 8])),
            attributes,
            resource: service.clone(),
        })
    }

    #[test]
    fn records_are_grouped_by_service_and_keep_their_trace() {
        let (api, worker) = (fixture::service("api"), fixture::service("worker"));
        let records =
            [record(&api, "one", Some(1)), record(&worker, "two", None), record(&api, "three", None)];
        let bytes = LogItem::encode(&records, Protocol::Grpc);
        let request = ExportLogsServiceRequest::decode(bytes).unwrap();
        let sizes: Vec<usize> =
            request.resource_logs.iter().map(|r| r.scope_logs[0].log_records.len()).collect();
        assert_eq!(sizes, [2, 1]);
        let first = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!((first.severity_number, first.trace_id.as_slice()), (17, &[1; 16][..]));
        assert_eq!((first.span_id.as_slice(), first.flags), (&[1; 8][..], SAMPLED));
        assert_eq!(first.time_unix_nano, fixture::EPOCH_NS as u64 + 7);
        let second = &request.resource_logs[1].scope_logs[0].log_records[0];
        assert!(second.trace_id.is_empty() && second.flags == 0);
        let json: serde_json::Value =
            serde_json::from_slice(&LogItem::encode(&records, Protocol::HttpJson)).unwrap();
        assert_eq!(json["resourceLogs"][0]["scopeLogs"][0]["logRecords"][1]["body"]["stringValue"], "three");
    }
}
