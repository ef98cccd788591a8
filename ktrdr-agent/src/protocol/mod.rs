//! Protocols. Each is one directory and one line in [`PROTOCOLS`]; nothing else in the agent knows their names.
//!
//! A parser is a sans-IO state machine over the bytes of both sides of one connection. It has no clock and no
//! buffers of its own beyond its state: the engine keeps bytes it could not use yet, knows positions and times,
//! and pairs what the parser reports.

#[cfg(test)]
mod driver;
pub mod http1;
pub mod jsonrpc;
#[cfg(test)]
mod laws;
mod trace_context;
pub mod tws;

use std::net::SocketAddr;
use std::sync::Arc;

use compact_str::CompactString;

pub use self::trace_context::parse_traceparent;
use crate::mask::Mask;
use crate::trace::model::{Attributes, SpanId, Status, TraceId};

/// All protocols, in the order they are asked about a connection's first bytes.
pub const PROTOCOLS: &[&dyn Protocol] = &[&http1::Http1, &tws::Tws];

/// A protocol.
pub trait Protocol: Sync {
    /// Value of `network.protocol.name`, and its name in settings and documents.
    fn name(&self) -> &'static str;
    /// Judges the first bytes seen in one direction of a connection (or, after a gap, some later bytes that begin a
    /// transfer). `role` is the socket owner's, if known.
    fn sniff(&self, bytes: &[u8]) -> Sniff;
    /// Judges the very first bytes of one direction of a connection, which can be believed more.
    fn opens(&self, bytes: &[u8]) -> Sniff {
        self.sniff(bytes)
    }
    /// Ports on which nothing else is expected, if there are such.
    fn ports(&self) -> &'static [u16] {
        &[]
    }
    /// A parser for one connection.
    fn parser(&self, context: &ConnContext) -> Box<dyn Parser>;
}

/// What some bytes say about their protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniff {
    /// This protocol, and these bytes come from that side.
    Yes(Side),
    /// Not this protocol.
    No,
    /// Could be; too few bytes to say.
    NeedMore,
}

/// The two sides of a connection, whoever connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Requests flow here: the bytes the client sends.
    Request,
    /// Responses flow here: the bytes the server sends.
    Response,
}

/// Which end of the connection the observed socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It connected.
    Client,
    /// It accepted.
    Server,
}

/// What a parser may use to build attributes.
#[derive(Clone, Debug)]
pub struct ConnContext {
    /// The observed end: decides between client and server attributes and error rules.
    pub role: Role,
    /// Address of the server's end.
    pub server: SocketAddr,
    /// Address of the client's end.
    pub client: SocketAddr,
    /// Give old attribute names too (`OTEL_SEMCONV_STABILITY_OPT_IN=http/dup`).
    pub semconv_dup: bool,
    /// Longest head that is waited for, in bytes; a longer one is taken as far as it was captured.
    pub max_head: usize,
    /// Names of headers, in lower case, that become attributes (`http.request.header.<name>`).
    pub kept_headers: Arc<[String]>,
    /// What is secret.
    pub mask: Arc<Mask>,
    /// What the connections of one core share.
    pub shared: Arc<Shared>,
}

/// What the connections of one core share, by protocol: shortcuts, which change nothing that is said.
#[derive(Default)]
pub struct Shared {
    /// Heads that were read before.
    pub http1: http1::Memo,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// What a parser did with the bytes it was shown.
#[derive(Debug)]
pub enum Step {
    /// Nothing yet: show the same bytes again with more behind them. Never an error.
    NeedMore,
    /// Used some bytes.
    Advance {
        /// Bytes used of those shown, at least 1 unless `skip` or an event makes progress.
        consumed: usize,
        /// What those bytes completed.
        event: Option<ParseEvent>,
        /// Bytes after the consumed ones that need not be parsed (a body). They may lie beyond the bytes at hand
        /// and need not have been captured. The engine keeps a bounded sample of them if the message wants it.
        /// `u64::MAX`: all up to the end of the stream; `then` is `None` and [`Parser::eof`] ends the message.
        skip: u64,
        /// Reported once the skipped bytes have passed.
        then: Option<ParseEvent>,
    },
    /// These bytes are not this protocol (any more): the engine tells the parser by [`Parser::lost`], counts, and
    /// tries again at the beginning of the next transfer.
    Lost,
    /// The connection speaks something else from here on (`CONNECT`, `Upgrade`): nothing more is parsed.
    /// Carries what these bytes completed last.
    Opaque(Option<ParseEvent>),
}

/// A boundary of a message.
#[derive(Debug)]
pub enum ParseEvent {
    /// A message began; its first byte was the first byte shown in this step.
    Begin(Message),
    /// The message of this side ended with the last byte consumed or skipped.
    End(MessageEnd),
    /// Both at once: a message without a body.
    Whole(Message, MessageEnd),
}

/// A message, in neutral terms. Boxed, because it changes hands half a dozen times on its way to a span.
#[derive(Debug)]
pub enum Message {
    /// Asks for an answer.
    Request(Box<Request>),
    /// Answers the oldest open request (or the one with its key).
    Response(Box<Response>),
    /// An answer before the answer (HTTP 1xx): an event on the call. Always reported as [`ParseEvent::Whole`], and
    /// its end means nothing.
    Interim(Box<Interim>),
}

impl From<Request> for Message {
    fn from(request: Request) -> Self {
        Message::Request(Box::new(request))
    }
}
impl From<Response> for Message {
    fn from(response: Response) -> Self {
        Message::Response(Box::new(response))
    }
}
impl From<Interim> for Message {
    fn from(interim: Interim) -> Self {
        Message::Interim(Box::new(interim))
    }
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// For multiplexed protocols: which response belongs to it. `None` = in order.
    pub key: Option<u64>,
    /// Low-cardinality span name.
    pub name: String,
    /// Semantic-convention attributes of the observed end.
    pub attributes: Attributes,
    /// Attributes of the connection, as far as its beginning was seen. They go on the span with the others, but are
    /// no part of the message: lost bytes may hide them.
    pub connection: Attributes,
    /// An existing trace context on the wire.
    pub trace_context: Option<TraceContext>,
    /// No response is expected: the exchange is over with the request.
    pub one_way: bool,
    /// Key of an open request that the client gives up with this one.
    pub cancels: Option<u64>,
    /// Keep a sample of the body.
    pub want_body: bool,
    /// There is a body, or may be one.
    pub has_body: bool,
    /// What tells it from others, for those who look for a request that it repeats.
    pub gist: Gist,
}

/// What a service leaves of a request when it passes it on, or makes another one because of it. Hashes, to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gist {
    /// Its id, if it carries one (`X-Request-ID`).
    pub id: Option<u64>,
    /// What a reverse proxy leaves as it was: method, query, who the client says to be.
    pub said: Option<u64>,
    /// Path.
    pub path: u64,
    /// The path without its first segment, which a proxy may add or remove; `None` = it has only one.
    pub tail: Option<u64>,
}

