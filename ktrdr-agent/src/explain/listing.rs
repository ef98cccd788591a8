//! Recent operations and errors, a line each: schema `ktrdr.explain.list/1`.

use serde::{Deserialize, Serialize};

use super::Report;
use super::hints::shorten;
use super::symptom::Kind;

/// Version of the schema.
pub const SCHEMA: &str = "ktrdr.explain.list/1";

/// Recent operations and errors, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// [`SCHEMA`].
    pub schema: String,
    /// The lines.
    pub rows: Vec<ListRow>,
    /// Traces kept.
    pub traces: usize,
    /// Spans kept.
    pub spans: usize,
}

/// An operation, or a trace in which something failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListRow {
    /// What `explain` is to be asked with: the operation id, else the trace id.
    pub id: String,
    /// Whether that is an operation.
    pub is_operation: bool,
    /// When it began, RFC 3339, UTC.
    pub time: String,
    /// How long it took so far.
    pub duration_ms: f64,
    /// Type of the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_type: Option<String>,
    /// Equal failures in traces of their own, this one included; the others are older.
    #[serde(default = "super::schema::one", skip_serializing_if = "super::schema::is_one")]
    pub count: u32,
    /// Verdict.
    pub kind: Kind,
    /// Verdict in a sentence.
    pub sentence: String,
}

impl ListRow {
    /// Whether both are the same failure, as far as a line can tell. Operations are each their own.
    pub fn same_as(&self, other: &Self) -> bool {
        !self.is_operation
            && !other.is_operation
            && self.kind == other.kind
            && self.sentence == other.sentence
    }

    /// The line of a report.
    pub fn new(report: &Report) -> Self {
        let operation = report.operation.as_ref();
        let trace = report.trace_ids.first().cloned().unwrap_or_default();
        Self {
            is_operation: operation.is_some(),
            id: operation.map_or(trace, |o| o.id.clone()),
            time: report.start_time.clone(),
            duration_ms: report.duration_ms,
            operation_type: operation.and_then(|o| o.kind.clone()),
            count: 1,
            kind: report.verdict.kind,
            sentence: shorten(&report.verdict.sentence, 300),
        }
    }
}
