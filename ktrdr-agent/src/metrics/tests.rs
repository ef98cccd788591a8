//! Spans in, series out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::registry::{MAX_PER_METRIC, MAX_SERIES, MAX_SERVICES, OTHER_SERVICE, OVERFLOW};
use super::*;
use crate::event::MS;
use crate::export::fixture::{self, call, download, service};
use crate::trace::model::SpanKind;

/// Series of an instrument: service and attributes → value.
fn series(metrics: &mut Metrics, id: Id) -> BTreeMap<String, Value> {
    let snapshot = metrics.registry.snapshot(0, 1);
    let shown = |p: &Point| {
        let labels: Vec<String> = p.labels.iter().map(|(k, v)| format!("{k}={:?}", v.get())).collect();
        format!("{}: {}", snapshot.services[usize::from(p.service)].service, labels.join(" "))
    };
    snapshot.points.iter().filter(|p| p.id == id).map(|p| (shown(p), p.value.clone())).collect()
}

fn counts(metrics: &mut Metrics, id: Id) -> Vec<(String, u64)> {
    let count = |v: Value| match v {
        Value::Int(n) => n,
        Value::Histogram(h) => h.count(),
        Value::Float(f) => f as u64,
    };
    series(metrics, id).into_iter().map(|(k, v)| (k, count(v))).collect()
}

#[test]
fn the_table_is_in_order() {
    let mut names = std::collections::BTreeSet::new();
    for id in Id::ALL {
        let i = id.instrument();
        assert!(names.insert(i.name), "{} is there twice", i.name);
        assert!(i.description.ends_with('.') && !i.description.starts_with(' '), "{i:?}");
        assert!(i.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'_'), "{i:?}");
        if let Kind::Histogram(bounds) = i.kind {
            assert!(bounds.is_sorted() && !bounds.is_empty(), "{i:?}");
        }
    }
}

#[test]
fn a_failed_download_as_metrics() {
    let mut metrics = Metrics::default();
    for span in download() {
        let mut span = (*span).clone();
        if span.name.starts_with("connect ") {
            span.attributes.set("ktrdr.connect.attempt", 1_u32);
        }
        metrics.span(&span);
    }
    assert_eq!(
        counts(&mut metrics, Id::Connects),
        [(
            "ktrdr-api: server.address=Str(\"127.0.0.1\") server.port=Int(5001) \
             error.type=Str(\"connection_refused\") peer.service=Str(\"ktrdr-ib-host-service\")"
                .to_owned(),
            1
        )]
    );
    let failed = counts(&mut metrics, Id::GraphFailed);
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(
        failed[0].0.contains("client=Str(\"ktrdr-api\") server=Str(\"ktrdr-ib-host-service\")"),
        "{failed:?}"
    );
}

fn http(span: &mut crate::trace::model::Span, method: &'static str) {
    span.attributes.set("http.request.method", method);
}

#[test]
fn both_ends_of_calls_are_measured_with_exemplars() {
    let mut metrics = Metrics::default();
    let (cli, api) = (service("ktrdr-cli"), service("ktrdr-api"));
    for n in 0..5 {
        let ends = call(n + 1, 1, 0, &cli, &api, "GET /api/v1/symbols", (0, 20), 200);
        // Either end may be told first.
        let [mut a, mut b] = ends;
        [&mut a, &mut b].into_iter().for_each(|s| http(s, "GET"));
        if n % 2 == 0 {
            std::mem::swap(&mut a, &mut b);
        }
        metrics.span(&a);
        metrics.span(&b);
    }
    let server = series(&mut metrics, Id::HttpServerDuration);
    assert_eq!(server.len(), 1);
    let (name, Value::Histogram(h)) = server.first_key_value().unwrap() else { panic!() };
    assert!(
        name.contains("http.route=Str(\"/api/v1/symbols\") http.response.status_code=Int(200)"),
        "{name}"
    );
    assert_eq!((h.count(), h.counts[2]), (5, 5), "18 ms");
    assert_eq!(h.exemplars[2].unwrap().trace_id.0, [5; 16], "the latest");
    assert_eq!(counts(&mut metrics, Id::HttpClientDuration)[0].1, 5);
    for id in [Id::GraphRequests, Id::GraphClientSeconds, Id::GraphServerSeconds] {
        let edges: u64 = counts(&mut metrics, id).iter().map(|(_, n)| n).sum();
        assert_eq!(edges, 5, "{id:?}");
    }
    assert_eq!(counts(&mut metrics, Id::GraphFailed), []);
}

