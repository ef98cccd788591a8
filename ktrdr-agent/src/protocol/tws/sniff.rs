//! The beginning of a connection, and of a message on a connection that is not at its beginning.

use super::frame::{self, Fields, HEADER, Read};
use super::tables::{self, Body};
use crate::protocol::{Side, Sniff};

/// First bytes of a client.
pub(super) const HELLO: &[u8] = b"API\0";
/// Bytes of a frame that are judged; the engine keeps more while it waits.
const WINDOW: usize = 48;

/// Judges the beginning of a transfer.
pub(super) fn sniff(bytes: &[u8]) -> Sniff {
    match hello(bytes) {
        Sniff::No => message(bytes, None),
        found => found,
    }
}

/// `API`, NUL, a length below 256, `v` and a digit, as far as they are there.
pub(super) fn hello(bytes: &[u8]) -> Sniff {
    let fits = bytes.iter().take(10).enumerate().all(|(at, b)| match at {
        0..=3 => *b == HELLO[at],
        4..=6 => *b == 0,
        7 => *b >= 5,
        8 => *b == b'v',
        _ => b.is_ascii_digit(),
    });
    match fits {
        false => Sniff::No,
        true if bytes.len() < 10 => Sniff::NeedMore,
        true => Sniff::Yes(Side::Request),
    }
}

/// A message whose layout shows beyond doubt what it is. `side`: its side, where that is known.
///
/// The judgement rests on the first [`WINDOW`] bytes of the frame alone, so more bytes do not change it.
pub(super) fn message(bytes: &[u8], side: Option<Side>) -> Sniff {
    let judged = match bytes.first_chunk::<HEADER>() {
        Some(length) => &bytes[..bytes.len().min(HEADER + WINDOW.min(u32::from_be_bytes(*length) as usize))],
        None => bytes,
    };
    let frame = match frame::read(judged) {
        Read::Invalid => return Sniff::No,
        Read::Partial => return Sniff::NeedMore,
        Read::Frame(frame) => frame,
    };
    let payload = &judged[HEADER..];
    // Binary numbers are left alone: four bytes of zeroes and a small number begin too many things.
    if payload.first() == Some(&0) || payload.iter().any(|b| (1..b' ').contains(b)) {
        return Sniff::No;
    }
    if judged.len() < HEADER + WINDOW.min(frame.len - HEADER) {
        return Sniff::NeedMore;
    }
    let whole = judged.len() == frame.len;
    if whole && payload.last() != Some(&0) {
        return Sniff::No;
    }
    let count = payload.iter().filter(|b| **b == 0).count().saturating_sub(1);
    let Some(fields) = frame.fields(count) else { return Sniff::No };
    let looks = |wanted: Side| {
        side.is_none_or(|s| s == wanted)
            && match wanted {
                Side::Request => request(frame.id, &fields, whole),
                Side::Response => response(frame.id, &fields, whole),
            }
    };
    match (looks(Side::Request), looks(Side::Response)) {
        (true, false) => Sniff::Yes(Side::Request),
        (false, true) => Sniff::Yes(Side::Response),
        _ => Sniff::No,
    }
}

fn request(id: u16, fields: &Fields<'_>, whole: bool) -> bool {
    let Some(asked) = tables::request(id) else { return false };
    if asked.version.is_some_and(|v| fields.bytes(1) != v.as_bytes()) {
        return false;
    }
    if asked.req_id.is_some_and(|at| fields.int(at).is_none()) {
        return false;
    }
    match (asked.body, asked.req_id) {
        (Body::None, _) => whole && asked.fields.is_some_and(|n| n == fields.len() && n > 0),
        (_, Some(at)) => {
            let con_id = fields.bytes(at + 1);
            con_id.iter().all(u8::is_ascii_digit) && sec_type(fields.bytes(at + 3)) && fields.len() > at + 3
        }
        _ => false,
    }
}

/// A few messages that come often and look like nothing else.
fn response(id: u16, fields: &Fields<'_>, whole: bool) -> bool {
    let int = |at| fields.int(at).is_some();
    let exact = |n| whole && fields.len() == n;
    let versioned = |version: &[u8]| fields.bytes(1) == version;
    if greeting(id, fields) {
        return exact(1);
    }
    match id {
        4 => versioned(b"2") && int(2) && fields.int(3).is_some_and(|code| (100..100_000).contains(&code)),
        6 => exact(5) && versioned(b"2") && !fields.bytes(2).is_empty(),
        9 => exact(2) && versioned(b"1") && int(2),
        10 => int(1) && (sec_type(fields.bytes(3)) || int(2) && sec_type(fields.bytes(4))),
        15 => exact(2) && versioned(b"1") && fields.bytes(2).first().is_some_and(u8::is_ascii_uppercase),
        17 => int(1) && date(fields.bytes(2)) && date(fields.bytes(3)),
        49 => exact(2) && versioned(b"1") && fields.bytes(2).len() >= 9 && int(2),
        52 => exact(2) && versioned(b"1") && int(2),
        88 => exact(2) && int(1) && date(fields.bytes(2)),
        _ => false,
    }
}

