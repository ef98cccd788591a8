//! What is said of operations and their workers, on hand-made traces.

use super::build::{Build, Id};
use super::{Case, Kind, Report, explain, show};
use crate::trace::model::SpanKind;

const OP: &str = "op_training_20251113_101500_0a1b2c3d";
const API: (&str, u16) = ("ktrdr-api", 8000);
const IB: (&str, u16) = ("ktrdr-ib-host-service", 5001);
const GATEWAY: (&str, u16) = ("ib-gateway", 4002);
const WORKER1: (&str, u16) = ("ktrdr-training-worker-5005", 5005);
const WORKER2: (&str, u16) = ("ktrdr-training-worker-5006", 5006);
const START: &str = "POST /training/start";

fn of_operation(b: &Build) -> Report {
    explain(&Case { operation: Some(OP.to_owned()), ..b.case() })
}

/// An operation that a worker took after another had refused it.
fn training(b: &mut Build, status: &str, ms: u64) -> Id {
    b.call(0, "ktrdr-cli", API, "POST /api/v1/trainings/start", (0, 20), 200);
    let op = b.operation(0, OP, status, (0, ms));
    b.set(op, "worker.selected_id", "training-worker-1");
    b.set(op, "worker.refused_ids", vec!["training-worker-2".to_owned()]);
    b.set(op, "progress.percentage", 12.5).set(op, "progress.current_step", "loading bars");
    op
}

#[test]
fn who_did_the_work_is_in_the_sentence() {
    let mut b = Build::default();
    training(&mut b, "completed", 1_000);
    let sentence = of_operation(&b).verdict.sentence;
    let start = "nothing failed: the training operation completed after 1.00 s on training-worker-1, after \
                 training-worker-2 had refused it; the longest call";
    assert!(sentence.starts_with(start), "{sentence}");
}

#[test]
fn one_that_runs_says_where_it_stands_and_since_when() {
    let mut b = Build::default();
    let op = training(&mut b, "running", 60_000);
    b.set(op, "ktrdr.operation.last_progress_ms_before_end", 31_000_i64);
    let sentence = of_operation(&b).verdict.sentence;
    assert!(sentence.contains("was running when last heard of on training-worker-1"), "{sentence}");
    b.set(op, "ktrdr.open", true).set(op, "worker.refused_ids", Vec::new());
    let sentence = of_operation(&b).verdict.sentence;
    let part = "the training operation is running on training-worker-1, at 12.5 % (loading bars), without progress for \
                31.0 s";
    assert!(sentence.contains(part), "{sentence}");
    // Between two polls nothing moves.
    b.set(op, "ktrdr.operation.last_progress_ms_before_end", 700_i64);
    assert!(!of_operation(&b).verdict.sentence.contains("without progress"));
    b.set(op, "ktrdr.operation.last_progress_ms_before_end", 300_000_i64);
    let r = of_operation(&b);
    assert_eq!(r.verdict.kind, Kind::Stuck);
    let part = "stands at 12.5 % (loading bars) on training-worker-1: no progress in the last 5 m 00 s";
    assert!(r.verdict.sentence.contains(part), "{}", r.verdict.sentence);
}

#[test]
fn a_job_that_failed_is_looked_for_where_it_ran() {
    let mut b = Build::default();
    let op = training(&mut b, "failed", 900);
    let start = b.client(0, API.0, WORKER1, START, (30, 34), 200);
    b.set(start, "worker.selection_status", "selected").set(op, "worker.refused_ids", Vec::new());
    let r = of_operation(&b);
    let expected = "the training operation failed on training-worker-1: All connection attempts failed; none of the calls \
                    seen failed";
    assert_eq!(r.verdict.sentence, expected);
    let hint = "look at the log of ktrdr-training-worker-5005 at";
    assert!(r.hints.iter().any(|h| h.starts_with(hint)), "{:?}", r.hints);
}

#[test]
fn busy_workers_are_told_with_what_they_do() {
    let mut b = Build::default();
    let api = b.call(0, "ktrdr-cli", API, "POST /api/v1/trainings/start", (0, 60), 500);
    for (worker, id, current, at) in [
        (WORKER1, "training-worker-1", "op_training_20251113_101400_11111111", 5),
        (WORKER2, "training-worker-2", "op_training_20251113_101430_22222222", 12),
    ] {
        let server = b.call(api, API.0, worker, START, (at, at + 4), 503);
        b.set(server, "worker.selected_id", id).set(server, "worker.current_operation", current);
    }
    let r = explain(&b.case());
    assert_eq!(r.verdict.kind, Kind::WorkerBusy);
    let end = "no other worker took the job; training-worker-1 is at work on op_training_20251113_101400_11111111, \
               training-worker-2 is at work on op_training_20251113_101430_22222222";
    assert!(r.verdict.sentence.ends_with(end), "{}", r.verdict.sentence);
}

