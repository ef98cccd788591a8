//! From a finished span to its measurements.

use smallvec::SmallVec;

use super::graph::{Call, Graph};
use super::label::{Given, Label};
use super::{Exemplar, Id, Registry, ServiceId};
use crate::trace::model::{Span, SpanKind, Status, Value};

/// How operations end.
pub const ENDS: [&str; 3] = ["completed", "failed", "cancelled"];

/// What measurements need of a span's attributes, found in one pass: a span has about twenty.
#[derive(Default)]
struct Seen<'a> {
    method: Option<&'a str>,
    scheme: Option<&'a str>,
    status: Option<i64>,
    error: Option<&'a str>,
    address: Option<&'a str>,
    port: Option<i64>,
    template: Option<&'a str>,
    peer: Option<&'a str>,
    request_size: Option<i64>,
    response_size: Option<i64>,
    connect: bool,
    connected: bool,
    ib_method: Option<&'a str>,
    ib_error: Option<i64>,
    operation_type: Option<&'a str>,
    operation_status: Option<&'a str>,
    polls: bool,
    worker: Option<&'a str>,
    worker_type: Option<&'a str>,
    selection: Option<&'a str>,
    registration: Option<&'a str>,
    joined: bool,
}

impl<'a> Seen<'a> {
    fn of(span: &'a Span) -> Self {
        let mut seen = Self::default();
        for a in &span.attributes {
            let text = || a.value.as_str();
            let int = || match a.value {
                Value::Int(n) => Some(n),
                _ => None,
            };
            match &*a.key {
                "http.request.method" => seen.method = text(),
                "url.scheme" => seen.scheme = text(),
                "http.response.status_code" => seen.status = int(),
                "error.type" => seen.error = text(),
                "server.address" => seen.address = text(),
                "server.port" => seen.port = int(),
                "url.template" => seen.template = text(),
                "peer.service" => seen.peer = text(),
                "http.request.body.size" => seen.request_size = int(),
                "http.response.body.size" => seen.response_size = int(),
                "ktrdr.connect.attempt" => seen.connect = true,
                "rpc.method" => seen.ib_method = text(),
                "rpc.system" => seen.connected = text() == Some("ib"),
                "ib.error.code" => seen.ib_error = int(),
                "operation.type" => seen.operation_type = text(),
                "operation.status" => seen.operation_status = text(),
                "ktrdr.operation.polls" => seen.polls = true,
                "worker.selected_id" => seen.worker = text(),
                "worker.type" => seen.worker_type = text(),
                "worker.selection_status" => seen.selection = text(),
                "worker.registration_status" => seen.registration = text(),
                "ktrdr.link.method" => seen.joined = text() == Some("connection"),
                _ => {}
            }
        }
        seen
    }
}

/// The attributes that are there, in the order given.
fn labels<'a, const N: usize>(of: [(&'static str, Option<Label<'a>>); N]) -> SmallVec<[Given<'a>; 8]> {
    of.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn text(value: Option<&str>) -> Option<Label<'_>> {
    value.map(Label::from)
}

fn int<'a>(value: Option<i64>) -> Option<Label<'a>> {
    value.map(Label::from)
}

/// All measurements of a span.
pub(super) fn measure(registry: &mut Registry, graph: &mut Graph, service: ServiceId, span: &Span) {
    let seen = Seen::of(span);
    let value = seconds(span);
    let exemplar =
        Exemplar { value, wall_ns: span.end_wall_ns(), trace_id: span.trace_id, span_id: span.span_id };
    match span.kind {
        SpanKind::Server if seen.method.is_some() => {
            http_server(registry, service, span, &seen, exemplar);
        }
        SpanKind::Client if seen.method.is_some() => http_client(registry, service, &seen, exemplar),
        SpanKind::Client if seen.connect => connect_failed(registry, service, &seen),
        SpanKind::Client if seen.connected => ib(registry, service, &seen, exemplar),
        SpanKind::Internal if seen.polls => operation(registry, service, &seen, exemplar),
        _ => {}
    }
    gpu(registry, service, span, exemplar);
    if let (SpanKind::Client, Some(status)) = (span.kind, seen.selection) {
        let of = labels([
            ("worker.type", text(seen.worker_type)),
            ("worker.id", text(seen.worker)),
            ("worker.selection_status", text(Some(status))),
        ]);
        registry.add(service, Id::WorkerDispatches, &of, 1);
    }
    // At the server's end only: whoever registers may be seen too.
    if let (SpanKind::Server, Some("registered")) = (span.kind, seen.registration) {
        let of = labels([("worker.type", text(seen.worker_type))]);
        registry.add(service, Id::WorkersRegistered, &of, 1);
    }
    if span.kind != SpanKind::Internal {
        let call = Call {
            seconds: value,
            failed: matches!(span.status, Status::Error(_)),
            peer: seen.peer.or(seen.address),
            joined: seen.joined,
        };
        graph.call(registry, service, span, &call, exemplar);
    }
}

