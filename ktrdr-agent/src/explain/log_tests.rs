//! What the services logged, beside the verdict.

use std::sync::Arc;

use super::build::{Build, EPOCH_NS, Id, span_id, trace_id};
use super::logged::Logged;
use super::{Case, Report, explain, show};
use crate::trace::logs::{LogRecord, Severity};
use crate::trace::model::{Attributes, Resource};

const API: (&str, u16) = ("ktrdr-api", 8000);
const IB: (&str, u16) = ("ktrdr-ib-host-service", 5001);

/// A record of a service, written in a span (0 = in none) at a millisecond.
fn record(service: &str, severity: Severity, span: Id, ms: u64, text: &str) -> LogRecord {
    let mut of = Attributes::new();
    of.set("process.pid", 4711_i64);
    LogRecord {
        ts: ms * 1_000_000,
        wall_offset_ns: EPOCH_NS,
        severity,
        severity_text: String::new(),
        body: text.to_owned(),
        trace_id: (span != 0).then(|| trace_id(1)),
        span_id: (span != 0).then(|| span_id(span)),
        attributes: Attributes::new(),
        resource: Arc::new(Resource { service: service.to_owned(), attributes: of }),
    }
}

fn kept(records: &[LogRecord]) -> Vec<Arc<Logged>> {
    records.iter().map(|r| Arc::new(Logged::of(r))).collect()
}

fn words(r: &Report) -> Vec<String> {
    r.logs.iter().map(|l| format!("{} {} {}", l.relation, l.service, l.message)).collect()
}

/// A download that fails: the API's server span, and its refused connect.
fn refused() -> (Build, Id) {
    let mut b = Build::default();
    let api = b.call(0, "ktrdr-cli", API, "POST /download", (0, 40), 502);
    b.refused(api, API.0, IB, 10, 1);
    (b, api)
}

#[test]
fn the_error_line_of_the_service_stands_beside_the_cause() {
    let (b, api) = refused();
    let mut failed =
        record(API.0, Severity::ERROR, api, 11, "Download failed: All connection attempts failed");
    failed.attributes.set("log.logger", "ktrdr.api.background");
    failed.attributes.set("exception.type", "httpx.ConnectError");
    failed.attributes.set("exception.message", "All connection attempts failed");
    failed.attributes.set(
        "exception.stacktrace",
        "Traceback (most recent call last):\n  File \"/app/ib.py\", line 9, in post\n    raise E\nhttpx.ConnectError: x",
    );
    let logs = kept(&[
        record("ktrdr-other", Severity::ERROR, 77, 5, "something else"),
        record(API.0, Severity::WARN, api, 9, "slow"),
        failed,
    ]);
    let last_words = kept(&[record(IB.0, Severity::UNSPECIFIED, 0, 1, "Killed")]);
    let r = explain(&Case { logs, last_words, ..b.case() });
    assert_eq!(
        words(&r),
        [
            "last_words ktrdr-ib-host-service Killed",
            "trace ktrdr-other something else",
            "cause ktrdr-api slow",
            "cause ktrdr-api Download failed: All connection attempts failed",
        ]
    );
    let line = &r.logs[3];
    assert_eq!((line.severity.as_str(), line.confidence.as_str()), ("ERROR", "exact"));
    assert_eq!(line.span_id, Some(span_id(api).to_string()));
    assert_eq!(line.exception.as_deref(), Some("httpx.ConnectError: All connection attempts failed"));
    assert_eq!(line.stack.as_deref(), Some("File \"/app/ib.py\", line 9, in post\nraise E"));
    let style = show::Style { width: 110, color: false, utc_offset: |_| 0 };
    insta::assert_snapshot!("logged_human", show::report(&r, &style));
    let again: Report = serde_json::from_str(&serde_json::to_string(&r).unwrap()).unwrap();
    assert_eq!(again, r);
}

#[test]
fn equal_records_are_counted_and_those_next_to_the_cause_are_kept() {
    let (b, api) = refused();
    let mut records: Vec<LogRecord> =
        (0..20).map(|n| record("ktrdr-other", Severity::ERROR, 77, n, &format!("other {n}"))).collect();
    records.extend((0..5).map(|n| record(API.0, Severity::ERROR, api, 100 + n, "again")));
    let r = explain(&Case { logs: kept(&records), ..b.case() });
    let again = r.logs.iter().find(|l| l.message == "again").unwrap();
    assert_eq!((again.count, again.relation.as_str()), (5, "cause"));
    assert!(r.truncated.contains(&"15 log records".to_owned()), "{:?}", r.truncated);
}

#[test]
fn what_names_the_operation_without_a_trace_is_said_to_be_inferred() {
    let (b, _) = refused();
    let mut named = record(API.0, Severity::ERROR, 0, 11, "op_x_1234567 failed");
    named.attributes.set("operation.id", "op_x_1234567");
    named.attributes.set("ktrdr.operation.certainty", "inferred");
    let r = explain(&Case { logs: kept(&[named]), operation: Some("op_x_1234567".to_owned()), ..b.case() });
    assert_eq!((r.logs[0].relation.as_str(), r.logs[0].confidence.as_str()), ("operation", "inferred"));
}

#[test]
fn long_and_odd_texts_neither_fill_the_answer_nor_move_the_cursor() {
    let (b, api) = refused();
    let records: Vec<LogRecord> = (0..30)
        .map(|n| {
            record(API.0, Severity::ERROR, api, n, &format!("{n} \x1b[31m\u{202e}{}", "\u{1}".repeat(5_000)))
        })
        .collect();
    let r = explain(&Case { last_words: kept(&records), logs: kept(&records), ..b.case() });
    assert!(serde_json::to_string(&r).unwrap().len() <= super::fit::MAX_BYTES);
    assert!(
        !r.logs.is_empty() && r.truncated.iter().any(|t| t.ends_with("log records")),
        "{:?}",
        r.truncated
    );
    let screen = show::report(&r, &show::Style { width: 100, color: false, utc_offset: |_| 0 });
    assert!(!screen.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{screen:?}");
}
