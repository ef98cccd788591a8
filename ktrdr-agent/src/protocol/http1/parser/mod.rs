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

mod bodies;
mod heads;

use std::sync::Arc;

use super::attributes::Describe;
use super::body::Framing;
use super::memo::Scope;
use super::outstanding::Outstanding;
use super::sniff;
use crate::protocol::{ConnContext, ParseEvent, Parser, Shared, Side, Sniff, Step};

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
    /// Behind a chunk's data, where its line end may be a lone line feed.
    ChunkEnd,
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
            State::ChunkEnd => self.chunk_end(side, bytes),
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
        if matches!(half.state, State::Chunks | State::ChunkEnd | State::Trailers | State::Adrift) {
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

fn message_start(side: Side, bytes: &[u8]) -> Sniff {
    match side {
        Side::Request => sniff::request(bytes),
        Side::Response => sniff::response(bytes),
    }
}
