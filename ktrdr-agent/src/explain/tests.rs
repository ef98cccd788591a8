//! Every verdict on a hand-made trace.

use super::build::{Build, Id, span_id};
use super::{Case, Kind, Report, explain};
use crate::trace::model::{SpanKind, Status};

const CLI: &str = "ktrdr-cli";
const API: (&str, u16) = ("ktrdr-api", 8000);
const IB: (&str, u16) = ("ktrdr-ib-host-service", 5001);
const GATEWAY: (&str, u16) = ("ib-gateway", 4002);
const WORKER1: (&str, u16) = ("ktrdr-training-worker-1", 5005);
const WORKER2: (&str, u16) = ("ktrdr-training-worker-2", 5006);
const DOWNLOAD: &str = "POST /api/v1/data/acquire/download";
const START: &str = "POST /training/start";

fn explained(b: &Build) -> Report {
    explain(&b.case())
}

/// Checks the verdict and its span.
#[track_caller]
fn verdict(r: &Report, kind: Kind, span: Id) {
    assert_eq!(r.verdict.kind, kind, "{r:#?}");
    assert_eq!(r.verdict.span_id, Some(span_id(span).to_string()), "{r:#?}");
}

#[track_caller]
fn says(r: &Report, parts: &[&str]) {
    for part in parts {
        assert!(r.verdict.sentence.contains(part), "`{part}` is not in: {}", r.verdict.sentence);
    }
}

fn words(r: &Report) -> Vec<String> {
    r.chain.iter().map(|s| format!("{} {} {}", s.relation, s.service, s.outcome)).collect()
}

#[test]
fn a_refused_call_below_a_502() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 40), 502);
    let refused = b.refused(api, API.0, IB, 10, 1);
    let r = explained(&b);
    verdict(&r, Kind::Refused, refused);
    says(
        &r,
        &[
            "ktrdr-api could not connect to ktrdr-ib-host-service",
            "nothing is listening on port 5001",
            "exited",
        ],
    );
    assert_eq!(words(&r), ["calls ktrdr-cli 502", "calls ktrdr-api refused"]);
    assert_eq!((r.verdict.confidence.as_str(), r.causes.len()), ("exact", 1));
    assert!(
        r.hints.iter().any(|h| h.contains("start ktrdr-ib-host-service again: `python main.py`")),
        "{:?}",
        r.hints
    );
}

#[test]
fn a_timeout_four_times_caused_by_a_refused_gateway_is_the_gateway() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 120_100), 500);
    let mut last = 0;
    for n in 0..4 {
        let at = n * 30_000 + 10;
        let call = b.unanswered(api, API.0, IB, "POST /data/historical", (at, at + 30_000), "timeout");
        let ib = b.server(call, IB.0, "POST /data/historical", (at + 1, at + 30_001), 0);
        b.fail(ib, "connection_closed", "ktrdr-ib-host-service did not answer");
        last = b.refused(ib, IB.0, GATEWAY, at + 100, n as i64 + 1);
    }
    let r = explained(&b);
    verdict(&r, Kind::Refused, last);
    assert_eq!(r.verdict.attempts, 4);
    says(&r, &["ktrdr-ib-host-service could not connect to ib-gateway", "(4 attempts in 1 m 30 s)"]);
    assert!(!r.verdict.sentence.contains("(attempt"), "{}", r.verdict.sentence);
    assert_eq!(
        words(&r),
        ["calls ktrdr-cli 500", "calls ktrdr-api timed out", "calls ktrdr-ib-host-service refused"]
    );
}

#[test]
fn work_after_the_answer_that_fails_is_the_verdict_although_all_answers_are_200() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 12), 200);
    let refused = b.refused(0, API.0, IB, 30, 1);
    b.after(refused, api);
    for n in 1..40 {
        b.next_trace().call(0, CLI, API, "GET /api/v1/operations/{id}", (n * 300, n * 300 + 3), 200);
    }
    let r = explained(&b);
    verdict(&r, Kind::Refused, refused);
    assert_eq!(words(&r), ["calls ktrdr-cli 200", "afterwards ktrdr-api refused"]);
    let polls = r.timeline.iter().find(|row| row.count > 1).unwrap();
    assert_eq!(polls.count, 39);
    assert_eq!(r.timeline.len(), 3, "{:#?}", r.timeline);
}

