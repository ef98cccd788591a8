//! Spans as the agent writes them: one JSON object per line.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One line of `--spans-out`.
#[derive(Clone, Debug, Deserialize)]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: Option<String>,
    pub name: String,
    pub kind: String,
    pub service: String,
    pub start_time: String,
    pub end_time: String,
    pub duration_ms: f64,
    pub status: String,
    pub status_message: String,
    pub attributes: Map<String, Value>,
    pub events: Vec<Event>,
    pub links: Vec<Value>,
    pub resource: Map<String, Value>,
}

/// An event of a span.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    pub time: String,
    pub name: String,
    pub attributes: Map<String, Value>,
}

impl Span {
    /// All complete lines of a file's text.
    pub fn parse_all(text: &str) -> Vec<Span> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        // Log records are objects of their own.
        let lines = whole.lines().filter(|l| !l.starts_with("{\"log\":"));
        lines.map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e} in span {l}"))).collect()
    }

    /// An attribute that is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).and_then(Value::as_str)
    }

    /// An attribute that is a whole number.
    pub fn int(&self, key: &str) -> Option<i64> {
        self.attributes.get(key).and_then(Value::as_i64)
    }

    /// Whether a client made it.
    pub fn is_client(&self) -> bool {
        self.kind == "client"
    }

    /// Whether a server made it.
    pub fn is_server(&self) -> bool {
        self.kind == "server"
    }

    /// Path of the URL, as both ends name it.
    pub fn path(&self) -> Option<&str> {
        if let Some(path) = self.text("url.path") {
            return Some(path);
        }
        let (_, rest) = self.text("url.full")?.split_once("://")?;
        let path = &rest[rest.find('/')?..];
        Some(path.split_once('?').map_or(path, |(path, _)| path))
    }

    /// Request method.
    pub fn method(&self) -> Option<&str> {
        self.text("http.request.method")
    }

    /// Response status.
    pub fn status_code(&self) -> Option<i64> {
        self.int("http.response.status_code")
    }

    /// Size of the request's body; a request without one has no such attribute.
    pub fn request_size(&self) -> i64 {
        self.int("http.request.body.size").unwrap_or(0)
    }

    /// Size of the response's body.
    pub fn response_size(&self) -> Option<i64> {
        self.int("http.response.body.size")
    }

    /// Observed process.
    pub fn pid(&self) -> Option<i64> {
        self.resource.get("process.pid").and_then(Value::as_i64)
    }

    /// Why the call is not whole, if it is not.
    pub fn incomplete(&self) -> Option<&str> {
        self.text("ktrdr.incomplete")
    }

    /// A line for failure messages.
    pub fn brief(&self) -> String {
        format!(
            "{} {} {} [{} {}] status {:?} sizes {} {:?} incomplete {:?} error {:?} parent {:?} id {} {}",
            self.start_time,
            self.kind,
            self.name,
            self.method().unwrap_or("-"),
            self.path().unwrap_or("-"),
            self.status_code(),
            self.request_size(),
            self.response_size(),
            self.incomplete(),
            self.text("error.type"),
            self.parent_span_id,
            self.span_id,
            self.status_message,
        )
    }
}

/// Lines for failure messages.
pub fn brief(spans: &[Span]) -> String {
    const SHOWN: usize = 40;
    let more = spans.len().saturating_sub(SHOWN);
    let lines: String = spans.iter().take(SHOWN).map(|s| s.brief() + "\n").collect();
    if more > 0 { format!("{lines}and {more} more\n") } else { lines }
}
