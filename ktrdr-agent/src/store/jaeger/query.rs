//! What is asked for, from the parameters of the URL.

use percent_encoding::percent_decode_str;

use crate::explain::view;
use crate::trace::model::{Span, Status, TraceId, Value, digits};

/// Traces of an answer when the question does not say.
const LIMIT: usize = 20;
/// Traces of an answer at most: Jaeger's UI offers as many.
const MAX_LIMIT: usize = 1_500;
/// Tags of a question at most; people write one to three.
const MAX_TAGS: usize = 16;

/// A question for traces. A trace fits when one of its spans meets all conditions (as in Jaeger).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceQuery {
    /// `service.name`.
    pub service: Option<String>,
    /// Span name.
    pub operation: Option<String>,
    /// Attributes of the span, its resource or its events, as text; `error=true` means the status.
    pub tags: Vec<(String, String)>,
    /// Span starts at or after, nanoseconds since the Unix epoch.
    pub from: u64,
    /// Span starts at or before.
    pub to: u64,
    /// Shortest duration, ns.
    pub shortest: u64,
    /// Longest duration, ns.
    pub longest: u64,
    /// Traces at most, the ones with the latest news first.
    pub limit: usize,
    /// These traces, whatever the rest says.
    pub ids: Vec<TraceId>,
}

/// Why a question was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a number of microseconds.
    #[error("parameter '{0}' is not a time in microseconds since 1970: {1}")]
    Time(&'static str, String),
    /// Not a number of milliseconds.
    #[error("parameter '{0}' is not a number of milliseconds: {1}")]
    Millis(&'static str, String),
    /// Not a duration.
    #[error("parameter '{0}' is not a duration such as 1.2s, 100ms or 500us: {1}")]
    Duration(&'static str, String),
    /// Not a number.
    #[error("parameter 'limit' is not a number from 1 to {MAX_LIMIT}: {0}")]
    Limit(String),
    /// Not `key:value`.
    #[error("parameter 'tag' is not key:value: {0}")]
    Tag(String),
    /// Not an object of texts.
    #[error("parameter 'tags' is not a JSON object of texts: {0}")]
    Tags(String),
    /// Too many.
    #[error("more than {MAX_TAGS} tags")]
    TooMany,
    /// Not a trace id.
    #[error("parameter 'traceID' is not a trace id: {0}")]
    TraceId(String),
}

impl TraceQuery {
    /// Everything.
    pub fn all() -> Self {
        Self {
            service: None,
            operation: None,
            tags: Vec::new(),
            from: 0,
            to: u64::MAX,
            shortest: 0,
            longest: u64::MAX,
            limit: LIMIT,
            ids: Vec::new(),
        }
    }

    /// From `a=b&c=d`. Unknown parameters (`lookback`, `prettyPrint`, …) are let be, as Jaeger does.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let mut q = Self::all();
        for (key, value) in pairs(query).filter(|(_, v)| !v.is_empty()) {
            match key.as_str() {
                "service" => q.service = Some(value),
                // The UI says "all" in two ways.
                "operation" if value != "all" => q.operation = Some(value),
                "tag" => q.tags.push(tag(&value)?),
                "tags" => q.tags.extend(tags(&value)?),
                "start" => q.from = micros("start", &value)?,
                "end" => q.to = micros("end", &value)?,
                "minDuration" => q.shortest = duration("minDuration", &value)?,
                "maxDuration" => q.longest = duration("maxDuration", &value)?,
                "limit" => q.limit = limit(&value)?,
                "traceID" => {
                    let padded = format!("{value:0>32}").to_ascii_lowercase();
                    q.ids.push(
                        crate::explain::parse::trace_id(&padded).map_err(|_| QueryError::TraceId(value))?,
                    );
                }
                _ => {}
            }
            if q.tags.len() > MAX_TAGS || q.ids.len() > MAX_LIMIT {
                return Err(QueryError::TooMany);
            }
        }
        Ok(q)
    }

    /// Whether this span meets every condition.
    pub fn fits(&self, span: &Span) -> bool {
        let start = span.start_wall_ns();
        (self.from..=self.to).contains(&start)
            && (self.shortest..=self.longest).contains(&view::duration(span))
            && self.service.as_ref().is_none_or(|s| *s == span.resource.service)
            && self.operation.as_ref().is_none_or(|o| *o == span.name)
            && self.tags.iter().all(|(key, value)| has(span, key, value))
    }
}

/// A stretch of time, nanoseconds since the Unix epoch: what the dependency views ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    from: u64,
    to: u64,
}

