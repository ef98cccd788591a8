//! Files with tables of methods, made for the purpose.

use object::elf;

use ktrdr_ebpf_common::maps::PyContexts;

use super::methods::{ENTRY, MethodsError};
use super::queue::Queue;
use super::stream::Stream;

/// Where the parts of the file are: offsets, and from `BASE` on their addresses. Code, texts, and what is written to.
const BASE: u64 = 0x40_0000;
const CODE: u64 = 0x1000;
const TEXTS: u64 = 0x2000;
const DATA: u64 = 0x3000;
const RELOCATIONS: u64 = 0x2800;
const DYNAMIC: u64 = DATA + 0xe00;
const END: u64 = DATA + 0x1000;
const TABLE: u64 = DATA + 0x128;

/// An entry of the table: name, place of its function in the code, flags.
type Entry = (&'static str, u64, u32);

/// `METH_FASTCALL | METH_KEYWORDS`.
const FAST: u32 = 0x82;

const METHODS: [Entry; 7] = [
    ("empty", 0x10, 4),
    ("get", 0x20, 0x282),
    ("get_nowait", 0x30, 0x282),
    ("put", 0x40, FAST),
    ("put_nowait", 0x50, FAST),
    ("qsize", 0x60, 4),
    ("__class_getitem__", 0x70, 0x18),
];

/// A file with these tables one behind the other, each ended by an empty entry. With `relocations` addresses are in these only.
fn file(tables: &[&[Entry]], relocations: bool) -> Vec<u8> {
    let mut file = vec![0; END as usize];
    let mut put = |at: u64, bytes: &[u8]| file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    let machine = if cfg!(target_arch = "aarch64") { elf::EM_AARCH64 } else { elf::EM_X86_64 };
    for (at, half) in [(16, elf::ET_DYN), (18, machine), (52, 64), (54, 56), (56, 4)] {
        put(at, &half.to_le_bytes());
    }
    put(20, &1_u32.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    let segments = [
        (elf::PT_LOAD, elf::PF_R | elf::PF_X, CODE, TEXTS),
        (elf::PT_LOAD, elf::PF_R, TEXTS, DATA),
        (elf::PT_LOAD, elf::PF_R | elf::PF_W, DATA, END),
        (elf::PT_DYNAMIC, elf::PF_R | elf::PF_W, DYNAMIC, DYNAMIC + 0x100),
    ];
    for ((kind, flags, begin, end), at) in segments.into_iter().zip((64..).step_by(56)) {
        put(at, &kind.to_le_bytes());
        put(at + 4, &flags.to_le_bytes());
        let words = [begin, BASE + begin, BASE + begin, end - begin, end - begin, 0x1000];
        words.iter().zip((at + 8..).step_by(8)).for_each(|(word, at)| put(at, &word.to_le_bytes()));
    }
    let mut moved = Vec::new();
    let (mut entry, mut text) = (TABLE, TEXTS + 0x100);
    for table in tables {
        for (name, function, flags) in *table {
            put(text, name.as_bytes());
            put(entry + 16, &flags.to_le_bytes());
            moved.push((BASE + entry, BASE + text));
            moved.push((BASE + entry + 8, BASE + CODE + function));
            text += name.len() as u64 + 1;
            entry += ENTRY;
        }
        entry += ENTRY;
    }
    if !relocations {
        moved.drain(..).for_each(|(place, target)| put(place - BASE, &target.to_le_bytes()));
    }
    for ((place, target), at) in moved.iter().zip((RELOCATIONS..).step_by(24)) {
        let kind =
            if cfg!(target_arch = "aarch64") { elf::R_AARCH64_RELATIVE } else { elf::R_X86_64_RELATIVE };
        let words = [*place, kind.into(), *target];
        words.iter().zip((at..).step_by(8)).for_each(|(word, at)| put(at, &word.to_le_bytes()));
    }
    let size = moved.len() as u64 * 24;
    for (word, at) in [7, BASE + RELOCATIONS, 8, size].iter().zip((DYNAMIC..).step_by(8)) {
        put(at, &word.to_le_bytes());
    }
    file
}

fn open(bytes: &[u8]) -> Result<Queue, MethodsError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Queue::open(file.path())
}

const FOUND: Queue = Queue { put: CODE + 0x40, gets: [CODE + 0x20, CODE + 0x30] };

#[test]
fn the_table_is_found_with_its_addresses_in_place_and_elsewhere() {
    for relocations in [false, true] {
        assert_eq!(open(&file(&[&METHODS], relocations)).unwrap(), FOUND);
        // Beside others, and in any order.
        let other: &[Entry] = &[("put", 0x80, 1), ("get", 0x90, 1)];
        let mut reversed = METHODS;
        reversed.reverse();
        assert_eq!(open(&file(&[other, &reversed, other], relocations)).unwrap(), FOUND);
    }
    let mut marked = file(&[&METHODS], true);
    marked[(CODE + 0x40) as usize..][..4].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa]);
    let skipped = if cfg!(target_arch = "x86_64") { 4 } else { 0 };
    assert_eq!(open(&marked).unwrap(), Queue { put: FOUND.put + skipped, ..FOUND });
}

