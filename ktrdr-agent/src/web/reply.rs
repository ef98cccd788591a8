//! Answers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// An answer, complete in memory.
pub type Reply = Response<Full<Bytes>>;

/// With a body of this media type. What it says holds for now only, and is what it says it is.
pub fn body(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    set(&mut reply, CONTENT_TYPE, kind);
    set(&mut reply, CACHE_CONTROL, "no-store");
    set(&mut reply, HeaderName::from_static("x-content-type-options"), "nosniff");
    reply
}

/// For people and scripts.
pub fn text(status: StatusCode, text: &'static str) -> Reply {
    body(status, "text/plain; charset=utf-8", text)
}

/// For programs.
pub fn json(status: StatusCode, text: String) -> Reply {
    body(status, "application/json", text)
}

/// Sets a header.
pub fn set(reply: &mut Reply, name: HeaderName, value: &'static str) {
    reply.headers_mut().insert(name, HeaderValue::from_static(value));
}
