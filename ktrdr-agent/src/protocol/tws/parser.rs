//! The state machine of one connection: frame after frame, skipping what need not be read.

use super::describe::{self, Describe};
use super::frame::{self, Encoding, Fields, Frame, HEADER, Read};
use super::open::{self, Open, Requests};
use super::session::Session;
use super::sniff::{self, HELLO};
use super::tables::{self, Answer};
use crate::protocol::{
    ConnContext, Message, MessageEnd, ParseEvent, Parser, Request, Response, Side, Sniff, Step,
};
use crate::trace::model::Attributes;

/// The stream ended inside a frame.
const EOF_IN_FRAME: &str = "eof_in_body";

/// One side.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// Out of step: the next message is looked for at the beginning of each transfer.
    adrift: bool,
    /// A message was begun whose end comes with the last skipped byte.
    inside: bool,
}

/// Parser of one connection.
pub(super) struct TwsParser {
    pub(super) describe: Describe,
    pub(super) session: Session,
    pub(super) open: Requests,
    halves: [Half; 2],
    /// Longest beginning of a frame that is waited for.
    max_head: usize,
}

impl TwsParser {
    pub(super) fn new(context: &ConnContext) -> Self {
        Self {
            describe: Describe::new(context),
            session: Session::default(),
            open: Requests::default(),
            halves: [Half::default(); 2],
            max_head: context.max_head,
        }
    }

    /// The client's first bytes.
    fn hello(&mut self, bytes: &[u8]) -> Step {
        let Some((header, rest)) = bytes[HELLO.len()..].split_first_chunk::<HEADER>() else {
            return Step::NeedMore;
        };
        let len = u32::from_be_bytes(*header) as usize;
        let Some(text) = rest.get(..len) else { return Step::NeedMore };
        let text = String::from_utf8_lossy(text);
        let (versions, options) = text.split_once(' ').unwrap_or((&text, ""));
        let mut attributes = self.describe.call("handshake");
        attributes.push("ib.client_versions", versions.trim_start_matches('v').to_owned());
        if !options.is_empty() {
            attributes.push("ib.connect_options", options.to_owned());
        }
        self.open.clear();
        self.session = Session::default();
        self.open.add(tables::HANDSHAKE, None);
        let key = Some(open::key(tables::HANDSHAKE, None));
        let request = Request { key, name: "IB handshake".to_owned(), attributes, ..Request::default() };
        let event = ParseEvent::Whole(Message::from(request), MessageEnd::default());
        let consumed = HELLO.len() + HEADER + len;
        Step::Advance { consumed, event: Some(event), skip: 0, then: None }
    }

