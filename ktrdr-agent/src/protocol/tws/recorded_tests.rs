//! Recorded sessions through the parser and the engine's pairing, compared with what the clients said they saw.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::Tws;
use crate::engine::Numbers;
use crate::engine::half::{Half, Report, Reports};
use crate::engine::pairing::{Exchange, Paired, Pairing};
use crate::engine::sequence::Piece;
use crate::event::Task;
use crate::protocol::driver::context;
use crate::protocol::{Protocol, Role, Side};
use crate::trace::model::{Status, Value};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tws")
}

/// A connection through one parser, both halves and the pairing, as in the engine.
struct Line {
    parser: Box<dyn crate::protocol::Parser>,
    halves: [Half; 2],
    seqs: [u32; 2],
    now: u64,
    pairing: Pairing,
    spans: Numbers,
    done: Vec<Exchange>,
}

impl Line {
    fn new() -> Self {
        Self {
            parser: Tws.parser(&context(Role::Client)),
            halves: Default::default(),
            seqs: [0; 2],
            now: 0,
            pairing: Pairing::default(),
            spans: Numbers::default(),
            done: Vec::new(),
        }
    }

    fn feed(&mut self, side: Side, bytes: &[u8]) {
        let at = side as usize;
        self.now += 1000;
        let piece = Piece::Bytes { seq: self.seqs[at], bytes, ts: self.now, task: Task::default() };
        self.seqs[at] += u32::try_from(bytes.len()).unwrap();
        self.piece(side, piece);
    }

    fn lose(&mut self, side: Side, len: u64) {
        self.now += 1000;
        self.piece(side, Piece::Missing { len, lost: true, ts: self.now, task: Task::default() });
    }

    fn piece(&mut self, side: Side, piece: Piece<'_>) {
        let (mut reports, mut out) = (Reports::new(), Vec::new());
        self.halves[side as usize].piece(self.parser.as_mut(), side, piece, &mut reports);
        for report in reports {
            match report {
                Report::Boundary(b) => {
                    self.pairing.boundary(side, b, &mut self.spans, &mut out);
                }
                Report::Lost(answer) => self.pairing.lost(side, answer, &mut out),
                Report::Opaque => panic!("opaque"),
            }
        }
        self.keep(out);
    }

    fn close(&mut self, why: &'static str) {
        let mut out = Vec::new();
        self.pairing.close(Some(self.now), why, &mut out);
        self.keep(out);
    }

    fn keep(&mut self, out: Vec<Paired>) {
        self.done.extend(out.into_iter().filter_map(|p| match p {
            Paired::Done(x) => Some(*x),
            _ => None,
        }));
    }
}

/// Plays a recording; also returns the client's bytes.
fn play(name: &str) -> (Vec<Exchange>, Vec<u8>) {
    let file = std::fs::read(fixtures().join(name).with_extension("bin")).unwrap();
    let (mut line, mut sent, mut rest) = (Line::new(), Vec::new(), file.as_slice());
    while let [kind, a, b, c, d, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(u32::from_le_bytes([*a, *b, *c, *d]) as usize);
        rest = tail;
        match kind {
            b'>' => {
                sent.extend_from_slice(bytes);
                line.feed(Side::Request, bytes);
            }
            b'<' => line.feed(Side::Response, bytes),
            _ => {}
        }
    }
    line.close("connection_closed");
    assert_eq!(line.pairing.given_up, 0);
    for half in &line.halves {
        assert_eq!(half.counts.lost, 0, "{name}");
    }
    (line.done, sent)
}

/// Messages a client sent, counted by their lengths alone.
fn count(mut sent: &[u8]) -> usize {
    let mut n = 0;
    sent = sent.strip_prefix(b"API\0").unwrap_or(sent);
    while let Some((len, rest)) = sent.split_first_chunk::<4>() {
        sent = &rest[u32::from_be_bytes(*len) as usize..];
        n += 1;
    }
    n
}

fn attribute<'a>(x: &'a Exchange, key: &str) -> Option<&'a Value> {
    let answer = x.response.as_ref().and_then(|r| r.attributes.get(key));
    answer.or_else(|| x.request.attributes.get(key))
}

fn int(x: &Exchange, key: &str) -> Option<i64> {
    match attribute(x, key) {
        Some(Value::Int(n)) => Some(*n),
        _ => None,
    }
}

