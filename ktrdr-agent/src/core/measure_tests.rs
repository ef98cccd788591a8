//! What a snapshot of the core's metrics says of scenarios.

use std::collections::BTreeMap;

use super::CoreConfig;
use super::scenario::{Host, Pipe};
use crate::metrics::{Id, Value};

const AGENT: u32 = 1;
const API: u32 = 100;
const CLI: u32 = 300;
const WORKER: u32 = 400;
const OP: &str = "op_training_20261122_141909_94615973";

fn host() -> Host {
    let mut h = Host::with(CoreConfig { metrics: true, ..CoreConfig::default() });
    for (pid, service, at) in [
        (AGENT, "ktrdr-agent", "127.0.0.1:9464"),
        (API, "ktrdr-api", "127.0.0.1:8000"),
        (WORKER, "ktrdr-training-worker-5005", "127.0.0.1:5005"),
    ] {
        h.process(pid, service);
        h.listen(pid, at);
    }
    h.process(CLI, "ktrdr-cli");
    h
}

/// A worker is known by the address it is called at.
fn call(h: &mut Host, p: &mut Pipe, head: &str, request: &str, response: &str) {
    let message = |head: &str, body: &str| {
        format!(
            "{head}\r\nHost: 127.0.0.1:5005\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    h.request(p, &message(head, request));
    h.response(p, &message("HTTP/1.1 200 OK", response));
}

/// Series of an instrument: "service label label" → value.
fn series(h: &mut Host, id: Id) -> BTreeMap<String, f64> {
    h.pass(500);
    let snapshot = h.core.snapshot(h.now).unwrap();
    let of_id = snapshot.points.iter().filter(|p| p.id == id);
    of_id
        .map(|p| {
            let labels: Vec<String> = p.labels.iter().map(|(_, v)| format!("{:?}", v.get())).collect();
            let value = match &p.value {
                Value::Int(n) => *n as f64,
                Value::Float(f) => *f,
                Value::Histogram(h) => h.count() as f64,
            };
            (format!("{} {}", snapshot.services[usize::from(p.service)].service, labels.join(" ")), value)
        })
        .collect()
}

#[test]
fn workers_are_told_by_whoever_they_registered_with() {
    let mut h = host();
    let mut p = h.connect(WORKER, API, "127.0.0.1:8000");
    let body = r#"{"worker_id":"w1","worker_type":"training","endpoint_url":"http://127.0.0.1:5005"}"#;
    call(&mut h, &mut p, "POST /api/v1/workers/register HTTP/1.1", body, "{}");
    let one = |what: &str, n: f64| BTreeMap::from([(format!("ktrdr-api {what}"), n)]);
    assert_eq!(series(&mut h, Id::WorkersRegistered), one("Str(\"training\")", 1.0));
    assert_eq!(series(&mut h, Id::WorkersAvailable), one("Str(\"training\")", 1.0));
    assert_eq!(series(&mut h, Id::Workers), one("Str(\"training\") Str(\"w1\") Str(\"idle\")", 1.0));

    let mut p = h.connect(API, WORKER, "127.0.0.1:5005");
    let (task, started) = (
        format!(r#"{{"task_id":"{OP}"}}"#),
        format!(r#"{{"success":true,"operation_id":"{OP}","status":"started"}}"#),
    );
    call(&mut h, &mut p, "POST /training/start HTTP/1.1", &task, &started);
    assert_eq!(series(&mut h, Id::WorkersAvailable), one("Str(\"training\")", 0.0));
    let states = series(&mut h, Id::Workers);
    assert_eq!(states["ktrdr-api Str(\"training\") Str(\"w1\") Str(\"busy\")"], 1.0, "{states:?}");
    assert_eq!(states["ktrdr-api Str(\"training\") Str(\"w1\") Str(\"idle\")"], 0.0, "{states:?}");
    let ended = series(&mut h, Id::Operations);
    assert_eq!(ended.values().sum::<f64>(), 0.0, "{ended:?}");
    assert_eq!(ended.len(), 3, "0 of each status, as long as the first one runs: {ended:?}");
    let dispatches = series(&mut h, Id::WorkerDispatches);
    assert_eq!(dispatches, one("Str(\"training\") Str(\"w1\") Str(\"selected\")", 1.0));
}

#[test]
fn scraping_the_agent_is_not_observed() {
    let mut h = host();
    let mut p = h.connect(CLI, AGENT, "127.0.0.1:9464");
    call(&mut h, &mut p, "GET /metrics HTTP/1.1", "", "");
    let mut p = h.connect(CLI, API, "127.0.0.1:8000");
    call(&mut h, &mut p, "GET /api/v1/symbols HTTP/1.1", "", "");
    let spans = h.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let requests = series(&mut h, Id::HttpClientDuration);
    assert_eq!(requests.values().sum::<f64>(), 1.0, "{requests:?}");
    let connects = series(&mut h, Id::Connects);
    assert_eq!(connects.len(), 1, "{connects:?}");
}
