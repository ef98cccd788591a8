//! What a line says about a span.

use super::text::clean;
use crate::explain::view;
use crate::trace::causality::Method;
use crate::trace::model::{Span, SpanKind, Status, Value};

/// How the note about a parent begins that is not certain.
pub const INFERRED: &str = "parent inferred ";

/// How a call went, in a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `200`, `refused`, `-`.
    pub word: String,
    /// How it looks.
    pub mood: Mood,
}

/// How an outcome looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    /// Nothing to say.
    Plain,
    /// As hoped.
    Good,
    /// The caller's mistake, or an odd answer.
    Odd,
    /// Failed.
    Bad,
}

/// Whether the span's parent is known from a `traceparent` that arrived on the wire.
pub fn continues_remote(span: &Span) -> bool {
    text(span, "ktrdr.link.method") == Some(Method::TraceContext.name())
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    span.attributes.get(key)?.as_str()
}

fn int(span: &Span, key: &str) -> Option<i64> {
    match span.attributes.get(key)? {
        Value::Int(n) => Some(*n),
        _ => None,
    }
}

/// Service and name, for a reference to a span.
pub fn short(span: &Span) -> String {
    clean(&format!("{} {}", span.resource.service, span.name))
}

/// Whom a client span calls: the service if it is known, else the address; with the port.
pub fn peer(span: &Span) -> Option<String> {
    if span.kind != SpanKind::Client {
        return None;
    }
    let port = view::port(span);
    let name = text(span, "peer.service")
        .or_else(|| text(span, "server.address"))
        .or_else(|| text(span, "network.peer.address"))?;
    // An IPv6 address needs brackets before a port.
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    Some(clean(&port.map_or(name.clone(), |port| format!("{name}:{port}"))))
}

/// What is done, less what stands beside it anyway (`connect ktrdr-ib-host-service`).
pub fn what(span: &Span) -> String {
    let connects = span.name.starts_with("connect ") && peer(span).is_some();
    if connects { "connect".to_owned() } else { clean(&view::asked(span)) }
}

/// How it went.
pub fn outcome(span: &Span) -> Outcome {
    let failed = matches!(span.status, Status::Error(_));
    let code = ["http.response.status_code", "rpc.grpc.status_code", "db.response.status_code"]
        .iter()
        .find_map(|key| span.attributes.get(key));
    let code = code.map(|value| match value {
        Value::Int(n) => n.to_string(),
        value => value.as_str().unwrap_or("?").to_owned(),
    });
    let exit = int(span, "process.exit.code");
    let word = match (code, text(span, "error.type")) {
        (Some(code), _) => code,
        // A command.
        (None, _) if exit.is_some() => format!("exit {}", exit.unwrap_or_default()),
        (None, Some(error)) => error_word(error),
        (None, None) if failed => "error".to_owned(),
        (None, None) if span.kind == SpanKind::Internal => String::new(),
        (None, None) => crate::explain::view::answer(span).unwrap_or_else(|| "-".to_owned()),
    };
    let http = int(span, "http.response.status_code");
    let mood = match http {
        _ if failed => Mood::Bad,
        Some(400..) => Mood::Odd,
        Some(_) => Mood::Good,
        None => Mood::Plain,
    };
    Outcome { word: clean(&word), mood }
}

/// `connection_refused` → `refused`; the sentence below says the rest.
fn error_word(error: &str) -> String {
    if error == "operation_failed" {
        return "failed".to_owned();
    }
    let word = error.strip_prefix("connection_").unwrap_or(error);
    word.strip_suffix("_unreachable")
        .map_or(word, |what| if what == "host" { "no host" } else { "no route" })
        .into()
}

/// Whether the server says that it failed.
pub fn is_server_error(span: &Span) -> bool {
    int(span, "http.response.status_code").is_some_and(|code| code >= 500)
}

/// The sentence of a failed span.
pub fn sentence(span: &Span) -> Option<String> {
    match &span.status {
        // `exit 1` stands on the line.
        Status::Error(_)
            if text(span, "error.type") == Some("exit_status")
                && int(span, "process.exit.code").is_some() =>
        {
            None
        }
        Status::Error(message) if !message.trim().is_empty() => Some(clean(message)),
        _ => None,
    }
}

/// What else deserves a word, because it is not as one would expect.
pub fn notes(span: &Span) -> Vec<String> {
    let mut notes = Vec::new();
    // That of a connect is in its sentence.
    if let Some(resent) = int(span, "http.request.resend_count").filter(|n| *n > 0) {
        notes.push(format!("attempt {}", resent.saturating_add(1)));
    }
    if text(span, "ktrdr.link.certainty") == Some("inferred") {
        let method = text(span, "ktrdr.link.method").unwrap_or("no evidence");
        notes.push(format!("{INFERRED}({method})"));
    }
    if let Some(why) = text(span, "ktrdr.incomplete") {
        notes.push(format!("incomplete: {}", why.replace('_', " ")));
    }
    for link in &span.links {
        let kind = link.attributes.get("ktrdr.link.kind").and_then(Value::as_str).unwrap_or("linked");
        let place = if link.trace_id == span.trace_id {
            String::new()
        } else {
            format!(" of trace {}", link.trace_id)
        };
        notes.push(format!("{}: span {}{place}", kind.replace('_', " "), link.span_id));
    }
    notes.iter().map(|n| clean(n)).collect()
}
