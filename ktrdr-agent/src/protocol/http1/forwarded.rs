//! What proxies in front of a server say about its client: `Forwarded` (RFC 7239) and the `X-Forwarded-*` fields.

use super::head::Fields;
use super::target::host_port;

/// Address of the client before the first proxy.
pub(super) fn client<'a>(fields: &Fields<'a>) -> Option<&'a str> {
    let said = fields
        .forwarded
        .and_then(|value| parameter(value, "for"))
        .or_else(|| fields.x_forwarded_for?.split(',').next())?
        .trim();
    // More than one colon without brackets is an IPv6 address without a port.
    let bare = !said.starts_with('[') && said.matches(':').count() > 1;
    let host = if bare { said } else { host_port(said).0 };
    // `unknown` and `_hidden` are no addresses (RFC 7239 §6.2, §6.3).
    let address = !host.is_empty() && host != "unknown" && !host.starts_with('_');
    address.then_some(host)
}

/// Scheme that the client used; only `http` and `https` are believed.
pub(super) fn scheme(fields: &Fields<'_>) -> Option<&'static str> {
    let said = fields
        .forwarded
        .and_then(|value| parameter(value, "proto"))
        .or_else(|| fields.x_forwarded_proto?.split(',').next())?
        .trim();
    ["http", "https"].into_iter().find(|known| said.eq_ignore_ascii_case(known))
}

/// A parameter of the first element: the hop next to the client.
fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let first = value.split(',').next()?;
    first.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_first_hop() {
        let x = |value| Fields { x_forwarded_for: Some(value), ..Fields::default() };
        assert_eq!(client(&x("203.0.113.7, 10.0.0.1")), Some("203.0.113.7"));
        assert_eq!(client(&x("203.0.113.7:4711")), Some("203.0.113.7"));
        assert_eq!(client(&x("2001:db8::1")), Some("2001:db8::1"));
        assert_eq!(client(&x("unknown, 10.0.0.1")), None);
        let f = |value| Fields { forwarded: Some(value), ..Fields::default() };
        assert_eq!(client(&f("For=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.1")), Some("2001:db8::1"));
        assert_eq!(client(&f("for=_hidden")), None);
        assert_eq!(scheme(&f("for=1.2.3.4; proto=HTTPS")), Some("https"));
        assert_eq!(scheme(&f("proto=gopher")), None);
        assert_eq!(scheme(&Fields::default()), None);
    }
}
