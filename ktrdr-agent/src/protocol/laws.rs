//! Laws that every protocol obeys, tried on recordings of real programs (`tests/fixtures/*/README.md`).
//!
//! A new protocol adds a line to [`FIXTURES`] and its recordings; the laws iterate [`PROTOCOLS`].

use std::path::Path;

use proptest::prelude::*;

use super::driver::{Driver, Note, context};
use super::{PROTOCOLS, Protocol, Role, Side, Sniff};

/// Where the recordings of a protocol lie, under `tests/fixtures`.
const FIXTURES: &[(&str, &str)] = &[("http", "http1"), ("ib", "tws")];

/// First bytes of other protocols, by the name that would speak them.
const FOREIGN: &[(&str, &[u8])] = &[
    ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x5c\x1f"),
    ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0"),
    ("ib", b"API\0\0\0\0\x09v157..178"),
    ("ib", b"\0\0\0\x1a178\x0020251113 12:00:00 UTC\0"),
    ("redis", b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"),
    ("redis", b"GET a\r\n"),
    ("redis", b"+OK\r\n"),
    ("postgres", b"\0\0\0\x08\x04\xd2\x16\x2f"),
    ("postgres", b"\0\0\0\x25\0\x03\0\0user\0ktrdr\0database\0ktrdr\0\0"),
    ("postgres", b"Q\0\0\0\x0dselect 1\0"),
    ("mysql", b"\x4a\0\0\0\x0a8.0.36\0"),
    ("ssh", b"SSH-2.0-OpenSSH_9.6\r\n"),
    ("memcached", b"get a\r\n"),
    ("smtp", b"220 mail.example ESMTP\r\n"),
];

/// What one side did.
#[derive(Clone)]
enum Act {
    Bytes(Side, Vec<u8>),
    End(Side),
}

struct Recording {
    name: String,
    acts: Vec<Act>,
}

fn recordings(protocol: &dyn Protocol) -> Vec<Recording> {
    let dir = FIXTURES.iter().find(|(name, _)| *name == protocol.name()).map(|(_, dir)| *dir);
    let dir = dir.unwrap_or_else(|| panic!("no recordings of {}", protocol.name()));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(dir);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "bin"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no recordings of {}", protocol.name());
    files
        .iter()
        .map(|path| Recording {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            acts: acts(&std::fs::read(path).unwrap()),
        })
        .collect()
}

fn acts(mut file: &[u8]) -> Vec<Act> {
    let mut acts = Vec::new();
    while let [kind, a, b, c, d, rest @ ..] = file {
        let (bytes, rest) = rest.split_at(u32::from_le_bytes([*a, *b, *c, *d]) as usize);
        acts.push(match kind {
            b'>' => Act::Bytes(Side::Request, bytes.to_vec()),
            b'<' => Act::Bytes(Side::Response, bytes.to_vec()),
            b')' => Act::End(Side::Request),
            b'(' => Act::End(Side::Response),
            _ => panic!("unknown record {kind}"),
        });
        file = rest;
    }
    assert!(file.is_empty(), "a record is cut off");
    acts
}

/// The role decides about attributes, not about boundaries: one is enough, and they take turns.
fn each(mut law: impl FnMut(&dyn Protocol, Role, &Recording)) {
    for protocol in PROTOCOLS {
        for (recording, role) in
            recordings(*protocol).iter().zip([Role::Server, Role::Client].into_iter().cycle())
        {
            law(*protocol, role, recording);
        }
    }
}

/// Plays acts; `cut` may feed a transfer in its own way.
fn play(
    protocol: &dyn Protocol,
    role: Role,
    acts: &[Act],
    mut cut: impl FnMut(&mut Driver, usize, Side, &[u8]),
) -> Driver {
    let mut driver = Driver::new(protocol, &context(role));
    for (index, act) in acts.iter().enumerate() {
        match act {
            Act::Bytes(side, bytes) => cut(&mut driver, index, *side, bytes),
            Act::End(side) => driver.eof(*side),
        }
    }
    driver
}

fn whole(protocol: &dyn Protocol, role: Role, acts: &[Act]) -> Driver {
    play(protocol, role, acts, |driver, _, side, bytes| driver.feed(side, bytes))
}

/// Points to cut `len` bytes at: all of them in the first 2 KiB and the last 64 bytes, where heads and chunk lines
/// are, and some between.
fn points(len: usize) -> impl Iterator<Item = usize> {
    (1..len).filter(move |at| *at < 2048 || *at + 64 > len || at % 251 == 0)
}

#[test]
fn recordings_are_recognised_from_any_beginning() {
    each(|protocol, _, recording| {
        for side in [Side::Request, Side::Response] {
            // The first transfer; with those after it as long as there are fewer bytes than the engine keeps.
            let mut first: Vec<u8> = Vec::new();
            for act in &recording.acts {
                match act {
                    Act::Bytes(s, bytes) if *s == side && first.len() < 64 => first.extend(bytes),
                    _ => {}
                }
            }
            if first.is_empty() {
                continue;
            }
            // Empty lines may come before a message but do not identify one.
            let blank = first.iter().take_while(|b| b.is_ascii_whitespace()).count();
            let mut sure = false;
            for end in 1..=first.len() - blank {
                let found = protocol.sniff(&first[blank..blank + end]);
                let right = if sure { found == Sniff::Yes(side) } else { found != Sniff::No };
                assert!(right, "{}: {found:?} after {end} bytes", recording.name);
                sure |= found == Sniff::Yes(side);
            }
            assert!(sure, "{}: {side:?} is not recognised", recording.name);
        }
    });
}

#[test]
fn each_protocol_rejects_the_others() {
    for protocol in PROTOCOLS {
        for (name, bytes) in FOREIGN.iter().filter(|(name, _)| *name != protocol.name()) {
            assert_eq!(protocol.sniff(bytes), Sniff::No, "{} takes {name} for its own", protocol.name());
        }
        for other in PROTOCOLS.iter().filter(|other| other.name() != protocol.name()) {
            for recording in recordings(*other) {
                let first = recording.acts.iter().find_map(|act| match act {
                    Act::Bytes(_, bytes) => Some(bytes),
                    Act::End(_) => None,
                });
                let found = protocol.sniff(first.expect("a recording has bytes"));
                assert_eq!(found, Sniff::No, "{} takes {} for its own", protocol.name(), recording.name);
            }
        }
    }
}

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

/// A message and its end.
type Exchange<'a> = (&'a str, Option<(&'a str, Option<&'static str>)>);

