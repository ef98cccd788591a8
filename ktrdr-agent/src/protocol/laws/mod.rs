//! Laws that every protocol obeys, tried on recordings of real programs (`tests/fixtures/*/README.md`).
//!
//! A new protocol adds a line to [`FIXTURES`] and its recordings; the laws iterate [`PROTOCOLS`].

mod beginnings;
mod damage;
mod losses;
mod splits;

use std::path::Path;

use super::driver::{Driver, Note, context};
use super::{PROTOCOLS, Protocol, Role, Side};

/// Where the recordings of a protocol lie, under `tests/fixtures`.
const FIXTURES: &[(&str, &str)] = &[("http", "http1"), ("ib", "tws")];

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
