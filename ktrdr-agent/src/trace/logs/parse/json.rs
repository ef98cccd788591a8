//! JSON logs: python-json-logger, structlog, pino, bunyan, zap, logback's encoders, ECS.

use serde_json::{Map, Value as Json};

use super::{Format, MAX_FIELDS, MAX_KEY, Parsed, Severity, Value};
use crate::trace::model::Key;

/// What a JSON object on standard output is.
pub enum Outcome {
    /// A log record.
    Record(Parsed),
    /// A message of a protocol.
    Protocol,
}

const LEVELS: [&str; 6] = ["level", "severity", "levelname", "log.level", "lvl", "@l"];
const MESSAGES: [&str; 5] = ["message", "msg", "event", "body", "@m"];
const LOGGERS: [&str; 5] = ["logger", "name", "logger_name", "log.logger", "component"];
const TIMES: [&str; 6] = ["timestamp", "time", "ts", "asctime", "@timestamp", "@t"];
const STACKS: [&str; 7] =
    ["exception", "exc_info", "stack", "stack_trace", "traceback", "error.stack_trace", "stacktrace"];

/// Whether a text may be an object.
pub fn looks_like(text: &str) -> bool {
    text.starts_with('{') && text.ends_with('}') && text.len() > 2
}

/// Reads an object; `None` if it is none.
pub fn parse(text: &str) -> Option<Outcome> {
    let Ok(Json::Object(mut map)) = serde_json::from_str::<Json>(text) else { return None };
    if map.get("jsonrpc").is_some() {
        return Some(Outcome::Protocol);
    }
    let pino = map.get("pid").is_some() && map.get("hostname").is_some();
    let level = take(&mut map, &LEVELS);
    let (severity, severity_text) = match &level {
        Some(Json::String(word)) => (Severity::of_word(word).unwrap_or_default(), word.clone()),
        Some(Json::Number(n)) => {
            (n.as_f64().and_then(|n| Severity::of_number(n, pino)).unwrap_or_default(), n.to_string())
        }
        _ => (Severity::UNSPECIFIED, String::new()),
    };
    let message = take(&mut map, &MESSAGES).map(|m| text_of(&m)).unwrap_or_default();
    let logger = take(&mut map, &LOGGERS).filter(Json::is_string).map(|l| text_of(&l));
    take(&mut map, &TIMES);
    let stack =
        take(&mut map, &STACKS).filter(Json::is_string).map(|s| text_of(&s)).filter(|s| s.contains('\n'));
    let mut fields = Vec::new();
    flatten("", map, &mut fields);
    let message = if message.is_empty() { text.to_owned() } else { message };
    let format = Format::Json;
    Some(Outcome::Record(Parsed {
        format,
        severity,
        severity_text,
        logger,
        message,
        fields,
        peer: None,
        stack,
    }))
}

fn take(map: &mut Map<String, Json>, keys: &[&str]) -> Option<Json> {
    keys.iter().find_map(|k| map.remove(*k))
}

fn text_of(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Scalars under dotted keys, one level of objects deep (`extra`, `context`); what lies deeper is kept as JSON.
fn flatten(prefix: &str, map: Map<String, Json>, out: &mut Vec<(Key, Value)>) {
    for (key, value) in map {
        if out.len() >= MAX_FIELDS || prefix.len() + key.len() > MAX_KEY {
            continue;
        }
        let key = format!("{prefix}{key}");
        let value = match value {
            Json::Null => continue,
            Json::Bool(b) => Value::Bool(b),
            Json::Number(n) => {
                n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or_default()), Value::Int)
            }
            Json::String(s) => s.into(),
            Json::Object(inner) if prefix.is_empty() => {
                flatten(&format!("{key}."), inner, out);
                continue;
            }
            other => other.to_string().into(),
        };
        out.push((key.into(), value));
    }
}
