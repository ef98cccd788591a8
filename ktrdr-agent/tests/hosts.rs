//! One recording cut into what each of two hosts' agents would have seen, and joined again.

#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use ktrdr_agent::event::file::{Reader, Writer};
use ktrdr_agent::settings::Settings;
use ktrdr_agent::store::from_files;
use ktrdr_agent::trace::model::{SpanId, SpanKind, TraceId, Value};
use ktrdr_ebpf_common::EventHeader;
use zerocopy::FromBytes;

/// httpx and requests with uvicorn.
fn recording() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/replay/calls.rec.gz")
}

/// Kinds from here on are the shell's: facts about the host, which both have.
const SHELL: u16 = 0x8000;

/// Leaves the kernel's records of one process out.
fn without(tgid: u32, to: &Path) {
    let mut reader =
        Reader::new(GzDecoder::new(File::open(recording()).expect("opens"))).expect("a recording");
    let mut writer = Writer::new(File::create(to).expect("creates")).expect("writes");
    while let Some(record) = reader.next_record().expect("a whole record") {
        let (header, _) = EventHeader::read_from_prefix(record).expect("a header");
        if header.kind >= SHELL || header.tgid != tgid {
            writer.record(record).expect("writes");
        }
    }
    writer.finish().expect("writes");
}

#[derive(Debug, PartialEq)]
struct Seen {
    trace: TraceId,
    parent: Option<SpanId>,
    kind: SpanKind,
    pid: i64,
}

fn spans(files: &[PathBuf]) -> BTreeMap<SpanId, Seen> {
    let mut seen = BTreeMap::new();
    from_files(files, &Settings::default()).expect("readable").each_span(|s| {
        let pid = match s.resource.attributes.get("process.pid") {
            Some(Value::Int(pid)) => *pid,
            other => panic!("{other:?} is no process id"),
        };
        seen.insert(s.span_id, Seen { trace: s.trace_id, parent: s.parent_span_id, kind: s.kind, pid });
    });
    seen
}

fn pids(spans: &BTreeMap<SpanId, Seen>, kind: SpanKind) -> u32 {
    let pids: BTreeSet<i64> = spans.values().filter(|s| s.kind == kind).map(|s| s.pid).collect();
    assert_eq!(pids.len(), 1, "{kind:?}: {pids:?}");
    pids.first().and_then(|p| u32::try_from(*p).ok()).expect("a process id")
}

#[test]
fn two_hosts_recordings_give_the_traces_of_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = spans(&[recording()]);
    let (client, server) = (pids(&whole, SpanKind::Client), pids(&whole, SpanKind::Server));
    let (a, b) = (dir.path().join("a.ktrdr"), dir.path().join("b.ktrdr"));
    without(server, &a);
    without(client, &b);
    let apart = spans(std::slice::from_ref(&b));
    assert!(apart.values().all(|s| s.parent.is_none()), "alone, the server's host knows no caller");
    let joined = whole.values().filter(|s| s.kind == SpanKind::Server && s.parent.is_some()).count();
    assert!(joined >= 10, "{joined} calls are a poor test");
    assert_eq!(spans(&[a.clone(), b.clone()]), whole);
    assert_eq!(spans(&[b, a]), whole);
}
