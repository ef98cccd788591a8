//! Heads: what a message begins with, and what follows from it.

use super::super::body::{self, Asked, Framing};
use super::super::head::{self, Read, RequestHead, ResponseHead};
use super::super::memo::{Answers, Asks, Said};
use super::super::odd::{self, Found};
use super::{Half, Http1Parser, State, advance, message_start, reason};
use crate::protocol::{Message, MessageEnd, ParseEvent, Side, Sniff, Step};

impl Http1Parser {
    /// A message is expected at the beginning of `bytes`.
    pub(super) fn start(&mut self, side: Side, bytes: &[u8]) -> Step {
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
            Read::Partial => self.too_long(side, bytes),
            Read::Odd => self.odd(side, bytes),
        }
    }

    /// A head that the strict reader does not take. Read from the beginning again, but once only: until its end is there it
    /// is searched for nothing else.
    fn odd(&mut self, side: Side, bytes: &[u8]) -> Step {
        let head = match odd::read(side, bytes, false) {
            Found::Head(head) => head,
            Found::Partial if bytes.len() < self.max_head => {
                self.half(side).searched = bytes.len();
                return Step::NeedMore;
            }
            Found::Partial => return self.too_long(side, bytes),
            Found::Nothing => return Step::Lost,
        };
        self.half(side).searched = 0;
        let step = match side {
            Side::Request => head.request(&self.describe.kept).map(|head| self.request_head(&head, bytes)),
            Side::Response => head.response(&self.describe.kept).map(|head| self.response_head(&head, bytes)),
        };
        step.unwrap_or(Step::Lost)
    }

    /// More than is waited for, without an end.
    fn too_long(&mut self, side: Side, bytes: &[u8]) -> Step {
        match self.beginning(side, bytes) {
            Some(event) => advance(bytes.len(), Some(event)),
            None => Step::Lost,
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
            request: Box::new(self.describe.request(head)),
        };
        self.learn(Side::Request, &bytes[..head.len], || Said::Asks(asks.clone()));
        self.asks(head.len, asks)
    }

    fn asks(&mut self, len: usize, asks: Asks) -> Step {
        let Asks { asked, framing, expects_continue, request } = asks;
        self.open.request(asked);
        let begun = Message::Request(request);
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
            response: Box::new(self.describe.response(head)),
        };
        self.learn(Side::Response, &bytes[..head.len], || Said::Answers(answers.clone()));
        self.answers(head.len, answers)
    }

    /// A final response.
    fn answers(&mut self, len: usize, answers: Answers) -> Step {
        let Answers { code, framing, response } = answers;
        self.refused = matches!(self.request.state, State::Doubt(_));
        let asked = self.open.response();
        let begun = Message::Response(response);
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

    /// A head of which there is only the beginning.
    pub(super) fn beginning(&mut self, side: Side, bytes: &[u8]) -> Option<ParseEvent> {
        let Found::Head(beginning) = odd::read(side, bytes, true) else { return None };
        let message = match side {
            Side::Request => {
                let head = beginning.request(&self.describe.kept)?;
                self.open.request(asked(head.method));
                Message::from(self.describe.request(&head))
            }
            Side::Response => {
                let head = beginning.response(&self.describe.kept)?;
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
}

fn asked(method: &str) -> Asked {
    match method {
        "HEAD" => Asked::Head,
        "CONNECT" => Asked::Connect,
        _ => Asked::Plain,
    }
}
