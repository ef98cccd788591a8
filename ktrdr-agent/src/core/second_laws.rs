//! Transfers that a second program tells instead of the first, or once more, change nothing.

use ktrdr_ebpf_common::{EventHeader, flags, kind};
use proptest::prelude::*;
use zerocopy::FromBytes;

use super::thinning_laws::records;
use crate::core::{Core, CoreConfig, CoreCounts, Output};
use crate::trace::model::Span;

/// By which program a transfer is told.
#[derive(Clone, Copy, Debug)]
enum Told {
    First,
    Second,
    Both,
}

fn by_second(record: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    let at = std::mem::offset_of!(EventHeader, flags);
    let with = u16::from_ne_bytes([record[at], record[at + 1]]) | flags::SECOND;
    record[at..at + 2].copy_from_slice(&with.to_ne_bytes());
    record
}

fn is_transfer(record: &[u8]) -> bool {
    EventHeader::read_from_prefix(record).is_ok_and(|(header, _)| header.kind == kind::DATA)
}

/// The spans of these records, with what is said of each transfer in turn.
fn spans(all: &[Vec<u8>], told: &[Told]) -> (Vec<Span>, CoreCounts) {
    let mut core = Core::new(CoreConfig::default());
    let mut spans = Vec::new();
    let mut told = told.iter().cycle();
    let mut feed = |core: &mut Core, record: &[u8]| {
        core.feed(record);
        while let Some(output) = core.next_output() {
            if let Output::Span(span) = output {
                spans.push(*span);
            }
        }
    };
    for record in all {
        match told.next().filter(|_| is_transfer(record)) {
            None | Some(Told::First) => feed(&mut core, record),
            Some(Told::Second) => feed(&mut core, &by_second(record)),
            Some(Told::Both) => {
                feed(&mut core, record);
                feed(&mut core, &by_second(record));
            }
        }
    }
    let counts = core.counts();
    (spans, counts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn spans_are_the_same(
        seed: u64,
        steps in 10..200usize,
        told in prop::collection::vec(
            prop_oneof![Just(Told::First), Just(Told::Second), Just(Told::Both)],
            1..50,
        ),
    ) {
        let all = records(seed, steps);
        let (as_ever, before) = spans(&all, &[Told::First]);
        let (seen, counts) = spans(&all, &told);
        prop_assert_eq!(seen, as_ever);
        prop_assert_eq!(counts.engine.moved, before.engine.moved);
        prop_assert_eq!(before.told_twice, 0);
    }
}

/// So that the law above says something.
#[test]
fn what_is_told_twice_is_counted() {
    let all = records(1, 100);
    let transfers = all.iter().filter(|record| is_transfer(record)).count() as u64;
    let (spans, counts) = spans(&all, &[Told::Both]);
    assert!(spans.len() > 20 && transfers > 50, "{} spans, {transfers} transfers", spans.len());
    assert!(counts.told_twice * 10 > transfers * 9, "{} of {transfers}", counts.told_twice);
}