#[test]
fn operations_count_when_they_ended() {
    let mut metrics = Metrics::default();
    let api = service("ktrdr-api");
    for (status, ms) in [("completed", 2_000), ("failed", 10), ("running", 99)] {
        let mut span = fixture::span(1, 1, 0, &api, SpanKind::Internal, "operation training", (0, ms));
        span.attributes.set("operation.type", "training");
        span.attributes.set("operation.status", status);
        span.attributes.set("ktrdr.operation.polls", 3_u64);
        metrics.span(&span);
    }
    let got = counts(&mut metrics, Id::Operations);
    let want = ["completed", "failed"]
        .map(|s| (format!("ktrdr-api: operation.type=Str(\"training\") status=Str(\"{s}\")"), 1));
    assert_eq!(got, want);
}

#[test]
fn what_does_not_fit_goes_to_one_series_and_is_counted() {
    let mut r = Registry::default();
    let api = r.service(&service("ktrdr-api"));
    for n in 0..i64::from(MAX_PER_METRIC) + 7 {
        r.add(api, Id::Connects, &[("server.port", n.into())], 1);
    }
    r.add(api, Id::Connects, &[("server.port", 3.into())], 1);
    assert_eq!(r.overflow()[&Id::Connects], 7);
    let snapshot = r.snapshot(0, 1);
    let (mut sum, mut overflow) = (0, 0);
    for p in &snapshot.points {
        let Value::Int(n) = p.value else { panic!() };
        sum += n;
        if p.labels[0].0 == OVERFLOW {
            overflow += n;
        }
    }
    assert_eq!((sum, overflow), (u64::from(MAX_PER_METRIC) + 8, 7), "nothing is lost");
}

#[test]
fn services_and_series_are_bounded() {
    let mut r = Registry::default();
    for n in 0..MAX_SERVICES + 50 {
        let id = r.service(&service(&format!("s{n}")));
        for port in 0..100 {
            r.add(id, Id::Connects, &[("server.port", port.into())], 1);
        }
    }
    let snapshot = r.snapshot(0, 1);
    assert_eq!(snapshot.services.len(), MAX_SERVICES);
    assert_eq!(snapshot.services.last().unwrap().service, OTHER_SERVICE);
    assert!(r.len() <= MAX_SERIES + MAX_SERVICES, "{}", r.len());
}

#[test]
fn processes_of_a_service_are_one_and_lose_what_is_theirs_alone() {
    let mut r = Registry::default();
    let (a, b) = (service("api"), service("api"));
    assert_eq!(r.service(&a), r.service(&b));
    assert!(r.knows(&a) && r.knows(&service("api")) && !r.knows(&service("cli")));
    let snapshot = r.snapshot(0, 1);
    assert_eq!(snapshot.services.len(), 1);
    assert!(snapshot.services[0].attributes.get("process.pid").is_none());
}

#[test]
fn readings_go_out_of_date_and_sums_do_not() {
    let mut m = Metrics::default();
    let api: Arc<Resource> = service("api");
    m.gauge(&api, Id::AgentConnections, &[], 3.0, 5 * MS);
    m.exited(&api, 1, 9, Some("SIGKILL"));
    assert_eq!(m.registry.snapshot(60_000 * MS, 1).points.len(), 2);
    assert_eq!(m.registry.snapshot(61_000 * MS, 1).points.len(), 1);
}

#[test]
fn a_number_of_things_stays_zero_for_an_hour() {
    let mut r = Registry::default();
    let api = r.service(&service("api"));
    let hour = 3_600_000 * MS;
    r.one_more(api, Id::WorkersAvailable, &[], MS);
    for now in [2 * MS, hour] {
        r.none(Id::WorkersAvailable, now);
        assert_eq!(r.snapshot(now, 1).points[0].value, Value::Float(0.0));
    }
    r.none(Id::WorkersAvailable, hour + 3 * MS);
    assert_eq!(r.snapshot(hour + 3 * MS, 1).points, []);
}

