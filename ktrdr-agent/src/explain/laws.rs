//! What holds for any spans whatever.

use std::sync::Arc;

use proptest::prelude::*;

use super::build::{Build, span_id, trace_id};
use super::fit::MAX_BYTES;
use super::tree::{Edge, Tree};
use super::{Case, explain, kind_of, show};
use crate::trace::model::{Link, Span, SpanKind, Status};

const SERVICES: [&str; 5] =
    ["ktrdr-cli", "ktrdr-api", "ktrdr-ib-host-service", "ktrdr-training-worker-1", "ktrdr-training-worker-2"];
const ERRORS: [&str; 9] = [
    "connection_refused",
    "timeout",
    "connection_reset",
    "peer_closed",
    "connection_closed",
    "business_error",
    "503",
    "404",
    "odd\x1b[31m\u{202e}",
];

/// Trace, parent, service, start and length in ms, error, kind, peer.
type Raw = (u8, u8, u8, u16, u16, u8, u8, u8);

/// Any span: parents may be missing, later, itself, or in a circle.
fn span() -> impl Strategy<Value = Raw> {
    (0..3u8, 0..12u8, 0..5u8, 0..2000u16, 0..40_000u16, 0..24u8, 0..3u8, 0..5u8)
}

fn make(raw: &[Raw]) -> Vec<Arc<Span>> {
    let mut b = Build::default();
    for (trace, parent, service, start, length, error, kind, to) in raw {
        let kind = [SpanKind::Server, SpanKind::Client, SpanKind::Internal][usize::from(*kind)];
        let start = u64::from(*start);
        let id = b.span(
            0,
            kind,
            SERVICES[usize::from(*service)],
            "POST /training/start",
            (start, start + u64::from(*length)),
        );
        b.get(id).trace_id = trace_id(u64::from(*trace) + 1);
        b.get(id).parent_span_id = (*parent > 0).then(|| span_id(u64::from(*parent)));
        if *parent > 9 {
            let link = Link {
                trace_id: trace_id(1),
                span_id: span_id(u64::from(*service)),
                attributes: Default::default(),
            };
            b.get(id).parent_span_id = None;
            b.get(id).links.push(link);
        }
        b.set(id, "peer.service", SERVICES[usize::from(*to)].to_owned()).set(
            id,
            "server.port",
            u16::from(*to) + 5000,
        );
        if let Some(error) = ERRORS.get(usize::from(*error)) {
            b.fail(id, error, "a sentence with \x07 odd \u{202e} characters");
            if error.len() == 3 {
                b.set(id, "http.response.status_code", error.parse::<i64>().unwrap());
            }
        } else if kind != SpanKind::Internal {
            b.set(id, "http.response.status_code", 200_i64);
        }
    }
    b.arcs()
}

