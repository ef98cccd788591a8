//! One direction of a connection: ordered pieces in, message boundaries out.

use xxhash_rust::xxh3::xxh3_64;

use super::sequence::Piece;
use crate::event::{Ns, Task};
use crate::protocol::{ParseEvent, Parser, Side, Step};

/// Bytes kept while a parser waits for more. Above any `max_head`, so that the parser's own limit speaks first.
const MAX_CARRY: usize = 256 * 1024;
/// Body bytes kept for those who look into bodies (operation ids stand in the first 60 bytes, error messages
/// shortly after).
pub const MAX_SAMPLE: usize = 4 * 1024;

/// A point in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// When its transfer completed.
    pub ts: Ns,
    /// TCP sequence number.
    pub seq: u32,
    /// Who moved it.
    pub task: Task,
}

/// A message boundary with its place.
#[derive(Debug)]
pub struct Boundary {
    /// What.
    pub event: ParseEvent,
    /// First byte of what the parser reported on.
    pub start: Mark,
    /// Last byte so far.
    pub end: Mark,
    /// Sample of the body, at the end of a message that wanted it.
    pub sample: Option<Vec<u8>>,
    /// Hash of the bytes that a request's head consists of, where it was seen whole.
    pub digest: Option<u64>,
}

impl Boundary {
    /// Whether a message begins here.
    pub fn begins(&self) -> bool {
        !matches!(self.event, ParseEvent::End(_))
    }
}

/// What became of the bytes of one direction: `moved + gaps = parsed + skipped + lost`, plus what is still in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteCounts {
    /// Consumed by a parser.
    pub parsed: u64,
    /// Passed as bodies, captured or not; or in hand when nobody looked at their connection any more.
    pub skipped: u64,
    /// Gone without being understood (lost records, uncaptured bytes outside a body, no protocol).
    pub lost: u64,
    /// Bytes whose record never came: seen by the hole they left in the sequence numbers. Skipped if they lay in a
    /// body, lost otherwise.
    pub gaps: u64,
}

/// Why a call has no answer: bytes of it were lost, or not captured, or more than are kept.
const RESPONSE_LOST: &str = "response_lost";
/// All bytes are there, and they are none of the protocol.
const RESPONSE_UNREADABLE: &str = "response_unreadable";

/// Parsing state of one direction.
#[derive(Debug, Default)]
pub struct Half {
    carry: Vec<u8>,
    carry_mark: Mark,
    skip: u64,
    then: Option<ParseEvent>,
    sample: Option<Vec<u8>>,
    last: Mark,
    /// Bytes that mattered were lost or not captured at some time.
    gaps: bool,
    /// What became of the bytes.
    pub counts: ByteCounts,
}

/// What one transfer makes a direction report: as a rule the one message in it, begun and ended.
pub type Reports = Vec<Report>;

/// What a direction reports.
#[derive(Debug)]
pub enum Report {
    /// A message boundary.
    Boundary(Boundary),
    /// The order of messages on this side is not known any more. What an open call's answer is, then.
    Lost(&'static str),
    /// The connection is opaque from here on.
    Opaque,
}

impl Half {
    /// Takes a piece of the stream. `out` gets what it completed.
    pub fn piece(&mut self, parser: &mut dyn Parser, side: Side, piece: Piece<'_>, out: &mut Reports) {
        match piece {
            Piece::Bytes { seq, bytes, ts, task } => {
                self.bytes(parser, side, Mark { ts, seq, task }, bytes, out)
            }
            Piece::Missing { len, ts, task, .. } => self.missing(parser, side, len, ts, task, out),
        }
    }

    /// Bytes kept until more come.
    pub fn in_hand(&self) -> u64 {
        self.carry.len() as u64
    }

    /// Nobody looks any more: what is kept is passed without being understood, and was not lost.
    pub fn leave(&mut self) {
        self.counts.skipped += self.in_hand();
        self.carry = Vec::new();
    }

    /// The side will send no more.
    pub fn eof(&mut self, parser: &mut dyn Parser, side: Side, ts: Ns, out: &mut Reports) {
        self.salvage(parser, side, out);
        let unskipped = std::mem::take(&mut self.skip);
        self.then = None;
        let end = Mark { ts, ..self.last };
        if let Some(event) = parser.eof(side, unskipped) {
            self.report(event, end, end, out);
        }
    }

    /// The message under way is over, because the next exchange began: ends it where its last byte was seen.
    pub fn abandon(&mut self, parser: &mut dyn Parser, side: Side, out: &mut Reports) {
        self.salvage(parser, side, out);
        let unskipped = std::mem::take(&mut self.skip);
        self.then = None;
        if let Some(event) = parser.abandon(side, unskipped) {
            let end = self.last;
            self.report(event, end, end, out);
        }
    }

    /// Bytes held back will not be continued: takes what can be had from them.
    fn salvage(&mut self, parser: &mut dyn Parser, side: Side, out: &mut Reports) {
        if self.carry.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.carry);
        match parser.salvage(side, &bytes) {
            Some(event) => {
                self.counts.parsed += bytes.len() as u64;
                let (start, end) = (self.carry_mark, self.last);
                self.report(event, start, end, out);
            }
            None => self.counts.lost += bytes.len() as u64,
        }
    }

