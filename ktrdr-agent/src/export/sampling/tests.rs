//! Which spans go through, and that none is lost from the books.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::decide::MAX_UNDECIDED;
use super::{Keep, Rules, Sampler};
use crate::event::{MS, Ns};
use crate::export::{Item, fixture};
use crate::trace::model::{SpanKind, Status, TraceId};

const SEC: Ns = 1_000 * MS;

fn span(trace: u128, id: u8, ms: (u64, u64)) -> crate::trace::model::Span {
    let service = fixture::service("s");
    let mut span = fixture::span(1, id, 0, &service, SpanKind::Server, "GET /", ms);
    span.trace_id = TraceId(trace.to_be_bytes());
    span
}

/// Trace ids as the agent derives them: well mixed.
fn id(n: u64) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes())
}

fn offer(sampler: &mut Sampler, spans: &[Item]) -> Vec<Item> {
    let mut sent = Vec::new();
    spans.iter().for_each(|s| sampler.offer(s, &mut |s| sent.push(s)));
    sent
}

const KEEP: Keep = Keep { errors: true, slow: Some(SEC), operations: true, wait: 30 * SEC };

#[test]
fn a_ratio_keeps_that_part_of_the_traces_and_all_spans_of_each() {
    for (ratio, from, to) in [(0.0, 0, 0), (0.1, 900, 1_100), (0.5, 4_800, 5_200), (1.0, 10_000, 10_000)] {
        let mut sampler = Sampler::new(Rules { ratio, ..Rules::ALL });
        let spans: Vec<Item> =
            (0..30_000).map(|n| Arc::new(span(id(n % 10_000), (n / 10_000) as u8 + 1, (1, 2)))).collect();
        let sent = offer(&mut sampler, &spans);
        let mut by_trace: BTreeMap<TraceId, usize> = BTreeMap::new();
        sent.iter().for_each(|s| *by_trace.entry(s.trace_id).or_default() += 1);
        assert!((from..=to).contains(&by_trace.len()), "{ratio}: {} traces", by_trace.len());
        assert!(by_trace.values().all(|n| *n == 3), "a trace is sent whole or not at all");
        assert_eq!(sampler.left_out() + sent.len() as u64, 30_000);
    }
}

/// OpenTelemetry, "TraceState: Probability Sampling": with a threshold of 0xc0…, a quarter is sampled.
#[test]
fn the_decision_is_that_of_other_samplers() {
    let mut sampler = Sampler::new(Rules { ratio: 0.25, ..Rules::ALL });
    for (random, sampled) in [
        (0x00c0_0000_0000_0000, true),
        (0x00bf_ffff_ffff_ffff, false),
        (0x00ff_ffff_ffff_ffff, true),
        (0, false),
    ] {
        for above in [0u128, u128::MAX << 56] {
            let sent = offer(&mut sampler, &[Arc::new(span(above | random, 1, (1, 2)))]);
            assert_eq!(sent.len() == 1, sampled, "{random:x}");
        }
    }
    // More of them keeps at least the same ones.
    let kept = |ratio: f64| -> BTreeSet<TraceId> {
        let mut sampler = Sampler::new(Rules { ratio, ..Rules::ALL });
        let spans: Vec<Item> = (0..1_000).map(|n| Arc::new(span(id(n), 1, (1, 2)))).collect();
        offer(&mut sampler, &spans).iter().map(|s| s.trace_id).collect()
    };
    assert!(kept(0.2).is_subset(&kept(0.3)));
}

#[test]
fn a_trace_with_an_error_a_slow_span_or_an_operation_is_sent_from_its_first_span_on() {
    let mut failed = span(id(1), 2, (3, 4));
    failed.status = Status::Error(String::new());
    let slow = span(id(1), 2, (3, 1_003));
    let mut of_operation = span(id(1), 2, (3, 4));
    of_operation.attributes.set("operation.id", "op_training_20251113_101500_0a1b2c3d");
    let none = Keep { errors: false, slow: None, operations: false, wait: 30 * SEC };
    for (worth, rule) in [
        (failed, Keep { errors: true, ..none }),
        (slow, Keep { slow: Some(SEC), ..none }),
        (of_operation, Keep { operations: true, ..none }),
    ] {
        let worth = Arc::new(worth);
        let [before, after, other] =
            [(id(1), 1), (id(1), 3), (id(2), 4)].map(|(t, n)| Arc::new(span(t, n, (1, 5))));
        let spans = [before.clone(), other, worth.clone(), after.clone()];
        for keep in [rule, KEEP] {
            let mut sampler = Sampler::new(Rules { ratio: 0.0, keep });
            let sent = offer(&mut sampler, &spans);
            assert_eq!(sent, [before.clone(), worth.clone(), after.clone()], "{keep:?}");
            assert_eq!((sampler.left_out(), sampler.undecided()), (0, 1));
            sampler.end();
            assert_eq!((sampler.left_out(), sampler.undecided()), (1, 0));
        }
        // A rule for something else keeps nothing.
        let others = Keep {
            errors: !rule.errors,
            slow: if rule.slow.is_some() { None } else { Some(SEC) },
            operations: !rule.operations,
            wait: 30 * SEC,
        };
        let mut sampler = Sampler::new(Rules { ratio: 0.0, keep: others });
        assert_eq!(offer(&mut sampler, &spans), Vec::<Item>::new());
    }
}