#[test]
fn unreachable_and_local_reasons() {
    for (error, kind) in [
        ("host_unreachable", Kind::Unreachable),
        ("network_unreachable", Kind::Unreachable),
        ("permission_denied", Kind::ConnectFailed),
        ("connection_timeout", Kind::TimedOut),
        ("something_new", Kind::Failed),
    ] {
        let mut b = Build::default();
        let api = b.call(0, CLI, API, DOWNLOAD, (0, 40), 500);
        let id = b.refused(api, API.0, IB, 10, 1);
        b.fail(id, error, "no way");
        verdict(&explained(&b), kind, id);
    }
}

#[test]
fn a_timeout_says_what_the_callee_was_doing() {
    let mut b = Build::default();
    let call = b.unanswered(0, API.0, IB, "POST /data/historical", (0, 30_000), "timeout");
    let ib = b.server(call, IB.0, "POST /data/historical", (1, 30_001), 0);
    b.fail(ib, "connection_closed", "did not answer");
    b.client(ib, IB.0, GATEWAY, "IB reqHistoricalData AAPL", (100, 29_000), 0);
    let r = explained(&b);
    verdict(&r, Kind::TimedOut, call);
    says(&r, &["meanwhile ktrdr-ib-host-service was waiting for ib-gateway:4002", "28.9 s"]);
    assert_eq!(words(&r).last().unwrap(), "meanwhile ktrdr-ib-host-service no answer seen");
}

#[test]
fn reset_and_closed() {
    for (why, kind) in [("connection_reset", Kind::Reset), ("peer_closed", Kind::NoResponse)] {
        let mut b = Build::default();
        let api = b.call(0, CLI, API, DOWNLOAD, (0, 40), 500);
        let id = b.unanswered(api, API.0, IB, "POST /data/validate", (5, 20), why);
        verdict(&explained(&b), kind, id);
    }
}

#[test]
fn a_callee_that_waits_for_another_request_is_said_to() {
    let mut b = Build::default();
    let call = b.unanswered(0, API.0, IB, "POST /data/validate", (1_000, 2_500), "timeout");
    let mut other = Build::default();
    let early = other.client(0, IB.0, GATEWAY, "IB reqHistoricalData SILENT", (500, 6_000), 0);
    let late = other.client(0, IB.0, GATEWAY, "IB reqHistoricalData LATE", (2_400, 6_000), 0);
    for id in [early, late] {
        other.set(id, "ktrdr.open", true);
    }
    let r = explain(&Case { nearby: other.arcs(), ..b.case() });
    verdict(&r, Kind::TimedOut, call);
    let said = "ktrdr-ib-host-service was waiting for ib-gateway:4002 at that time, for another request";
    says(&r, &[said, "SILENT", "5.50 s so far"]);
    assert!(!r.verdict.sentence.contains("LATE"), "{}", r.verdict.sentence);
}

#[test]
fn no_worker_tells_of_the_registration_that_was_rejected() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, "POST /api/v1/trainings", (60_000, 60_040), 503);
    b.set(api, "ktrdr.error.message", "no training worker is available (0 registered)");
    b.fail(api, "business_error", "no training worker is available (0 registered)");
    b.set(api, "operation.type", "training");
    let mut other = Build::default();
    for (worker, kind, at) in [("training-1", "training", 1_000), ("backtest-1", "backtesting", 2_000)] {
        let id = other.client(0, worker, API, "POST /api/v1/workers/register", (at, at + 10), 422);
        for (key, value) in
            [("worker.id", worker), ("worker.type", kind), ("worker.registration_status", "rejected")]
        {
            other.set(id, key, value);
        }
    }
    let r = explain(&Case { nearby: other.arcs(), ..b.case() });
    assert_eq!(r.verdict.kind, Kind::NoWorker);
    says(&r, &["found no worker", "; the registration of training-1 was rejected (422) 59.0 s before"]);
}

#[test]
fn an_answer_that_broke_off_is_no_missing_one() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 40), 500);
    let text = "ktrdr-api got a part of the response only from ktrdr-ib-host-service";
    let id = b.client(api, API.0, IB, "POST /data/validate", (5, 20), 200);
    b.fail(id, "peer_closed", text);
    verdict(&explained(&b), Kind::ResponseCut, id);
    says(&explained(&b), &[text, "POST /data/validate"]);
}

