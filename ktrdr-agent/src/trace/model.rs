//! The finished products of the core: spans and what they carry, free of any wire format.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use compact_str::CompactString;

pub use super::attributes::{Attribute, Attributes, Key};
use crate::event::Ns;

/// Trace id: 16 bytes, never all zero (W3C Trace Context).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Span id: 8 bytes, never all zero (W3C Trace Context).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}
impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}
impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}
impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// The hexadecimal digits of 128 bits.
pub struct Digits([u8; 32]);

/// Tells 128 bits. Formatting through `fmt` costs ten times that.
pub fn digits(id: &[u8; 16]) -> Digits {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0u8; 32];
    for (at, byte) in id.iter().enumerate() {
        out[2 * at] = DIGITS[usize::from(byte >> 4)];
        out[2 * at + 1] = DIGITS[usize::from(byte & 15)];
    }
    Digits(out)
}

impl Digits {
    /// As text.
    pub fn as_str(&self) -> &str {
        // ASCII, so never anything else.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text known at compile time.
    Static(&'static str),
    /// Text.
    Str(CompactString),
    /// 128 bits, which are told as the text of their 32 hexadecimal digits. Most are never told to anybody.
    Id([u8; 16]),
    /// Integer.
    Int(i64),
    /// Floating point number.
    Float(f64),
    /// Truth value.
    Bool(bool),
    /// List of texts.
    List(Box<[String]>),
}

impl Value {
    /// The text, if it is one, also of an id.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Value::Id(id) => Some(Cow::Owned(digits(id).as_str().to_owned())),
            _ => self.as_str().map(Cow::Borrowed),
        }
    }

    /// The text, if it is kept as one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Static(s) => Some(s),
            Value::Str(s) => Some(s),
            _ => None,
        }
    }
}

impl From<&'static str> for Value {
    fn from(s: &'static str) -> Self {
        Value::Static(s)
    }
}
impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::Str(s.into())
    }
}
impl From<CompactString> for Value {
    fn from(s: CompactString) -> Self {
        Value::Str(s)
    }
}
impl From<Vec<String>> for Value {
    fn from(items: Vec<String>) -> Self {
        Value::List(items.into())
    }
}
impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}
impl From<f64> for Value {
    fn from(f: f64) -> Self {
        Value::Float(f)
    }
}
impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}
impl From<u64> for Value {
    /// OTLP integers are signed 64-bit: larger values saturate.
    fn from(n: u64) -> Self {
        Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}
impl From<u32> for Value {
    fn from(n: u32) -> Self {
        Value::Int(i64::from(n))
    }
}
impl From<u16> for Value {
    fn from(n: u16) -> Self {
        Value::Int(i64::from(n))
    }
}

/// OpenTelemetry span kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpanKind {
    /// Work inside one service.
    Internal,
    /// The serving end of a call.
    Server,
    /// The calling end of a call.
    Client,
}

/// OpenTelemetry span status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing said.
    #[default]
    Unset,
    /// The operation failed; the text is a sentence a person can act on (may be empty).
    Error(String),
}

/// Something that happened during a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// When.
    pub ts: Ns,
    /// Name.
    pub name: Cow<'static, str>,
    /// Details.
    pub attributes: Attributes,
}

/// A causal relation other than parent and child.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Trace of the span linked to.
    pub trace_id: TraceId,
    /// The span linked to.
    pub span_id: SpanId,
    /// Why.
    pub attributes: Attributes,
}

/// An OpenTelemetry Resource: one observed service (or the agent itself).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// `service.name`.
    pub service: String,
    /// All resource attributes, `service.name` included.
    pub attributes: Attributes,
}

/// A span on its way out: large, so built in its box, and the box is what changes hands.
pub type BoxedSpan = Box<Span>;

/// A finished span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Trace.
    pub trace_id: TraceId,
    /// Span.
    pub span_id: SpanId,
    /// Parent; `None` = root.
    pub parent_span_id: Option<SpanId>,
    /// Kind.
    pub kind: SpanKind,
    /// Low-cardinality name.
    pub name: String,
    /// Start, boot clock in ns.
    pub start: Ns,
    /// End, boot clock in ns; not before `start`.
    pub end: Ns,
    /// Wall clock minus boot clock in ns, to convert the times at export.
    pub wall_offset_ns: i64,
    /// Status.
    pub status: Status,
    /// Attributes.
    pub attributes: Attributes,
    /// Events, in order of time.
    pub events: Vec<SpanEvent>,
    /// Links.
    pub links: Vec<Link>,
    /// The service it belongs to. Spans of one service share the allocation.
    pub resource: Arc<Resource>,
}

impl Span {
    /// A boot-clock time of this span as nanoseconds since the Unix epoch.
    pub fn wall_ns(&self, ts: Ns) -> u64 {
        ts.saturating_add_signed(self.wall_offset_ns)
    }
    /// Start, nanoseconds since the Unix epoch.
    pub fn start_wall_ns(&self) -> u64 {
        self.wall_ns(self.start)
    }
    /// End, nanoseconds since the Unix epoch.
    pub fn end_wall_ns(&self) -> u64 {
        self.wall_ns(self.end)
    }
}
