//! Compares the spans with what the clients recorded.

use std::collections::BTreeMap;

use crate::span::{Span, brief};
use crate::truth::Truth;

/// Every request has exactly one client and one server span that say what the client says, in the client's order,
/// the server's a child of the client's; and there are no other spans.
pub fn same(truths: &[Truth], spans: &[Span]) {
    let mut wrong: Vec<String> = Vec::new();
    let mut last: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for truth in truths {
        let of = |kind: &str| -> Vec<&Span> {
            spans.iter().filter(|s| s.kind == kind && s.path() == Some(&truth.path)).collect()
        };
        let (clients, servers) = (of("client"), of("server"));
        let ([client], [server]) = (clients.as_slice(), servers.as_slice()) else {
            wrong.push(format!(
                "{} {}: {} client and {} server spans",
                truth.method,
                truth.path,
                clients.len(),
                servers.len()
            ));
            continue;
        };
        for span in [client, server] {
            one(truth, span, &mut wrong);
            let before = last.insert((&truth.group, span.kind.as_str()), &span.start_time);
            if before.is_some_and(|before| before >= span.start_time.as_str()) {
                wrong.push(format!("{}: {} span is out of order", truth.path, span.kind));
            }
        }
        pair(truth, client, server, &mut wrong);
    }
    let expected = truths.len() * 2;
    if spans.len() != expected {
        wrong.push(format!("{} spans instead of {expected}", spans.len()));
    }
    if wrong.is_empty() {
        return;
    }
    // All spans of a large test say less than those that the complaints are about.
    let about: Vec<Span> = spans
        .iter()
        .filter(|s| match s.path() {
            Some(path) if truths.iter().any(|t| t.path == path) => wrong.iter().any(|w| w.contains(path)),
            _ => true,
        })
        .take(40)
        .cloned()
        .collect();
    panic!("{}\n{}", wrong.join("\n"), brief(&about));
}

fn one(truth: &Truth, span: &Span, wrong: &mut Vec<String>) {
    let said =
        (span.method(), span.status_code(), span.request_size(), span.response_size(), span.incomplete());
    let expected = (Some(truth.method.as_str()), Some(truth.status), truth.sent, Some(truth.received), None);
    let unknown = truth.vague
        && !span.attributes.contains_key("http.request.body.size")
        && matches!(span.incomplete(), None | Some("gap_in_body"))
        && (said.0, said.1, said.3) == (expected.0, expected.1, expected.3);
    if said != expected && !unknown {
        wrong.push(format!("{} span of {}: {said:?} instead of {expected:?}", span.kind, truth.path));
    }
    let failed_from = if span.is_client() { 400 } else { 500 };
    if (span.status == "error") != (truth.status >= failed_from) {
        wrong.push(format!("{} span of {}: status {}", span.kind, truth.path, span.status));
    }
    if !span.name.starts_with(&format!("{} /", truth.method)) {
        wrong.push(format!("{} span of {}: name {:?}", span.kind, truth.path, span.name));
    }
}

fn pair(truth: &Truth, client: &Span, server: &Span, wrong: &mut Vec<String>) {
    if server.parent_span_id.as_ref() != Some(&client.span_id) || server.trace_id != client.trace_id {
        wrong.push(format!("{}: the server span is not the client span's child", truth.path));
    }
    if server.start_time < client.start_time || server.end_time > client.end_time {
        wrong.push(format!("{}: the server's time sticks out of the client's", truth.path));
    }
    if server.text("ktrdr.exchange.id") != client.text("ktrdr.exchange.id") {
        wrong.push(format!("{}: two exchange ids", truth.path));
    }
    if truth.local_port.is_some() && server.int("network.peer.port") != truth.local_port {
        wrong.push(format!("{}: client port {:?}", truth.path, server.int("network.peer.port")));
    }
}