#[test]
fn an_http_error_names_who_answered() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 40), 500);
    let ib = b.call(api, API.0, IB, "POST /data/validate", (5, 20), 500);
    let r = explained(&b);
    verdict(&r, Kind::HttpError, ib);
    says(&r, &["ktrdr-ib-host-service answered 500 (internal error) to POST /data/validate from ktrdr-api"]);

    let mut b = Build::default();
    b.call(0, CLI, API, "GET /api/v1/operations/op_x_unknown", (0, 4), 404);
    let r = explained(&b);
    verdict(&r, Kind::HttpError, 1);
    says(&r, &["ktrdr-api answered 404 (not found) to GET /api/v1/operations/op_x_unknown from ktrdr-cli"]);
}

#[test]
fn a_failure_inside_200_has_its_message_unless_something_below_explains_it() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 400), 200);
    let ib = b.call(api, API.0, IB, "POST /data/historical", (5, 300), 200);
    for id in [ib - 1, ib] {
        b.fail(id, "business_error", "IB gateway: [Errno 111] Connection refused");
    }
    let r = explained(&b);
    verdict(&r, Kind::BusinessError, ib);
    says(&r, &["ktrdr-ib-host-service reported a failure inside its 200 answer", "[Errno 111]"]);

    let refused = b.refused(ib, IB.0, GATEWAY, 100, 1);
    verdict(&explained(&b), Kind::Refused, refused);
}

#[test]
fn a_gateway_error_is_told_with_its_meaning() {
    let mut b = Build::default();
    let ib = b.call(0, API.0, IB, "POST /data/historical", (5, 300), 200);
    let text = "Historical Market Data Service error message:API historical data query cancelled";
    let client = b.span(ib, SpanKind::Client, IB.0, "IB reqHistoricalData AAPL STK 1 day", (10, 200));
    let server =
        b.span(client, SpanKind::Server, GATEWAY.0, "IB reqHistoricalData AAPL STK 1 day", (11, 199));
    for id in [client, server] {
        b.fail(id, "162", text).set(id, "ib.error.code", 162_i64).set(id, "ib.error.message", text);
        b.set(id, "ib.error.meaning", "no data, no permission, or too many requests (pacing)");
    }
    b.set(client, "peer.service", "ib-gateway").set(client, "server.port", 4002_i64);
    let r = explained(&b);
    verdict(&r, Kind::GatewayError, server);
    says(
        &r,
        &[
            "IB reqHistoricalData AAPL STK 1 day from ktrdr-ib-host-service",
            "error 162: Historical",
            "pacing",
        ],
    );
    // Mostly the gateway itself is not observed.
    b.spans.pop();
    let r = explained(&b);
    verdict(&r, Kind::GatewayError, client);
    says(&r, &["from ktrdr-ib-host-service with error 162"]);
}

#[test]
fn a_busy_worker_and_the_next_one_taking_the_job_is_no_error() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, "POST /api/v1/trainings/start", (0, 60), 200);
    b.call(api, API.0, WORKER1, START, (5, 10), 503);
    b.call(api, API.0, WORKER2, START, (12, 30), 200);
    let r = explained(&b);
    assert_eq!(r.verdict.kind, Kind::Ok, "{r:#?}");
    says(&r, &["1 call failed on the way and was made good"]);
}

#[test]
fn all_workers_busy() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, "POST /api/v1/trainings/start", (0, 60), 500);
    b.call(api, API.0, WORKER1, START, (5, 10), 503);
    b.call(api, API.0, WORKER2, START, (12, 30), 503);
    let r = explained(&b);
    assert_eq!(r.verdict.kind, Kind::WorkerBusy, "{r:#?}");
    let all: Vec<_> = r.causes.iter().map(|c| c.kind).collect();
    assert_eq!(all, [Kind::WorkerBusy]);
    says(&r, &["ktrdr-training-worker-1, ktrdr-training-worker-2 answered 503 (busy)"]);
}

#[test]
fn a_refused_worker_beside_a_busy_one_is_named_first() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, "POST /api/v1/trainings/start", (0, 60), 500);
    b.call(api, API.0, WORKER1, START, (5, 10), 503);
    let refused = b.refused(api, API.0, WORKER2, 20, 1);
    let r = explained(&b);
    verdict(&r, Kind::Refused, refused);
    assert_eq!(r.causes.iter().map(|c| c.kind).collect::<Vec<_>>(), [Kind::Refused, Kind::WorkerBusy]);
}