impl Gist {
    /// Whether one of the two may be the other, passed on.
    pub fn repeats(&self, other: &Gist) -> bool {
        let paths = self.path == other.path || self.tail == Some(other.path) || other.tail == Some(self.path);
        let ids = self.id.zip(other.id).is_none_or(|(one, another)| one == another);
        paths && ids && self.said.is_some() && self.said == other.said
    }

    /// Whether both carry the same id.
    pub fn shares_id(&self, other: &Gist) -> bool {
        self.id.is_some() && self.id == other.id
    }
}

/// A response.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// As [`Request::key`].
    pub key: Option<u64>,
    /// Semantic-convention attributes of the observed end.
    pub attributes: Attributes,
    /// Status it gives to the span of the observed end.
    pub status: Status,
    /// Keep a sample of the body.
    pub want_body: bool,
}

/// An interim response.
#[derive(Debug, Default)]
pub struct Interim {
    /// Name of the event.
    pub name: CompactString,
    /// Its attributes.
    pub attributes: Attributes,
    /// As [`Request::key`].
    pub key: Option<u64>,
    /// It concerns every open request.
    pub all: bool,
}

/// The end of a message.
#[derive(Debug, Default)]
pub struct MessageEnd {
    /// Attributes known only now (body sizes).
    pub attributes: Attributes,
    /// Why the message is not whole, if it is not (a word: `eof_in_body`, `head_truncated`, …).
    pub incomplete: Option<&'static str>,
}

/// W3C Trace Context as found on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace.
    pub trace_id: TraceId,
    /// The caller's span.
    pub span_id: SpanId,
    /// The caller's sampling decision (`trace-flags` bit 0).
    pub sampled: bool,
}

/// Parser of one connection.
///
/// What the engine does with it, per side, in this order:
/// - bytes arrived, no skip pending: [`step`](Parser::step) until it says `NeedMore` or all are used;
/// - a skip is pending: bytes that arrive, or are missing, use it up; `then` is reported once it is used up;
/// - bytes are missing outside a skip: [`bridge`](Parser::bridge); if that is `None`,
///   [`salvage`](Parser::salvage) for the bytes held back by `NeedMore`, then [`lost`](Parser::lost);
/// - `step` said [`Step::Lost`]: the bytes shown and the rest of their transfer are dropped, then
///   [`lost`](Parser::lost);
/// - FIN, close or reset: [`salvage`](Parser::salvage) if bytes are held back, then [`eof`](Parser::eof) (reset:
///   for both sides).
pub trait Parser: Send {
    /// Shows the unconsumed bytes of one side, never empty. `Response` bytes are only shown after the `Request`
    /// bytes that were sent before them, as far as both were captured.
    fn step(&mut self, side: Side, bytes: &[u8]) -> Step;
    /// Exactly `missing` bytes of one side were not captured or are lost, outside a skip, and no bytes are held
    /// back. A parser that can tell what they were (the end mark behind a long chunk) says what they completed;
    /// then nothing is lost. May also be asked as soon as a transfer is known to end in such a hole.
    fn bridge(&mut self, _side: Side, _missing: u64) -> Option<ParseEvent> {
        None
    }
    /// These bytes, for which `step` said `NeedMore`, will not be continued: whatever follows them is missing. A
    /// parser that can make something of the beginning (a head cut off by the capture limit) reports it.
    fn salvage(&mut self, _side: Side, _bytes: &[u8]) -> Option<ParseEvent> {
        None
    }
    /// Bytes of one side are gone (lost, or not captured) outside a skip: forget what was half done there and look
    /// for the next message in the bytes that follow. Returns the end of a message that was under way, or `None`
    /// where there was none or its end can still be found in later bytes.
    fn lost(&mut self, side: Side) -> Option<ParseEvent>;
    /// The side will send no more bytes. Returns the end of a message that this completes or breaks off.
    /// `unskipped`: bytes that the pending skip still expected (its `then` will not be reported), 0 = none pending.
    fn eof(&mut self, side: Side, unskipped: u64) -> Option<ParseEvent>;
    /// The engine knows that the message under way on this side is over (the next one has begun): ends it.
    /// `unskipped` as in [`eof`](Parser::eof); the skip is over.
    fn abandon(&mut self, side: Side, unskipped: u64) -> Option<ParseEvent>;
}
