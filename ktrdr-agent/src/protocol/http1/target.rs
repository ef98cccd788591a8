//! Request targets in their four forms (RFC 9112 §3.2), and authorities.

use crate::mask;

/// A request target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Scheme of an absolute form.
    pub scheme: Option<&'a str>,
    /// `host[:port]` of an absolute or authority form, without user information.
    pub authority: Option<&'a str>,
    /// Path; empty for an authority form.
    pub path: &'a str,
    /// Query without `?`, as sent.
    pub query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Takes a target apart. Every text is a target of some form.
    pub(super) fn parse(method: &str, target: &'a str) -> Self {
        if method == "CONNECT" && !target.starts_with('/') {
            return Self { authority: Some(mask::authority(target)), ..Self::default() };
        }
        if target.starts_with('/') {
            return Self::origin(target);
        }
        if let Some((scheme, rest)) = target.split_once("://") {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let authority = Some(mask::authority(&rest[..end]));
            let mut parsed = Self::origin(&rest[end..]);
            if parsed.path.is_empty() {
                parsed.path = "/";
            }
            return Self { scheme: Some(scheme), authority, ..parsed };
        }
        // `*`, and what nobody should send.
        Self::origin(target)
    }

    fn origin(target: &'a str) -> Self {
        // No client sends a fragment; one that does means no part of the path or query.
        let target = target.split('#').next().unwrap_or(target);
        match target.split_once('?') {
            Some((path, query)) => Self { path, query: Some(query), ..Self::default() },
            None => Self { path: target, ..Self::default() },
        }
    }
}

/// Splits `host[:port]`; brackets of an IPv6 address are dropped, as in `server.address`.
pub(super) fn host_port(authority: &str) -> (&str, Option<u16>) {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, after.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_all_forms_apart() {
        let t = |scheme, authority, path, query| Target { scheme, authority, path, query };
        for (method, target, parsed) in [
            ("GET", "/a/b?c=d?e", t(None, None, "/a/b", Some("c=d?e"))),
            ("GET", "http://u:p@h:81/a?b", t(Some("http"), Some("h:81"), "/a", Some("b"))),
            ("GET", "http://h", t(Some("http"), Some("h"), "/", None)),
            ("GET", "http://h?q", t(Some("http"), Some("h"), "/", Some("q"))),
            ("GET", "/go?to=http://x", t(None, None, "/go", Some("to=http://x"))),
            ("CONNECT", "db:5432", t(None, Some("db:5432"), "", None)),
            ("OPTIONS", "*", t(None, None, "*", None)),
            ("GET", "nonsense", t(None, None, "nonsense", None)),
        ] {
            assert_eq!(Target::parse(method, target), parsed, "{method} {target}");
        }
    }

    #[test]
    fn splits_authorities() {
        assert_eq!(host_port("h:81"), ("h", Some(81)));
        assert_eq!(host_port("h"), ("h", None));
        assert_eq!(host_port("h:"), ("h", None));
        assert_eq!(host_port("[::1]:81"), ("::1", Some(81)));
        assert_eq!(host_port("[::1]"), ("::1", None));
        assert_eq!(host_port("h:99999"), ("h", None));
    }
}
