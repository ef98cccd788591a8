//! The state machine of one connection.
//!
//! ```text
//!           head          Length                     skip passed
//!  Start ─────────────────► Sized ──────────────────────────────► Start
//!    ▲   │ Chunked         0-chunk      empty line
//!    │   ├───────► Chunks ────────► Trailers ───────────────────► Start
//!    │   │            │ lost ▲
//!    │   │            ▼      │ chunk line at the beginning of a transfer
//!    │   │          Adrift ──┴── a message begins ──────────────► Start
//!    │   ├ UntilClose ► UntilClose ── eof
//!    │   └ body in doubt ► Doubt ── next bytes decide ─► as above, or Start
//!  Resync ◄── lost
//! ```

use std::sync::Arc;

use super::attributes::Describe;
use super::body::{self, Asked, ChunkLine, Framing};
use super::head::{self, Read, RequestHead, ResponseHead};
use super::memo::{Answers, Asks, Said, Scope};
use super::outstanding::Outstanding;
use super::sniff;
use crate::protocol::{ConnContext, Message, MessageEnd, ParseEvent, Parser, Shared, Side, Sniff, Step};

/// Why a message is not whole.
mod reason {
    /// The head was longer than what was captured, or than the limit.
    pub const HEAD_TRUNCATED: &str = "head_truncated";
    /// The stream ended before the body did.
    pub const EOF_IN_BODY: &str = "eof_in_body";
    /// Bytes of the body's framing were not captured or lost: its size and exact end are unknown.
    pub const GAP_IN_BODY: &str = "gap_in_body";
    /// The next message began before the declared end of this one.
    pub const ABANDONED: &str = "abandoned";
    /// The head contradicts itself about the body.
    pub const INVALID_FRAMING: &str = "invalid_framing";
}

/// Where one side stands. See the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between messages, in step with the sender.
    Start,
    /// Out of step: the next message is looked for at the beginning of each transfer.
    Resync,
    /// In a body of known length, which the engine skips. Over once it has been skipped.
    Sized,
    /// In a body without end.
    UntilClose,
    /// A head was read whose body may not come: a response whose request is unknown may answer `HEAD`, and a request
    /// that expects `100 (Continue)` may be refused.
    Doubt(Framing),
    /// Before a chunk's first line.
    Chunks,
    /// After the last chunk.
    Trailers,
    /// In a chunked body, out of step.
    Adrift,
}

/// One side.
#[derive(Debug)]
struct Half {
    state: State,
    /// Body bytes announced so far.
    size: u64,
    /// Whether the body's size is unknown because of a gap.
    gap: bool,
    /// Bytes of an unfinished head or line that hold no end of it: not searched again.
    searched: usize,
}

impl Half {
    const NEW: Half = Half { state: State::Start, size: 0, gap: false, searched: 0 };
}

/// Parser of one connection.
pub(super) struct Http1Parser {
    describe: Describe,
    shared: Arc<Shared>,
    scope: Option<Scope>,
    max_head: usize,
    request: Half,
    response: Half,
    open: Outstanding,
    /// The request in [`State::Doubt`] got its final answer without `100 (Continue)`.
    refused: bool,
}

impl Http1Parser {
    pub(super) fn new(context: &ConnContext) -> Self {
        let describe = Describe::new(context);
        Self {
            scope: describe.scope(),
            describe,
            shared: context.shared.clone(),
            max_head: context.max_head,
            request: Half::NEW,
            response: Half::NEW,
            open: Outstanding::default(),
            refused: false,
        }
    }

    fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }

    /// Ends the message under way, `cut` of whose announced body bytes did not come.
    fn end(&mut self, side: Side, cut: u64, incomplete: Option<&'static str>) -> ParseEvent {
        let half = self.half(side);
        let size = (!half.gap).then(|| half.size.saturating_sub(cut));
        let incomplete = incomplete.or(half.gap.then_some(reason::GAP_IN_BODY));
        *half = Half::NEW;
        let attributes = size.map(|size| self.describe.body_size(side, size)).unwrap_or_default();
        ParseEvent::End(MessageEnd { attributes, incomplete })
    }

    /// A message is expected at the beginning of `bytes`.
    fn start(&mut self, side: Side, bytes: &[u8]) -> Step {
        if self.half(side).state == State::Resync {
            match message_start(side, bytes) {
                Sniff::Yes(_) => self.half(side).state = State::Start,
                Sniff::NeedMore if bytes.len() < self.max_head => return Step::NeedMore,
                _ => return Step::Lost,
            }
        }
        // Empty lines before a message are passed over (RFC 9112 §2.2).
        let empty = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        if empty > 0 {
            return advance(empty, None);
        }
        let searched = self.half(side).searched;
        if searched > 0 && bytes.len() < self.max_head && !head::has_end(bytes, searched) {
            self.half(side).searched = bytes.len();
            return Step::NeedMore;
        }
        if let Some(step) = self.known(side, bytes) {
            self.half(side).searched = 0;
            return step;
        }
        let read = match side {
            Side::Request => {
                head::request(bytes, &self.describe.kept).map(|head| self.request_head(&head, bytes))
            }
            Side::Response => {
                head::response(bytes, &self.describe.kept).map(|head| self.response_head(&head, bytes))
            }
        };
        match read {
            Read::Whole(step) => {
                self.half(side).searched = 0;
                step
            }
            Read::Partial if bytes.len() < self.max_head => {
                self.half(side).searched = bytes.len();
                Step::NeedMore
            }
            Read::Partial | Read::TooManyFields => match self.beginning(side, bytes) {
                Some(event) => advance(bytes.len(), Some(event)),
                None => Step::Lost,
            },
            Read::Invalid => Step::Lost,
        }
    }

    /// A head that was read before.
    fn known(&mut self, side: Side, bytes: &[u8]) -> Option<Step> {
        let (len, said) = self.shared.http1.get(self.scope.as_ref()?, side, bytes)?;
        Some(match said {
            Said::Asks(mut asks) => {
                self.describe.adopt(&mut asks.request);
                self.asks(len, asks)
            }
            Said::Answers(answers) => self.answers(len, answers),
        })
    }

    fn learn(&self, side: Side, head: &[u8], said: impl FnOnce() -> Said) {
        if let Some(scope) = &self.scope {
            self.shared.http1.learn(scope, side, head, said);
        }
    }

    fn request_head(&mut self, head: &RequestHead<'_>, bytes: &[u8]) -> Step {
        let asks = Asks {
            asked: asked(head.method),
            framing: body::of_request(&head.fields),
            expects_continue: head.fields.expects_continue,
            request: self.describe.request(head),
        };
        self.learn(Side::Request, &bytes[..head.len], || Said::Asks(asks.clone()));
        self.asks(head.len, asks)
    }

    fn asks(&mut self, len: usize, asks: Asks) -> Step {
        let Asks { asked, framing, expects_continue, request } = asks;
        self.open.request(asked);
        let begun = Message::from(request);
        self.refused = false;
        if expects_continue && framing != Framing::None {
            return self.doubt(Side::Request, len, framing, begun);
        }
        self.body(Side::Request, len, framing, Some(begun))
    }

    fn response_head(&mut self, head: &ResponseHead<'_>, bytes: &[u8]) -> Step {
        if matches!(head.code, 100..=199) && head.code != 101 {
            self.refused = false;
            let whole =
                ParseEvent::Whole(Message::from(self.describe.interim(head.code)), MessageEnd::default());
            return advance(head.len, Some(whole));
        }
        let answers = Answers {
            code: head.code,
            framing: body::of_response(head.code, Asked::Plain, &head.fields),
            response: self.describe.response(head),
        };
        self.learn(Side::Response, &bytes[..head.len], || Said::Answers(answers.clone()));
        self.answers(head.len, answers)
    }

    /// A final response.
    fn answers(&mut self, len: usize, answers: Answers) -> Step {
        let Answers { code, framing, response } = answers;
        self.refused = matches!(self.request.state, State::Doubt(_));
        let asked = self.open.response();
        let begun = Message::from(response);
        let tunnel = asked == Some(Asked::Connect) && matches!(code, 200..=299);
        if code == 101 || tunnel {
            return Step::Opaque(Some(ParseEvent::Whole(begun, MessageEnd::default())));
        }
        let framing = if asked == Some(Asked::Head) { Framing::None } else { framing };
        match asked {
            None if framing != Framing::None => self.doubt(Side::Response, len, framing, begun),
            _ => self.body(Side::Response, len, framing, Some(begun)),
        }
    }

    fn doubt(&mut self, side: Side, consumed: usize, framing: Framing, begun: Message) -> Step {
        *self.half(side) = Half { state: State::Doubt(framing), ..Half::NEW };
        advance(consumed, Some(ParseEvent::Begin(begun)))
    }

    /// Goes on with the body; `begun` = the head before it, if it is not reported yet.
    fn body(&mut self, side: Side, consumed: usize, framing: Framing, begun: Option<Message>) -> Step {
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
    fn settle(&mut self, side: Side, framing: Framing, bytes: &[u8]) -> Step {
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

    fn chunk(&mut self, side: Side, bytes: &[u8]) -> Step {
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
                // A line end follows the data. It is skipped unseen, as the capture often ends inside the data.
                Step::Advance { consumed: len, event: None, skip: size + 2, then: None }
            }
        }
    }

    /// A trailer field, or the empty line that ends the message.
    fn trailer(&mut self, side: Side, bytes: &[u8]) -> Step {
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
    fn adrift(&mut self, side: Side, bytes: &[u8]) -> Step {
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

    /// A head of which there is only the beginning.
    fn beginning(&mut self, side: Side, bytes: &[u8]) -> Option<ParseEvent> {
        let message = match side {
            Side::Request => {
                let head = head::request_beginning(bytes, &self.describe.kept)?;
                self.open.request(asked(head.method));
                Message::from(self.describe.request(&head))
            }
            Side::Response => {
                let head = head::response_beginning(bytes, &self.describe.kept)?;
                if matches!(head.code, 100..=199) && head.code != 101 {
                    Message::from(self.describe.interim(head.code))
                } else {
                    self.open.response();
                    Message::from(self.describe.response(&head))
                }
            }
        };
        *self.half(side) = Half { state: State::Resync, ..Half::NEW };
        let end = MessageEnd { incomplete: Some(reason::HEAD_TRUNCATED), ..MessageEnd::default() };
        Some(ParseEvent::Whole(message, end))
    }

    /// Ends what is under way because nothing more of it will be seen. `unskipped` as in [`Parser::eof`].
    fn cut(&mut self, side: Side, unskipped: u64, why: &'static str) -> Option<ParseEvent> {
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
            State::Trailers => Some(self.end(side, 0, Some(why))),
            State::Adrift => Some(self.end(side, 0, Some(reason::GAP_IN_BODY))),
        }
    }
}