#[test]
fn what_came_too_long_before_is_left_out_and_counted() {
    let mut sampler = Sampler::new(Rules { ratio: 0.0, keep: KEEP });
    let early = Arc::new(span(id(1), 1, (0, 1)));
    assert!(offer(&mut sampler, &[early]).is_empty());
    let elsewhere = Arc::new(span(id(2), 2, (31_100, 31_101)));
    assert!(offer(&mut sampler, &[elsewhere]).is_empty());
    assert_eq!((sampler.left_out(), sampler.undecided()), (1, 1));
    let mut failed = span(id(1), 3, (31_200, 31_201));
    failed.status = Status::Error(String::new());
    assert_eq!(offer(&mut sampler, &[Arc::new(failed)]).len(), 1);
}

#[test]
fn what_the_caller_decided_goes_before_the_ratio() {
    let said = |n: u64, sampled: bool| {
        let mut s = span(id(n), 1, (1, 2));
        s.attributes.set("ktrdr.trace.sampled", sampled);
        Arc::new(s)
    };
    let mut all = Sampler::new(Rules::ALL);
    assert!(offer(&mut all, &[said(1, false)]).is_empty());
    let mut none = Sampler::new(Rules { ratio: 0.0, ..Rules::ALL });
    assert_eq!(offer(&mut none, &[said(1, true)]).len(), 1);
}

#[test]
fn the_spans_that_wait_are_bounded() {
    let mut sampler = Sampler::new(Rules { ratio: 0.0, keep: KEEP });
    // One endless trace, then many short ones.
    for n in 0..2 * MAX_UNDECIDED as u64 {
        sampler.offer(&Arc::new(span(id(1), 1, (n / 100, n / 100 + 1))), &mut |_| {});
        assert!(sampler.undecided() <= MAX_UNDECIDED as u64);
    }
    for n in 0..2 * MAX_UNDECIDED as u64 {
        sampler.offer(&Arc::new(span(id(n), 1, (400, 401))), &mut |_| {});
        assert!(sampler.undecided() <= MAX_UNDECIDED as u64);
    }
    assert_eq!(sampler.left_out() + sampler.undecided(), 4 * MAX_UNDECIDED as u64);
}

proptest! {
    /// Every span is sent once, waits or is left out; and a trace of which anything was kept is not left out later.
    #[test]
    fn the_books_balance(
        events in prop::collection::vec((0u64..12, 0u64..2_000, 0u8..10), 0..400),
        ratio in prop::sample::select(vec![0.0, 0.3, 1.0]),
    ) {
        let mut sampler = Sampler::new(Rules { ratio, keep: Keep { wait: 5 * SEC, ..KEEP } });
        let (mut sent, mut now) = (Vec::new(), 0);
        let mut kept = BTreeSet::new();
        for (n, (trace, gap, what)) in events.iter().enumerate() {
            now += gap;
            let mut s = span(id(*trace), 1, (now, now + 1));
            s.name = n.to_string();
            if *what == 0 {
                s.status = Status::Error(String::new());
            }
            let trace = s.trace_id;
            let before = sent.len();
            sampler.offer(&Arc::new(s), &mut |s| sent.push(s));
            if kept.contains(&trace) {
                prop_assert_eq!(sent.len(), before + 1);
            }
            if sent.len() > before {
                kept.insert(trace);
            }
        }
        let names: BTreeSet<String> = sent.iter().map(|s| s.name.clone()).collect();
        prop_assert_eq!(names.len(), sent.len());
        prop_assert_eq!(sent.len() as u64 + sampler.left_out() + sampler.undecided(), events.len() as u64);
    }
}
