//! Writes of every kind, and what they are joined to.

use super::*;

const SECOND: Ns = 1_000 * MS;

struct Bench {
    joiner: Joiner<u32>,
    now: Ns,
}

/// What comes as the origin of later parts of a write.
const NOT_ASKED: u32 = u32::MAX;

/// Text and origin.
type Got = (String, Option<u32>);

impl Bench {
    fn new() -> Self {
        Self { joiner: Joiner::new(4096), now: SECOND }
    }

    /// A write by a task with a context of that number, which is its origin, too.
    fn write(&mut self, tid: u32, context: u32, bytes: &[u8]) -> &mut Self {
        self.write_to(7, tid, context, bytes, 0)
    }

    fn write_to(&mut self, file: u64, tid: u32, context: u32, bytes: &[u8], lost: u64) -> &mut Self {
        self.now += 1000;
        let task = Task { tgid: 1, tid, py_context: context.into() };
        let mut offset = 0;
        for part in bytes.chunks(ktrdr_ebpf_common::limits::MAX_PAYLOAD).take(4) {
            let id = FileId { inode: file, device: 0, generation: 0 };
            let kind = FileKind::Pipe;
            let w = Write {
                py_context: 0,
                id,
                kind,
                fd: 1,
                len: bytes.len() as u32,
                offset,
                payload: part,
                lost,
            };
            // Only at the first part is it asked who writes.
            self.joiner.write(self.now, task, &w, if offset == 0 { context } else { NOT_ASKED });
            offset += part.len() as u32;
        }
        self
    }

    fn wait(&mut self, ns: Ns) -> &mut Self {
        self.now += ns;
        self.joiner.expire(self.now);
        self
    }

    fn got(&mut self) -> Vec<Got> {
        self.joiner.take().into_iter().map(|r| (r.text, r.origin)).collect()
    }
}

fn got(texts: &[(&str, Option<u32>)]) -> Vec<Got> {
    texts.iter().map(|(t, o)| ((*t).to_owned(), *o)).collect()
}

const RECORD: &str = "2026-11-22 09:26:24,275 | ERROR | a.b | failed";

#[test]
fn a_record_per_write_is_its_writer_s() {
    let mut b = Bench::new();
    b.write(1, 10, b"INFO:     one\n").write(1, 11, b"INFO:     two\n").write(1, 12, b"print\n");
    assert_eq!(b.got(), got(&[("INFO:     one", Some(10)), ("INFO:     two", Some(11))]));
    b.wait(10 * MS);
    assert_eq!(b.got(), []);
    b.wait(40 * MS);
    assert_eq!(b.got(), got(&[("print", Some(12))]));
}

#[test]
fn a_traceback_stays_whole_in_one_write_and_in_many() {
    let trace =
        "Traceback (most recent call last):\n  File \"a\", line 1, in f\n    x\n    ~^\nValueError: no\nmore";
    let whole = format!("{RECORD}\n{trace}");
    let mut b = Bench::new();
    b.write(1, 10, format!("{whole}\n").as_bytes()).wait(SECOND);
    assert_eq!(b.got(), got(&[(&whole, Some(10))]));
    for line in trace.lines().take(5) {
        // Another thread's line between each two of them.
        b.write(1, 10, format!("{line}\n").as_bytes()).write(2, 20, b"INFO:     other\n");
    }
    b.wait(SECOND);
    let seen = b.got();
    assert_eq!(seen.iter().filter(|g| g.0 == "INFO:     other" && g.1 == Some(20)).count(), 5);
    let lines: Vec<&str> = trace.lines().take(5).collect();
    assert!(seen.contains(&(lines.join("\n"), Some(10))), "{seen:?}");
}

#[test]
fn a_write_in_many_parts_is_the_writer_s_of_the_first() {
    let mut b = Bench::new();
    let long = format!("2026-11-22 09:26:24,275 | ERROR | app | {}\n", "x".repeat(40_000));
    b.write(1, 5, long.as_bytes()).wait(SECOND);
    let origins: Vec<_> = b.got().iter().map(|(_, origin)| *origin).collect();
    assert_eq!(origins, [Some(5)]);
}

#[test]
fn what_came_out_of_a_buffer_has_no_writer() {
    let mut b = Bench::new();
    // Two prints that waited, flushed by a handler that writes its own record.
    b.write(1, 10, format!("one\ntwo\n{RECORD}\n").as_bytes()).wait(SECOND);
    assert_eq!(b.got(), got(&[("one", None), ("two", None), (RECORD, Some(10))]));
    // A full buffer ends anywhere.
    b.write(1, 10, b"three\nfo").write(1, 11, b"ur\nfive\n").wait(SECOND);
    assert_eq!(b.got(), got(&[("three", None), ("four", None), ("five", None)]));
    b.write(1, 10, b"six\nseven\n").wait(SECOND);
    assert_eq!(b.got(), got(&[("six", None), ("seven", None)]));
}

