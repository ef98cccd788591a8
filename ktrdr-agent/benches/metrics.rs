//! What metrics cost on a busy host, and that they keep to their bound: `cargo xtask bench metrics`.
//!
//! 20,000 requests/s of 500 routes for half a minute, both ends of each, then the worst that can be: as many series as are
//! kept, of the largest kind, with the longest texts. Ends with an error if either takes more memory than
//! `metrics::registry` says.

use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ktrdr_agent::export::prometheus::text::{Format, render};
use ktrdr_agent::metrics::registry::{MAX_BYTES, MAX_SERIES, USUAL_BYTES};
use ktrdr_agent::metrics::{Exemplar, Id, Metrics};
use ktrdr_agent::trace::model::{Attributes, Resource, Span, SpanId, SpanKind, Status, TraceId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS_PER_SECOND: u64 = 20_000;
const SECONDS: u64 = 30;
const ROUTES: u64 = 500;
const SERVICES: u64 = 10;
/// As often as metrics are sent by default.
const SNAPSHOT_EVERY: u64 = 15;
const MIB: f64 = (1 << 20) as f64;

fn resource(service: &str) -> Arc<Resource> {
    let mut attributes = Attributes::new();
    attributes.set("service.name", service.to_owned());
    attributes.set("host.name", "bench");
    Arc::new(Resource { service: service.to_owned(), attributes })
}

/// Both ends of a request of one route, to be given times and ids.
fn template(route: u64, client: &Arc<Resource>, server: &Arc<Resource>) -> [Span; 2] {
    [SpanKind::Client, SpanKind::Server].map(|kind| {
        let mut attributes = Attributes::new();
        attributes.set("http.request.method", if route.is_multiple_of(4) { "POST" } else { "GET" });
        attributes.set("url.scheme", "http");
        attributes.set("http.response.status_code", 200_i64);
        attributes.set("http.request.body.size", 120_i64);
        attributes.set("http.response.body.size", 2_000_i64);
        attributes.set("server.address", "127.0.0.1");
        attributes.set("server.port", 8000 + (route % SERVICES) as i64);
        if kind == SpanKind::Client {
            attributes.set("url.template", format!("/api/v1/resource-{route}/{{id}}/detail"));
            attributes.set("peer.service", server.service.clone());
        } else {
            attributes.set("ktrdr.link.method", "connection");
        }
        Span {
            trace_id: TraceId::default(),
            span_id: SpanId::default(),
            parent_span_id: None,
            kind,
            name: format!("GET /api/v1/resource-{route}/{{id}}/detail"),
            start: 0,
            end: 0,
            wall_offset_ns: 0,
            status: Status::Unset,
            attributes,
            events: Vec::new(),
            links: Vec::new(),
            resource: if kind == SpanKind::Client { client } else { server }.clone(),
        }
    })
}

/// Numbers that look like chance and are the same each time (a linear congruential generator).
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Bytes that are held since the region began.
fn held(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}

fn busy() -> usize {
    let services: Vec<_> = (0..SERVICES).map(|n| resource(&format!("service-{n}"))).collect();
    let pick = |n: u64| &services[(n % SERVICES) as usize];
    let mut spans: Vec<_> = (0..ROUTES).map(|route| template(route, pick(route + 1), pick(route))).collect();
    let mut chance = Chance(1);
    let region = Region::new(ALLOCATOR);
    let mut metrics = Metrics::default();
    let (mut spent, mut largest, mut text) = (Duration::ZERO, 0, 0);
    for second in 0..SECONDS {
        for request in 0..REQUESTS_PER_SECOND {
            let now = second * 1_000_000_000 + request * (1_000_000_000 / REQUESTS_PER_SECOND);
            let id = (second * REQUESTS_PER_SECOND + request + 1).to_be_bytes();
            // One in a hundred fails; most take milliseconds, a few take seconds.
            let status = match chance.next(100) {
                0 => 500_i64,
                1..3 => 404,
                _ => 200,
            };
            let took = (1 << chance.next(12)) * 1_000_000;
            let pair = &mut spans[chance.next(ROUTES) as usize];
            for (end, span) in pair.iter_mut().enumerate() {
                (span.start, span.end) = (now, now + took);
                span.trace_id.0[..8].copy_from_slice(&id);
                span.span_id = SpanId((u64::from_be_bytes(id) * 2 + end as u64).to_be_bytes());
                span.parent_span_id = (end == 1).then(|| SpanId((u64::from_be_bytes(id) * 2).to_be_bytes()));
                span.attributes.set("http.response.status_code", status);
                span.status = if status == 500 { Status::Error(String::new()) } else { Status::Unset };
            }
            let begin = Instant::now();
            pair.iter().for_each(|span| metrics.span(span));
            spent += begin.elapsed();
        }
        if second % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1 {
            let before = held(&region);
            let snapshot = metrics.registry.snapshot(second * 1_000_000_000, 1);
            largest = largest.max(held(&region).saturating_sub(before));
            text = text.max(black_box(render(&snapshot, Format::OpenMetrics)).len());
        }
    }
    let bytes = held(&region);
    let count = 2 * SECONDS * REQUESTS_PER_SECOND;
    println!("{REQUESTS_PER_SECOND} requests/s of {ROUTES} routes, both ends, {SECONDS} s:");
    println!("  series held                  {}", metrics.registry.len());
    println!(
        "  memory                       {:.1} MiB (bound {:.0})",
        bytes as f64 / MIB,
        USUAL_BYTES as f64 / MIB
    );
    println!(
        "  for a snapshot, as it is made {:.1} MiB, as text {:.1} MiB",
        largest as f64 / MIB,
        text as f64 / MIB
    );
    println!("  time                         {:.0} ns per span", spent.as_nanos() as f64 / count as f64);
    assert!(metrics.registry.overflow().is_empty(), "{:?}", metrics.registry.overflow());
    bytes
}

fn worst() -> usize {
    let services: Vec<_> = (0..SERVICES).map(|n| resource(&format!("service-{n}"))).collect();
    let region = Region::new(ALLOCATOR);
    let mut metrics = Metrics::default();
    for n in 0..MAX_SERIES as u64 * 2 {
        let service = metrics.registry.service(&services[(n % SERVICES) as usize]);
        let text = format!("{n}-{}", "x".repeat(300));
        let text = || text.as_str().into();
        let labels = [
            ("http.request.method", text()),
            ("server.address", text()),
            ("server.port", 1_i64.into()),
            ("url.template", text()),
            ("http.response.status_code", 500_i64.into()),
            ("error.type", text()),
            ("peer.service", text()),
        ];
        for value in [0.001, 0.007, 0.02, 0.03, 0.06, 0.08, 0.2, 0.3, 0.6, 0.8, 2.0, 3.0, 6.0, 8.0, 20.0] {
            let (trace_id, span_id) = (TraceId::default(), SpanId::default());
            let exemplar = Exemplar { value, wall_ns: n, trace_id, span_id };
            metrics.registry.observe(service, Id::HttpClientDuration, &labels, value, Some(exemplar));
        }
    }
    let bytes = held(&region);
    println!("As many series as are kept, of the largest kind, with the longest texts:");
    println!("  series held                  {}", metrics.registry.len());
    println!(
        "  memory                       {:.1} MiB (bound {:.0})",
        bytes as f64 / MIB,
        MAX_BYTES as f64 / MIB
    );
    bytes
}

fn main() {
    let usual = busy();
    assert!(usual <= USUAL_BYTES, "{usual} bytes");
    let most = worst();
    assert!(most <= MAX_BYTES, "{most} bytes");
}
