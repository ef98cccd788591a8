//! Metrics as the messages of `opentelemetry-proto`: a few hundred kilobytes every some seconds, so the plain way.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as ProtoExemplar, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use prost::Message as _;

use super::convert::{SCHEMA_URL, SCOPE_NAME, SCOPE_VERSION, resource_attributes};
use super::options::{Protocol, Signal};
use super::worker::Payload;
use crate::metrics::{Exemplar, Kind, OwnedLabel, Point, Slice, Snapshot, Value};

/// Series in one request: 2,000 histograms with exemplars are below 1.5 MB, and receivers take 4.
pub const SERIES_PER_REQUEST: usize = 2_000;

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

impl Payload for Slice {
    const SIGNAL: Signal = Signal::Metrics;
    fn encode(items: &[Self], protocol: Protocol) -> Bytes {
        let resource_metrics =
            items.iter().flat_map(|slice| convert(&slice.snapshot, slice.points())).collect();
        let request = ExportMetricsServiceRequest { resource_metrics };
        match protocol {
            Protocol::Grpc | Protocol::HttpProtobuf => request.encode_to_vec().into(),
            // As for spans: there is nothing in it that JSON could not hold.
            Protocol::HttpJson => serde_json::to_vec(&request).unwrap_or_default().into(),
        }
    }
}

/// Points, which are sorted by service and instrument, as messages.
fn convert(snapshot: &Snapshot, points: &[Point]) -> Vec<ResourceMetrics> {
    let of_service = |points: &[Point]| {
        let resource = points.first().and_then(|p| snapshot.services.get(usize::from(p.service)));
        let attributes = resource.map(|r| resource_attributes(r)).unwrap_or_default();
        ResourceMetrics {
            resource: Some(ProtoResource { attributes, ..ProtoResource::default() }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: SCOPE_NAME.into(),
                    version: SCOPE_VERSION.into(),
                    ..InstrumentationScope::default()
                }),
                metrics: points
                    .chunk_by(|a, b| a.id == b.id)
                    .map(|points| metric(snapshot, points))
                    .collect(),
                schema_url: SCHEMA_URL.into(),
            }],
            schema_url: SCHEMA_URL.into(),
        }
    };
    points.chunk_by(|a, b| a.service == b.service).map(of_service).collect()
}

/// Points of one instrument.
fn metric(snapshot: &Snapshot, points: &[Point]) -> Metric {
    let Some(instrument) = points.first().map(|p| p.id.instrument()) else { return Metric::default() };
    let numbers = || points.iter().filter_map(|p| number(snapshot, p)).collect();
    let sum = |is_monotonic| {
        Data::Sum(Sum { data_points: numbers(), aggregation_temporality: CUMULATIVE, is_monotonic })
    };
    let data = match instrument.kind {
        Kind::Counter | Kind::FloatCounter => sum(true),
        Kind::UpDown => sum(false),
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Histogram(bounds) => Data::Histogram(Histogram {
            data_points: points.iter().filter_map(|p| histogram(snapshot, p, bounds)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    Metric {
        name: instrument.name.into(),
        description: instrument.description.into(),
        unit: instrument.unit.into(),
        data: Some(data),
        ..Metric::default()
    }
}

fn number(snapshot: &Snapshot, p: &Point) -> Option<NumberDataPoint> {
    let value = match &p.value {
        Value::Int(n) => number_data_point::Value::AsInt(i64::try_from(*n).unwrap_or(i64::MAX)),
        Value::Float(f) => number_data_point::Value::AsDouble(*f),
        Value::Histogram(_) => return None,
    };
    Some(NumberDataPoint {
        attributes: labels(p),
        start_time_unix_nano: snapshot.start_wall_ns,
        time_unix_nano: snapshot.wall_ns,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn histogram(snapshot: &Snapshot, p: &Point, bounds: &[f64]) -> Option<HistogramDataPoint> {
    let Value::Histogram(h) = &p.value else { return None };
    Some(HistogramDataPoint {
        attributes: labels(p),
        start_time_unix_nano: snapshot.start_wall_ns,
        time_unix_nano: snapshot.wall_ns,
        count: h.count(),
        sum: Some(h.sum),
        bucket_counts: h.counts.to_vec(),
        explicit_bounds: bounds.to_vec(),
        exemplars: h.exemplars.iter().flatten().map(of_trace).collect(),
        ..HistogramDataPoint::default()
    })
}

fn of_trace(e: &Exemplar) -> ProtoExemplar {
    ProtoExemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: e.wall_ns,
        span_id: e.span_id.0.to_vec(),
        trace_id: e.trace_id.0.to_vec(),
        value: Some(exemplar::Value::AsDouble(e.value)),
    }
}

fn labels(p: &Point) -> Vec<KeyValue> {
    let value = |label: &OwnedLabel| match label {
        OwnedLabel::Str(s) => any_value::Value::StringValue(s.to_string()),
        OwnedLabel::Int(n) => any_value::Value::IntValue(*n),
        OwnedLabel::Bool(b) => any_value::Value::BoolValue(*b),
    };
    let pair = |(key, label): &(&'static str, OwnedLabel)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(value(label)) }),
        key_strindex: 0,
    };
    p.labels.iter().map(pair).collect()
}
