//! Semantic-convention attributes of HTTP messages
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>, stable names).

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use super::body::{self, Framing};
use super::head::{Fields, RequestHead, ResponseHead};
use super::memo::Scope;
use super::target::{Target, host_port};
use super::{forwarded, gist, old_names, route};
use crate::mask::{self, Mask};
use crate::protocol::{ConnContext, Interim, Request, Response, Role, Side, parse_traceparent};
use crate::trace::model::{Attributes, Status, Value};

/// Attributes a request can have; one allocation holds them and those of its response.
const ROOM: usize = 20;

/// The one attribute of a request that belongs to the connection alone.
pub(super) const PEER_PORT: &str = "network.peer.port";

/// Name of the event that an interim response is.
const INTERIM: &str = "http.interim_response";

/// Describes the messages of one connection.
pub(super) struct Describe {
    role: Role,
    server: SocketAddr,
    /// The other end; its address is written once per connection, not per request.
    peer_address: String,
    peer: std::net::IpAddr,
    peer_port: u16,
    old_names: bool,
    /// Headers that become attributes.
    pub(super) kept: Arc<[String]>,
    mask: Arc<Mask>,
}

/// A method as the conventions want it: known, or `_OTHER` and the original.
fn known_method(method: &str) -> Option<&'static str> {
    Some(match method {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        "QUERY" => "QUERY",
        _ => return None,
    })
}

/// `80`, `443`, or none.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn ip(addr: SocketAddr) -> String {
    addr.ip().to_canonical().to_string()
}

/// The server as the client named it.
struct Origin<'a> {
    scheme: &'a str,
    host: Option<&'a str>,
    port: Option<u16>,
}

/// Longest header value that becomes an attribute: W3C baggage may have 8192 bytes, ids are short.
const MAX_HEADER: usize = 1024;

impl Describe {
    pub(super) fn new(context: &ConnContext) -> Self {
        let peer = match context.role {
            Role::Server => context.client,
            Role::Client => context.server,
        };
        Self {
            role: context.role,
            server: context.server,
            peer_address: ip(peer),
            peer: peer.ip(),
            peer_port: peer.port(),
            old_names: context.semconv_dup,
            kept: context.kept_headers.clone(),
            mask: context.mask.clone(),
        }
    }

    /// What decides what a head means, but for its bytes. `None` where heads are not remembered: the old names repeat the
    /// peer's port.
    pub(super) fn scope(&self) -> Option<Scope> {
        (!self.old_names).then_some(Scope { role: self.role, server: self.server, peer: self.peer })
    }

    /// A request that was described for another connection of the same scope.
    pub(super) fn adopt(&self, request: &mut Request) {
        request.attributes.set(PEER_PORT, self.peer_port);
    }

    pub(super) fn request(&self, head: &RequestHead<'_>) -> Request {
        let target = Target::parse(head.method, head.target);
        let method = known_method(head.method);
        let template = route::template(target.path);
        let name = match target.path {
            "" => method.unwrap_or("HTTP").to_string(),
            _ => [method.unwrap_or("HTTP"), " ", &template].concat(),
        };

        let mut a = Attributes::with_capacity(ROOM);
        a.push("http.request.method", method.unwrap_or("_OTHER"));
        if method.is_none() {
            a.push("http.request.method_original", head.method.to_string());
        }
        let origin = self.origin(&target, &head.fields);
        match self.role {
            Role::Server => self.server_span(&mut a, &target, &origin, &head.fields),
            Role::Client => {
                if target.path.is_empty() {
                    // CONNECT names no URL.
                } else {
                    a.push("url.full", self.full_url(&target, &origin));
                    if template != target.path {
                        a.push("url.template", template.into_owned());
                    }
                }
            }
        }
        a.push("server.address", origin.host.map_or_else(|| ip(self.server), str::to_string));
        a.push("server.port", origin.port.unwrap_or(self.server.port()));
        a.push("network.peer.address", self.peer_address.clone());
        a.push(PEER_PORT, self.peer_port);
        a.push("network.protocol.version", if head.minor == 0 { "1.0" } else { "1.1" });
        if self.old_names {
            old_names::add(self.role, &mut a);
        }
        mcp(&mut a, &head.fields);
        self.kept(&mut a, "request", &head.fields);
        Request {
            key: None,
            name,
            attributes: a,
            trace_context: head.fields.traceparent.and_then(Result::ok).and_then(parse_traceparent),
            want_body: head.fields.json,
            has_body: !matches!(body::of_request(&head.fields), Framing::None | Framing::Length(0)),
            gist: gist::of(head, &target),
            ..Request::default()
        }
    }

    fn server_span(&self, a: &mut Attributes, target: &Target<'_>, origin: &Origin<'_>, fields: &Fields<'_>) {
        a.push("url.scheme", scheme_value(origin.scheme));
        if !target.path.is_empty() {
            a.push("url.path", target.path.to_string());
        }
        if let Some(query) = target.query.filter(|q| !q.is_empty()) {
            a.push("url.query", self.mask.query(query).into_owned());
        }
        a.push("client.address", forwarded::client(fields).unwrap_or(&self.peer_address).to_string());
        if let Some(agent) = fields.user_agent {
            a.push("user_agent.original", agent.to_string());
        }
    }

