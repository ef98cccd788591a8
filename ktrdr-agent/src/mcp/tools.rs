//! The tools: their names, what they take, and what the agent is asked for each.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use crate::store::client::{AskError, ask};
use crate::store::protocol::{Request, VERSION};

/// What the agent is asked.
type Question = (&'static str, Option<String>, Option<usize>);

struct Entry {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    /// Its parameters: name, JSON type, whether it must be there, what it means.
    parameters: &'static [(&'static str, &'static str, bool, &'static str)],
    question: fn(&JsonObject) -> Result<Question, String>,
}

const TOOLS: &[Entry] = &[
    Entry {
        name: "explain",
        title: "Why did it fail?",
        description: "Says why an operation or a call failed, was slow or is stuck: the true cause first, then the \
            chain of calls, evidence, timeline and gaps (schema ktrdr.explain/1).",
        parameters: &[(
            "query",
            "string",
            true,
            "An operation id (op_training_…), a trace id or its first 6 digits, an id that occurs in a URL, or \
             \"last error\".",
        )],
        question: |a| Ok(("explain", Some(text(a, "query")?.ok_or("`query` is missing")?), None)),
    },
    Entry {
        name: "recent",
        title: "What happened lately?",
        description: "Lists recent operations and failures, newest first, each with its verdict in a sentence.",
        parameters: &[("limit", "integer", false, "Rows at most, 1 to 50; 20 if not given.")],
        question: |a| Ok(("list", None, number(a, "limit")?)),
    },
    Entry {
        name: "find_traces",
        title: "Which traces fit?",
        description: "Finds traces that hold a span with these properties, newest first, a line each.",
        parameters: &[
            ("service", "string", false, "service.name, e.g. ktrdr-api."),
            ("operation", "string", false, "Span name, e.g. POST /api/v1/operations/{id}."),
            (
                "attribute",
                "string",
                false,
                "key=value of an attribute, e.g. operation.id=op_… or http.response.status_code=503.",
            ),
            ("errors_only", "boolean", false, "Only traces with an error."),
            ("within_seconds", "integer", false, "Only what began in the last so many seconds."),
            ("min_duration_ms", "integer", false, "Only spans that took at least so long."),
            ("limit", "integer", false, "Traces at most; 20 if not given."),
        ],
        question: |a| Ok(("find", Some(search(a)?), None)),
    },
    Entry {
        name: "get_trace",
        title: "What is in this trace?",
        description: "Shows the spans of a trace with all attributes, oldest first. `explain` says more in less.",
        parameters: &[("trace_id", "string", true, "Trace id, or its first digits.")],
        question: |a| Ok(("spans", Some(text(a, "trace_id")?.ok_or("`trace_id` is missing")?), None)),
    },
];

/// All tools, as the protocol describes them.
pub fn all() -> Vec<Tool> {
    TOOLS.iter().map(Entry::tool).collect()
}

impl Entry {
    fn tool(&self) -> Tool {
        let properties: JsonObject = self
            .parameters
            .iter()
            .map(|(name, kind, _, what)| ((*name).to_owned(), json!({"type": kind, "description": what})))
            .collect();
        let required: Vec<&str> = self.parameters.iter().filter(|p| p.2).map(|p| p.0).collect();
        let mut schema = JsonObject::new();
        schema.insert("type".to_owned(), "object".into());
        schema.insert("properties".to_owned(), properties.into());
        schema.insert("required".to_owned(), required.into());
        schema.insert("additionalProperties".to_owned(), false.into());
        // The agent observes this host only, and changes nothing on it.
        let hints =
            ToolAnnotations::with_title(self.title).read_only(true).idempotent(true).open_world(false);
        Tool::new(self.name, self.description, Arc::new(schema)).with_annotations(hints)
    }
}

/// Calls a tool. A wrong call is an error of the protocol; that there is no answer is one of the tool, which the
/// model reads.
pub fn call(socket: &Path, name: &str, arguments: &JsonObject) -> Result<CallToolResult, ErrorData> {
    let Some(entry) = TOOLS.iter().find(|t| t.name == name) else {
        let names: Vec<&str> = TOOLS.iter().map(|t| t.name).collect();
        return Err(ErrorData::invalid_params(
            format!("no tool `{name}`: there are {}", names.join(", ")),
            None,
        ));
    };
    if let Some(key) = arguments.keys().find(|k| entry.parameters.iter().all(|p| p.0 != *k)) {
        return Err(ErrorData::invalid_params(format!("`{name}` takes no `{key}`"), None));
    }
    let (op, query, limit) =
        (entry.question)(arguments).map_err(|why| ErrorData::invalid_params(why, None))?;
    let request = Request { v: VERSION, op: op.to_owned(), query, limit, ..Request::default() };
    Ok(match ask::<Value>(socket, &request) {
        Ok(answer) => CallToolResult::success(vec![ContentBlock::text(answer.to_string())]),
        Err(AskError::Refused { message, suggestions, .. }) if !suggestions.is_empty() => {
            let text = format!("{message}. Did you mean: {}", suggestions.join(", "));
            CallToolResult::error(vec![ContentBlock::text(text)])
        }
        Err(e) => CallToolResult::error(vec![ContentBlock::text(e.to_string())]),
    })
}

fn text(arguments: &JsonObject, key: &str) -> Result<Option<String>, String> {
    match arguments.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s.clone())),
        Some(other) => Err(format!("`{key}` is a text, not {other}")),
    }
}

fn number(arguments: &JsonObject, key: &str) -> Result<Option<usize>, String> {
    let Some(value) = arguments.get(key).filter(|v| !v.is_null()) else { return Ok(None) };
    let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
    n.map(Some).ok_or_else(|| format!("`{key}` is a whole number, not {value}"))
}

/// The question in the form of the query API's parameters.
fn search(arguments: &JsonObject) -> Result<String, String> {
    let mut query = String::new();
    let mut add = |key: &str, value: &str| {
        query.push_str(&format!("{key}={}&", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    };
    for key in ["service", "operation"] {
        if let Some(value) = text(arguments, key)? {
            add(key, &value);
        }
    }
    if let Some(attribute) = text(arguments, "attribute")? {
        let (key, value) = attribute.split_once('=').ok_or("`attribute` is key=value")?;
        add("tag", &format!("{key}:{value}"));
    }
    match arguments.get("errors_only") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(Value::Bool(true)) => add("tag", "error:true"),
        Some(other) => return Err(format!("`errors_only` is true or false, not {other}")),
    }
    if let Some(seconds) = number(arguments, "within_seconds")? {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        add("start", &now.as_micros().saturating_sub(seconds as u128 * 1_000_000).to_string());
    }
    if let Some(ms) = number(arguments, "min_duration_ms")? {
        add("minDuration", &format!("{ms}ms"));
    }
    if let Some(limit) = number(arguments, "limit")? {
        add("limit", &limit.to_string());
    }
    Ok(query)
}
