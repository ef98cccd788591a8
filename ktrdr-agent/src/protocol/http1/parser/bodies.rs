//! Bodies: how long they are, and how they end.

use super::super::body::{self, ChunkLine, Framing};
use super::{Half, Http1Parser, State, advance, message_start, reason};
use crate::protocol::{Message, MessageEnd, ParseEvent, Side, Sniff, Step};

impl Http1Parser {
    pub(super) fn doubt(&mut self, side: Side, consumed: usize, framing: Framing, begun: Message) -> Step {
        *self.half(side) = Half { state: State::Doubt(framing), ..Half::NEW };
        advance(consumed, Some(ParseEvent::Begin(begun)))
    }

    /// Goes on with the body; `begun` = the head before it, if it is not reported yet.
    pub(super) fn body(
        &mut self,
        side: Side,
        consumed: usize,
        framing: Framing,
        begun: Option<Message>,
    ) -> Step {
        *self.half(side) = Half::NEW;
        let begin = |begun: Option<Message>| begun.map(ParseEvent::Begin);
        let whole = |begun: Option<Message>, end| match begun {
            Some(message) => ParseEvent::Whole(message, end),
            None => ParseEvent::End(end),
        };
        match framing {
            Framing::None => {
                let end = MessageEnd { attributes: self.describe.no_body(side), incomplete: None };
                advance(consumed, Some(whole(begun, end)))
            }
            Framing::Length(n) => {
                let attributes = self.describe.body_size(side, n);
                let then = Some(ParseEvent::End(MessageEnd { attributes, incomplete: None }));
                *self.half(side) = Half { state: State::Sized, size: n, ..Half::NEW };
                Step::Advance { consumed, event: begin(begun), skip: n, then }
            }
            Framing::Chunked => {
                self.half(side).state = State::Chunks;
                advance(consumed, begin(begun))
            }
            Framing::UntilClose => {
                *self.half(side) = Half { state: State::UntilClose, size: u64::MAX, ..Half::NEW };
                Step::Advance { consumed, event: begin(begun), skip: u64::MAX, then: None }
            }
            Framing::Invalid => {
                self.half(side).state = State::Resync;
                let end = MessageEnd { incomplete: Some(reason::INVALID_FRAMING), ..MessageEnd::default() };
                advance(consumed, Some(whole(begun, end)))
            }
        }
    }

    /// The first bytes after a head whose body is in doubt.
    pub(super) fn settle(&mut self, side: Side, framing: Framing, bytes: &[u8]) -> Step {
        let may_be_absent = side == Side::Response || self.refused;
        let start = if may_be_absent { message_start(side, bytes) } else { Sniff::No };
        match start {
            Sniff::Yes(_) => advance(0, Some(self.end(side, 0, None))),
            Sniff::NeedMore if bytes.len() < self.max_head => Step::NeedMore,
            _ if framing == Framing::Chunked => {
                self.half(side).state = State::Chunks;
                self.chunk(side, bytes)
            }
            _ => self.body(side, 0, framing, None),
        }
    }

    pub(super) fn chunk(&mut self, side: Side, bytes: &[u8]) -> Step {
        match body::chunk_line(bytes) {
            ChunkLine::Partial if bytes.len() < self.max_head => Step::NeedMore,
            ChunkLine::Partial | ChunkLine::Invalid => Step::Lost,
            ChunkLine::Size { len, size: 0 } => {
                self.half(side).state = State::Trailers;
                match self.trailer(side, &bytes[len..]) {
                    Step::Advance { consumed, event, .. } => advance(len + consumed, event),
                    _ => advance(len, None),
                }
            }
            ChunkLine::Size { len, size } => {
                let half = self.half(side);
                half.size = half.size.saturating_add(size);
                // Who ends this line with a lone line feed may end the data with one, too; nginx takes it.
                if !bytes[..len].ends_with(b"\r\n") {
                    half.state = State::ChunkEnd;
                    return Step::Advance { consumed: len, event: None, skip: size, then: None };
                }
                // A line end follows the data. It is skipped unseen, as the capture often ends inside the data.
                Step::Advance { consumed: len, event: None, skip: size + 2, then: None }
            }
        }
    }