#[test]
fn a_worker_that_took_the_job_and_then_refuses_is_lost() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, "POST /api/v1/trainings/start", (0, 60), 200);
    b.call(api, API.0, WORKER1, START, (5, 10), 200);
    b.next_trace();
    let poll = b.call(0, CLI, API, "GET /api/v1/operations/{id}", (1000, 1040), 500);
    let refused = b.refused(poll, API.0, WORKER1, 1010, 1);
    let r = explained(&b);
    verdict(&r, Kind::WorkerLost, refused);
    says(&r, &["ktrdr-training-worker-1:5005 was lost while it had work"]);

    // Its connection broke first; what became of it is known from a refused health check later.
    let mut b = Build::default();
    let api = b.call(0, CLI, API, "POST /api/v1/trainings/start", (0, 60), 200);
    b.call(api, API.0, WORKER1, START, (5, 10), 200);
    let poll = b.call(0, CLI, API, "GET /api/v1/operations/{id}", (1000, 1040), 500);
    let reset =
        b.unanswered(poll, API.0, WORKER1, "GET /api/v1/operations/x", (1010, 1030), "connection_reset");
    let mut other = Build::default();
    other.next_trace().next_trace();
    let check = other.refused(0, API.0, WORKER1, 9000, 1);
    other.set(check, "ktrdr.listener.exit", "was killed by SIGKILL");
    let r = explain(&Case { nearby: other.arcs(), ..b.case() });
    verdict(&r, Kind::WorkerLost, reset);
    says(&r, &["; pid 4711 was killed by SIGKILL"]);
}

#[test]
fn what_listens_on_its_hosts_loopback_alone_cannot_be_called_from_a_container() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, "POST /api/v1/data/load", (0, 60), 502);
    let refused = b.refused(api, API.0, IB, 10, 1);
    b.set(refused, "ktrdr.listener.state", "other_address_only").set(
        refused,
        "ktrdr.listener.address",
        "127.0.0.1",
    );
    let hints = explained(&b).hints;
    assert!(hints.contains(&"call it at 127.0.0.1, or have it listen on all addresses".into()), "{hints:?}");
    b.set(refused, "ktrdr.listener.place", "on the host");
    let hints = explained(&b).hints;
    let there = "have it listen on all addresses: 127.0.0.1 on the host is for those there alone";
    assert!(hints.contains(&there.into()), "{hints:?}");
    assert!(hints.iter().any(|h| h.ends_with("who listens on port 5001 now (on the host)")), "{hints:?}");
    b.set(refused, "ktrdr.listener.state", "other_namespace_only");
    let hints = explained(&b).hints;
    assert!(hints[0].starts_with("call it where it listens, on the host"), "{hints:?}");
}

#[test]
fn stuck_and_failed_operations() {
    let id = "op_training_20251113_101500_0a1b2c3d";
    let mut b = Build::default();
    let op = b.operation(0, id, "running", (0, 400_000));
    b.set(op, "ktrdr.operation.last_progress_ms_before_end", 300_000_i64).set(
        op,
        "progress.percentage",
        43.0,
    );
    let case = Case { operation: Some(id.to_owned()), ..b.case() };
    let r = explain(&case);
    verdict(&r, Kind::Stuck, op);
    says(&r, &["stands at 43 %", "5 m 00 s"]);
    assert_eq!(r.operation.as_ref().unwrap().kind.as_deref(), Some("training"));

    let mut b = Build::default();
    let op = b.operation(0, id, "failed", (0, 4_000));
    let r = explain(&Case { operation: Some(id.to_owned()), ..b.case() });
    verdict(&r, Kind::BusinessError, op);
    says(&r, &["All connection attempts failed"]);

    // Failures of the same service at that time, whose origin nobody saw.
    let mut other = Build::default();
    other.next_trace().next_trace();
    other.refused(0, API.0, WORKER1, 900, 1);
    let far = other.refused(0, API.0, WORKER2, 1000, 1);
    let case = Case { operation: Some(id.to_owned()), nearby: other.arcs(), ..b.case() };
    let r = explain(&case);
    verdict(&r, Kind::Refused, far);
    says(&r, &["ktrdr-training-worker-2 at 127.0.0.1:5006", "; the same for ktrdr-training-worker-1:5005"]);
    assert_eq!(r.timeline.iter().filter(|row| row.cause).count(), 2);
    assert_eq!(r.verdict.confidence, "inferred");
    assert_eq!(words(&r), ["calls ktrdr-api failed", "at that time ktrdr-api refused"]);

    // A download has nothing to do with workers, and words about something else with connections.
    let mut download = Build::default();
    let op = download.operation(0, "op_data_load_20251113_101500_0a1b2c3d", "failed", (0, 4_000));
    let case = |b: &Build| explain(&Case { nearby: other.arcs(), ..b.case() }).verdict.kind;
    assert_eq!(case(&download), Kind::BusinessError);
    let mut wrong = Build::default();
    let op2 = wrong.operation(0, id, "failed", (0, 4_000));
    wrong.fail(op2, "operation_failed", "loss is NaN");
    assert_eq!((op, case(&wrong)), (1, Kind::BusinessError));
}

