//! Spans for the tests of this module: KTRDR's data download with the IB host down.

use std::sync::Arc;

use super::Item;
use crate::event::MS;
use crate::trace::model::{Attributes, Link, Resource, Span, SpanEvent, SpanId, SpanKind, Status, TraceId};

/// 2025-11-13 12:15:06 UTC, the boot clock's zero of these spans.
pub const EPOCH_NS: i64 = 1_763_036_106_000_000_000;

/// A service.
pub fn service(name: &str) -> Arc<Resource> {
    let mut attributes = Attributes::new();
    attributes.set("service.name", name.to_owned());
    attributes.set("process.pid", 4711_i64);
    Arc::new(Resource { service: name.to_owned(), attributes })
}

/// A span with ids made from numbers (0 = no parent), times in milliseconds.
pub fn span(
    trace: u8,
    id: u8,
    parent: u8,
    resource: &Arc<Resource>,
    kind: SpanKind,
    name: &str,
    ms: (u64, u64),
) -> Span {
    Span {
        trace_id: TraceId([trace; 16]),
        span_id: SpanId([id; 8]),
        parent_span_id: (parent != 0).then_some(SpanId([parent; 8])),
        kind,
        name: name.into(),
        start: ms.0 * MS,
        end: ms.1 * MS,
        wall_offset_ns: EPOCH_NS,
        status: Status::Unset,
        attributes: Attributes::new(),
        events: Vec::new(),
        links: Vec::new(),
        resource: resource.clone(),
    }
}

/// A call as both ends saw it, client and server span.
#[allow(clippy::too_many_arguments)]
pub fn call(
    trace: u8,
    id: u8,
    parent: u8,
    from: &Arc<Resource>,
    to: &Arc<Resource>,
    name: &str,
    ms: (u64, u64),
    status: i64,
) -> [Span; 2] {
    let mut client = span(trace, id, parent, from, SpanKind::Client, name, ms);
    let mut server = span(trace, id + 1, id, to, SpanKind::Server, name, (ms.0 + 1, ms.1.saturating_sub(1)));
    for span in [&mut client, &mut server] {
        span.attributes.set("http.response.status_code", status);
        if status >= 500 {
            span.status = Status::Error(String::new());
            span.attributes.set("error.type", status.to_string());
        }
    }
    client.attributes.set("server.address", "127.0.0.1");
    client.attributes.set("server.port", 8000_i64);
    server.attributes.set("ktrdr.link.method", "connection");
    [client, server]
}

/// A connect that was refused.
pub fn refused(trace: u8, id: u8, parent: u8, from: &Arc<Resource>) -> Span {
    let mut span =
        span(trace, id, parent, from, SpanKind::Client, "connect ktrdr-ib-host-service", (520, 520));
    span.end += MS / 10;
    span.attributes.set("server.address", "127.0.0.1");
    span.attributes.set("server.port", 5001_i64);
    span.attributes.set("peer.service", "ktrdr-ib-host-service");
    span.attributes.set("error.type", "connection_refused");
    span.status = Status::Error(
        "ktrdr-api could not connect to ktrdr-ib-host-service at 127.0.0.1:5001: connection refused, nothing is \
         listening on port 5001 (pid 4711 `python main.py` listened until 12 s ago and exited with status 1)"
            .into(),
    );
    span
}

/// The whole trace, in the order spans end.
pub fn download() -> Vec<Item> {
    let (cli, api) = (service("ktrdr-cli"), service("ktrdr-api"));
    let name = "POST /api/v1/data/acquire/download";
    let [client, server] = call(1, 1, 0, &cli, &api, name, (512, 546), 502);
    [refused(1, 3, 2, &api), server, client].map(Arc::new).to_vec()
}

/// One span that uses every field and every kind of value.
pub fn everything() -> Span {
    let mut span = refused(0xab, 0xcd, 0xef, &service("ktrdr-api"));
    span.attributes.set("text", "a \"quoted\" \n line".to_owned());
    span.attributes.set("negative", -7_i64);
    span.attributes.set("float", 0.25_f64);
    span.attributes.set("bool", false);
    span.attributes.set("empty", String::new());
    span.attributes.set("list", vec!["a".to_owned(), String::new()]);
    let mut details = Attributes::new();
    details.set("ktrdr.attempt", 2_i64);
    span.events.push(SpanEvent { ts: span.start + 7, name: "connect".into(), attributes: details.clone() });
    let (trace_id, span_id) = (TraceId([9; 16]), SpanId([8; 8]));
    span.links.push(Link { trace_id, span_id, attributes: details });
    span
}
