//! The page for people: one file with all it needs. It holds no data and builds what it shows from text nodes, so a
//! service that puts HTML into its names or messages is shown that HTML; and were there a hole, the policy sent
//! with it lets no other script run and no other host be reached.

use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};

use super::reply::{self, Reply};

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page.
pub fn reply() -> Reply {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let page = HTML
        .replace("{{nonce}}", &nonce)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{style}}", STYLE)
        .replace("{{script}}", SCRIPT);
    let mut reply = reply::body(StatusCode::OK, "text/html; charset=utf-8", page);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // Hexadecimal digits are valid in a header.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    reply::set(&mut reply, REFERRER_POLICY, "no-referrer");
    reply::set(&mut reply, HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    reply
}