#[test]
fn an_operation_that_does_not_end_is_explained_by_its_services_troubles() {
    let id = "op_data_load_20261122_101500_0a1b2c3d";
    let mut b = Build::default();
    b.call(0, CLI, API, DOWNLOAD, (0, 12), 200);
    b.call(0, CLI, API, "GET /api/v1/operations/{id}", (31_000, 31_003), 200);
    let mut other = Build::default();
    other.next_trace().next_trace();
    let far = other.unanswered(0, API.0, IB, "POST /data/validate", (20, 30_020), "timeout");
    other.unanswered(0, API.0, WORKER1, "GET /health", (20, 5_020), "timeout");
    other.unanswered(0, "somebody", IB, "POST /data/validate", (20, 5_020), "timeout");
    let asked = |b: &Build, other: &Build| {
        explain(&Case { operation: Some(id.to_owned()), nearby: other.arcs(), ..b.case() })
    };
    let r = asked(&b, &other);
    verdict(&r, Kind::TimedOut, far);
    assert_eq!(r.verdict.confidence, "inferred");
    assert_eq!(words(&r), ["calls ktrdr-cli 200", "at that time ktrdr-api timed out"]);
    b.operation(0, id, "completed", (0, 31_000));
    assert_eq!(asked(&b, &other).verdict.kind, Kind::Ok);
}

#[test]
fn a_failed_operation_is_explained_by_the_call_that_failed() {
    let id = "op_data_load_20251113_101500_0a1b2c3d";
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 12), 200);
    b.operation(api, id, "failed", (0, 900));
    let refused = b.refused(0, API.0, IB, 30, 1);
    b.after(refused, api);
    let r = explain(&Case { operation: Some(id.to_owned()), ..b.case() });
    verdict(&r, Kind::Refused, refused);
    assert_eq!(r.causes.len(), 1, "{:#?}", r.causes);
    assert_eq!(r.operation.unwrap().status.as_deref(), Some("failed"));
}

#[test]
fn an_operation_that_completed_survived_its_failures() {
    let id = "op_data_load_20251113_101500_0a1b2c3d";
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 12), 200);
    b.operation(api, id, "completed", (0, 900));
    let poll = b.unanswered(0, CLI, API, "GET /api/v1/operations/{id}", (300, 310), "connection_reset");
    let r = explain(&Case { operation: Some(id.to_owned()), ..b.case() });
    assert_eq!(r.verdict.kind, Kind::Ok, "{poll} {r:#?}");
    says(&r, &["1 call failed on the way"]);
    // The trace alone is another question.
    assert_eq!(explained(&b).verdict.kind, Kind::Reset);
}

#[test]
fn a_cancelled_operation_says_by_whom() {
    let id = "op_training_20251113_101500_0a1b2c3d";
    let mut b = Build::default();
    b.operation(0, id, "cancelled", (0, 4_000));
    b.call(0, CLI, API, &format!("DELETE /api/v1/operations/{id}"), (3000, 3020), 200);
    let r = explain(&Case { operation: Some(id.to_owned()), ..b.case() });
    assert_eq!(r.verdict.kind, Kind::Cancelled);
    says(&r, &["the training operation was cancelled by ktrdr-cli (DELETE /api/v1/operations/op_training_"]);
}

#[test]
fn slow_names_the_span_that_holds_the_time() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 9_000), 200);
    let ib = b.call(api, API.0, IB, "POST /data/historical", (100, 8_900), 200);
    let r = explained(&b);
    verdict(&r, Kind::Slow, ib);
    says(&r, &["nothing failed, but", "took 9.00 s", "(98 %) in ktrdr-ib-host-service itself"]);
    assert!(r.causes.is_empty() && r.chain.is_empty());
}