#[test]
fn what_only_looks_like_it_is_not_taken_for_it() {
    let with = |at: usize, entry: Entry| {
        let mut methods = METHODS;
        methods[at] = entry;
        file(&[&methods], true)
    };
    let mut twice = METHODS;
    twice[3].1 = 0x48;
    for (bytes, what) in [
        (with(3, ("put", 0x40, 8)), "another way to pass arguments"),
        (with(1, ("take", 0x20, 0x282)), "a name is missing"),
        (with(5, ("qsize", 0x9000, 4)), "a function that is no code"),
        (file(&[&METHODS[..4], &METHODS[4..]], true), "two tables"),
        (file(&[&METHODS, &twice], false), "two of them"),
        (file(&[], true), "nothing"),
    ] {
        assert!(matches!(open(&bytes), Err(MethodsError::NotFound(_))), "{what}");
    }
    let mut other = file(&[&METHODS], true);
    other[18..20].copy_from_slice(&elf::EM_S390.to_le_bytes());
    assert!(matches!(open(&other), Err(MethodsError::Machine)));
    assert!(matches!(open(b"#!/bin/sh\n"), Err(MethodsError::Elf(_))));
}

/// Any byte may be wrong, and any number of them missing: whatever comes of it is a value.
#[test]
fn a_hostile_file_is_a_file_without_it() {
    for relocations in [false, true] {
        let good = file(&[&METHODS], relocations);
        let heads = (0..0x200).chain(RELOCATIONS as usize..RELOCATIONS as usize + 0x40);
        let all = heads
            .chain(TABLE as usize..TABLE as usize + 0x100)
            .chain(DYNAMIC as usize..DYNAMIC as usize + 0x20);
        for at in all {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = open(&bad);
            }
        }
        for length in (0..good.len()).step_by(97) {
            let cut = open(&good[..length]);
            assert!(cut.is_err() || length as u64 > TABLE, "{length}: {cut:?}");
        }
    }
}

/// As Cython 3 writes it for uvloop.
const STREAM: [Entry; 8] = [
    ("write", 0x10, FAST),
    ("writelines", 0x20, FAST),
    ("write_eof", 0x30, FAST),
    ("can_write_eof", 0x40, FAST),
    ("is_reading", 0x50, FAST),
    ("pause_reading", 0x60, FAST),
    ("resume_reading", 0x70, FAST),
    ("__reduce_cython__", 0x80, FAST),
];

/// As long a table as that of the transport over TLS, with the same methods.
fn tls() -> Vec<Entry> {
    const OTHERS: [Entry; 13] = [("get_extra_info", 0x90, FAST); 13];
    [&OTHERS[..], &STREAM[..4], &[("abort", 0xa0, FAST)], &STREAM[4..]].concat()
}

fn open_stream(bytes: &[u8]) -> Result<Stream, MethodsError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Stream::open(file.path())
}

#[test]
fn a_stream_is_told_from_the_transport_over_tls_and_how_it_is_called() {
    let found = |passed| Stream { writes: [CODE + 0x10, CODE + 0x20], passed };
    let one = STREAM.map(|(name, function, _)| (name, function, 8));
    let fast = STREAM.map(|(name, function, _)| (name, function, 0x80));
    for relocations in [false, true] {
        let open = |tables: &[&[Entry]]| open_stream(&file(tables, relocations));
        assert_eq!(open(&[&tls(), &STREAM]).unwrap(), found(PyContexts::ARGUMENTS));
        assert_eq!(open(&[&fast, &tls()]).unwrap(), found(PyContexts::ARGUMENTS));
        assert_eq!(open(&[&one]).unwrap(), found(PyContexts::OBJECT));
        let (mut either, mut tuple, mut missing) = (STREAM, STREAM, STREAM);
        either[1].2 = 8;
        (tuple[0].2, tuple[1].2) = (1, 1);
        missing[5].0 = "pause";
        let mut twice = STREAM;
        twice[0].1 = 0x18;
        for (tables, what) in [
            (&[&tls()[..]][..], "over TLS only"),
            (&[&either[..]], "one each way"),
            (&[&tuple[..]], "arguments in a tuple"),
            (&[&missing[..]], "a name is missing"),
            (&[&STREAM[..], &twice[..]], "two of them"),
        ] {
            let opened = open(tables);
            assert!(matches!(opened, Err(MethodsError::NotFound("UVStream"))), "{what}: {opened:?}");
        }
    }
}

#[test]
fn a_hostile_file_is_no_stream_either() {
    let good = file(&[&STREAM], true);
    let places =
        (TABLE as usize..TABLE as usize + 0x100).chain(RELOCATIONS as usize..RELOCATIONS as usize + 0x180);
    for at in places {
        for value in [0, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(found) = open_stream(&bad) {
                assert!(found.writes.iter().all(|at| (CODE..TEXTS).contains(at)), "{at:#x}: {found:x?}");
            }
        }
    }
}
