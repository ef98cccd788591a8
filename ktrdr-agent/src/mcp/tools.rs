//! The tools: their names, what they take, and what the agent is asked for each.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use crate::store::Filter;
use crate::store::client::{AskError, ask};
use crate::store::protocol::{Request, VERSION};

struct Entry {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    /// Its parameters: name, JSON type, whether it must be there, what it means.
    parameters: &'static [(&'static str, &'static str, bool, &'static str)],
    /// What the agent is asked.
    question: fn(&JsonObject) -> Result<Request, String>,
}

const TOOLS: &[Entry] = &[
    Entry {
        name: "explain",
        title: "Why did it fail?",
        description: "Call this first for any question about one operation, trace or failure: why it failed, is slow or \
            stuck, what it is doing now, which worker has it, what was logged. Answers with the true cause in one \
            sentence (`verdict.sentence`), then the chain of calls, evidence, log lines, timeline and what is not known \
            (schema ktrdr.explain/1). Works while the operation still runs.",
        parameters: &[(
            "query",
            "string",
            true,
            "An operation id (op_training_…), a trace id or its first 6 digits, an id that occurs in a URL, or \
             \"last error\".",
        )],
        question: |a| Ok(asking("explain", text(a, "query")?.ok_or("`query` is missing")?)),
    },
    Entry {
        name: "recent",
        title: "What happened lately?",
        description: "Call this first if no id is known: recent operations and failures, newest first, each with its id \
            for `explain` and its verdict in a sentence. Narrow it to what a worker or service took part in, a symbol, a \
            type of operation, a time window, or failures only.",
        parameters: &[
            ("errors_only", "boolean", false, "Only what failed."),
            ("type", "string", false, "Type of operation: data_load, training, backtesting, …"),
            (
                "service",
                "string",
                false,
                "A service or worker that took part, e.g. ktrdr-training-worker-5005.",
            ),
            ("symbol", "string", false, "A symbol it is about, e.g. AAPL."),
            ("within_seconds", "integer", false, "Only what went on in the last so many seconds."),
            ("limit", "integer", false, "Rows at most, 1 to 50; 20 if not given."),
        ],
        question: |a| {
            let filter = Filter {
                errors: flag(a, "errors_only")?,
                kind: text(a, "type")?,
                service: text(a, "service")?,
                symbol: text(a, "symbol")?,
                since_s: number(a, "within_seconds")?.map(|n| n as u64),
            };
            let filter = Some(filter).filter(|f| !f.is_empty());
            Ok(Request { limit: number(a, "limit")?, filter, ..request("list") })
        },
    },
    Entry {
        name: "find_traces",
        title: "Which traces fit?",
        description: "Finds single calls, failed or not, by their properties: did service A call B, with which status, how \
            often, how long did it take. Traces that hold such a span, newest first, a line each.",
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
        question: |a| Ok(asking("find", search(a)?)),
    },
    Entry {
        name: "get_trace",
        title: "What is in this trace?",
        description: "Shows the spans of a trace with all attributes, oldest first, at most 64 KiB. Only for details that \
            `explain` leaves out: that says more in less.",
        parameters: &[("trace_id", "string", true, "Trace id, or its first digits.")],
        question: |a| Ok(asking("spans", text(a, "trace_id")?.ok_or("`trace_id` is missing")?)),
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
    let request = (entry.question)(arguments).map_err(|why| ErrorData::invalid_params(why, None))?;
    Ok(match ask::<Value>(socket, &request) {
        Ok(answer) => CallToolResult::success(vec![ContentBlock::text(answer.to_string())]),
        Err(AskError::Refused { message, suggestions, .. }) if !suggestions.is_empty() => {
            let text = format!("{message}. Did you mean: {}", suggestions.join(", "));
            CallToolResult::error(vec![ContentBlock::text(text)])
        }
        Err(AskError::Refused { code, message, .. }) if code == "not_found" => {
            CallToolResult::error(vec![ContentBlock::text(format!("{message}. The tool `recent` has ids"))])
        }
        Err(e) => CallToolResult::error(vec![ContentBlock::text(e.to_string())]),
    })
}

fn request(op: &str) -> Request {
    Request { v: VERSION, op: op.to_owned(), ..Request::default() }
}

fn asking(op: &str, query: String) -> Request {
    Request { query: Some(query), ..request(op) }
}

fn flag(arguments: &JsonObject, key: &str) -> Result<bool, String> {
    match arguments.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(b)) => Ok(*b),
        Some(other) => Err(format!("`{key}` is true or false, not {other}")),
    }
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
    if flag(arguments, "errors_only")? {
        add("tag", "error:true");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tool: &str, arguments: Value) -> Result<Request, String> {
        let entry = TOOLS.iter().find(|t| t.name == tool).unwrap();
        (entry.question)(arguments.as_object().unwrap())
    }

    #[test]
    fn the_listing_is_narrowed_as_the_command_line_narrows_it() {
        assert_eq!(asked("recent", json!({})), Ok(request("list")));
        let narrowed = json!({"errors_only": true, "type": "training", "service": "w", "symbol": "AAPL",
            "within_seconds": 600, "limit": 5});
        let filter = Filter {
            errors: true,
            kind: Some("training".into()),
            service: Some("w".into()),
            symbol: Some("AAPL".into()),
            since_s: Some(600),
        };
        let expected = Request { limit: Some(5), filter: Some(filter), ..request("list") };
        assert_eq!(asked("recent", narrowed), Ok(expected));
        assert_eq!(
            asked("recent", json!({"errors_only": "yes"})).unwrap_err(),
            "`errors_only` is true or false, not \"yes\""
        );
        assert!(asked("explain", json!({})).is_err());
    }
}