#[test]
fn a_healthy_trace_has_no_cause() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 90), 200);
    b.call(api, API.0, IB, "POST /data/validate", (5, 10), 200);
    b.call(api, API.0, IB, "POST /data/historical", (12, 80), 200);
    // Asking whether something exists.
    b.call(api, API.0, IB, "GET /data/symbol-info/AAPL", (81, 85), 404);
    let r = explained(&b);
    assert_eq!(r.verdict.kind, Kind::Ok, "{r:#?}");
    assert!(r.causes.is_empty());
    says(&r, &["nothing failed", "took 90.0 ms", "in ktrdr-ib-host-service itself"]);
}

#[test]
fn a_retry_that_succeeds_is_no_cause() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 900), 200);
    b.refused(api, API.0, IB, 10, 1);
    b.call(api, API.0, IB, "POST /data/validate", (500, 510), 200);
    assert_eq!(explained(&b).verdict.kind, Kind::Ok);
    // The same call succeeding before is no retry.
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 900), 200);
    b.call(api, API.0, IB, "POST /data/validate", (5, 8), 200);
    let refused = b.refused(api, API.0, IB, 10, 1);
    verdict(&explained(&b), Kind::Refused, refused);
}

#[test]
fn what_the_agent_did_not_see_is_said() {
    let mut b = Build::default();
    let id = b.client(0, CLI, API, DOWNLOAD, (0, 40), 0);
    b.set(id, "ktrdr.incomplete", "response_lost");
    let case = Case { lost: vec![("ring full".to_owned(), 12)], dropped: 3, ..b.case() };
    let r = explain(&case);
    assert_eq!(r.verdict.kind, Kind::MissingData, "{r:#?}");
    let gaps = r.gaps.join("\n");
    for part in ["lost 12 × ring full", "3 spans are no longer kept", "1 call was not seen to the end"] {
        assert!(gaps.contains(part), "{gaps}");
    }
    let mut part = Build::default();
    let id = part.client(0, CLI, API, DOWNLOAD, (0, 40), 0);
    part.set(id, "ktrdr.incomplete", "left_out");
    part.set(id, "ktrdr.observed.share", 0.1389);
    let r = explained(&part);
    assert_eq!(r.verdict.kind, Kind::MissingData, "{r:#?}");
    // An answer that had begun says nothing of how long it took.
    part.set(id, "http.response.status_code", 200_i64);
    let answered = explained(&part);
    assert_eq!(answered.verdict.kind, Kind::MissingData, "{answered:#?}");
    says(&answered, &["was not seen by the agent (left out)"]);
    let mut below = Build::default();
    let top = below.call(0, CLI, API, DOWNLOAD, (0, 40), 200);
    let id = below.client(top, API.0, IB, "GET /x", (5, 10), 0);
    below.set(id, "ktrdr.incomplete", "left_out");
    let nested = explained(&below);
    assert_eq!(nested.verdict.kind, Kind::MissingData, "{nested:#?}");
    says(&nested, &["no failure was seen, but 1 call was not seen to the end"]);
    let gaps = r.gaps.join("\n");
    for part in ["1 call was not seen to the end", "of the calls to ktrdr-api only 14 % were observed"] {
        assert!(gaps.contains(part), "{gaps}");
    }
    let mut whole = Build::default();
    whole.call(0, CLI, API, DOWNLOAD, (0, 40), 200);
    let case = Case { lost: vec![("ring full".to_owned(), 12)], ..whole.case() };
    assert_eq!(explain(&case).verdict.kind, Kind::Ok, "lost records of others' calls");
    let r = explain(&Case { operation: Some("op_training_x".to_owned()), ..case });
    assert_eq!(r.verdict.kind, Kind::MissingData);
    says(&r, &["no failure was seen, but not all was: the agent lost 12 records"]);
    // Losses do not hide what was seen.
    b.refused(id, CLI, API, 5, 1);
    assert_eq!(explain(&Case { lost: vec![("x".into(), 1)], ..b.case() }).verdict.kind, Kind::Refused);
    assert_eq!(explain(&Case::default()).verdict.kind, Kind::MissingData);
}

