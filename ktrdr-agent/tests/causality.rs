//! Recordings of real servers under load, replayed: every call must have the parent that its path names.
//!
//! Made with `tests/causality/run.py --record` (12 requests in flight, 24 per case) and `trim.py`.

#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use ktrdr_agent::core::{Core, CoreConfig, Output};
use ktrdr_agent::event::file::Reader;
use ktrdr_agent::trace::model::{Span, SpanId, SpanKind};
use ktrdr_ebpf_common::{EventHeader, kind};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Calls with the right parent, a wrong one, none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Score {
    right: u32,
    wrong: u32,
    none: u32,
}

fn replay(name: &str) -> Vec<Span> {
    replay_as(name, <[u8]>::to_vec)
}

/// As today's programs tell copies of contexts: without a time. The recordings are older.
fn without_time(record: &[u8]) -> Vec<u8> {
    let (mut header, rest) = EventHeader::read_from_prefix(record).expect("a header");
    if header.kind == kind::PY_COPY {
        header.ts = 0;
    }
    [header.as_bytes(), rest].concat()
}

fn replay_as(name: &str, change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Span> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/causality/recorded").join(name);
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut reader = Reader::new(GzDecoder::new(file)).expect("a recording");
    let mut core = Core::new(CoreConfig::default());
    let mut spans = Vec::new();
    while let Some(record) = reader.next_record().expect("a whole record") {
        core.feed(&change(record));
        while let Some(output) = core.next_output() {
            if let Output::Span(span) = output {
                spans.push(*span);
            }
        }
    }
    spans
}

fn text<'a>(span: &'a Span, key: &str) -> &'a str {
    span.attributes.get(key).and_then(|v| v.as_str()).unwrap_or_default()
}

/// By case: `/x/CASE/REQUEST/n` was called by the request `/CASE/REQUEST`; `none` by no request.
fn score(spans: &[Span]) -> BTreeMap<String, Score> {
    let served: BTreeMap<SpanId, &str> = spans
        .iter()
        .filter(|s| s.kind == SpanKind::Server)
        .map(|s| (s.span_id, text(s, "url.path")))
        .filter(|(_, path)| !path.starts_with("/x/"))
        .collect();
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    for call in spans.iter().filter(|s| s.kind == SpanKind::Client) {
        let Some((_, rest)) = text(call, "url.full").split_once("/x/") else { continue };
        let [case, request, _] = rest.split('/').collect::<Vec<_>>()[..] else { continue };
        let truth = (request != "none").then(|| format!("/{case}/{request}"));
        let linked = call.parent_span_id.into_iter().chain(call.links.iter().map(|l| l.span_id));
        let found = linked.filter_map(|id| served.get(&id).copied()).next();
        let score = scores.entry(case.to_owned()).or_default();
        match found {
            found if found == truth.as_deref() => score.right += 1,
            None => score.none += 1,
            Some(_) => score.wrong += 1,
        }
    }
    scores
}

fn check(recording: &str, expected: &[(&str, u32)]) {
    for spans in [replay(recording), replay_as(recording, without_time)] {
        let scores = score(&spans);
        println!("{recording}: {scores:?}");
        for (case, calls) in expected {
            let score = scores.get(*case).unwrap_or_else(|| panic!("{recording}: no call of {case}"));
            assert_eq!(score, &Score { right: *calls, wrong: 0, none: 0 }, "{recording}: {case}");
        }
        assert!(scores.values().all(|s| s.wrong == 0), "{recording}: {scores:?}");
    }
}

#[test]
fn fastapi_on_asyncio() {
    check("fastapi-asyncio.rec.gz", &[("gather", 72), ("background", 48), ("sync", 24)]);
}

#[test]
fn fastapi_on_uvloop() {
    check("fastapi-uvloop.rec.gz", &[("gather", 72), ("background", 48), ("stream", 48)]);
}

/// uvloop 0.22, started under the agent: its loop is first seen when it writes the first response, and only the second tells
/// it from a task. The first request's background call was made before that.
#[test]
fn the_first_requests_of_a_fresh_server_on_uvloop() {
    check("fastapi-uvloop-0.22-3.12.rec.gz", &[("background", 48), ("stream", 48)]);
}

/// uvloop 0.22, of which it is told what tasks give it to send later: aiohttp's calls and answers are theirs. So are the
/// calls of a server whose requests begin in empty contexts (uvicorn 0.39 before Python 3.11).
#[test]
fn what_uvloop_sends_later() {
    check("aiohttp-uvloop-0.22-3.13.rec.gz", &[("gather", 48)]);
    check("fastapi-uvloop-0.22-3.9.rec.gz", &[("gather", 72), ("aiohttp", 48), ("background", 48)]);
}

#[test]
fn aiohttp_serves_from_its_connections_tasks() {
    check("aiohttp-asyncio.rec.gz", &[("gather", 48)]);
    check("aiohttp-uvloop.rec.gz", &[("gather", 48)]);
}

/// gunicorn's gevent workers, at first with one connection and then with 12: a greenlet for each, of whose first request nothing
/// tells yet.
#[test]
fn a_greenlet_per_connection() {
    let scores = score(&replay("gunicorn-gevent.rec.gz"));
    assert_eq!(scores.get("threads"), Some(&Score { right: 212, wrong: 0, none: 28 }));
}

#[test]
fn a_thread_per_connection() {
    check("threads-none.rec.gz", &[("threads", 24)]);
}

/// Its pool's threads run in contexts that nobody copied, at addresses of ones that are gone.
#[test]
fn fastapi_on_cpython_3_14() {
    let cases = [("gather", 72), ("sync", 24), ("to-thread", 48), ("background", 48), ("aiohttp", 48)];
    check("fastapi-asyncio-3.14.rec.gz", &cases);
    // uvloop 0.23 writes at once, also what aiohttp sends.
    check("fastapi-uvloop-0.23-3.14.rec.gz", &cases);
}

/// From tasks, from threads, from what a pool's thread runs, with a loop inside, and from a poller that no request caused.
#[test]
fn what_is_submitted_to_a_pool() {
    let cases = [("executor", 24), ("own-loop", 48), ("submit", 48)];
    check("fastapi-asyncio-pools-3.13.rec.gz", &cases);
    check("threads-none-pools-3.13.rec.gz", &[("pool", 24)]);
}

/// Recorded when nothing told of submissions: what `run_in_executor` calls for is not known, and not guessed wrongly.
#[test]
fn an_executors_calls_are_nobody_elses() {
    for recording in ["fastapi-asyncio-3.14.rec.gz", "fastapi-uvloop-0.23-3.14.rec.gz"] {
        let scores = score(&replay(recording));
        let executor = scores.get("executor").expect("calls of it");
        assert_eq!((executor.wrong, executor.right + executor.none), (0, 24), "{recording}");
    }
}

/// Node has a timer that calls, too: one request in flight or many, no call is given to a request that did not make it.
#[test]
fn node_is_not_guessed_about() {
    let scores = score(&replay("node-none.rec.gz"));
    for case in ["async", "gather"] {
        assert_eq!(scores.get(case), Some(&Score { right: 0, wrong: 0, none: 96 }), "{scores:?}");
    }
    assert!(scores.get("poll").is_some_and(|s| s.right > 0 && s.wrong == 0), "{scores:?}");
}

#[test]
fn the_same_recording_gives_the_same_spans() {
    assert_eq!(replay("fastapi-uvloop.rec.gz"), replay("fastapi-uvloop.rec.gz"));
}
