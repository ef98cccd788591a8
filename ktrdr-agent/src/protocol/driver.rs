//! Drives a parser in tests as the engine does, without times and pairing: see [`Parser`] for the rules.

use super::{ConnContext, Message, MessageEnd, ParseEvent, Parser, Protocol, Request, Role, Side, Step};
use crate::trace::model::Attributes;

/// What a parser reported, in a form that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Note {
    /// A message began.
    Begin(Side, String),
    /// It ended.
    End(Side, String, Option<&'static str>),
    /// An interim response.
    Interim(String),
    /// Nothing more is parsed.
    Opaque,
}

#[derive(Default)]
struct Half {
    held: Vec<u8>,
    skip: u64,
    then: Option<ParseEvent>,
    at_end: bool,
}

/// One connection.
pub(crate) struct Driver {
    parser: Box<dyn Parser>,
    halves: [Half; 2],
    pub notes: Vec<Note>,
    /// Transfers, or parts of them, that were not the protocol.
    pub dropped: usize,
    /// Messages that did not begin at the beginning of a transfer: a capture limit can hide them.
    pub begun_inside: usize,
    opaque: bool,
}

pub(crate) fn context(role: Role) -> ConnContext {
    ConnContext {
        role,
        server: ([127, 0, 0, 1], 8000).into(),
        client: ([10, 0, 0, 9], 40000).into(),
        semconv_dup: false,
        max_head: 16 * 1024,
        kept_headers: Default::default(),
        mask: Default::default(),
        shared: Default::default(),
    }
}

impl Driver {
    pub(crate) fn new(protocol: &dyn Protocol, context: &ConnContext) -> Self {
        Self {
            parser: protocol.parser(context),
            halves: Default::default(),
            notes: Vec::new(),
            dropped: 0,
            begun_inside: 0,
            opaque: false,
        }
    }

    /// One transfer of which all bytes were captured.
    pub(crate) fn feed(&mut self, side: Side, bytes: &[u8]) {
        let half = &mut self.halves[side as usize];
        assert!(!half.at_end, "bytes after the end");
        let rest = pass(half, bytes.len() as u64);
        self.passed(side);
        if self.opaque {
            return;
        }
        let mut held = std::mem::take(&mut self.halves[side as usize].held);
        held.extend_from_slice(&bytes[bytes.len() - rest as usize..]);
        let fresh = held.len() as u64 == bytes.len() as u64;
        let mut at = 0;
        let mut idle = 0;
        while at < held.len() && !self.opaque {
            match self.parser.step(side, &held[at..]) {
                Step::NeedMore => break,
                Step::Lost => {
                    at = held.len();
                    self.dropped += 1;
                    let event = self.parser.lost(side);
                    self.note(side, event);
                }
                Step::Opaque(event) => {
                    self.note(side, event);
                    self.notes.push(Note::Opaque);
                    self.opaque = true;
                }
                Step::Advance { consumed, event, skip, then } => {
                    assert!(consumed <= held.len() - at, "consumed what was not shown");
                    idle = if consumed > 0 || skip > 0 { 0 } else { idle + 1 };
                    assert!(idle < 4, "no progress");
                    assert!(consumed > 0 || skip > 0 || event.is_some(), "no progress");
                    assert!(skip < u64::MAX || then.is_none(), "nothing comes after the end");
                    let begins = matches!(event, Some(ParseEvent::Begin(_) | ParseEvent::Whole(..)));
                    self.begun_inside += usize::from(begins && (at > 0 || !fresh));
                    self.note(side, event);
                    at += consumed;
                    let half = &mut self.halves[side as usize];
                    (half.skip, half.then) = (skip, then);
                    let left = (held.len() - at) as u64;
                    at = held.len() - pass(half, left) as usize;
                    self.passed(side);
                }
            }
        }
        held.drain(..at);
        self.halves[side as usize].held = held;
    }

    /// `missing` bytes that were not captured or are lost.
    pub(crate) fn gap(&mut self, side: Side, missing: u64) {
        let rest = pass(&mut self.halves[side as usize], missing);
        self.passed(side);
        if rest == 0 || self.opaque {
            return;
        }
        let held = std::mem::take(&mut self.halves[side as usize].held);
        if held.is_empty() {
            if let Some(event) = self.parser.bridge(side, rest) {
                return self.note(side, Some(event));
            }
        } else {
            let event = self.parser.salvage(side, &held);
            self.note(side, event);
        }
        let event = self.parser.lost(side);
        self.note(side, event);
    }

    /// No more bytes of this side.
    pub(crate) fn eof(&mut self, side: Side) {
        let half = &mut self.halves[side as usize];
        half.at_end = true;
        half.then = None;
        let unskipped = std::mem::take(&mut half.skip);
        let held = std::mem::take(&mut half.held);
        if self.opaque {
            return;
        }
        if !held.is_empty() {
            let event = self.parser.salvage(side, &held);
            self.note(side, event);
        }
        let event = self.parser.eof(side, unskipped);
        self.note(side, event);
    }

    /// Bytes held back for both sides.
    pub(crate) fn held(&self) -> usize {
        self.halves.iter().map(|h| h.held.len()).sum()
    }

    fn passed(&mut self, side: Side) {
        let half = &mut self.halves[side as usize];
        if half.skip == 0 {
            let then = half.then.take();
            self.note(side, then);
        }
    }

    fn note(&mut self, side: Side, event: Option<ParseEvent>) {
        let begin = |message: Message| match message {
            Message::Interim(interim) => Note::Interim(format!("{interim:?}")),
            // What is known of the connection is no part of the message.
            Message::Request(request) => {
                let request = Request { connection: Attributes::new(), ..*request };
                Note::Begin(side, format!("{:?}", Message::from(request)))
            }
            message => Note::Begin(side, format!("{message:?}")),
        };
        let end = |end: MessageEnd| Note::End(side, format!("{:?}", end.attributes), end.incomplete);
        match event {
            None => {}
            Some(ParseEvent::Begin(message)) => self.notes.push(begin(message)),
            Some(ParseEvent::End(e)) => self.notes.push(end(e)),
            Some(ParseEvent::Whole(message @ Message::Interim(_), _)) => self.notes.push(begin(message)),
            Some(ParseEvent::Whole(message, e)) => self.notes.extend([begin(message), end(e)]),
        }
    }
}

/// Uses up a pending skip; returns how many of `bytes` are left.
fn pass(half: &mut Half, bytes: u64) -> u64 {
    let passed = half.skip.min(bytes);
    half.skip -= passed;
    bytes - passed
}