#[test]
fn a_failure_of_the_callee_at_that_time_is_inferred_if_it_is_the_only_one() {
    let mut b = Build::default();
    let call = b.unanswered(0, API.0, IB, "POST /data/historical", (0, 30_000), "timeout");
    b.server(call, IB.0, "POST /data/historical", (1, 30_001), 0);
    let mut other = Build::default();
    other.next_trace().next_trace();
    let far = other.refused(0, IB.0, GATEWAY, 100, 1);
    let r = explain(&Case { nearby: other.arcs(), ..b.case() });
    verdict(&r, Kind::Refused, far);
    assert_eq!(r.verdict.confidence, "inferred");
    // Somebody else's failure, or one at another time, or two different ones, prove nothing.
    other.refused(0, IB.0, ("something", 9999), 200, 1);
    assert_eq!(explain(&Case { nearby: other.arcs(), ..b.case() }).verdict.kind, Kind::TimedOut);
    let mut other = Build::default();
    other.next_trace().next_trace();
    other.refused(0, API.0, GATEWAY, 100, 1);
    other.refused(0, IB.0, GATEWAY, 40_000, 1);
    assert_eq!(explain(&Case { nearby: other.arcs(), ..b.case() }).verdict.kind, Kind::TimedOut);
}

#[test]
fn an_uncertain_place_makes_the_verdict_inferred() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 40), 502);
    let refused = b.refused(api, API.0, IB, 10, 1);
    b.set(refused, "ktrdr.link.certainty", "inferred").set(refused, "ktrdr.link.method", "single-in-flight");
    let r = explained(&b);
    assert_eq!(r.verdict.confidence, "inferred");
    assert!(r.gaps.iter().any(|g| g.contains("inferred")), "{:?}", r.gaps);
}

#[test]
fn an_answer_that_comes_late_does_not_explain_what_failed_before() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 40), 500);
    let late = b.refused(0, API.0, IB, 100, 1);
    b.get(late).parent_span_id = Some(span_id(api));
    let kinds: Vec<_> = explained(&b).causes.iter().map(|c| c.kind).collect();
    assert!(kinds.contains(&Kind::HttpError), "{kinds:?}");
}

#[test]
fn errors_without_words_are_told_anyway() {
    let mut b = Build::default();
    let id = b.client(0, API.0, IB, "POST /data/validate", (0, 10), 0);
    b.get(id).status = Status::Error("  ".to_owned());
    let r = explained(&b);
    verdict(&r, Kind::Failed, id);
    says(&r, &["ktrdr-api: POST /data/validate to ktrdr-ib-host-service:5001 failed: no reason given"]);
}

#[test]
fn the_screen() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 12), 200);
    let refused = b.refused(0, API.0, IB, 30, 1);
    b.after(refused, api);
    for n in 1..40 {
        b.next_trace().call(0, CLI, API, "GET /api/v1/operations/{id}", (n * 300, n * 300 + 3), 200);
    }
    let style = super::show::Style { width: 110, color: false, utc_offset: |_| 0 };
    let report = explained(&b);
    insta::assert_snapshot!("refused_human", super::show::report(&report, &style));
    insta::assert_snapshot!("refused_json", serde_json::to_string_pretty(&report).unwrap());
    let again: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(again, report, "what goes over the socket is what was made");

    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 90), 200);
    b.call(api, API.0, IB, "POST /data/historical", (12, 80), 200);
    insta::assert_snapshot!("ok_human", super::show::report(&explained(&b), &style));

    let mut narrow = super::show::report(&report, &super::show::Style { width: 40, color: true, ..style });
    assert!(narrow.contains('\x1b'));
    narrow.retain(|c| c != '\x1b');
    assert!(narrow.lines().all(|l| l.chars().count() < 130), "{narrow}");
}

/// A training on a GPU; what was sampled is set by the caller.
fn training(b: &mut Build, status: &str, seconds: u64) -> Id {
    let id = "op_training_20260102_030405_0a1b2c3d";
    let api = b.call(0, CLI, API, "POST /api/v1/trainings/start", (0, 50), 200);
    let worker = b.call(api, API.0, WORKER1, START, (10, 40), 200);
    b.set(worker, "operation.id", id).set(api, "operation.id", id);
    let op = b.operation(api, id, status, (0, seconds * 1000));
    b.set(op, "hw.name", "NVIDIA A100").set(op, "gpu.device", "0").set(op, "ktrdr.gpu.state", "sampled");
    op
}