#[test]
fn a_service_that_waits_in_vain_itself_comes_before_those_who_wait_for_it() {
    let mut b = Build::default();
    let api = b.server(0, API.0, "POST /api/v1/data/acquire/download", (0, 20), 200);
    // Not answered at all: its one thread is held by a request for somebody else.
    for at in [100, 30_200] {
        let validate = b.unanswered(0, API.0, IB, "POST /data/validate", (at, at + 30_000), "timeout");
        b.after(validate, api);
    }
    let mut case = b.case();
    let mut other = Build::default();
    let spans = b.spans.len();
    for _ in 0..spans {
        other.span(0, SpanKind::Internal, "x", "x", (0, 0));
    }
    other.next_trace();
    other.unanswered(0, IB.0, GATEWAY, "IB reqHistoricalData SILENT", (20_000, 60_000), "timeout");
    case.nearby = other.arcs().into_iter().skip(spans).collect();
    let r = explain(&case);
    assert_eq!((r.verdict.kind, r.verdict.service.as_deref()), (Kind::TimedOut, Some(IB.0)), "{r:#?}");
    assert_eq!(r.verdict.confidence, "inferred");
    assert!(r.causes.iter().skip(1).any(|c| c.service.as_deref() == Some(API.0)), "{r:#?}");
    // Waits that do not meet in time explain nothing.
    let mut apart = Build::default();
    let api = apart.server(0, API.0, "POST /x", (0, 30_200), 200);
    let validate = apart.unanswered(api, API.0, IB, "POST /data/validate", (100, 30_100), "timeout");
    apart.get(validate).parent_span_id = None;
    apart.after(validate, api);
    apart.unanswered(0, IB.0, GATEWAY, "IB reqHistoricalData", (40_000, 50_000), "timeout");
    assert_eq!(explain(&apart.case()).verdict.service.as_deref(), Some(API.0));
}

#[test]
fn a_tool_that_failed_on_a_pipe_has_no_status_to_name() {
    let mut b = Build::default();
    let client = b.span(0, SpanKind::Client, "assistant", "tools/call start_training", (0, 5));
    b.set(client, "network.transport", "pipe").set(client, "peer.service", "ktrdr-mcp-server");
    b.fail(client, "tool_error", "no such strategy");
    let expected =
        "ktrdr-mcp-server answered tools/call start_training from assistant with an error: no such strategy";
    assert_eq!(explain(&b.case()).verdict.sentence, expected);
}

#[test]
fn answers_without_a_status_code_are_answers() {
    let mut b = Build::default();
    let call = |b: &mut Build, name: &str, at| {
        let id = b.client(0, IB.0, GATEWAY, name, (at, at + 5), 0);
        b.set(id, "ib.server_version", 178_i64);
        id
    };
    let bars = call(&mut b, "IB reqHistoricalData AAPL", 0);
    b.set(bars, "ib.bars_received", 28_i64).set(bars, "ktrdr.response.first_byte_ms", 0.4);
    let time = call(&mut b, "IB reqCurrentTime", 10);
    b.set(time, "ktrdr.response.first_byte_ms", 0.4);
    call(&mut b, "IB cancelHistoricalData", 20);
    let lost = call(&mut b, "IB reqContractDetails", 30);
    b.set(lost, "ktrdr.incomplete", "response_lost");
    let outcomes: Vec<_> = explain(&b.case()).timeline.into_iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, ["28 bars", "answered", "sent", "no answer seen"]);
}

#[test]
fn a_sentence_that_is_cut_in_a_list_shows_it() {
    let mut b = Build::default();
    training(&mut b, "completed", 1_000);
    b.call(0, "ktrdr-cli", API, &format!("GET /api/v1/operations/{OP}"), (0, 900), 200);
    let row = super::ListRow::new(&of_operation(&b));
    let list = super::Listing { rows: vec![row], ..Default::default() };
    let style = show::Style { width: 72, color: false, utc_offset: |_| 0 };
    let text = show::listing(&list, &style);
    let lines: Vec<&str> = text.lines().skip(1).take_while(|l| !l.is_empty()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[1].ends_with('…') && lines[1].chars().count() <= 72, "{text}");
}