    /// RFC 9112 §3.2.2: the authority of an absolute form goes before `Host`. A default port is not written.
    fn origin<'a>(&self, target: &Target<'a>, fields: &Fields<'a>) -> Origin<'a> {
        let outside = || (self.role == Role::Server).then(|| forwarded::scheme(fields)).flatten();
        let scheme = target.scheme.or_else(outside).unwrap_or("http");
        match target.authority.or(fields.host).map(mask::authority).map(host_port) {
            Some((host, port)) if !host.is_empty() => {
                Origin { scheme, host: Some(host), port: port.or(default_port(scheme)) }
            }
            _ => Origin { scheme, host: None, port: None },
        }
    }

    fn full_url(&self, target: &Target<'_>, origin: &Origin<'_>) -> String {
        let query = target.query.map(|q| self.mask.query(q));
        let mut url =
            String::with_capacity(48 + target.path.len() + query.as_ref().map_or(0, |q| q.len() + 1));
        // Writing into a String cannot fail.
        let _ = match origin.host {
            Some(host) if host.contains(':') => write!(url, "{}://[{host}]", origin.scheme),
            Some(host) => {
                url.extend([origin.scheme, "://", host]);
                Ok(())
            }
            None => match self.server.ip().to_canonical() {
                std::net::IpAddr::V4(v4) => write!(url, "{}://{v4}", origin.scheme),
                std::net::IpAddr::V6(v6) => write!(url, "{}://[{v6}]", origin.scheme),
            },
        };
        let port = origin.port.unwrap_or(self.server.port());
        if default_port(origin.scheme) != Some(port) {
            let _ = write!(url, ":{port}");
        }
        if target.path != "*" {
            url.push_str(target.path);
        }
        if let Some(query) = query {
            url.push('?');
            url.push_str(&query);
        }
        url
    }

    pub(super) fn response(&self, head: &ResponseHead<'_>) -> Response {
        let mut a = Attributes::with_capacity(if self.old_names { 4 } else { 2 });
        a.push("http.response.status_code", head.code);
        if self.old_names {
            a.push("http.status_code", head.code);
        }
        // A server's 4xx is its client's mistake; from the client's side the call failed.
        let failed_from = match self.role {
            Role::Server => 500,
            Role::Client => 400,
        };
        let mut status = Status::Unset;
        if head.code >= failed_from {
            a.push("error.type", head.code.to_string());
            // The conventions want no description where the status code says it all.
            status = Status::Error(String::new());
        }
        mcp(&mut a, &head.fields);
        self.kept(&mut a, "response", &head.fields);
        Response { key: None, attributes: a, status, want_body: head.fields.json || head.fields.events }
    }

    /// Headers asked for by name.
    fn kept(&self, a: &mut Attributes, side: &str, fields: &Fields<'_>) {
        for (name, value) in self.kept.iter().zip(fields.kept) {
            if let Some(value) = value.filter(|v| v.len() <= MAX_HEADER) {
                a.push(format!("http.{side}.header.{name}"), vec![value.to_owned()]);
            }
        }
    }

    pub(super) fn interim(&self, code: u16) -> Interim {
        let mut attributes = Attributes::with_capacity(1);
        attributes.push("http.response.status_code", code);
        Interim { name: INTERIM.into(), attributes, ..Interim::default() }
    }

    pub(super) fn body_size(&self, side: Side, size: u64) -> Attributes {
        let (name, old) = match side {
            Side::Request => ("http.request.body.size", "http.request_content_length"),
            Side::Response => ("http.response.body.size", "http.response_content_length"),
        };
        let mut attributes = Attributes::with_capacity(if self.old_names { 2 } else { 1 });
        attributes.push(name, size);
        if self.old_names {
            attributes.push(old, size);
        }
        attributes
    }

    /// A response without a body has one of size 0; most requests have none to speak of.
    pub(super) fn no_body(&self, side: Side) -> Attributes {
        match side {
            Side::Request => Attributes::new(),
            Side::Response => self.body_size(side, 0),
        }
    }
}

/// What the Model Context Protocol says in headers
/// (<https://modelcontextprotocol.io/specification/2025-11-25/basic/transports>).
fn mcp(a: &mut Attributes, fields: &Fields<'_>) {
    for (name, value) in
        [("mcp.session.id", fields.mcp_session), ("mcp.protocol.version", fields.mcp_version)]
    {
        if let Some(value) = value.filter(|v| v.len() <= MAX_HEADER) {
            a.push(name, value.to_owned());
        }
    }
}

fn scheme_value(scheme: &str) -> Value {
    match scheme {
        "http" => "http".into(),
        "https" => "https".into(),
        other => other.to_string().into(),
    }
}
