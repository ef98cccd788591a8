//! The API as its clients use it: the UI, Grafana, `jq` on the command line.

use std::sync::Arc;

use serde_json::Value;

use super::{Answer, answer};
use crate::export::fixture;
use crate::store::{Limits, Store};
use crate::trace::model::Status;

fn filled() -> Store {
    let store = Store::new(Limits::live(1 << 20));
    fixture::download().iter().for_each(|s| store.add(s));
    store
}

fn get(target: &str) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    answer(&filled(), path, query).unwrap()
}

fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

fn data(target: &str) -> Vec<Value> {
    let Answer { status, body } = get(target);
    assert_eq!(status, 200, "{body}");
    json(&body)["data"].as_array().unwrap().clone()
}

#[test]
fn services_and_their_operations() {
    let services = data("/api/services");
    assert!(services.contains(&"ktrdr-api".into()), "{services:?}");
    let names = data("/api/services/ktrdr-api/operations");
    assert!(names.iter().any(|n| n.as_str().unwrap().starts_with("POST ")), "{names:?}");
    let servers = data("/api/operations?service=ktrdr-api&spanKind=server");
    assert!(!servers.is_empty() && servers.iter().all(|o| o["spanKind"] == "server"), "{servers:?}");
    assert_eq!(get("/api/operations").status, 400);
    assert_eq!(data("/api/services/no%20such/operations"), Vec::<Value>::new());
}

#[test]
fn a_trace_has_what_the_user_interface_reads() {
    let all = data("/api/traces?service=ktrdr-api");
    assert_eq!(all.len(), 1);
    let id = all[0]["traceID"].as_str().unwrap().to_owned();
    let trace = &data(&format!("/api/traces/{id}"))[0];
    assert_eq!(*trace, all[0]);
    let spans = trace["spans"].as_array().unwrap();
    assert_eq!(spans.len(), fixture::download().len());
    for span in spans {
        assert_eq!(span["traceID"], trace["traceID"]);
        assert!(trace["processes"][span["processID"].as_str().unwrap()]["serviceName"].is_string());
        for reference in span["references"].as_array().unwrap() {
            assert!(["CHILD_OF", "FOLLOWS_FROM"].contains(&reference["refType"].as_str().unwrap()));
        }
    }
    let (start, first) = (fixture::EPOCH_NS as u64 / 1_000, &spans[0]);
    assert!(first["startTime"].as_u64().unwrap() >= start, "microseconds since 1970: {first}");
    let failed =
        |s: &&Value| s["tags"].as_array().unwrap().iter().any(|t| t["key"] == "error" && t["value"] == true);
    assert!(spans.iter().find(failed).is_some());
}

/// The query that KTRDR's users have in their notes.
#[test]
fn an_operation_is_found_by_its_tag_without_a_service() {
    let store = filled();
    let mut span = (*fixture::download()[0]).clone();
    span.trace_id.0[0] ^= 0xff;
    span.status = Status::Unset;
    span.attributes.set("operation.id", "op_training_20251113_101500_0a1b2c3d");
    store.add(&Arc::new(span));
    let of = |query: &str| {
        json(&answer(&store, "/api/traces", query).unwrap().body)["data"].as_array().unwrap().len()
    };
    assert_eq!(of("tag=operation.id:op_training_20251113_101500_0a1b2c3d&limit=1"), 1);
    assert_eq!(of("tags=%7B%22operation.id%22%3A%22op_training_20251113_101500_0a1b2c3d%22%7D"), 1);
    assert_eq!(of("tag=operation.id:another"), 0);
    assert_eq!(of("tag=error:true"), 1, "the copy did not fail");
    assert_eq!(of(""), 2);
    assert_eq!(of("limit=1"), 1);
}

#[test]
fn time_and_duration_narrow() {
    let epoch = fixture::EPOCH_NS as u64 / 1_000;
    assert_eq!(data(&format!("/api/traces?start={epoch}&end={}", epoch + 10_000_000)).len(), 1);
    assert_eq!(data(&format!("/api/traces?end={}", epoch - 1)).len(), 0);
    assert_eq!(data("/api/traces?minDuration=1h").len(), 0);
    assert_eq!(data("/api/traces?maxDuration=1h&lookback=1h").len(), 1);
}

#[test]
fn what_is_not_understood_is_said() {
    for (query, word) in [
        ("start=yesterday", "microseconds"),
        ("minDuration=1", "1.2s"),
        ("limit=0", "limit"),
        ("tag=x", "key:value"),
        ("tags=[]", "JSON object"),
        ("tags={\"a\":{}}", "JSON object"),
        ("traceID=xyz", "trace id"),
    ] {
        let Answer { status, body } = get(&format!("/api/traces?{query}"));
        let body = json(&body);
        let text = body["errors"][0]["msg"].as_str().unwrap();
        assert!(status == 400 && text.contains(word), "{query}: {text}");
    }
    assert_eq!(get(&format!("/api/traces/{}", "9".repeat(32))).status, 404);
    assert_eq!(get("/api/traces/nothex").status, 400);
    assert_eq!(answer(&filled(), "/metrics", ""), None);
}

#[test]
fn dependencies_count_calls_of_the_time_asked_for() {
    let end = fixture::EPOCH_NS as u64 / 1_000_000 + 3_600_000;
    for query in [String::new(), format!("?endTs={end}&lookback=7200000")] {
        let edges = data(&format!("/api/dependencies{query}"));
        assert!(edges.iter().all(|e| e["callCount"].as_u64().unwrap() > 0));
        assert!(edges.iter().any(|e| e["child"] == "ktrdr-ib-host-service"), "{edges:?}");
    }
    assert_eq!(data(&format!("/api/dependencies?endTs={end}&lookback=1")), Vec::<Value>::new());
    assert_eq!(get("/api/dependencies?endTs=now").status, 400);
}

#[test]
fn an_answer_that_would_be_too_long_says_what_it_leaves_out() {
    let store = filled();
    let mut copy = (*fixture::download()[0]).clone();
    copy.trace_id.0[0] ^= 0xff;
    store.add(&Arc::new(copy));
    let found = store.search(&super::TraceQuery::all());
    assert_eq!(found.len(), 2);
    let whole = super::traces(&found, super::MAX_BODY);
    assert!(json(&whole.body)["errors"].is_null());
    let cut = json(&super::traces(&found, whole.body.len() - 200).body);
    assert_eq!((cut["data"].as_array().unwrap().len(), &cut["total"]), (1, &Value::from(2)));
    assert!(cut["errors"][0]["msg"].as_str().unwrap().starts_with("1 older traces"), "{cut}");
    // A single one is cut within.
    let long = found.iter().find(|f| f.spans.len() > 1).unwrap();
    let room = super::convert::trace(&long.spans, 0, super::MAX_BODY).len() / 2;
    let cut = json(&super::convert::trace(&long.spans, 3, room));
    let left = long.spans.len() - cut["spans"].as_array().unwrap().len();
    assert!(left > 0 && left < long.spans.len());
    assert_eq!(cut["warnings"][0], "3 spans of this trace were not kept: it has too many");
    assert_eq!(
        cut["warnings"][1],
        format!("the last {left} spans were left out: the answer would be too long")
    );
}