    /// Behind the data of a chunk whose first line ended in a lone line feed.
    pub(super) fn chunk_end(&mut self, side: Side, bytes: &[u8]) -> Step {
        let len = match bytes {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [b'\r'] => return Step::NeedMore,
            _ => return Step::Lost,
        };
        self.half(side).state = State::Chunks;
        advance(len, None)
    }

    /// A trailer field, or the empty line that ends the message.
    pub(super) fn trailer(&mut self, side: Side, bytes: &[u8]) -> Step {
        match memchr::memchr(b'\n', bytes) {
            None if bytes.len() < self.max_head => Step::NeedMore,
            None => Step::Lost,
            Some(at) if at == 0 || &bytes[..at] == b"\r" => {
                let end = self.end(side, 0, None);
                advance(at + 1, Some(end))
            }
            Some(at) => advance(at + 1, None),
        }
    }

    /// Out of step in a chunked body, at the beginning of a transfer: a message, or a chunk.
    pub(super) fn adrift(&mut self, side: Side, bytes: &[u8]) -> Step {
        match message_start(side, bytes) {
            Sniff::Yes(_) => return advance(0, Some(self.end(side, 0, None))),
            Sniff::NeedMore if bytes.len() < self.max_head => return Step::NeedMore,
            _ => {}
        }
        // Eight digits at most and a line end at once: what a sender writes, and not what data looks like.
        let line = bytes.iter().take(9).take_while(|b| b.is_ascii_hexdigit()).count();
        match bytes.get(line..) {
            Some(rest) if (1..=8).contains(&line) && rest.starts_with(b"\r\n") => {
                match body::begins_chunk(bytes) {
                    Some(true) => {
                        self.half(side).state = State::Chunks;
                        self.chunk(side, bytes)
                    }
                    None if bytes.len() < self.max_head => Step::NeedMore,
                    Some(false) | None => Step::Lost,
                }
            }
            Some([] | [b'\r']) if line <= 8 => Step::NeedMore,
            _ => Step::Lost,
        }
    }

    /// Ends the message under way, `cut` of whose announced body bytes did not come.
    pub(super) fn end(&mut self, side: Side, cut: u64, incomplete: Option<&'static str>) -> ParseEvent {
        let half = self.half(side);
        let size = (!half.gap).then(|| half.size.saturating_sub(cut));
        let incomplete = incomplete.or(half.gap.then_some(reason::GAP_IN_BODY));
        *half = Half::NEW;
        let attributes = size.map(|size| self.describe.body_size(side, size)).unwrap_or_default();
        ParseEvent::End(MessageEnd { attributes, incomplete })
    }

    /// Ends what is under way because nothing more of it will be seen. `unskipped` as in [`Parser::eof`].
    pub(super) fn cut(&mut self, side: Side, unskipped: u64, why: &'static str) -> Option<ParseEvent> {
        match self.half(side).state {
            State::Start | State::Resync => None,
            State::Sized if unskipped == 0 => {
                *self.half(side) = Half::NEW;
                None
            }
            State::Sized => Some(self.end(side, unskipped, Some(why))),
            State::UntilClose => {
                let incomplete = (why != reason::EOF_IN_BODY).then_some(why);
                Some(self.end(side, unskipped, incomplete))
            }
            // Nothing followed the head: the body did not come, or the request was HEAD.
            State::Doubt(Framing::UntilClose) => Some(self.end(side, 0, None)),
            State::Doubt(_) => Some(self.end(side, 0, Some(why))),
            // The line end after the data is no data.
            State::Chunks => Some(self.end(side, unskipped.saturating_sub(2), Some(why))),
            State::ChunkEnd => Some(self.end(side, unskipped, Some(why))),
            State::Trailers => Some(self.end(side, 0, Some(why))),
            State::Adrift => Some(self.end(side, 0, Some(reason::GAP_IN_BODY))),
        }
    }
}
