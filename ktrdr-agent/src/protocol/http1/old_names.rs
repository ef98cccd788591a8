//! The names before the conventions became stable, which dashboards of older instrumentations use
//! (`OTEL_SEMCONV_STABILITY_OPT_IN=http/dup`). Mapping: the conventions' migration guide
//! (<https://opentelemetry.io/docs/specs/semconv/non-normative/http-migration/>).

use crate::protocol::Role;
use crate::trace::model::Attributes;

/// Names that are the same for both ends.
const BOTH: &[(&str, &str)] = &[
    ("http.request.method", "http.method"),
    ("network.protocol.version", "http.flavor"),
    ("network.peer.address", "net.sock.peer.addr"),
    ("network.peer.port", "net.sock.peer.port"),
];
const SERVER: &[(&str, &str)] = &[
    ("url.scheme", "http.scheme"),
    ("server.address", "net.host.name"),
    ("server.port", "net.host.port"),
    ("client.address", "http.client_ip"),
    ("user_agent.original", "http.user_agent"),
];
const CLIENT: &[(&str, &str)] =
    &[("url.full", "http.url"), ("server.address", "net.peer.name"), ("server.port", "net.peer.port")];

/// Repeats a request's attributes under their old names.
pub(super) fn add(role: Role, attributes: &mut Attributes) {
    let own = match role {
        Role::Server => SERVER,
        Role::Client => CLIENT,
    };
    for &(new, old) in BOTH.iter().chain(own) {
        if let Some(value) = attributes.get(new).cloned() {
            attributes.push(old, value);
        }
    }
    // Two new attributes were one.
    if let Some(path) = attributes.get("url.path").and_then(|v| v.as_str()) {
        let target = match attributes.get("url.query").and_then(|v| v.as_str()) {
            Some(query) => [path, "?", query].concat(),
            None => path.to_string(),
        };
        attributes.push("http.target", target);
    }
}