fn said(name: &str) -> Vec<Json> {
    let text = std::fs::read_to_string(fixtures().join(name).with_extension("log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_recorded_request_is_one_exchange_and_says_what_the_client_saw() {
    let mut calls = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (done, sent) = play(name);
        assert_eq!(done.len(), count(&sent), "{name}");
        for line in said(name) {
            let call = line["call"].as_str().unwrap();
            calls += 1;
            let names = names(call);
            let found: Vec<_> = done.iter().filter(|x| names.contains(&x.request.name.as_str())).collect();
            let result = line["result"].as_i64();
            match call.split(':').next().unwrap() {
                "history" | "hourly" | "pair" if result > Some(0) => {
                    assert_eq!(found.len(), 1, "{name} {call}");
                    assert_eq!(int(found[0], "ib.bars_received"), result, "{name} {call}");
                }
                "details" if result > Some(0) => {
                    assert_eq!(int(found[0], "ib.items_received"), result, "{name} {call}");
                }
                _ => assert!(!found.is_empty(), "{name} {call}"),
            }
            for error in line["errors"].as_array().unwrap() {
                let (id, code) = (error[0].as_i64().unwrap(), error[1].as_i64().unwrap());
                if id < 0 || error[2].as_str().unwrap().contains("cancelled") {
                    continue;
                }
                let x = done.iter().find(|x| int(x, "ib.request.id") == Some(id)).unwrap();
                assert_eq!(int(x, "ib.error.code"), Some(code), "{name} {call}");
                assert!(matches!(x.response.as_ref().unwrap().status, Status::Error(_)), "{name} {call}");
            }
        }
    }
    assert!(calls > 30, "{calls} calls");
}

/// The requests that a call makes, by their spans' names.
fn names(call: &str) -> Vec<&'static str> {
    match call {
        "connect" => vec!["IB startApi"],
        "time" => vec!["IB reqCurrentTime"],
        "details:AAPL" => vec!["IB reqContractDetails AAPL STK"],
        "details:NOPE" => vec!["IB reqContractDetails NOPE STK"],
        "head:AAPL" => vec!["IB reqHeadTimeStamp AAPL STK"],
        "history:AAPL" => vec!["IB reqHistoricalData AAPL STK 1 day"],
        "history:PACING" => vec!["IB reqHistoricalData PACING STK 1 day"],
        "history:NODATA" => vec!["IB reqHistoricalData NODATA STK 1 day"],
        "history:SILENT" => vec!["IB reqHistoricalData SILENT STK 1 day"],
        "history:LOST" => vec!["IB reqHistoricalData LOST STK 1 day"],
        "history:RESET" => vec!["IB reqHistoricalData RESET STK 1 day"],
        "hourly:AAPL" => vec!["IB reqHistoricalData AAPL STK 1 hour"],
        "pair:EURUSD" => vec!["IB reqHistoricalData EUR.USD CASH 1 day"],
        "ticks:AAPL" => vec!["IB reqMktData AAPL STK"],
        "ticks:DENIED" => vec!["IB reqMktData DENIED STK"],
        other => panic!("unknown call {other}"),
    }
}

#[test]
fn the_session_stands_on_every_request_behind_its_beginning() {
    let (done, _) = play("ib_async_normal");
    let history = done.iter().find(|x| x.request.name.starts_with("IB reqHistoricalData")).unwrap();
    assert_eq!(int(history, "connection.client_id"), Some(7));
    assert_eq!(int(history, "ib.server_version"), Some(178));
    for x in &done {
        assert!(!format!("{x:?}").contains("1234567"), "{} tells the account", x.request.name);
    }
}

#[test]
fn silence_a_lost_link_and_a_client_id_in_use_show() {
    for name in ["ib_async_errors", "ib_insync_errors"] {
        let (done, _) = play(name);
        let of = |symbol: &str| done.iter().find(|x| x.request.name.contains(symbol)).unwrap();
        assert_eq!(of("SILENT").incomplete, Some("cancelled"), "{name}");
        assert!(of("SILENT").response.is_none(), "{name}");
        let codes: Vec<_> =
            of("LOST").events.iter().map(|e| e.attributes.get("ib.error.code").cloned().unwrap()).collect();
        assert_eq!(codes, [Value::Int(1100), Value::Int(2103)], "{name}");
        assert_eq!(int(of("LOST"), "ib.bars_received"), Some(28), "{name}");
        assert_eq!(attribute(of("PACING"), "ib.error.severity"), Some(&"warning".into()), "{name}");
    }
    let (done, _) = play("ib_async_client_id_in_use");
    let start = done.iter().find(|x| x.request.name == "IB startApi").unwrap();
    assert_eq!(int(start, "ib.error.code"), Some(326));
    assert_eq!(int(start, "connection.client_id"), Some(7));
    let (done, _) = play("ib_async_reset");
    let reset = done.iter().find(|x| x.request.name.contains("RESET")).unwrap();
    assert_eq!((reset.incomplete, reset.response.is_none()), (Some("connection_closed"), true));
}

fn framed(fields: &str) -> Vec<u8> {
    let text = fields.replace(',', "\0") + "\0";
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn history(id: u32) -> Vec<u8> {
    framed(&format!("20,{id},0,AAPL,STK,,0.0,,,SMART,,USD,,,0,,1 day,1 M,1,TRADES,1,0,"))
}

#[test]
fn keys_pair_across_a_loss_of_requests() {
    let mut line = Line::new();
    line.feed(Side::Request, &history(1));
    line.feed(Side::Request, &history(2));
    line.lose(Side::Request, 100);
    line.feed(Side::Request, &history(4));
    for id in [3, 4, 1] {
        line.feed(Side::Response, &framed(&format!("17,{id},20251013  21:00:00,20251113  21:00:00,0")));
    }
    let ids: Vec<_> = line.done.iter().map(|x| int(x, "ib.request.id")).collect();
    assert_eq!(ids, [Some(4), Some(1)]);
    line.close("connection_closed");
    assert_eq!(line.done.last().unwrap().incomplete, Some("connection_closed"));
}

#[test]
fn lost_answers_void_what_was_open() {
    let mut line = Line::new();
    line.feed(Side::Request, &history(1));
    line.lose(Side::Response, 100);
    line.feed(Side::Request, &history(2));
    line.feed(Side::Response, &framed("17,2,20251013  21:00:00,20251113  21:00:00,0"));
    let ends: Vec<_> = line.done.iter().map(|x| (int(x, "ib.request.id"), x.incomplete)).collect();
    assert_eq!(ends, [(Some(1), Some("response_lost")), (Some(2), None)]);
}

#[test]
fn many_unanswered_requests_and_warnings_stay_bounded() {
    let mut line = Line::new();
    for id in 0..4_000 {
        line.feed(Side::Request, &history(id));
        line.feed(Side::Response, &framed("4,2,-1,1100,Connectivity has been lost,"));
        if id == 2000 {
            line.done.clear();
        }
    }
    assert_eq!(line.pairing.open(), 1024);
    line.close("connection_closed");
    assert!(line.done.iter().all(|x| x.events.len() <= 128));
}
