//! Where a stream is divided into transfers means nothing; where it breaks off, all that began ends.

use super::{Act, each, messages, play, points, whole};
use crate::protocol::Side;
use crate::protocol::driver::{Driver, context};

#[test]
fn any_split_gives_the_same_messages() {
    each(|protocol, role, recording| {
        let expected = whole(protocol, role, &recording.acts).notes;
        assert!(!expected.is_empty(), "{} has no messages", recording.name);
        for (at, act) in recording.acts.iter().enumerate() {
            let Act::Bytes(_, bytes) = act else { continue };
            for point in points(bytes.len()) {
                let split = play(protocol, role, &recording.acts, |driver, index, side, bytes| {
                    let (head, tail) = bytes.split_at(if index == at { point } else { 0 });
                    if !head.is_empty() {
                        driver.feed(side, head);
                    }
                    driver.feed(side, tail);
                });
                assert_eq!(split.notes, expected, "{}: transfer {at} split at {point}", recording.name);
            }
        }
    });
}

#[test]
fn single_bytes_and_joined_transfers_give_the_same_messages() {
    each(|protocol, role, recording| {
        let expected = whole(protocol, role, &recording.acts).notes;
        let single = play(protocol, role, &recording.acts, |driver, _, side, bytes| {
            bytes.chunks(1).for_each(|byte| driver.feed(side, byte));
        });
        assert_eq!(single.notes, expected, "{}: byte by byte", recording.name);
        let mut joined: Vec<Act> = Vec::new();
        for act in recording.acts.clone() {
            match (joined.last_mut(), act) {
                (Some(Act::Bytes(last, all)), Act::Bytes(side, bytes)) if *last == side => all.extend(bytes),
                (_, act) => joined.push(act),
            }
        }
        assert_eq!(whole(protocol, role, &joined).notes, expected, "{}: joined", recording.name);
    });
}

#[test]
fn every_beginning_has_an_end_wherever_the_connection_breaks() {
    each(|protocol, role, recording| {
        for until in 0..recording.acts.len() {
            let mut driver = Driver::new(protocol, &context(role));
            let mut ended = [false; 2];
            for act in &recording.acts[..until] {
                match act {
                    Act::Bytes(side, bytes) => driver.feed(*side, bytes),
                    Act::End(side) => {
                        ended[*side as usize] = true;
                        driver.eof(*side);
                    }
                }
            }
            for side in [Side::Request, Side::Response] {
                if !ended[side as usize] {
                    driver.eof(side);
                }
                let open = messages(&driver.notes, side).iter().filter(|m| m.1.is_none()).count();
                assert_eq!(open, 0, "{} broken off after {until}: {:#?}", recording.name, driver.notes);
            }
        }
    });
}
