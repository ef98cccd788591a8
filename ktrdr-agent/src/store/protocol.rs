//! What is said over the socket: one line of JSON each way, then the connection ends.
//!
//! ```text
//! → {"v":1,"op":"explain","query":"op_training_20251113_101500_0a1b2c3d"}      ← {"v":1,"ok":true,"result":{…ktrdr.explain/1…}}
//! → {"v":1,"op":"list","limit":20}                                             ← {"v":1,"ok":true,"result":{…ktrdr.explain.list/1…}}
//! → {"v":1,"op":"find","query":"service=ktrdr-api&tag=error:true&limit=5"}     ← {"v":1,"ok":true,"result":{…ktrdr.find/1…}}
//! → {"v":1,"op":"spans","query":"e5de474a062eac50aa90088e1bc14177"}            ← {"v":1,"ok":true,"result":{…ktrdr.spans/1…}}
//! → {"v":1,"op":"ping"}                                                        ← {"v":1,"ok":true,"result":{"agent":"0.1.0"}}
//!                                                                              ← {"v":1,"ok":false,"error":{"code":"not_found","message":"…","suggestions":[]}}
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::jaeger::TraceQuery;
use super::{Answers, Filter, NotFound};

/// Version of the protocol.
pub const VERSION: u64 = 1;
/// Longest request: a question is an id.
pub const MAX_REQUEST: usize = 4_096;
/// Longest answer: a listing of 50 rows of 600 bytes, with room.
pub const MAX_ANSWER: usize = 256 * 1024;
/// Rows of a listing when none is asked for.
const ROWS: usize = 20;

/// A question.
#[derive(Default, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub v: u64,
    /// `explain`, `list`, `find`, `spans` or `ping`.
    pub op: String,
    /// What to explain, find or show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Rows of a listing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Which rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
}

/// Answers a line.
pub fn answer(answers: &dyn Answers, line: &str) -> String {
    let value = match serde_json::from_str::<Request>(line) {
        Err(e) => error("bad_request", &format!("not a request: {e}"), &[]),
        Ok(r) if r.v != VERSION => {
            error("version", &format!("this agent speaks version {VERSION}, not {}", r.v), &[])
        }
        Ok(r) => match (r.op.as_str(), r.query) {
            ("explain", Some(query)) => match answers.explain(&query) {
                Ok(report) => ok(&report),
                Err(NotFound { message, suggestions }) => error("not_found", &message, &suggestions),
            },
            ("explain", None) => error("bad_request", "`query` is missing", &[]),
            ("list", _) => ok(&answers.list_of(r.limit.unwrap_or(ROWS), &r.filter.unwrap_or_default())),
            ("find", query) => match TraceQuery::parse(&query.unwrap_or_default()) {
                Ok(query) => ok(&answers.find(&query)),
                Err(e) => error("bad_request", &e.to_string(), &[]),
            },
            ("spans", Some(query)) => match answers.spans(&query) {
                Ok(spans) => ok(&spans),
                Err(NotFound { message, suggestions }) => error("not_found", &message, &suggestions),
            },
            ("spans", None) => error("bad_request", "`query` is missing", &[]),
            ("ping", _) => ok(&json!({"agent": env!("CARGO_PKG_VERSION")})),
            _ => error("bad_request", "`op` is none of explain, list, find, spans, ping", &[]),
        },
    };
    let mut text = value.to_string();
    text.push('\n');
    text
}

fn ok(result: &impl Serialize) -> Value {
    match serde_json::to_value(result) {
        Ok(result) => json!({"v": VERSION, "ok": true, "result": result}),
        Err(e) => error("internal", &e.to_string(), &[]),
    }
}

/// An answer that is none.
pub fn error(code: &str, message: &str, suggestions: &[String]) -> Value {
    json!({"v": VERSION, "ok": false, "error": {"code": code, "message": message, "suggestions": suggestions}})
}