/// What the GPU did meanwhile, for the spans that were told.
fn gpu(r: &mut Registry, service: ServiceId, span: &Span, exemplar: Exemplar) {
    let Some(Value::Float(mean)) = span.attributes.get("ktrdr.gpu.utilization.avg") else { return };
    let of = |key| text(span.attributes.get(key).and_then(Value::as_str));
    let labels = labels([("hw.id", of("hw.id")), ("hw.name", of("hw.name"))]);
    r.observe(service, Id::GpuCallUtilization, &labels, *mean, Some(Exemplar { value: *mean, ..exemplar }));
}

fn http_server(r: &mut Registry, service: ServiceId, span: &Span, seen: &Seen<'_>, exemplar: Exemplar) {
    // The name is the method and the path's template, where there is one.
    let route = span.name.split_once(' ').map(|(_, route)| route).filter(|route| route.starts_with('/'));
    let of = labels([
        ("http.request.method", text(seen.method)),
        ("url.scheme", text(seen.scheme)),
        ("http.route", text(route)),
        ("http.response.status_code", int(seen.status)),
        ("error.type", text(seen.error)),
    ]);
    r.observe(service, Id::HttpServerDuration, &of, exemplar.value, Some(exemplar));
    sizes(r, service, &of, seen, Id::HttpServerRequestBody, Id::HttpServerResponseBody);
}

fn http_client(r: &mut Registry, service: ServiceId, seen: &Seen<'_>, exemplar: Exemplar) {
    let of = labels([
        ("http.request.method", text(seen.method)),
        ("server.address", text(seen.address)),
        ("server.port", int(seen.port)),
        ("url.template", text(seen.template)),
        ("http.response.status_code", int(seen.status)),
        ("error.type", text(seen.error)),
        ("peer.service", text(seen.peer)),
    ]);
    r.observe(service, Id::HttpClientDuration, &of, exemplar.value, Some(exemplar));
    sizes(r, service, &of, seen, Id::HttpClientRequestBody, Id::HttpClientResponseBody);
}

/// Sizes of bodies, where they are known.
fn sizes(r: &mut Registry, service: ServiceId, of: &[Given<'_>], seen: &Seen<'_>, request: Id, response: Id) {
    for (id, size) in [(request, seen.request_size), (response, seen.response_size)] {
        if let Some(size) = size {
            r.observe(service, id, of, float(size.unsigned_abs()), None);
        }
    }
}

fn connect_failed(r: &mut Registry, service: ServiceId, seen: &Seen<'_>) {
    let of = labels([
        ("server.address", text(seen.address)),
        ("server.port", int(seen.port)),
        ("error.type", text(seen.error)),
        ("peer.service", text(seen.peer)),
    ]);
    r.add(service, Id::Connects, &of, 1);
}

fn ib(r: &mut Registry, service: ServiceId, seen: &Seen<'_>, exemplar: Exemplar) {
    let of = labels([("rpc.method", text(seen.ib_method)), ("error.type", text(seen.error))]);
    r.observe(service, Id::IbDuration, &of, exemplar.value, Some(exemplar));
    if let Some(code) = seen.ib_error {
        let of = labels([("rpc.method", text(seen.ib_method)), ("ib.error.code", int(Some(code)))]);
        r.add(service, Id::IbErrors, &of, 1);
    }
}

/// An operation that is still under way (the agent stops) did not end.
fn operation(r: &mut Registry, service: ServiceId, seen: &Seen<'_>, exemplar: Exemplar) {
    let Some(status) = seen.operation_status.filter(|s| ENDS.contains(s)) else { return };
    let of = labels([("operation.type", text(seen.operation_type)), ("status", text(Some(status)))]);
    r.add(service, Id::Operations, &of, 1);
    r.observe(service, Id::OperationDuration, &of, exemplar.value, Some(exemplar));
}

fn seconds(span: &Span) -> f64 {
    float(span.end.saturating_sub(span.start)) / 1e9
}

/// Exact up to 2^53.
fn float(n: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let f = n as f64;
    f
}
