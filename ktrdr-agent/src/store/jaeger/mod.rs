//! Jaeger's query API over the traces in memory: `/api/services`, `/api/operations`, `/api/traces`,
//! `/api/dependencies`, so that Jaeger's UI, Grafana's Jaeger data source and the `jq` queries that people already have can
//! work against a single agent, without a collector or a database.
//!
//! No port serves [`answer`] yet; its question, [`TraceQuery`], is what the socket's `find` takes.
//!
//! Paths, parameters and fields as in Jaeger's `cmd/query/app/http_handler.go` and `model/json/model.go`. Pure: a
//! request's target in, status and JSON out; who listens where is not known here.

mod convert;
mod dependencies;
mod query;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use super::Store;
use crate::explain::parse::trace_id;
use query::QueryError;
pub use query::TraceQuery;

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The body, `application/json`.
    pub body: Value,
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
            Ok(q) => list(store.search(&q).iter().map(|t| convert::trace(&t.spans, t.dropped)).collect()),
            Err(e) => refused(&e),
        },
        ["api", "traces", id] => one(store, id),
        ["api", "dependencies"] => list(dependencies::of(store)),
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
        Some(t) => list(vec![convert::trace(&t.spans, t.dropped)]),
        None => error(404, "trace not found"),
    }
}

fn list(data: Vec<Value>) -> Answer {
    let total = data.len();
    let body = json!({"data": data, "total": total, "limit": 0, "offset": 0, "errors": null});
    Answer { status: 200, body }
}

fn refused(e: &QueryError) -> Answer {
    error(400, &e.to_string())
}

fn error(status: u16, message: &str) -> Answer {
    let errors = json!([{"code": status, "msg": message}]);
    Answer { status, body: json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors}) }
}
