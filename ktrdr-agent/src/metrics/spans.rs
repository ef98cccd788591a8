//! From a finished span to its measurements.

use smallvec::SmallVec;

use super::graph::Call as Ends;
use super::known::Call;
use super::label::{Given, Label};
use super::registry::Measured;
use super::{Exemplar, Id, Metrics, Registry, ServiceId};
use crate::trace::model::{Attributes, Span, SpanKind, Status, Value};

/// How operations end.
pub const ENDS: [&str; 3] = ["completed", "failed", "cancelled"];

/// What measurements ask of a span's attributes. That of calls is found in one pass: asked for one by one it took a third of
/// what they cost.
struct Seen<'a> {
    all: &'a Attributes,
    method: Option<&'a str>,
    error: Option<&'a str>,
    address: Option<&'a str>,
    peer: Option<&'a str>,
    link: Option<&'a str>,
    status: Option<i64>,
    request_size: Option<i64>,
    response_size: Option<i64>,
}

impl<'a> Seen<'a> {
    fn of(all: &'a Attributes) -> Self {
        let (method, error, address, peer, link) = (None, None, None, None, None);
        let (status, request_size, response_size) = (None, None, None);
        let mut seen = Self { all, method, error, address, peer, link, status, request_size, response_size };
        for a in all {
            match &*a.key {
                "http.request.method" => seen.method = a.value.as_str(),
                "error.type" => seen.error = a.value.as_str(),
                "server.address" => seen.address = a.value.as_str(),
                "peer.service" => seen.peer = a.value.as_str(),
                "ktrdr.link.method" => seen.link = a.value.as_str(),
                "http.response.status_code" => seen.status = number(&a.value),
                "http.request.body.size" => seen.request_size = number(&a.value),
                "http.response.body.size" => seen.response_size = number(&a.value),
                _ => {}
            }
        }
        seen
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.all.get(key).and_then(Value::as_str)
    }

