//! Who may ask.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use hyper::{HeaderMap, StatusCode};

use super::reply::{self, Reply};

/// Who may ask: whoever shows the token, or without one whoever is on this host.
#[derive(Clone)]
pub struct Who {
    token: Option<String>,
    setting: &'static str,
}

impl Who {
    /// `setting` is the name under which users know the token.
    pub fn new(token: Option<String>, setting: &'static str) -> Self {
        Self { token, setting }
    }

    /// The refusal for who does not show the token, if there is one.
    pub fn refuse_without_token(&self, headers: &HeaderMap) -> Option<Reply> {
        let token = self.token.as_ref()?;
        let given = header(headers, &AUTHORIZATION).split_once(' ');
        if let Some((scheme, given)) = given
            && scheme.eq_ignore_ascii_case("bearer")
            && same(given.trim(), token)
        {
            return None;
        }
        let text = format!("{} is wanted: Authorization: Bearer …\n", self.setting);
        let mut refused = reply::body(StatusCode::UNAUTHORIZED, "text/plain; charset=utf-8", text);
        reply::set(&mut refused, WWW_AUTHENTICATE, "Bearer");
        Some(refused)
    }

    /// Where no token is asked for, the name under which the client reached this address must be one of the loopback.
    /// A page from elsewhere whose own name was made to lead here (DNS rebinding) sends that name.
    pub fn refuse_foreign_name(&self, headers: &HeaderMap) -> Option<Reply> {
        if self.token.is_some() || local(header(headers, &HOST)) {
            return None;
        }
        Some(reply::text(
            StatusCode::FORBIDDEN,
            "without a token only localhost and loopback addresses are answered as names of this host\n",
        ))
    }
}

/// A header's text; empty if there is none.
pub fn header<'a>(headers: &'a HeaderMap, name: &hyper::header::HeaderName) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

/// Whether a `Host` header names the loopback. HTTP/1.0 has none, and no browser speaks it.
fn local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    host.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether two texts are the same, in a time that tells nothing about where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_loopback() {
        for yes in ["localhost", "LOCALHOST:9464", "127.0.0.1:1", "127.9.9.9", "[::1]:16686", "[::1]", ""] {
            assert!(local(yes), "{yes}");
        }
        for no in
            ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1:80", "[fe80::1]", ":"]
        {
            assert!(!local(no), "{no}");
        }
    }

    #[test]
    fn a_token_is_the_same_or_not() {
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "ab") && same("", ""));
    }
}