fn of_operation(b: &Build) -> Report {
    let operation = Some("op_training_20260102_030405_0a1b2c3d".to_owned());
    explain(&Case { operation, ..b.case() })
}

#[test]
fn a_gpu_that_was_full_before_a_failure_that_says_so() {
    let mut b = Build::default();
    let op = training(&mut b, "failed", 60);
    let words = "CUDA out of memory. Tried to allocate 2.00 GiB";
    b.set(op, "operation.error", words).fail(op, "operation_failed", words);
    let r = of_operation(&b);
    verdict(&r, Kind::GpuOutOfMemory, op);
    says(&r, &["ran out of GPU memory: CUDA out of memory. Tried to allocate 2.00 GiB"]);
    b.set(op, "ktrdr.gpu.memory.usage.last", 42_000_000_000_i64);
    b.set(op, "ktrdr.gpu.memory.limit", 42_949_672_960_i64);
    let r = of_operation(&b);
    says(&r, &["GPU 0 (NVIDIA A100) was 97 % full (39.1 of 40.0 GiB) at the last sample"]);
    assert_eq!(r.verdict.confidence, "exact");
}

#[test]
fn a_full_gpu_is_no_cause_of_what_has_another_reason() {
    let full = |b: &mut Build, op: Id| {
        b.set(op, "ktrdr.gpu.memory.usage.last", 42_949_672_960_i64);
        b.set(op, "ktrdr.gpu.memory.limit", 42_949_672_960_i64);
    };
    let mut b = Build::default();
    let op = training(&mut b, "failed", 60);
    full(&mut b, op);
    assert_eq!(of_operation(&b).verdict.kind, Kind::BusinessError, "it gives its own reason");
    let silent = "the operation failed; no reply said why";
    b.set(op, "operation.error", silent).fail(op, "operation_failed", silent);
    let r = of_operation(&b);
    verdict(&r, Kind::GpuOutOfMemory, op);
    says(&r, &["failed without a reason", "100 % full", "probably"]);
    assert_eq!(r.verdict.confidence, "inferred");
    b.set(op, "ktrdr.gpu.memory.usage.last", 30_000_000_000_i64);
    assert_eq!(of_operation(&b).verdict.kind, Kind::BusinessError, "there was room");
}

#[test]
fn a_gpu_that_had_little_to_do_is_named_and_a_busy_one_is_not() {
    let with = |idle: f64, coverage: f64, seconds: u64| {
        let mut b = Build::default();
        let op = training(&mut b, "completed", seconds);
        b.set(op, "ktrdr.gpu.idle", idle).set(op, "ktrdr.gpu.coverage", coverage);
        b.set(op, "ktrdr.gpu.utilization.avg", 0.09);
        of_operation(&b)
    };
    let r = with(0.83, 0.98, 180);
    assert_eq!(r.verdict.kind, Kind::GpuIdle, "{r:#?}");
    says(&r, &["GPU 0 (NVIDIA A100) was idle for 83 % of that time (mean utilisation 9 %)"]);
    assert!(r.causes.is_empty(), "it is no failure");
    assert!(r.evidence[0].attributes.contains_key("ktrdr.gpu.idle"), "{:?}", r.evidence);
    for (idle, coverage, seconds) in [(0.7, 0.98, 180), (0.9, 0.5, 180), (0.9, 0.98, 5)] {
        let kind = with(idle, coverage, seconds).verdict.kind;
        assert!(matches!(kind, Kind::Ok | Kind::Slow), "{kind:?} at {idle} {coverage} {seconds}");
    }
}

#[test]
fn a_training_that_was_to_run_on_a_gpu_and_did_not() {
    let mut b = Build::default();
    let op = training(&mut b, "completed", 180);
    b.set(op, "ktrdr.gpu.state", "no_process").set(
        op,
        "ktrdr.gpu.expected",
        "the worker registered with a GPU",
    );
    let r = of_operation(&b);
    assert_eq!(r.verdict.kind, Kind::GpuNotUsed, "{r:#?}");
    says(&r, &["the worker registered with a GPU, but no process of the worker was on any GPU of this host"]);
    assert!(r.causes.is_empty());
    b.set(op, "ktrdr.gpu.state", "no_gpu");
    says(&of_operation(&b), &["this host has none that works"]);
}