    fn missing(
        &mut self,
        parser: &mut dyn Parser,
        side: Side,
        len: u64,
        ts: Ns,
        task: Task,
        out: &mut Reports,
    ) {
        let passed = self.skip.min(len);
        self.last = Mark { ts, seq: self.last.seq, task };
        self.pass(passed, &[], out);
        let missing = len - passed;
        if missing == 0 {
            return;
        }
        if self.carry.is_empty()
            && let Some(event) = parser.bridge(side, missing)
        {
            self.counts.skipped += missing;
            let end = self.last;
            self.report(event, end, end, out);
            return;
        }
        self.counts.lost += missing;
        self.gaps = true;
        self.salvage(parser, side, out);
        self.give_up(parser, side, RESPONSE_LOST, out);
    }

    /// What was half done is void; the parser looks for the next message.
    fn give_up(&mut self, parser: &mut dyn Parser, side: Side, answer: &'static str, out: &mut Reports) {
        self.skip = 0;
        self.then = None;
        if let Some(event) = parser.lost(side) {
            let end = self.last;
            self.report(event, end, end, out);
        }
        out.push(Report::Lost(answer));
    }

    fn bytes(
        &mut self,
        parser: &mut dyn Parser,
        side: Side,
        mut mark: Mark,
        mut bytes: &[u8],
        out: &mut Reports,
    ) {
        let whole = bytes.len();
        self.last = Mark { seq: mark.seq.wrapping_add(u32::try_from(whole).unwrap_or(u32::MAX)), ..mark };
        // A body under way takes its share first; then bytes kept from before join the new ones.
        let passed = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.pass(passed as u64, &bytes[..passed], out);
        bytes = &bytes[passed..];
        mark.seq = mark.seq.wrapping_add(u32::try_from(passed).unwrap_or(u32::MAX));
        let mut joined = Vec::new();
        let kept = self.carry.len();
        if kept > 0 {
            joined = std::mem::take(&mut self.carry);
            joined.extend_from_slice(bytes);
        }
        let bytes = if kept > 0 { joined.as_slice() } else { bytes };
        let origin = if kept > 0 { self.carry_mark } else { mark };
        let mut used = 0;
        while used < bytes.len() {
            let start = if used < kept {
                Mark { seq: origin.seq.wrapping_add(u32::try_from(used).unwrap_or(0)), ..origin }
            } else {
                Mark { seq: origin.seq.wrapping_add(u32::try_from(used).unwrap_or(0)), ..mark }
            };
            match parser.step(side, &bytes[used..]) {
                Step::NeedMore if bytes.len() - used < MAX_CARRY => {
                    self.carry = bytes[used..].to_vec();
                    self.carry_mark = start;
                    return;
                }
                Step::Advance { consumed, event, skip, then } => {
                    let consumed = consumed.min(bytes.len() - used);
                    if consumed == 0 && skip == 0 && event.is_none() && then.is_none() {
                        // No progress would loop for ever: a parser's mistake costs its bytes, not the agent.
                        self.counts.lost += (bytes.len() - used) as u64;
                        self.give_up(parser, side, RESPONSE_LOST, out);
                        return;
                    }
                    self.counts.parsed += consumed as u64;
                    let head = &bytes[used..used + consumed];
                    used += consumed;
                    if let Some(event) = event {
                        self.report(event, start, self.last, out);
                        digest(head, out);
                    }
                    self.skip = skip;
                    self.then = then;
                    let passed = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len() - used);
                    let body = &bytes[used..used + passed];
                    self.pass(passed as u64, body, out);
                    used += passed;
                }
                step @ (Step::NeedMore | Step::Lost) => {
                    self.counts.lost += (bytes.len() - used) as u64;
                    // Behind a gap anything may be unreadable for that reason.
                    let unreadable = matches!(step, Step::Lost) && !self.gaps;
                    let answer = if unreadable { RESPONSE_UNREADABLE } else { RESPONSE_LOST };
                    self.give_up(parser, side, answer, out);
                    return;
                }
                Step::Opaque(event) => {
                    self.counts.skipped += (bytes.len() - used) as u64;
                    if let Some(event) = event {
                        self.report(event, start, self.last, out);
                    }
                    out.push(Report::Opaque);
                    return;
                }
            }
        }
    }

    /// Passes `len` bytes of a body, of which `bytes` are at hand, and reports what its end completes.
    fn pass(&mut self, len: u64, bytes: &[u8], out: &mut Reports) {
        // Also from `u64::MAX`, a body up to the end of the stream: what is left then tells the parser its size.
        self.skip -= len;
        self.counts.skipped += len;
        if let Some(sample) = &mut self.sample {
            let room = MAX_SAMPLE.saturating_sub(sample.len());
            sample.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        if self.skip == 0
            && let Some(event) = self.then.take()
        {
            let end = self.last;
            self.report(event, end, end, out);
        }
    }

    fn report(&mut self, event: ParseEvent, start: Mark, end: Mark, out: &mut Reports) {
        use crate::protocol::Message;
        let sample = match &event {
            ParseEvent::Begin(Message::Request(r)) => {
                self.sample = r.want_body.then(Vec::new);
                None
            }
            ParseEvent::Begin(Message::Response(r)) => {
                self.sample = r.want_body.then(Vec::new);
                None
            }
            ParseEvent::Begin(Message::Interim(_)) | ParseEvent::Whole(..) => None,
            ParseEvent::End(_) => self.sample.take(),
        };
        out.push(Report::Boundary(Boundary { event, start, end, sample, digest: None }));
    }
}

/// Notes the head's bytes on the request just reported.
fn digest(head: &[u8], out: &mut [Report]) {
    use crate::protocol::Message;
    if let Some(Report::Boundary(b)) = out.last_mut()
        && let ParseEvent::Begin(Message::Request(_)) | ParseEvent::Whole(Message::Request(_), _) = &b.event
    {
        b.digest = Some(xxh3_64(head));
    }
}