fn messages(notes: &[Note], side: Side) -> Vec<Exchange<'_>> {
    let mut messages: Vec<Exchange<'_>> = Vec::new();
    for note in notes {
        match note {
            Note::Begin(s, text) if *s == side => messages.push((text, None)),
            Note::End(s, text, why) if *s == side => {
                let last = messages.last_mut().expect("an end has a beginning");
                assert!(last.1.is_none(), "two ends: {notes:?}");
                last.1 = Some((text, *why));
            }
            _ => {}
        }
    }
    messages
}

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

/// Damage done to a recording.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Remove(usize, usize),
    Repeat(usize, usize),
    Gap(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let (at, len) = (0..8192usize, 1..400usize);
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, b)| Damage::Flip(at, b)),
        (at.clone(), len.clone()).prop_map(|(at, n)| Damage::Remove(at, n)),
        (at.clone(), len.clone()).prop_map(|(at, n)| Damage::Repeat(at, n)),
        (at, len).prop_map(|(at, n)| Damage::Gap(at, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn garbage_never_panics_and_stays_bounded(
        transfers in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..300)), 0..40),
    ) {
        for protocol in PROTOCOLS {
            let context = context(Role::Server);
            let mut driver = Driver::new(*protocol, &context);
            for (request, bytes) in &transfers {
                driver.feed(if *request { Side::Request } else { Side::Response }, bytes);
                prop_assert!(driver.held() <= 2 * context.max_head + 300);
            }
            driver.eof(Side::Request);
            driver.eof(Side::Response);
        }
    }

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

    #[test]
    fn damaged_recordings_never_panic_and_stay_bounded(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
        piece in 1..3000usize,
    ) {
        for protocol in PROTOCOLS {
            let recordings = recordings(*protocol);
            let recording = which.get(&recordings);
            let context = context(Role::Client);
            let mut driver = Driver::new(*protocol, &context);
            for act in &recording.acts {
                let Act::Bytes(side, bytes) = act else { continue };
                let mut bytes = bytes.clone();
                for damage in &damages {
                    let range = |at: usize, n: usize| at.min(bytes.len())..(at.saturating_add(n)).min(bytes.len());
                    match damage {
                        Damage::Flip(at, b) => if let Some(byte) = bytes.get_mut(*at) { *byte ^= b },
                        Damage::Remove(at, n) => { bytes.drain(range(*at, *n)); }
                        Damage::Repeat(at, n) => {
                            let again = bytes[range(*at, *n)].to_vec();
                            let at = (*at).min(bytes.len());
                            bytes.splice(at..at, again);
                        }
                        Damage::Gap(at, n) => {
                            let range = range(*at, *n);
                            bytes[..range.start].chunks(piece).for_each(|piece| driver.feed(*side, piece));
                            if !range.is_empty() {
                                driver.gap(*side, range.len() as u64);
                            }
                            bytes.drain(..range.end);
                        }
                    }
                }
                bytes.chunks(piece).for_each(|piece| driver.feed(*side, piece));
                prop_assert!(driver.held() <= 2 * (context.max_head + piece));
            }
            driver.eof(Side::Request);
            driver.eof(Side::Response);
        }
    }
}
