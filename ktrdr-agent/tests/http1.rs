//! The HTTP/1.1 reader against parsers that share no code with it: h11, and llhttp (Node's) by httptools.
//!
//! They stand at an end of the connection and may refuse; we look on, and whatever the two ends agreed on we have to
//! read. So: what either of them read, we read the same, at whatever bytes the stream is divided. Behind the point where
//! both refused, anything will do that neither panics nor loses count of bytes.

// Helpers of tests fail as tests do; clippy lets only `#[test]` functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "http1/cases.rs"]
mod cases;
#[path = "http1/judges.rs"]
mod judges;
#[path = "http1/reader.rs"]
mod reader;
#[path = "http1/streams.rs"]
mod streams;

use judges::{Stream, Verdict, judge};
use ktrdr_agent::protocol::Side;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reader::{Reader, Seen};

/// The same streams and splits each time.
const SEED: u64 = 20_251_113;

/// Streams drawn, and conversations: more find nothing more for a second of time.
const DRAWN: usize = 1500;

/// What a verdict and what we read have against each other.
fn difference(ours: &[Seen], verdict: &Verdict, side: Side) -> Option<String> {
    for (at, theirs) in verdict.messages.iter().enumerate() {
        let Some(own) = ours.get(at) else { return Some(format!("message {at} is missing")) };
        let start = match side {
            Side::Request => reader::shown(&theirs.start),
            Side::Response => theirs.start.clone(),
        };
        if own.start != start {
            return Some(format!("message {at} is {:?}, not {start:?}", own.start));
        }
        if theirs.whole && !own.whole {
            return Some(format!("the end of message {at} is not seen"));
        }
        if (theirs.whole || verdict.error.is_none()) && own.size != Some(theirs.size) {
            return Some(format!("message {at} has {:?} bytes, not {}", own.size, theirs.size));
        }
    }
    // A head that is broken off is no message to them; we say of it what there is.
    let more = ours.iter().skip(verdict.messages.len()).any(|own| own.whole || own.size.is_some());
    (more && verdict.error.is_none() && verdict.in_step).then(|| "there are more messages".to_owned())
}

/// Where to divide a stream: nowhere, at every byte, once, often.
fn splits(len: usize, dice: &mut StdRng) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(), (1..len).collect()];
    for _ in 0..6 {
        all.push(vec![dice.random_range(1..len.max(2))]);
    }
    for _ in 0..6 {
        let mut points: Vec<usize> =
            (0..dice.random_range(2..12)).map(|_| dice.random_range(1..len.max(2))).collect();
        points.sort_unstable();
        points.dedup();
        all.push(points);
    }
    all
}