/// The server's first frame: its version and the time.
pub(super) fn greeting(id: u16, fields: &Fields<'_>) -> bool {
    id >= 100 && fields.len() == 1 && {
        let time = fields.bytes(1);
        date(time) && time.get(8) == Some(&b' ') && time.get(11) == Some(&b':')
    }
}

/// Eight digits, and perhaps more behind them.
fn date(text: &[u8]) -> bool {
    text.len() >= 8 && text[..8].iter().all(u8::is_ascii_digit)
}

/// A security type.
fn sec_type(text: &[u8]) -> bool {
    const TYPES: [&[u8]; 17] = [
        b"STK", b"CASH", b"FUT", b"CONTFUT", b"OPT", b"FOP", b"IND", b"CFD", b"CRYPTO", b"CMDTY", b"BOND",
        b"FUND", b"BAG", b"WAR", b"IOPT", b"NEWS", b"EVENT",
    ];
    TYPES.contains(&text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        /// Of frames that are nearly right, which random bytes never are.
        #[test]
        fn a_judgement_once_made_stays(
            id in prop_oneof![1..120u16, 150..180u16],
            fields in prop::collection::vec(
                prop::sample::select(vec!["", "1", "2", "8", "11", "-1", "162", "AAPL", "STK", "CASH", "DU1234567",
                    "20251113 12:00:00 UTC", "1763035200", "0.0", "SMART", "\x01", "long text of an error message"]),
                0..20,
            ),
            wrong in -3..4i32,
            more in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = framed(&format!("{id},{}", fields.join(",")));
            let len = u32::from_be_bytes(bytes[..4].try_into().unwrap()).saturating_add_signed(if wrong > 0 { wrong } else { 0 });
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            bytes.extend(more);
            let mut last = Sniff::NeedMore;
            for end in 1..=bytes.len() {
                let now = sniff(&bytes[..end]);
                prop_assert!(last == Sniff::NeedMore || now == last, "{last:?} became {now:?} after {end} bytes");
                last = now;
            }
            prop_assert!(last != Sniff::NeedMore || bytes.len() < HEADER + WINDOW);
        }
    }

    fn framed(fields: &str) -> Vec<u8> {
        let text = fields.replace(',', "\0") + "\0";
        let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn knows_both_beginnings_at_their_first_certain_byte() {
        for (bytes, side, enough) in [
            (b"API\0\0\0\0\x09v157..178".to_vec(), Side::Request, 10),
            (framed("178,20251113 12:00:00 UTC"), Side::Response, 30),
        ] {
            for end in 1..bytes.len() {
                let expected = if end < enough { Sniff::NeedMore } else { Sniff::Yes(side) };
                assert_eq!(sniff(&bytes[..end]), expected, "{end}");
            }
        }
    }

    #[test]
    fn knows_messages_in_the_middle_of_a_connection() {
        for (text, side) in [
            ("20,3,0,AAPL,STK,,0.0,,,SMART,,USD,,,0,,1 day,1 M,1,TRADES,1,0,", Side::Request),
            ("49,1", Side::Request),
            ("9,8,5,0,AAPL,STK,,0.0,,,SMART,,USD,,,0,,", Side::Request),
            ("25,1,3", Side::Request),
            ("49,1,1763035200", Side::Response),
            ("17,3,20251013  00:00:00,20251113  00:00:00,1,20251110,1.0", Side::Response),
            ("4,2,3,162,Historical Market Data Service error message:pacing violation,", Side::Response),
            ("9,1,17", Side::Response),
            ("52,1,5", Side::Response),
        ] {
            let bytes = framed(text);
            assert_eq!(sniff(&bytes), Sniff::Yes(side), "{text}");
            for end in 1..bytes.len() {
                assert!([Sniff::NeedMore, Sniff::Yes(side)].contains(&sniff(&bytes[..end])), "{text} {end}");
            }
        }
    }

    #[test]
    fn rejects_what_only_looks_alike() {
        for other in [
            framed("20,3,0,AAPL"),
            framed("178,hello"),
            framed("4,1,7,"),
            framed("049,1"),
            framed("49,1\n"),
            b"\0\0\0\x0549\x001x".to_vec(),
            b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(),
            b"\xff\xff\xff\xff49\x001\0".to_vec(),
            b"API\0\xff\xff\xff\xffv1".to_vec(),
            b"API/1".to_vec(),
        ] {
            assert_eq!(sniff(&other), Sniff::No, "{}", other.escape_ascii());
        }
    }
}
