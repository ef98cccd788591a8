//! What the other parts ask of a span.

use std::borrow::Cow;

use crate::trace::model::{Span, SpanKind, Status, Value};

/// A text attribute.
pub fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    span.attributes.get(key)?.as_str()
}

/// An integer attribute; numbers written as text count too, as `error.type` holds them so.
pub fn int(span: &Span, key: &str) -> Option<i64> {
    match span.attributes.get(key)? {
        Value::Int(n) => Some(*n),
        Value::Str(s) => s.parse().ok(),
        Value::Static(s) => s.parse().ok(),
        _ => None,
    }
}

/// Whether an attribute is true.
pub fn flag(span: &Span, key: &str) -> bool {
    matches!(span.attributes.get(key), Some(Value::Bool(true)))
}

/// Whether the span has not ended: its end is when it was looked at.
pub fn is_open(span: &Span) -> bool {
    flag(span, "ktrdr.open")
}

/// Duration in nanoseconds.
pub fn duration(span: &Span) -> u64 {
    span.end.saturating_sub(span.start)
}

/// HTTP status.
pub fn code(span: &Span) -> Option<i64> {
    int(span, "http.response.status_code")
}

/// The sentence of a failed span, if there is one.
pub fn message(span: &Span) -> Option<&str> {
    match &span.status {
        Status::Error(text) if !text.trim().is_empty() => Some(text.trim()),
        _ => None,
    }
}

/// What the last exception says that was raised in it.
pub fn exception(span: &Span) -> Option<&str> {
    let mut exceptions = span.events.iter().rev().filter(|e| e.name == "exception");
    exceptions.find_map(|e| e.attributes.get("exception.message")?.as_str())
}

/// Port of the server, for both ends. What a client asked for in its `Host` need not be where it went.
pub fn port(span: &Span) -> Option<i64> {
    let peer = if span.kind == SpanKind::Client { int(span, "network.peer.port") } else { None };
    peer.or_else(|| int(span, "server.port")).or_else(|| int(span, "network.peer.port"))
}

/// Path of the request.
pub fn path(span: &Span) -> Option<&str> {
    if let Some(path) = text(span, "url.path") {
        return Some(path);
    }
    let url = text(span, "url.full")?;
    let after = url.split_once("://").map_or(url, |(_, rest)| rest);
    let at = after.find('/')?;
    Some(after[at..].split(['?', '#']).next().unwrap_or_default())
}

/// The service called, without its port: its name if it is known, else its address.
pub fn peer_name(span: &Span) -> Option<&str> {
    (span.kind == SpanKind::Client)
        .then(|| {
            text(span, "peer.service")
                .or_else(|| text(span, "server.address"))
                .or_else(|| text(span, "network.peer.address"))
        })
        .flatten()
}

/// The service called, with its port: `ktrdr-ib-host-service:5001`.
pub fn peer(span: &Span) -> Option<String> {
    let name = peer_name(span)?;
    // An IPv6 address needs brackets before a port.
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    // A service named after its port needs it once.
    let suffix = port(span).filter(|p| !name.ends_with(&format!("-{p}")));
    Some(suffix.map_or(name.clone(), |port| format!("{name}:{port}")))
}

/// Whether the span is a connect that never became a call.
pub fn is_connect(span: &Span) -> bool {
    span.kind == SpanKind::Client && span.attributes.get("ktrdr.connect.attempt").is_some()
        || span.name.starts_with("connect ")
}

/// What was done, without what stands beside it anyway.
pub fn what(span: &Span) -> Cow<'_, str> {
    if is_connect(span) { "connect".into() } else { asked(span) }
}

/// Longest path that stands for its route.
const SHORT: usize = 40;

/// The span's name; where that is a route with places for ids, the path itself if it is short: which one it was is what a reader
/// wants to know.
pub fn asked(span: &Span) -> Cow<'_, str> {
    let path = path(span).filter(|path| span.name.contains('{') && path.chars().count() <= SHORT);
    match (text(span, "http.request.method"), path) {
        (Some(method), Some(path)) => format!("{method} {path}").into(),
        _ => span.name.as_str().into(),
    }
}

/// Whether the span is the caller's end of a call.
pub fn is_client(span: &Span) -> bool {
    span.kind == SpanKind::Client
}

/// Whether the span stands for a whole operation.
pub fn is_operation(span: &Span) -> bool {
    span.kind == SpanKind::Internal && span.attributes.get("operation.id").is_some()
}

/// Whether the span stands for a program from its start to its end.
pub fn is_command(span: &Span) -> bool {
    span.kind == SpanKind::Internal && span.attributes.get("process.command_args").is_some()
}

/// The outcome in a word: `200`, `refused`, `timed out`.
pub fn outcome(span: &Span) -> String {
    if let Some(code) = code(span) {
        return match super::symptom::kind_of(span) {
            Some(super::Kind::BusinessError) => format!("{code}, failed inside"),
            Some(super::Kind::Reset) => format!("{code}, then reset"),
            _ => code.to_string(),
        };
    }
    match super::symptom::kind_of(span) {
        _ if is_command(span) => match (int(span, "process.exit.code"), text(span, "ktrdr.process.signal")) {
            (Some(code), _) => format!("exit {code}"),
            (None, Some(signal)) => signal.to_owned(),
            (None, None) => String::new(),
        },
        Some(kind) => kind.outcome().to_owned(),
        None if is_operation(span) => text(span, "operation.status").unwrap_or_default().to_owned(),
        None if span.kind == SpanKind::Internal => String::new(),
        None if is_open(span) => "not answered yet".to_owned(),
        None => answer(span).unwrap_or_else(|| "no answer seen".to_owned()),
    }
}

/// The answer of a protocol without status codes, in a word: `28 bars` of the IB gateway, `answered`.
pub fn answer(span: &Span) -> Option<String> {
    if let Some(bars) = int(span, "ib.bars_received") {
        return Some(if bars == 1 { "1 bar".to_owned() } else { format!("{bars} bars") });
    }
    let whole = text(span, "ktrdr.incomplete").is_none();
    let gateway = int(span, "ib.server_version").is_some();
    let pipe = text(span, "network.transport") == Some("pipe");
    let word = match span.attributes.get("ktrdr.response.first_byte_ms") {
        Some(_) if gateway => "answered",
        _ if pipe && whole => "answered",
        // What asks for no answer (a subscription taken back).
        None if gateway && whole => "sent",
        _ => return None,
    };
    Some(word.to_owned())
}

/// A service's name without the number of its instance: `ktrdr-training-worker-2` → `ktrdr-training-worker`. The
/// instances of a kind stand in for each other.
pub fn family(service: &str) -> &str {
    match service.rsplit_once('-') {
        Some((stem, last)) if !stem.is_empty() && last.chars().any(|c| c.is_ascii_digit()) => stem,
        _ => service,
    }
}

/// Whether a service is one of KTRDR's workers.
pub fn is_worker(service: &str) -> bool {
    service.contains("worker")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::build::Build;

    #[test]
    fn a_short_path_stands_for_its_route() {
        let asked_of = |path: &str| {
            let mut b = Build::default();
            let id = b.client(0, "curl", ("shop", 7001), &format!("GET {path}"), (0, 1), 200);
            b.get(id).name = "GET /slow/{id}".to_owned();
            asked(b.get(id)).into_owned()
        };
        assert_eq!(asked_of("/slow/2"), "GET /slow/2");
        assert_eq!(asked_of(&format!("/slow/{}", "2".repeat(40))), "GET /slow/{id}");
    }
}