#[test]
fn registrations_count_at_the_servers_end() {
    let mut metrics = Metrics::default();
    let api = service("ktrdr-api");
    for (kind, status) in
        [(SpanKind::Server, "registered"), (SpanKind::Client, "registered"), (SpanKind::Server, "rejected")]
    {
        let mut span = fixture::span(1, 1, 0, &api, kind, "POST /api/v1/workers/register", (0, 5));
        span.attributes.set("worker.type", "training");
        span.attributes.set("worker.registration_status", status);
        metrics.span(&span);
    }
    let got = counts(&mut metrics, Id::WorkersRegistered);
    assert_eq!(got, [("ktrdr-api: worker.type=Str(\"training\")".to_owned(), 1)]);
}

#[test]
fn who_listens_after_the_last_one_ended_was_restarted() {
    let mut m = Metrics::default();
    let api = service("api");
    m.listens(&api, 1);
    m.listens(&api, 2);
    m.exited(&api, 1, 0, None);
    m.listens(&api, 3);
    assert_eq!(counts(&mut m, Id::ProcessRestarts), [], "a second worker, and a handover");
    m.exited(&api, 3, 1 << 8, None);
    m.listens(&api, 4);
    m.listens(&api, 4);
    assert_eq!(counts(&mut m, Id::ProcessRestarts)[0].1, 1);
    let exits = counts(&mut m, Id::ProcessExits);
    assert_eq!(exits[1].0, "api: process.exit.code=Int(1)", "{exits:?}");
}

#[test]
fn a_start_never_moves_and_is_not_after_the_end() {
    let mut r = Registry::default();
    r.started(100);
    r.started(50);
    assert_eq!(r.snapshot(0, 200).start_wall_ns, 100);
    assert_eq!(r.snapshot(0, 70).start_wall_ns, 70, "the clock went back");
}

#[test]
fn long_texts_are_cut_to_one_series() {
    let mut r = Registry::default();
    let api = r.service(&service("api"));
    let long = "ä".repeat(1000);
    for _ in 0..2 {
        r.add(api, Id::Connects, &[("server.address", long.as_str().into())], 1);
    }
    assert_eq!(r.len(), 1);
}

#[test]
fn calls_like_one_before_are_counted_as_if_they_were_the_first() {
    use crate::trace::model::Attributes;
    const PORT: &str = "network.peer.port";
    let head = |n: u16, shared: bool| {
        let mut a = Attributes::new();
        a.push("http.request.method", "GET");
        a.push("url.scheme", "http");
        a.push("server.address", "127.0.0.1");
        a.push("server.port", 8000 + n % 2);
        a.push(PORT, 1_u16);
        if shared {
            a.share(PORT);
        }
        a
    };
    let services = ["ktrdr-cli", "ktrdr-api", "ktrdr-ib-host-service"].map(service);
    let names = ["GET /a", "GET /b"];
    let play = |shared: bool| {
        let mut m = Metrics::default();
        let heads = [0, 1, 2].map(|n| head(n, shared));
        // A reading that will be out of date: what was measured after it moves up then.
        let first = m.registry.service(&services[0]);
        m.registry.set(first, Id::OperationStalled, &[("operation.type", "x".into())], 1.0, 0);
        for n in 0..600_usize {
            let (from, to) = if n % 4 == 0 { (0, 1) } else { (1, 2) };
            let status = [200, 200, 404, 200, 500][n % 5];
            let ms = (0, 2 + n as u64 % 40);
            for mut s in call(1, 1, 0, &services[from], &services[to], names[n / 2 % 2], ms, status) {
                let mut a = heads[n % 3].clone();
                a.set(PORT, n as u64);
                a.extend(s.attributes);
                if n % 7 == 0 {
                    a.set("server.address", "10.0.0.1");
                }
                s.attributes = a;
                m.span(&s);
            }
            if n == 300 {
                m.registry.snapshot(200_000 * MS, 1);
            }
        }
        m.registry.snapshot(200_001 * MS, 1)
    };
    let (with, without) = (play(true), play(false));
    assert_eq!(with, without);
    assert!(with.points.len() > 20 && with.points.iter().all(|p| p.id != Id::OperationStalled));
}
