//! Jaeger's query API over the traces in memory: `/api/services`, `/api/operations`, `/api/traces`,
//! `/api/dependencies`, so that Jaeger's UI, Grafana's Jaeger data source and the `jq` queries that people already have can
//! work against a single agent, without a collector or a database.
//!
//! [`crate::web`] serves [`answer`]; its question, [`TraceQuery`], is also what the socket's `find` takes.
//!
//! Paths, parameters and fields as in Jaeger's `cmd/query/app/http_handler.go` and `model/json/model.go`, and what
//! Grafana's `pkg/tsdb/jaeger` and Jaeger's UI ask for. Pure: a request's target in, status and JSON out; who listens
//! where is not known here.

mod convert;
mod dependencies;
mod query;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use super::{Found, Store};
use crate::explain::parse::trace_id;
use query::QueryError;
pub use query::TraceQuery;
pub use query::value;

/// Longest answer, bytes: 1,500 traces of ten spans. It is held until the client has read it, so a few clients at once
/// stay within the agent's memory; whatever is left out is said.
pub const MAX_BODY: usize = 8 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The body, `application/json`.
    pub body: String,
}

/// Answers `GET path?query`; `None` = no path of this API.
pub fn answer(store: &Store, path: &str, query: &str) -> Option<Answer> {
    let parts: Vec<String> = path.trim_matches('/').split('/').map(query::decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Some(match parts.as_slice() {
        ["api", "services"] => list(store.services().into_iter().map(Value::from).collect()),
        ["api", "services", service, "operations"] => {
            let mut names: Vec<String> = store.operations_of(service).into_iter().map(|(n, _)| n).collect();
            names.dedup();
            list(names.into_iter().map(Value::from).collect())
        }
        ["api", "operations"] => match query::value(query, "service") {
            Some(service) => operations(store, &service, query::value(query, "spanKind").as_deref()),
            None => error(400, "parameter 'service' is required"),
        },
        ["api", "traces"] => match TraceQuery::parse(query) {
            Ok(q) => traces(&store.search(&q), MAX_BODY),
            Err(e) => refused(&e),
        },
        ["api", "traces", id] => one(store, id),
        ["api", "dependencies"] => match query::Window::parse(query) {
            Ok(window) => list(dependencies::of(store, window)),
            Err(e) => refused(&e),
        },
        _ => return None,
    })
}

fn operations(store: &Store, service: &str, kind: Option<&str>) -> Answer {
    let all = store.operations_of(service).into_iter();
    let wanted = all
        .map(|(name, k)| (name, convert::kind(k)))
        .filter(|(_, k)| kind.is_none_or(|wanted| wanted.is_empty() || *k == wanted));
    list(wanted.map(|(name, kind)| json!({"name": name, "spanKind": kind})).collect())
}

fn one(store: &Store, id: &str) -> Answer {
    // Jaeger leaves leading zeros out.
    let padded = if id.len() <= 32 { format!("{id:0>32}") } else { id.to_owned() };
    let Ok(id) = trace_id(&padded.to_ascii_lowercase()) else {
        return error(400, "a trace id has at most 32 hexadecimal digits");
    };
    match store.trace(id) {
        Some(t) => traces(&[t], MAX_BODY),
        None => error(404, "trace not found"),
    }
}

fn list(data: Vec<Value>) -> Answer {
    let total = data.len();
    let body = json!({"data": data, "total": total, "limit": 0, "offset": 0, "errors": null});
    Answer { status: 200, body: body.to_string() }
}

/// Whole traces as long as there is room; of a single one that is too long, its first spans.
fn traces(found: &[Found], room: usize) -> Answer {
    let mut body = String::from(r#"{"data":["#);
    let mut written = 0;
    for trace in found {
        let text = convert::trace(&trace.spans, trace.dropped, room);
        if written > 0 && body.len() + text.len() > room {
            break;
        }
        if written > 0 {
            body.push(',');
        }
        body.push_str(&text);
        written += 1;
    }
    let errors = match found.len() - written {
        0 => Value::Null,
        n => {
            json!([{"code": 0, "msg": format!("{n} older traces were left out: the answer would be too long")}])
        }
    };
    body.push_str(&format!(r#"],"total":{},"limit":0,"offset":0,"errors":{errors}}}"#, found.len()));
    Answer { status: 200, body }
}

fn refused(e: &QueryError) -> Answer {
    error(400, &e.to_string())
}

fn error(status: u16, message: &str) -> Answer {
    let errors = json!([{"code": status, "msg": message}]);
    let body = json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors});
    Answer { status, body: body.to_string() }
}
