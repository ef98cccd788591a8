//! What is lost makes for fewer messages, never for wrong ones.

use proptest::prelude::*;

use super::{Act, Exchange, each, messages, play, points, recordings, whole};
use crate::protocol::driver::{Driver, Note};
use crate::protocol::{PROTOCOLS, Role, Side};

/// Whether a message seen with losses is that of the whole recording: the same, or marked as not whole.
fn is_same(seen: &Exchange<'_>, real: &Exchange<'_>) -> bool {
    match seen.1 {
        // Less is known of a head that is cut off, but not something else: what names the message agrees.
        Some((_, Some("head_truncated"))) => {
            let essence = |text: &str, key: &str| {
                text.split_once(key)
                    .map(|(_, rest)| rest.chars().take_while(|c| *c != ',').collect::<String>())
            };
            ["name: ", "status_code\", value: "]
                .iter()
                .all(|key| essence(seen.0, key) == essence(real.0, key))
        }
        Some((_, Some(_))) | None => seen.0 == real.0,
        Some((_, None)) => seen == real,
    }
}

fn assert_fewer_but_right(lossy: &Driver, expected: &[Note], what: &str) {
    for side in [Side::Request, Side::Response] {
        let real = messages(expected, side);
        let mut rest = real.iter();
        for seen in messages(&lossy.notes, side) {
            assert!(rest.any(|real| is_same(&seen, real)), "{what}: {seen:?} is not among {real:#?}");
        }
    }
}

#[test]
fn lost_bytes_give_fewer_messages_but_no_wrong_one() {
    each(|protocol, role, recording| {
        let expected = whole(protocol, role, &recording.acts).notes;
        // Where the opening of a tunnel is lost, what flows through it may be read: real, but not among these.
        if expected.contains(&Note::Opaque) {
            return;
        }
        for (at, act) in recording.acts.iter().enumerate() {
            let Act::Bytes(_, bytes) = act else { continue };
            // From the point on, lost up to the end of the transfer: a capture limit; from 0: a lost record.
            for point in std::iter::once(0).chain(points(bytes.len())) {
                let lossy = play(protocol, role, &recording.acts, |driver, index, side, bytes| {
                    let kept = if index == at { point } else { bytes.len() };
                    if kept > 0 {
                        driver.feed(side, &bytes[..kept]);
                    }
                    if kept < bytes.len() {
                        driver.gap(side, (bytes.len() - kept) as u64);
                    }
                });
                let what = format!("{}: transfer {at} lost from {point}", recording.name);
                assert_fewer_but_right(&lossy, &expected, &what);
            }
        }
    });
}

#[test]
fn a_truncated_capture_finds_the_next_message() {
    each(|protocol, role, recording| {
        let full = whole(protocol, role, &recording.acts);
        for limit in [200, 512, 1024, 4096] {
            let cut = play(protocol, role, &recording.acts, |driver, _, side, bytes| {
                let kept = bytes.len().min(limit);
                driver.feed(side, &bytes[..kept]);
                if kept < bytes.len() {
                    driver.gap(side, (bytes.len() - kept) as u64);
                }
            });
            let what = format!("{} captured up to {limit}", recording.name);
            assert_fewer_but_right(&cut, &full.notes, &what);
            if full.begun_inside == 0 && full.dropped == 0 {
                for side in [Side::Request, Side::Response] {
                    let (seen, real) = (messages(&cut.notes, side).len(), messages(&full.notes, side).len());
                    assert_eq!(seen, real, "{what}: {side:?} {:#?}", cut.notes);
                }
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn many_losses_give_fewer_messages_but_no_wrong_one(
        which in any::<prop::sample::Index>(),
        kept in prop::collection::vec(prop_oneof![3 => Just(1.0), 1 => Just(0.0), 1 => 0.0..1.0f64], 1..24),
    ) {
        for protocol in PROTOCOLS {
            let recordings = recordings(*protocol);
            let recording = which.get(&recordings);
            let expected = whole(*protocol, Role::Client, &recording.acts).notes;
            if expected.contains(&Note::Opaque) {
                continue;
            }
            let lossy = play(*protocol, Role::Client, &recording.acts, |driver, index, side, bytes| {
                let kept = (bytes.len() as f64 * kept[index % kept.len()]) as usize;
                if kept > 0 {
                    driver.feed(side, &bytes[..kept]);
                }
                if kept < bytes.len() {
                    driver.gap(side, (bytes.len() - kept) as u64);
                }
            });
            assert_fewer_but_right(&lossy, &expected, &recording.name);
        }
    }
}