#[test]
fn a_record_of_an_earlier_write_keeps_its_writer() {
    let mut b = Bench::new();
    b.write(1, 10, b"INFO:     mine\n").write(1, 11, b"one\ntwo\n").wait(SECOND);
    assert_eq!(b.got(), got(&[("INFO:     mine", Some(10)), ("one", None), ("two", None)]));
}

#[test]
fn a_line_in_pieces_is_joined_by_thread() {
    let mut b = Bench::new();
    b.write(1, 10, b"half ")
        .write(2, 20, b"other\n")
        .write(1, 10, b"and half")
        .write(1, 10, b"\n")
        .wait(SECOND);
    assert_eq!(b.got(), got(&[("half and half", Some(10)), ("other", Some(20))]).as_slice()[..].to_vec());
    b.write(1, 10, b"begun by one, ").write(1, 11, b"ended by another\n").wait(SECOND);
    assert_eq!(b.got(), got(&[("begun by one, ended by another", None)]));
    b.write(1, 10, b"a prompt> ").wait(500 * MS);
    assert_eq!(b.got(), []);
    b.wait(SECOND).wait(SECOND);
    assert_eq!(b.got(), got(&[("a prompt>", Some(10))]));
}

#[test]
fn half_a_line_at_the_end_is_all_there_is() {
    let mut b = Bench::new();
    b.write(1, 10, b"killed in the mid");
    b.joiner.ended(1);
    assert_eq!(b.got(), got(&[("killed in the mid", Some(10))]));
    b.write(1, 10, b"INFO:     x\n").write(2, 20, b"y");
    b.joiner.end();
    assert_eq!(b.got(), got(&[("INFO:     x", Some(10)), ("y", Some(20))]));
}

#[test]
fn forged_lines_are_the_writer_s_or_nobody_s() {
    let mut b = Bench::new();
    let forged = "2026-11-22 09:26:24,275 | ERROR | a.b | forged op_training_20251113_101112_1a2b3c4d";
    b.write(1, 10, format!("{RECORD} by user\n{forged}\n").as_bytes()).wait(SECOND);
    assert_eq!(b.got(), got(&[(&format!("{RECORD} by user"), None), (forged, Some(10))]));
}

#[test]
fn long_binary_and_lost_is_counted() {
    let mut b = Bench::new();
    let long = vec![b'x'; 200_000];
    b.write(1, 10, &[&long[..], b"\n"].concat()).wait(SECOND);
    let seen = b.got();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].0.len() <= 4096);
    let counts = b.joiner.counts();
    assert_eq!(counts.uncaptured_bytes, 200_001 - 4 * 16_384);
    b.write(1, 10, &[0; 100]).write(1, 10, b"\n\xff\xfe\x00\n").wait(SECOND);
    assert_eq!((b.got(), b.joiner.counts().binary_lines), (Vec::new(), 2));
    b.write_to(7, 1, 10, b"a\n", 5).write_to(7, 1, 10, b"b\n", 5).write_to(7, 1, 10, b"c\n", 9).wait(SECOND);
    let lost: Vec<u64> = b.joiner.take().iter().map(|r| r.lost).collect();
    assert_eq!(lost, [5, 0, 4]);
}

#[test]
fn many_writers_are_bounded() {
    let mut b = Bench::new();
    for tid in 0..2 * MAX_WRITERS as u32 {
        b.write(tid, tid, b"INFO:     x\n");
    }
    assert_eq!(b.joiner.counts().evicted, MAX_WRITERS as u64);
    assert_eq!(b.got().len(), MAX_WRITERS);
}

proptest::proptest! {
    /// However a text is divided into writes, its lines come out, in order and whole.
    #[test]
    fn no_line_is_lost(lines in proptest::collection::vec("[a-z]{1,12}", 1..30), cuts in proptest::collection::vec(1usize..20, 1..20)) {
        let text = lines.join("\n") + "\n";
        let mut b = Bench::new();
        let (mut rest, mut cut) = (text.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() {
            let n = (*cut.next().unwrap()).min(rest.len());
            b.write(1, 10, &rest[..n]);
            rest = &rest[n..];
        }
        b.wait(SECOND);
        b.joiner.end();
        let all: Vec<String> = b.got().into_iter().flat_map(|(t, _)| t.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        proptest::prop_assert_eq!(all, lines);
    }

    /// Whatever is written, a record's origin is a task that wrote.
    #[test]
    fn nothing_breaks_it(writes in proptest::collection::vec((0u32..3, 0u32..4, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)), 0..40)) {
        let mut b = Bench::new();
        for (tid, context, bytes) in writes {
            b.write(tid, context, &bytes).wait(MS);
        }
        b.joiner.end();
        for (text, origin) in b.got() {
            proptest::prop_assert!(!text.contains('\x1b') && origin.is_none_or(|o| o < 4));
        }
    }
}