impl Parser for Http1Parser {
    fn step(&mut self, side: Side, bytes: &[u8]) -> Step {
        match self.half(side).state {
            State::Start | State::Resync => self.start(side, bytes),
            State::Sized => {
                *self.half(side) = Half::NEW;
                self.start(side, bytes)
            }
            State::UntilClose => {
                Step::Advance { consumed: bytes.len(), event: None, skip: u64::MAX, then: None }
            }
            State::Doubt(framing) => self.settle(side, framing, bytes),
            State::Chunks => self.chunk(side, bytes),
            State::Trailers => self.trailer(side, bytes),
            State::Adrift => self.adrift(side, bytes),
        }
    }

    fn bridge(&mut self, side: Side, missing: u64) -> Option<ParseEvent> {
        let known = match self.half(side).state {
            // `0 CRLF CRLF`: one byte less than the shortest chunk, so it can be nothing else.
            State::Chunks => missing == 5,
            State::Trailers => missing == 2,
            State::Doubt(Framing::Length(n)) if n == missing => {
                self.half(side).size = n;
                true
            }
            _ => false,
        };
        known.then(|| self.end(side, 0, None))
    }

    fn salvage(&mut self, side: Side, bytes: &[u8]) -> Option<ParseEvent> {
        match self.half(side).state {
            State::Start | State::Sized => self.beginning(side, bytes),
            _ => None,
        }
    }

    fn lost(&mut self, side: Side) -> Option<ParseEvent> {
        match side {
            Side::Request => self.open.lost_requests(),
            Side::Response => self.open.lost_responses(),
        }
        let half = self.half(side);
        half.searched = 0;
        if matches!(half.state, State::Chunks | State::Trailers | State::Adrift) {
            half.state = State::Adrift;
            half.gap = true;
            return None;
        }
        let end = self.cut(side, 0, reason::GAP_IN_BODY);
        self.half(side).state = State::Resync;
        end
    }

    fn eof(&mut self, side: Side, unskipped: u64) -> Option<ParseEvent> {
        self.cut(side, unskipped, reason::EOF_IN_BODY)
    }

    fn abandon(&mut self, side: Side, unskipped: u64) -> Option<ParseEvent> {
        self.cut(side, unskipped, reason::ABANDONED)
    }
}

fn advance(consumed: usize, event: Option<ParseEvent>) -> Step {
    Step::Advance { consumed, event, skip: 0, then: None }
}

fn asked(method: &str) -> Asked {
    match method {
        "HEAD" => Asked::Head,
        "CONNECT" => Asked::Connect,
        _ => Asked::Plain,
    }
}

fn message_start(side: Side, bytes: &[u8]) -> Sniff {
    match side {
        Side::Request => sniff::request(bytes),
        Side::Response => sniff::response(bytes),
    }
}
