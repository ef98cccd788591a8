//! The parser on messages written by hand. Sessions of the real clients are in `tests/fixtures/tws`, see `laws`.

use super::Tws;
use crate::protocol::driver::{Driver, Note, context};
use crate::protocol::{Role, Side};

const REQUEST: Side = Side::Request;
const RESPONSE: Side = Side::Response;

/// `49,1` as a frame.
fn framed(fields: &str) -> Vec<u8> {
    let text = fields.replace(',', "\0") + "\0";
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A binary message number, and a body.
fn binary(id: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    bytes.extend(id.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn driver() -> Driver {
    Driver::new(&Tws, &context(Role::Client))
}

/// Feeds `>…` as a request's fields and `<…` as a response's.
fn play(messages: &[&str]) -> Driver {
    let mut d = driver();
    for message in messages {
        match message.split_at(1) {
            (">", "API") => d.feed(REQUEST, b"API\0\0\0\0\x09v157..178"),
            (">", fields) => d.feed(REQUEST, &framed(fields)),
            (_, fields) => d.feed(RESPONSE, &framed(fields)),
        }
    }
    d
}

/// The messages, `>` with the name, `<` with the key's kind, `!` with the error's sentence, `~` for an event.
fn short(d: &Driver) -> Vec<String> {
    let between = |text: &str, from: &str, to: &str| {
        let rest = text.split_once(from).map_or("", |(_, rest)| rest);
        rest.split_once(to).map_or(rest, |(found, _)| found).to_string()
    };
    d.notes
        .iter()
        .filter_map(|note| {
            Some(match note {
                Note::Begin(REQUEST, text) => format!(">{}", between(text, "name: \"", "\"")),
                Note::Begin(RESPONSE, text) if text.contains("status: Error") => {
                    format!("!{}", between(text, "status: Error(\"", "\")"))
                }
                Note::Begin(RESPONSE, text) => {
                    format!("<{}", between(text, "key: Some(", ")").parse::<u64>().unwrap() >> 32)
                }
                Note::Interim(text) => format!("~{}", between(text, "\"ib.error.code\", value: Int(", ")")),
                Note::End(_, _, Some(why)) => format!("incomplete {why}"),
                Note::End(_, _, None) => return None,
                Note::Opaque => "opaque".to_owned(),
            })
        })
        .collect()
}

/// Attributes of the n-th note, as text.
fn text(note: &Note) -> &str {
    match note {
        Note::Begin(_, text) | Note::End(_, text, _) | Note::Interim(text) => text,
        Note::Opaque => "",
    }
}

const HISTORY: &str = ">20,3,0,AAPL,STK,,0.0,,,SMART,,USD,,,0,20251113 21:00:00 UTC,1 day,1 M,1,TRADES,1,0,";

#[test]
fn a_session_from_its_beginning() {
    let d = play(&[
        ">API",
        "<178,20251113 12:00:00 UTC",
        ">71,2,7,",
        "<15,1,DU1234567",
        "<9,1,1",
        "<4,2,-1,2104,Market data farm connection is OK:usfarm,",
        ">49,1",
        "<49,1,1763035200",
        HISTORY,
        "<17,3,20251013  21:00:00,20251113  21:00:00,1,20251112,1,2,0,1,100,1,7",
        ">9,8,4,0,AAPL,STK,,0.0,,,SMART,,USD,,,0,,,",
        "<10,4,AAPL,STK,,0,,SMART",
        "<10,4,AAPL,STK,,0,,SMART",
        "<52,1,4",
    ]);
    assert_eq!(
        short(&d),
        [
            ">IB handshake",
            "<0",
            ">IB startApi",
            "<71",
            ">IB reqCurrentTime",
            "<49",
            ">IB reqHistoricalData AAPL STK 1 day",
            "<20",
            ">IB reqContractDetails AAPL STK",
            "<9",
        ]
    );
    let all = d.notes.iter().map(text).collect::<String>();
    for (key, value) in [
        ("ib.bar_size", "Str(\"1 day\")"),
        ("ib.duration", "Str(\"1 M\")"),
        ("ib.what_to_show", "Str(\"TRADES\")"),
        ("ib.end_date_time", "Str(\"20251113 21:00:00 UTC\")"),
        ("ib.bars_received", "Int(1)"),
        ("ib.items_received", "Int(2)"),
        ("ib.accounts", "Int(1)"),
        ("ib.currency", "Str(\"USD\")"),
        ("ib.exchange", "Str(\"SMART\")"),
        ("ib.server_version", "Int(178)"),
    ] {
        assert!(all.contains(&format!("\"{key}\", value: {value}")), "{key} {value}: {all}");
    }
    assert!(!all.contains("1234567"), "the account is told");
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let d = play(&[
        HISTORY,
        ">87,4,0,MSFT,STK,,0.0,,,SMART,,USD,,,0,1,TRADES,1",
        ">49,1",
        "<49,1,1763035200",
        "<88,4,19801212  14:30:00",
        "<88,4,19801212  14:30:00",
        "<17,9,20251013  21:00:00,20251113  21:00:00,0",
        "<17,3,20251013  21:00:00,20251113  21:00:00,0",
    ]);
    let expected = [
        ">IB reqHistoricalData AAPL STK 1 day",
        ">IB reqHeadTimeStamp MSFT STK",
        ">IB reqCurrentTime",
        "<49",
        "<87",
        "<20",
    ];
    assert_eq!(short(&d), expected);
}

#[test]
fn errors_end_their_request_and_warnings_do_not() {
    let d = play(&[
        HISTORY,
        "<4,2,3,2174,Warning: You submitted request with date-time attributes without explicit time zone.,",
        "<4,2,3,162,Historical Market Data Service error message:Historical data request pacing violation,",
        "<17,3,20251013  21:00:00,20251113  21:00:00,0",
    ]);
    let d = short(&d);
    assert_eq!(d[..2], [">IB reqHistoricalData AAPL STK 1 day", "~2174"]);
    assert!(d[2].starts_with("!IB error 162: ") && d[2].contains("pacing"), "{d:?}");
    assert_eq!(d.len(), 3, "an answered request is not answered again");

    // Server version 194: no version in front, a time behind.
    let d = play(&[HISTORY, "<4,3,200,No security definition has been found for U7654321,,1763035200000"]);
    let said = short(&d).remove(1);
    assert!(said.starts_with("!IB error 200: No security definition has been found for U*** ("), "{said}");
}

#[test]
fn session_messages_reach_what_is_open() {
    let in_use = "<4,2,-1,326,Unable to connect as the client id is already in use.,";
    let d = short(&play(&[">API", "<178,20251113 12:00:00 UTC", ">71,2,7,", in_use]));
    assert!(d[3].starts_with("!IB error 326") && d[3].contains("same client id"), "{d:?}");

    let lost = "<4,2,-1,1100,Connectivity between IBKR and Trader Workstation has been lost.,";
    let back = "<4,2,-1,1102,Connectivity has been restored,";
    let d = play(&[HISTORY, lost, back, "<17,3,20251013  21:00:00,20251113  21:00:00,0"]);
    assert_eq!(short(&d), [">IB reqHistoricalData AAPL STK 1 day", "~1100", "<20"]);
    assert!(text(&d.notes[2]).contains("all: true"), "{:?}", d.notes);
}

#[test]
fn pairs_are_named_with_both_currencies_and_contracts_by_id() {
    let d = play(&[
        ">20,3,0,EUR,CASH,,0.0,,,IDEALPRO,,USD,EUR.USD,,0,,1 hour,1 D,0,MIDPOINT,1,0,",
        ">9,8,4,265598,,,,0.0,,,,,,,,0,,,",
        ">25,1,3",
        ">6,2,0,DU1234567",
        ">199,x",
    ]);
    let expected = [
        ">IB reqHistoricalData EUR.USD CASH 1 hour",
        ">IB reqContractDetails conId 265598",
        ">IB cancelHistoricalData",
        ">IB cancelAccountUpdates",
        ">IB message 199",
    ];
    assert_eq!(short(&d), expected);
}

#[test]
fn protobuf_frames_are_passed_over_and_binary_numbers_read() {
    let mut d = driver();
    d.feed(REQUEST, &binary(220, b"\x08\x03\x12\x0420\0\0"));
    d.feed(RESPONSE, &binary(217, &[0xff; 300]));
    d.feed(REQUEST, &binary(49, b"1\0"));
    d.feed(RESPONSE, &binary(49, b"1\x001763035200\0"));
    assert_eq!(short(&d), [">IB reqHistoricalData", ">IB reqCurrentTime", "<49"]);
    assert!(text(&d.notes[0]).contains("protobuf") && text(&d.notes[0]).contains("one_way: true"));
    assert_eq!((d.held(), d.dropped), (0, 0));
}

#[test]
fn absurd_lengths_cost_their_transfer_only() {
    let mut d = driver();
    d.feed(REQUEST, b"\xff\xff\xff\xff49\x001\0");
    d.feed(REQUEST, b"\0\0\0\0");
    d.feed(REQUEST, &framed("49,1"));
    d.feed(RESPONSE, &framed("49,1,1763035200"));
    assert_eq!(short(&d), [">IB reqCurrentTime", "<49"]);
    assert_eq!((d.held(), d.dropped), (0, 2));
}

#[test]
fn a_long_frame_is_not_kept() {
    let mut d = play(&[HISTORY]);
    let bars = "20251112,1,2,0,1,100,1,7,".repeat(20_000);
    let frame = framed(&format!("17,3,20251013  21:00:00,20251113  21:00:00,20000,{bars}"));
    for piece in frame.chunks(1400) {
        d.feed(RESPONSE, piece);
        assert_eq!(d.held(), 0);
    }
    assert_eq!(short(&d).last().unwrap(), "<20");
    assert!(text(d.notes.last().unwrap()).contains("Int(20000)"));
    // One that breaks off.
    let mut d = play(&[HISTORY]);
    d.feed(RESPONSE, &frame[..5000]);
    d.eof(RESPONSE);
    assert_eq!(short(&d)[1..], ["<20", "incomplete eof_in_body"]);
}

#[test]
fn lost_answers_leave_nothing_that_could_be_answered_wrongly() {
    let mut d = play(&[">9,8,4,0,AAPL,STK,,0.0,,,SMART,,USD,,,0,,,", "<10,4,AAPL,STK,,0,,SMART"]);
    d.gap(RESPONSE, 40);
    d.feed(RESPONSE, &framed("52,1,4"));
    d.feed(REQUEST, &framed("49,1"));
    d.feed(RESPONSE, &framed("49,1,1763035200"));
    assert_eq!(short(&d), [">IB reqContractDetails AAPL STK", ">IB reqCurrentTime", "<49"]);
}
