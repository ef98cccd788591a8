//! The answer: schema `ktrdr.explain/1`. It is what goes over the socket, what `--json` prints, and what a person's
//! screen is made from. Documented in `docs/explain.md`; fields are added, never changed.

use serde::{Deserialize, Serialize};

use super::symptom::Kind;

/// Version of the schema.
pub const SCHEMA: &str = "ktrdr.explain/1";

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was asked.
    pub query: String,
    /// Operation concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Traces concerned, the one with the cause first; at most 8.
    pub trace_ids: Vec<String>,
    /// Spans looked at.
    pub spans: usize,
    /// Start of the first span, RFC 3339, UTC.
    pub start_time: String,
    /// From the first start to the last end.
    pub duration_ms: f64,
    /// The answer in short: the first cause, or that there is none.
    pub verdict: Cause,
    /// All causes, the verdict's first; empty if nothing failed.
    pub causes: Vec<Cause>,
    /// From the outermost call to the cause.
    pub chain: Vec<Step>,
    /// Spans that prove it.
    pub evidence: Vec<Evidence>,
    /// What the services logged about it, in order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogLine>,
    /// What happened, in order.
    pub timeline: Vec<Row>,
    /// What is missing from the picture.
    pub gaps: Vec<String>,
    /// What to do next.
    pub hints: Vec<String>,
    /// What was left out of this report for its size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// `training`, `data_load`, …
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `running`, `failed`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Its own error message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A cause, or the absence of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// What went wrong.
    pub kind: Kind,
    /// In a sentence.
    pub sentence: String,
    /// `exact` or `inferred`.
    pub confidence: String,
    /// The service in whose span it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Whom it called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Its trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// When it began, RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Equal attempts.
    pub attempts: usize,
}

/// A step from the outermost call to the cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Who.
    pub service: String,
    /// Whom it called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What.
    pub what: String,
    /// How it went.
    pub outcome: String,
    /// How long.
    pub duration_ms: f64,
    /// `calls`, `afterwards` (work done after the answer), `for it` (a call that names the operation), `meanwhile`
    /// (what the callee waited for), `at that time` (inferred from service and time).
    pub relation: String,
    /// Whether the place in the trace is certain.
    pub confidence: String,
    /// The span.
    pub span_id: String,
}

/// A span as evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The span.
    pub span_id: String,
    /// Its service.
    pub service: String,
    /// `client`, `server` or `internal`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its start, RFC 3339, UTC.
    pub time: String,
    /// Its duration.
    pub duration_ms: f64,
    /// Its status message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The attributes that say why.
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// A log record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written, RFC 3339, UTC.
    pub time: String,
    /// Who wrote it.
    pub service: String,
    /// `WARN`, `ERROR`, …; empty = it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// Name of the logger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logger: Option<String>,
    /// What it says.
    pub message: String,
    /// `ValueError: no such symbol`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// The frames next to where that was thrown, a line each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// Where it was written: `cause` (in the span of the cause), `caller` (in one above it), `operation` (it has no
    /// trace and names the operation), `trace` (elsewhere in these traces), `last_words` (by a process that ended).
    pub relation: String,
    /// Whether that is certain.
    pub confidence: String,
    /// Its trace, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// … and its span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Equal records.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
}

/// A line of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Since the first span's start.
    pub at_ms: f64,
    /// How deep it is indented.
    pub depth: usize,
    /// Who.
    pub service: String,
    /// Whom it called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What.
    pub what: String,
    /// How it went.
    pub outcome: String,
    /// How long; of the first, if there are several.
    pub duration_ms: f64,
    /// Equal calls in this line.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
    /// When the last of them ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<f64>,
    /// How long they took on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_ms: Option<f64>,
    /// Whether it failed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub failed: bool,
    /// Whether it is the cause.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cause: bool,
    /// Whether it is work done after its caller had answered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub after: bool,
    /// The span.
    pub span_id: String,
}

pub fn one() -> u32 {
    1
}
pub fn is_one(n: &u32) -> bool {
    *n == 1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(b: &bool) -> bool {
    !*b
}