impl Window {
    /// From `endTs` and `lookback`, in milliseconds; what is not said does not narrow.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let ms = |name: &'static str| match value(query, name).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(text) => {
                let ms: u64 = text.parse().map_err(|_| QueryError::Millis(name, text))?;
                Ok(Some(ms.saturating_mul(1_000_000)))
            }
        };
        let to = ms("endTs")?.unwrap_or(u64::MAX);
        let from = ms("lookback")?.filter(|_| to < u64::MAX).map_or(0, |back| to.saturating_sub(back));
        Ok(Self { from, to })
    }

    /// Whether a time lies in it.
    pub fn contains(self, wall_ns: u64) -> bool {
        (self.from..=self.to).contains(&wall_ns)
    }
}

fn has(span: &Span, key: &str, wanted: &str) -> bool {
    match key {
        "error" => (span.status != Status::Unset) == (wanted == "true"),
        "span.kind" => super::convert::kind(span.kind) == wanted,
        _ => {
            let events = span.events.iter().map(|e| &e.attributes);
            let mut all = [&span.attributes, &span.resource.attributes].into_iter().chain(events);
            all.any(|a| a.get(key).is_some_and(|v| text(v) == wanted))
        }
    }
}

/// A value as Jaeger shows and compares it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Static(s) => (*s).to_owned(),
        Value::Str(s) => s.to_string(),
        Value::Id(id) => digits(id).as_str().to_owned(),
        Value::Int(n) => n.to_string(),
        Value::Float(f) => f.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::List(items) => serde_json::Value::from(items.to_vec()).to_string(),
    }
}

fn tag(value: &str) -> Result<(String, String), QueryError> {
    let (key, value) = value.split_once(':').ok_or_else(|| QueryError::Tag(value.to_owned()))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn tags(value: &str) -> Result<Vec<(String, String)>, QueryError> {
    let refused = || QueryError::Tags(value.to_owned());
    let serde_json::Value::Object(map) = serde_json::from_str(value).map_err(|_| refused())? else {
        return Err(refused());
    };
    map.into_iter()
        .map(|(key, value)| match value {
            serde_json::Value::String(text) => Ok((key, text)),
            serde_json::Value::Number(n) => Ok((key, n.to_string())),
            serde_json::Value::Bool(b) => Ok((key, b.to_string())),
            _ => Err(refused()),
        })
        .collect()
}

fn micros(name: &'static str, value: &str) -> Result<u64, QueryError> {
    let us: u64 = value.parse().map_err(|_| QueryError::Time(name, value.to_owned()))?;
    Ok(us.saturating_mul(1_000))
}

/// Go's duration syntax, one unit: what Jaeger's UI accepts and sends.
fn duration(name: &'static str, value: &str) -> Result<u64, QueryError> {
    let refused = || QueryError::Duration(name, value.to_owned());
    let at = value.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refused)?;
    let (number, unit) = value.split_at(at);
    let number: f64 = number.parse().map_err(|_| refused())?;
    let ns = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return Err(refused()),
    };
    // Float to integer saturates.
    Ok((number * ns) as u64)
}

fn limit(value: &str) -> Result<usize, QueryError> {
    match value.parse() {
        Ok(n) if (1..=MAX_LIMIT).contains(&n) => Ok(n),
        _ => Err(QueryError::Limit(value.to_owned())),
    }
}

/// The first value of a parameter.
pub fn value(query: &str, key: &str) -> Option<String> {
    pairs(query).find(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v)
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let parts = query.split('&').filter(|p| !p.is_empty());
    parts.map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        // In a query, and only there, a plus is a space.
        (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
    })
}

/// Percent-decoding; what is no UTF-8 cannot name anything here, so it may be replaced.
pub fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