fn case(spans: Vec<Arc<Span>>) -> Case {
    Case { query: "q".to_owned(), nearby: spans.iter().take(3).cloned().collect(), spans, ..Case::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_spans_get_an_answer_that_is_about_them(raw in prop::collection::vec(span(), 0..40)) {
        let case = case(make(&raw));
        let report = explain(&case);
        let ids: Vec<String> = case.spans.iter().map(|s| s.span_id.to_string()).collect();
        for cause in report.causes.iter().chain([&report.verdict]) {
            if let Some(id) = &cause.span_id {
                prop_assert!(ids.contains(id), "{id} is in the trace");
            }
        }
        for id in report.chain.iter().map(|s| &s.span_id).chain(report.evidence.iter().map(|e| &e.span_id)) {
            prop_assert!(ids.contains(id));
        }
        let json = serde_json::to_string(&report).unwrap();
        prop_assert!(json.len() <= MAX_BYTES, "{} bytes", json.len());
        let style = show::Style { width: 100, color: false, utc_offset: |_| 0 };
        let screen = show::report(&report, &style);
        prop_assert!(!screen.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{screen:?}");
    }

    #[test]
    fn the_order_of_spans_does_not_matter(raw in prop::collection::vec(span(), 0..20), turn in 0..20usize) {
        let spans = make(&raw);
        let mut turned = spans.clone();
        if !turned.is_empty() {
            let n = turn % turned.len();
            turned.rotate_left(n);
        }
        let case = |spans| Case { query: "q".to_owned(), spans, ..Case::default() };
        prop_assert_eq!(explain(&case(spans)), explain(&case(turned)));
    }

    #[test]
    fn without_an_error_there_is_no_cause_and_with_one_that_counts_there_is(raw in prop::collection::vec(span(), 1..30)) {
        let spans = make(&raw);
        let report = explain(&Case { spans: spans.clone(), ..Case::default() });
        let failed = spans.iter().filter(|s| kind_of(s).is_some()).count();
        prop_assert!(failed > 0 || !report.verdict.kind.is_failure());
        prop_assert_eq!(report.verdict.kind.is_failure(), !report.causes.is_empty());
        let attempts: usize = report.causes.iter().map(|c| c.attempts).sum();
        prop_assert!(attempts <= failed);
    }

    #[test]
    fn a_cause_has_no_cause_below_it(raw in prop::collection::vec(span(), 0..30)) {
        let spans = make(&raw);
        let tree = Tree::new(&spans);
        let case = Case { spans: spans.clone(), ..Case::default() };
        let analysis = super::cause::Analysis::new(&case, &tree);
        let causes: Vec<usize> = analysis.findings.iter().flat_map(|f| f.spans.clone()).collect();
        for c in &causes {
            let mut at = *c;
            while let Some(p) = tree.parent[at].filter(|_| tree.edge[at] == Edge::Child) {
                let overlaps = tree.spans[at].start_wall_ns() <= tree.spans[p].end_wall_ns();
                prop_assert!(!causes.contains(&p) || !overlaps, "{p} explains nothing while {c} is below it");
                if !overlaps {
                    break;
                }
                at = p;
            }
        }
    }

    #[test]
    fn a_tree_is_one_whatever_the_parents(raw in prop::collection::vec(span(), 0..40)) {
        let spans = make(&raw);
        let tree = Tree::new(&spans);
        let mut order = tree.top_down();
        prop_assert_eq!(order.len(), tree.len(), "every span is below a root");
        order.sort_unstable();
        prop_assert_eq!(order, (0..tree.len()).collect::<Vec<_>>());
    }
}

#[test]
fn a_hundred_thousand_spans_in_one_chain_and_beside_each_other() {
    for deep in [true, false] {
        let mut b = Build::default();
        for n in 0..100_000u64 {
            let parent = if deep { n } else { u64::from(n > 0) };
            let id = b.span(parent, SpanKind::Client, "ktrdr-api", "GET /x", (n, 200_000));
            b.fail(id, "timeout", "no answer");
        }
        let report = explain(&b.case());
        assert_eq!(report.spans, 100_000);
        assert_eq!(report.verdict.attempts, if deep { 1 } else { 99_999 });
        assert!(serde_json::to_string(&report).unwrap().len() <= MAX_BYTES);
    }
}

#[test]
fn more_spans_than_are_looked_at_keep_the_failed_ones() {
    let mut b = Build::default();
    for n in 0..super::MAX_SPANS as u64 + 10 {
        let id = b.span(0, SpanKind::Client, "ktrdr-cli", "GET /x", (n, n + 1));
        b.set(id, "http.response.status_code", 200_i64);
    }
    let last = b.spans.len() as u64;
    b.get(last).status = Status::Error("the last one".to_owned());
    let report = explain(&b.case());
    assert_eq!(report.verdict.sentence, "the last one");
    assert!(report.gaps.iter().any(|g| g.starts_with("10 spans are no longer kept")), "{:?}", report.gaps);
}

#[test]
fn circles_are_cut_and_said() {
    let mut b = Build::default();
    for parent in [2, 3, 1] {
        b.span(parent, SpanKind::Client, "a", "GET /x", (0, 10));
    }
    b.span(4, SpanKind::Client, "a", "GET /self", (0, 10));
    let report = explain(&b.case());
    assert_eq!(report.spans, 4);
    assert!(report.gaps.iter().any(|g| g.contains("name each other")), "{:?}", report.gaps);
}

#[test]
fn endless_texts_are_cut() {
    let mut b = Build::default();
    let long = "ü".repeat(100_000);
    let id = b.span(0, SpanKind::Client, &long, &long, (0, 10));
    b.fail(id, &long, &long).set(id, "peer.service", long.clone()).set(id, "url.full", long.clone());
    let case = Case { query: long.clone(), operation: Some(long), ..b.case() };
    assert!(serde_json::to_string(&explain(&case)).unwrap().len() <= MAX_BYTES);
}