    fn int(&self, key: &str) -> Option<i64> {
        self.all.get(key).and_then(number)
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        _ => None,
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
pub(super) fn measure(m: &mut Metrics, service: ServiceId, span: &Span) {
    let seen = &Seen::of(&span.attributes);
    let value = seconds(span);
    let exemplar =
        Exemplar { value, wall_ns: span.end_wall_ns(), trace_id: span.trace_id, span_id: span.span_id };
    match span.kind {
        SpanKind::Server | SpanKind::Client if seen.method.is_some() => {
            http(m, service, span, seen, exemplar);
        }
        SpanKind::Client if seen.all.get("ktrdr.connect.attempt").is_some() => {
            connect_failed(&mut m.registry, service, seen);
        }
        SpanKind::Client if seen.text("rpc.system") == Some("ib") => {
            ib(&mut m.registry, service, seen, exemplar);
        }
        SpanKind::Internal if seen.all.get("ktrdr.operation.polls").is_some() => {
            operation(&mut m.registry, service, seen, exemplar);
        }
        _ => {}
    }
    gpu(&mut m.registry, service, span, exemplar);
    if let (SpanKind::Client, Some(status)) = (span.kind, seen.text("worker.selection_status")) {
        let of = labels([
            ("worker.type", text(seen.text("worker.type"))),
            ("worker.id", text(seen.text("worker.selected_id"))),
            ("worker.selection_status", text(Some(status))),
        ]);
        m.registry.add(service, Id::WorkerDispatches, &of, 1);
    }
    // At the server's end only: whoever registers may be seen too.
    if let (SpanKind::Server, Some("registered")) = (span.kind, seen.text("worker.registration_status")) {
        let of = labels([("worker.type", text(seen.text("worker.type")))]);
        m.registry.add(service, Id::WorkersRegistered, &of, 1);
    }
    if span.kind != SpanKind::Internal {
        let call = Ends {
            seconds: value,
            failed: matches!(span.status, Status::Error(_)),
            peer: seen.peer.or(seen.address),
            joined: seen.link == Some("connection"),
        };
        m.graph.call(&mut m.registry, service, span, &call, exemplar);
    }
}

/// What the GPU did meanwhile, for the spans that were told.
fn gpu(r: &mut Registry, service: ServiceId, span: &Span, exemplar: Exemplar) {
    let Some(Value::Float(mean)) = span.attributes.get("ktrdr.gpu.utilization.avg") else { return };
    let of = |key| text(span.attributes.get(key).and_then(Value::as_str));
    let labels = labels([("hw.id", of("hw.id")), ("hw.name", of("hw.name"))]);
    r.observe(service, Id::GpuCallUtilization, &labels, *mean, Some(Exemplar { value: *mean, ..exemplar }));
}

/// Duration of an HTTP call, and sizes of its bodies where they are known.
fn http(m: &mut Metrics, service: ServiceId, span: &Span, seen: &Seen<'_>, exemplar: Exemplar) {
    let [duration, request, response] = match span.kind {
        SpanKind::Server => SERVED,
        _ => CALLED,
    };
    let mut all: SmallVec<[(Id, Measured); 3]> = SmallVec::new();
    all.push((duration, Measured::Value(exemplar.value, Some(exemplar))));
    for (id, size) in [(request, seen.request_size), (response, seen.response_size)] {
        all.extend(size.map(|size| (id, Measured::Value(float(size.unsigned_abs()), None))));
    }
    let status = seen.status;
    let like = seen.all.common().zip(status).filter(|_| seen.error.is_none());
    let like =
        like.map(|(common, status)| Call { common, service, status, name: &span.name, peer: seen.peer });
    if let Some(like) = &like
        && m.calls.get(like).is_some_and(|set| m.registry.measure_at(set, &all))
    {
        return;
    }
    let of = match span.kind {
        SpanKind::Server => served(span, seen, status),
        _ => called(seen, status),
    };
    if let (Some(set), Some(like)) = (m.registry.measure(service, &of, &all), like) {
        m.calls.note(&like, set);
    }
}

/// Duration, size of the request's body, of the response's.
const SERVED: [Id; 3] = [Id::HttpServerDuration, Id::HttpServerRequestBody, Id::HttpServerResponseBody];
/// The same at the client.
const CALLED: [Id; 3] = [Id::HttpClientDuration, Id::HttpClientRequestBody, Id::HttpClientResponseBody];

fn served<'a>(span: &'a Span, seen: &Seen<'a>, status: Option<i64>) -> SmallVec<[Given<'a>; 8]> {
    // The name is the method and the path's template, where there is one.
    let route = span.name.split_once(' ').map(|(_, route)| route).filter(|route| route.starts_with('/'));
    labels([
        ("http.request.method", text(seen.method)),
        ("url.scheme", text(seen.text("url.scheme"))),
        ("http.route", text(route)),
        ("http.response.status_code", int(status)),
        ("error.type", text(seen.error)),
    ])
}

fn called<'a>(seen: &Seen<'a>, status: Option<i64>) -> SmallVec<[Given<'a>; 8]> {
    labels([
        ("http.request.method", text(seen.method)),
        ("server.address", text(seen.address)),
        ("server.port", int(seen.int("server.port"))),
        ("url.template", text(seen.text("url.template"))),
        ("http.response.status_code", int(status)),
        ("error.type", text(seen.error)),
        ("peer.service", text(seen.peer)),
    ])
}

fn connect_failed(r: &mut Registry, service: ServiceId, seen: &Seen<'_>) {
    let of = labels([
        ("server.address", text(seen.address)),
        ("server.port", int(seen.int("server.port"))),
        ("error.type", text(seen.error)),
        ("peer.service", text(seen.peer)),
    ]);
    r.add(service, Id::Connects, &of, 1);
}

fn ib(r: &mut Registry, service: ServiceId, seen: &Seen<'_>, exemplar: Exemplar) {
    let of = labels([("rpc.method", text(seen.text("rpc.method"))), ("error.type", text(seen.error))]);
    r.observe(service, Id::IbDuration, &of, exemplar.value, Some(exemplar));
    if let Some(code) = seen.int("ib.error.code") {
        let of = labels([("rpc.method", text(seen.text("rpc.method"))), ("ib.error.code", int(Some(code)))]);
        r.add(service, Id::IbErrors, &of, 1);
    }
}

/// An operation that is still under way (the agent stops) did not end.
fn operation(r: &mut Registry, service: ServiceId, seen: &Seen<'_>, exemplar: Exemplar) {
    let Some(status) = seen.text("operation.status").filter(|s| ENDS.contains(s)) else { return };
    let of = labels([("operation.type", text(seen.text("operation.type"))), ("status", text(Some(status)))]);
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
