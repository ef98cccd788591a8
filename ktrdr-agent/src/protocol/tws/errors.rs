//! Errors, warnings and news: message 4, about a request or about the session.

use super::codes::{self, Code, Severity};
use super::describe;
use super::frame::Frame;
use super::mask;
use super::parser::{TwsParser, pass};
use super::tables;
use crate::protocol::{Interim, Message, MessageEnd, ParseEvent, Response, Side, Step};

impl TwsParser {
    /// `version reqId code text …`, or from server version 194 on `reqId code text … time`.
    pub(super) fn error(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> Step {
        let Some(f) = self.fields(frame, bytes, 4) else { return Step::NeedMore };
        let at = if f.int(3).is_some() && f.int(2).is_some() { 2 } else { 1 };
        let (Some(req_id), Some(code)) = (f.int(at), f.int(at + 1)) else { return pass(frame, bytes, None) };
        let text = f.text(at + 2).unwrap_or_default();
        let said = codes::explain(code, &text);
        let about = if req_id >= 0 { self.open.by_id(req_id) } else { None };
        if let Some(at) = about {
            return match said.ends {
                true => self.failed(at, code, &text, said, frame, bytes),
                false => {
                    let key = self.open.get(at).map(|o| o.key());
                    pass(frame, bytes, Some(warning(key, code, &text, said)))
                }
            };
        }
        if req_id >= 0 {
            return pass(frame, bytes, None);
        }
        self.session.news(code, &text);
        if said.severity == Severity::Info {
            return pass(frame, bytes, None);
        }
        let starting = self.open.by_kind(tables::START_API).or_else(|| self.open.by_kind(tables::HANDSHAKE));
        match starting {
            Some(at) if said.severity == Severity::Fatal && said.ends => {
                self.failed(at, code, &text, said, frame, bytes)
            }
            _ => pass(frame, bytes, Some(warning(None, code, &text, said))),
        }
    }

    /// An error ends the request at `at`.
    fn failed(
        &mut self,
        at: usize,
        code: i64,
        text: &str,
        said: Code,
        frame: &Frame<'_>,
        bytes: &[u8],
    ) -> Step {
        let Some(open) = self.open.take(at) else { return pass(frame, bytes, None) };
        let response = Response { key: Some(open.key()), ..self.describe.failure(code, text, said) };
        self.message(Side::Response, frame, bytes, Message::from(response), MessageEnd::default())
    }
}

/// Something said about one request, or about the session (`key` = `None`: about all).
fn warning(key: Option<u64>, code: i64, text: &str, said: Code) -> ParseEvent {
    let attributes = describe::error(code, &mask::accounts(text), said);
    let name = if key.is_some() { "ib.message" } else { "ib.session" };
    let interim = Interim { name: name.into(), attributes, key, all: key.is_none() };
    ParseEvent::Whole(Message::from(interim), MessageEnd::default())
}