    /// The fields of a frame up to `last`; all there will be of them where a field is absurdly long.
    pub(super) fn fields<'a>(&self, frame: &Frame<'a>, bytes: &[u8], last: usize) -> Option<Fields<'a>> {
        frame.fields(last).or_else(|| (bytes.len() >= self.max_head).then(|| frame.at_hand(last)))
    }

    fn request(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> Step {
        let Some(asked) = tables::request(frame.id) else {
            let request = self.unread(&format!("message {}", frame.id), frame);
            return self.message(Side::Request, frame, bytes, Message::from(request), MessageEnd::default());
        };
        if frame.encoding == Encoding::Protobuf {
            let request = self.unread(asked.name, frame);
            return self.message(Side::Request, frame, bytes, Message::from(request), MessageEnd::default());
        }
        let Some(fields) = self.fields(frame, bytes, describe::last_field(asked)) else {
            return Step::NeedMore;
        };
        if asked.id == tables::START_API {
            self.session.client_id = fields.int(2);
        }
        let req_id = asked.req_id.and_then(|at| fields.int(at));
        let one_way = !asked.answered || describe::is_unsubscribe(asked, &fields);
        if !one_way {
            self.open.add(asked.id, req_id);
        }
        let (name, attributes) = self.describe.request(asked, &fields);
        let request = Request {
            key: Some(open::key(asked.id, req_id)),
            name,
            attributes,
            connection: self.session.attributes(),
            one_way,
            cancels: open::cancelled(asked, req_id),
            ..Request::default()
        };
        self.message(Side::Request, frame, bytes, Message::from(request), MessageEnd::default())
    }

    /// A request of which only the kind is known: its answer cannot be told.
    fn unread(&self, method: &str, frame: &Frame<'_>) -> Request {
        let mut attributes = self.describe.call(method);
        let encoding = if frame.encoding == Encoding::Protobuf { "protobuf" } else { "text" };
        attributes.push("ib.encoding", encoding);
        Request {
            key: Some(open::key(frame.id, None)),
            name: format!("IB {method}"),
            attributes,
            connection: self.session.attributes(),
            one_way: true,
            ..Request::default()
        }
    }

    fn response(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> Step {
        if frame.encoding == Encoding::Protobuf {
            return pass(frame, bytes, None);
        }
        if frame.id == tables::ERROR {
            return self.error(frame, bytes);
        }
        if self.open.is_empty() {
            return pass(frame, bytes, None);
        }
        if frame.id >= 100
            && let Some(at) = self.open.by_kind(tables::HANDSHAKE)
        {
            let Some(fields) = self.fields(frame, bytes, 2) else { return Step::NeedMore };
            if sniff::greeting(frame.id, &fields) {
                return self.greeting(at, frame, bytes);
            }
        }
        let answers = tables::answers(frame.id);
        // Four fields hold every id, and what is counted.
        let wanted = if answers.is_empty() { 0 } else { 4 };
        let Some(fields) = self.fields(frame, bytes, wanted) else { return Step::NeedMore };
        for answer in answers {
            let req_id = answer.req_id.and_then(|at| fields.int(at));
            let found = self.open.answered(answer, req_id).or_else(|| {
                // contractDetails has no version in front of the id since server version 164.
                let bare = frame.id == 10 && self.session.server_version.is_none_or(|v| v >= 164);
                bare.then(|| self.open.answered(answer, fields.int(1))).flatten()
            });
            if let Some(at) = found {
                return self.answer(*answer, at, frame, &fields, bytes);
            }
        }
        pass(frame, bytes, None)
    }

    fn greeting(&mut self, at: usize, frame: &Frame<'_>, bytes: &[u8]) -> Step {
        let Some(open) = self.open.take(at) else { return pass(frame, bytes, None) };
        let version = i64::from(frame.id);
        self.session.server_version = Some(version);
        let mut attributes = Attributes::new();
        attributes.push("ib.server_version", version);
        let response = Response { key: Some(open.key()), attributes, ..Response::default() };
        self.message(Side::Response, frame, bytes, Message::from(response), MessageEnd::default())
    }

    fn answer(
        &mut self,
        answer: Answer,
        at: usize,
        frame: &Frame<'_>,
        fields: &Fields<'_>,
        bytes: &[u8],
    ) -> Step {
        if let Some(open) = self.open.get(at) {
            open.bytes += frame.len as u64;
            if answer.last {
            } else if frame.id == tables::MANAGED_ACCOUNTS {
                let accounts = fields.bytes(2).split(|b| *b == b',').filter(|a| !a.is_empty()).count();
                open.accounts = Some(accounts as u64);
            } else {
                open.parts += 1;
            }
        }
        if !answer.last {
            return pass(frame, bytes, None);
        }
        let Some(open) = self.open.take(at) else { return pass(frame, bytes, None) };
        let end = MessageEnd { attributes: received(&open, frame.id, fields), incomplete: None };
        let response = Response { key: Some(open.key()), ..Response::default() };
        self.message(Side::Response, frame, bytes, Message::from(response), end)
    }

    /// Reports a message; what of its frame is not at hand is skipped.
    pub(super) fn message(
        &mut self,
        side: Side,
        frame: &Frame<'_>,
        bytes: &[u8],
        message: Message,
        end: MessageEnd,
    ) -> Step {
        if bytes.len() >= frame.len {
            let event = Some(ParseEvent::Whole(message, end));
            return Step::Advance { consumed: frame.len, event, skip: 0, then: None };
        }
        self.halves[side as usize].inside = true;
        Step::Advance {
            consumed: bytes.len(),
            event: Some(ParseEvent::Begin(message)),
            skip: (frame.len - bytes.len()) as u64,
            then: Some(ParseEvent::End(end)),
        }
    }

    /// Ends the message under way if its last bytes will not come.
    fn cut(&mut self, side: Side, unskipped: u64) -> Option<ParseEvent> {
        let inside = std::mem::take(&mut self.halves[side as usize].inside);
        let end = || ParseEvent::End(MessageEnd { incomplete: Some(EOF_IN_FRAME), ..MessageEnd::default() });
        (inside && unskipped > 0).then(end)
    }
}

/// Passes over a frame.
pub(super) fn pass(frame: &Frame<'_>, bytes: &[u8], event: Option<ParseEvent>) -> Step {
    let consumed = bytes.len().min(frame.len);
    Step::Advance { consumed, event, skip: (frame.len - consumed) as u64, then: None }
}

/// What the answer brought, known at its end.
fn received(open: &Open, id: u16, fields: &Fields<'_>) -> Attributes {
    let mut a = Attributes::new();
    if id == tables::HISTORICAL_DATA {
        // Since server version 196 the dates come in a message of their own, and the number stands first.
        let short = fields.bytes(2).len() < 8;
        if let Some(bars) = fields.int(if short { 2 } else { 4 }) {
            a.push("ib.bars_received", bars);
        }
    } else if open.parts > 0 {
        a.push("ib.items_received", open.parts);
    }
    if let Some(accounts) = open.accounts {
        a.push("ib.accounts", accounts);
    }
    a.push("ib.bytes_received", open.bytes);
    a
}

impl Parser for TwsParser {
    fn step(&mut self, side: Side, bytes: &[u8]) -> Step {
        self.halves[side as usize].inside = false;
        if side == Side::Request {
            match sniff::hello(bytes) {
                Sniff::Yes(_) => {
                    self.halves[side as usize].adrift = false;
                    return self.hello(bytes);
                }
                Sniff::NeedMore => return Step::NeedMore,
                Sniff::No => {}
            }
        }
        if self.halves[side as usize].adrift {
            match sniff::message(bytes, Some(side)) {
                Sniff::Yes(_) => self.halves[side as usize].adrift = false,
                Sniff::NeedMore => return Step::NeedMore,
                Sniff::No => return Step::Lost,
            }
        }
        match frame::read(bytes) {
            Read::Partial => Step::NeedMore,
            Read::Invalid => Step::Lost,
            Read::Frame(frame) => match side {
                Side::Request => self.request(&frame, bytes),
                Side::Response => self.response(&frame, bytes),
            },
        }
    }

    fn lost(&mut self, side: Side) -> Option<ParseEvent> {
        if side == Side::Response {
            // What was lost may have answered any of them, or have been a part of an answer.
            self.open.clear();
        }
        let half = &mut self.halves[side as usize];
        *half = Half { adrift: true, inside: false };
        None
    }

    fn eof(&mut self, side: Side, unskipped: u64) -> Option<ParseEvent> {
        self.cut(side, unskipped)
    }

    fn abandon(&mut self, side: Side, unskipped: u64) -> Option<ParseEvent> {
        self.cut(side, unskipped)
    }
}
