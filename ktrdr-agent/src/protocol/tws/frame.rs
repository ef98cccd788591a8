//! Frames: a length (u32, big endian), then fields each ended by NUL, the first of them the message's number.

/// Bytes of the length.
pub(super) const HEADER: usize = 4;
/// Longest frame; `MAX_MSG_LEN` of IB's own clients.
pub(super) const MAX_FRAME: usize = 0x00ff_ffff;
/// Numbers from here on mark a protobuf body: the message is this much less (server version 201 and later).
const PROTOBUF: u32 = 200;

/// How the message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Text fields.
    Text,
    /// Protobuf.
    Protobuf,
}

/// A frame as far as it is at hand.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// Message number.
    pub id: u16,
    /// How the rest is written.
    pub encoding: Encoding,
    /// Bytes of the whole frame, header included.
    pub len: usize,
    /// What is there of the fields behind the number.
    rest: &'a [u8],
    /// `rest` is all of them.
    whole: bool,
}

/// Result of [`read`].
#[derive(Debug)]
pub(super) enum Read<'a> {
    /// Too few bytes.
    Partial,
    /// No frame.
    Invalid,
    /// A frame whose number is known.
    Frame(Frame<'a>),
}

/// Reads the beginning of a frame.
pub(super) fn read(bytes: &[u8]) -> Read<'_> {
    let Some((header, after)) = bytes.split_first_chunk::<HEADER>() else {
        return if bytes.first().is_some_and(|b| *b != 0) { Read::Invalid } else { Read::Partial };
    };
    let len = u32::from_be_bytes(*header) as usize;
    if !(2..=MAX_FRAME).contains(&len) {
        return Read::Invalid;
    }
    let whole = after.len() >= len;
    let payload = &after[..after.len().min(len)];
    let Some(first) = payload.first() else { return Read::Partial };
    if *first == 0 {
        return binary(payload, len, whole);
    }
    let Some(end) = payload.iter().take(4).position(|b| *b == 0) else {
        let fits = payload.len() < 4 && !whole && number(payload).is_some();
        return if fits { Read::Partial } else { Read::Invalid };
    };
    match number(&payload[..end]) {
        Some(id) => {
            let rest = &payload[end + 1..];
            Read::Frame(Frame { id, encoding: Encoding::Text, len: HEADER + len, rest, whole })
        }
        None => Read::Invalid,
    }
}

/// A binary number in front.
fn binary(payload: &[u8], len: usize, whole: bool) -> Read<'_> {
    let Some((id, rest)) = payload.split_first_chunk::<4>() else {
        return if whole { Read::Invalid } else { Read::Partial };
    };
    let (id, encoding) = match u32::from_be_bytes(*id) {
        id @ 1..=PROTOBUF => (id, Encoding::Text),
        id => (id.wrapping_sub(PROTOBUF), Encoding::Protobuf),
    };
    match u16::try_from(id) {
        Ok(id @ 1..=999) => Read::Frame(Frame { id, encoding, len: HEADER + len, rest, whole }),
        _ => Read::Invalid,
    }
}

/// A message number as text: up to three digits, no leading zero.
pub(super) fn number(text: &[u8]) -> Option<u16> {
    if !(1..=3).contains(&text.len()) || text[0] == b'0' {
        return None;
    }
    text.iter().try_fold(0u16, |n, b| b.is_ascii_digit().then(|| n * 10 + u16::from(b - b'0')))
}

impl<'a> Frame<'a> {
    /// The fields up to number `last` (1 = the first behind the message number), or as many as the frame has.
    /// `None`: not all of these are at hand yet.
    pub(super) fn fields(&self, last: usize) -> Option<Fields<'a>> {
        let mut list = Vec::with_capacity(last);
        let mut rest = self.rest;
        while list.len() < last {
            match memchr::memchr(0, rest) {
                Some(end) => {
                    list.push(&rest[..end]);
                    rest = &rest[end + 1..];
                }
                None if self.whole => break,
                None => return None,
            }
        }
        Some(Fields(list))
    }

    /// As [`fields`](Self::fields), taking those that are there.
    pub(super) fn at_hand(&self, last: usize) -> Fields<'a> {
        Fields(self.rest.split(|b| *b == 0).take(last).collect())
    }
}

/// Fields of a message, counted from 1; 0 stands for the message number.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<&'a [u8]>);

impl<'a> Fields<'a> {
    /// The bytes of a field; empty where there is none.
    pub(super) fn bytes(&self, at: usize) -> &'a [u8] {
        at.checked_sub(1).and_then(|at| self.0.get(at)).copied().unwrap_or_default()
    }
    /// A field as text, at most [`MAX_TEXT`] bytes of it. `None` if it is empty.
    pub(super) fn text(&self, at: usize) -> Option<String> {
        let bytes = self.bytes(at);
        let bytes = &bytes[..bytes.len().min(MAX_TEXT)];
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
    }
    /// A field as a number.
    pub(super) fn int(&self, at: usize) -> Option<i64> {
        std::str::from_utf8(self.bytes(at)).ok()?.parse().ok()
    }
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Longest text taken from a field: IB's error texts are a sentence or two.
const MAX_TEXT: usize = 512;