/// Reads a stream of one side, divided at these points.
fn read(stream: &Stream, points: &[usize]) -> Vec<Seen> {
    let mut reader = Reader::new();
    if stream.side == Side::Response {
        for method in &stream.asked {
            reader.feed(Side::Request, format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        }
    }
    let mut from = 0;
    for &point in points.iter().chain([&stream.bytes.len()]) {
        reader.feed(stream.side, &stream.bytes[from..point]);
        from = point;
    }
    reader.ended(stream.side)
}

fn shown(stream: &Stream) -> String {
    format!("{:?} {}", stream.side, stream.bytes.escape_ascii())
}

/// All differences, each with what lies behind it.
fn compare(streams: &[(String, Stream)]) -> Vec<String> {
    let plain: Vec<&Stream> = streams.iter().map(|(_, stream)| stream).collect();
    let mut dice = StdRng::seed_from_u64(SEED);
    let mut found = Vec::new();
    for ((name, stream), verdicts) in streams.iter().zip(judge(&plain)) {
        let whole = read(stream, &[]);
        // Behind what is read otherwise on purpose, nothing is compared.
        let mut meant = false;
        for (who, verdict) in [("h11", &verdicts.h11), ("llhttp", &verdicts.llhttp)] {
            let Some(verdict) = verdict else { continue };
            let deviation = cases::DEVIATIONS.iter().find(|d| is_case(name, d.case) && d.from.contains(&who));
            match (difference(&whole, verdict, stream.side), deviation) {
                (Some(what), None) => {
                    let stream = shown(stream);
                    found.push(format!(
                        "{name}: {who}: {what}\n  {stream}\n  ours {whole:?}\n  theirs {verdict:?}"
                    ));
                }
                (None, Some(d)) => {
                    found.push(format!("{name}: {who} reads it as we do, though {}", d.why));
                }
                (_, deviation) => meant |= deviation.is_some(),
            }
        }
        for points in splits(stream.bytes.len(), &mut dice) {
            let divided = read(stream, &points);
            // Out of step, a message is looked for at the beginning of a transfer only, so where those begin matters.
            let known = if meant { 0 } else { verdicts.understood() };
            if divided.iter().take(known).ne(whole.iter().take(known)) {
                let stream = shown(stream);
                found.push(format!("{name}: at {points:?}: {divided:?}, whole {whole:?}\n  {stream}"));
                break;
            }
        }
    }
    found
}

/// Whether a stream is of the case, whichever side and place it has.
fn is_case(stream: &str, case: &str) -> bool {
    stream.split_once(": ").is_some_and(|(_, name)| name == case)
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

#[test]
fn written_cases_are_read_as_h11_and_llhttp_read_them() {
    let streams = cases::all();
    assert_none(&compare(&streams));
}

#[test]
fn drawn_streams_are_read_as_h11_and_llhttp_read_them() {
    let mut dice = StdRng::seed_from_u64(SEED);
    let streams: Vec<_> = (0..DRAWN).map(|n| (format!("drawn {n}"), streams::one_side(&mut dice))).collect();
    assert_none(&compare(&streams));
}

/// What a stream says, where a judge read all of it.
fn agreed(verdicts: &judges::Verdicts, messages: usize) -> Option<&[judges::Message]> {
    let all = |v: &&Verdict| {
        v.error.is_none() && v.messages.len() == messages && v.messages.iter().all(|m| m.whole)
    };
    [&verdicts.h11, &verdicts.llhttp].into_iter().flatten().find(all).map(|v| v.messages.as_slice())
}

/// Compares calls with the two streams' messages. `cut`: bytes of responses were not captured, so that their sizes may be
/// unknown, but not wrong.
fn compare_calls(
    calls: &[(Seen, Option<Seen>)],
    requests: &[judges::Message],
    responses: &[judges::Message],
    cut: bool,
) -> Option<String> {
    if calls.len() != requests.len() {
        return Some(format!("{} calls of {}", calls.len(), requests.len()));
    }
    for (at, ((request, response), (asked, answered))) in
        calls.iter().zip(requests.iter().zip(responses)).enumerate()
    {
        let right = request.start == reader::shown(&asked.start) && (cut || request.size == Some(asked.size));
        let Some(response) = response else { return Some(format!("call {at} has no answer")) };
        let size = response.size == Some(answered.size) || cut && !response.whole;
        if !right || response.start != answered.start || !size || !(cut || request.whole && response.whole) {
            return Some(format!("call {at} is {request:?} {response:?}, not {asked:?} {answered:?}"));
        }
    }
    None
}

#[test]
fn drawn_conversations_are_paired_however_they_are_divided_and_captured() {
    let mut dice = StdRng::seed_from_u64(SEED + 1);
    let talks: Vec<_> = (0..DRAWN).map(|_| streams::conversation(&mut dice)).collect();
    let sides: Vec<[Stream; 2]> = talks.iter().map(|talk| talk.streams()).collect();
    let verdicts = judge(&sides.iter().flatten().collect::<Vec<_>>());
    let (mut found, mut compared) = (Vec::new(), 0);
    for (talk, verdicts) in talks.iter().zip(verdicts.chunks(2)) {
        let (requests, responses) = (agreed(&verdicts[0], talk.len()), agreed(&verdicts[1], talk.len()));
        let (Some(requests), Some(responses)) = (requests, responses) else { continue };
        compared += 1;
        for _ in 0..4 {
            let mut reader = Reader::new();
            talk.play_divided(&mut dice, &mut reader);
            found
                .extend(compare_calls(&reader.closed(), requests, responses, false).map(|what| (what, talk)));
            let mut reader = Reader::new();
            talk.play_cut(&mut dice, &mut reader);
            let what = compare_calls(&reader.closed(), requests, responses, true);
            found.extend(what.map(|what| (format!("captured in part: {what}"), talk)));
        }
    }
    let found: Vec<_> = found.iter().map(|(what, talk)| format!("{what}\n{talk}")).collect();
    assert_none(&found);
    // The others have something in them that either judge refuses.
    assert!(compared > DRAWN / 3, "only {compared} conversations that a judge takes");
}
