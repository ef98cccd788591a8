//! Where an HTTP/1 message begins.

use memchr::memchr;

use super::odd::is_token;
use crate::protocol::{Side, Sniff};

/// Methods that begin a message where it is not certain that one begins: after a loss, on a connection seen from its middle.
/// Those registered with IANA (<https://www.iana.org/assignments/http-methods>: RFC 9110, RFC 5789, RFC 10008, WebDAV and
/// its extensions) that are in use, of UPnP, Subversion and Icecast, and the cache purge of nginx and Varnish. Others are
/// taken where one is expected, and at the beginning of a connection.
const METHODS: &[&str] = &[
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "CONNECT",
    "TRACE",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "MKCALENDAR",
    "ACL",
    "BIND",
    "UNBIND",
    "REBIND",
    "LINK",
    "UNLINK",
    "CHECKOUT",
    "MERGE",
    "MKACTIVITY",
    "M-SEARCH",
    "NOTIFY",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "SOURCE",
    "PURGE",
];

/// Longest method that is not among those: `UPDATEREDIRECTREF`, the longest registered, has 17 letters.
const LONGEST_METHOD: usize = 24;

/// A target this long is believed before its end is seen: text protocols with the same words (Redis' inline `GET`,
/// SIP, RTSP) have short first lines, and a capture may end inside a long one.
pub(super) const LONG_TARGET: usize = 1024;

/// Judges the beginning of a transfer. Empty lines before it say nothing (RFC 9112 §2.2).
pub(super) fn sniff(bytes: &[u8]) -> Sniff {
    let bytes = without_empty_lines(bytes);
    match response(bytes) {
        Sniff::No => request(bytes),
        found => found,
    }
}

/// Judges the beginning of a connection, where a request of any method may stand: many a server takes it, or answers
/// with 405 or 501.
pub(super) fn opens(bytes: &[u8]) -> Sniff {
    match sniff(bytes) {
        Sniff::No => unlisted(without_empty_lines(bytes)),
        found => found,
    }
}

fn without_empty_lines(bytes: &[u8]) -> &[u8] {
    let empty = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    &bytes[empty..]
}

/// `HTTP/1.` DIGIT SP 3DIGIT, as far as it is there.
pub(super) fn response(bytes: &[u8]) -> Sniff {
    const PREFIX: &[u8] = b"HTTP/1.";
    let fits = bytes.iter().take(12).enumerate().all(|(at, &b)| match at {
        0..=6 => b == PREFIX[at],
        8 => b == b' ',
        _ => b.is_ascii_digit(),
    });
    match fits {
        false => Sniff::No,
        true if bytes.len() < 12 => Sniff::NeedMore,
        true => Sniff::Yes(Side::Response),
    }
}

/// A known method, a target and ` HTTP/1.`, as far as they are there.
pub(super) fn request(bytes: &[u8]) -> Sniff {
    let longest = METHODS.iter().map(|m| m.len()).max().unwrap_or(0);
    let Some(space) = memchr(b' ', &bytes[..bytes.len().min(longest + 1)]) else {
        let prefix = METHODS.iter().any(|m| m.as_bytes().starts_with(bytes));
        return if prefix { Sniff::NeedMore } else { Sniff::No };
    };
    if !METHODS.iter().any(|m| m.as_bytes() == &bytes[..space]) {
        return Sniff::No;
    }
    // Judged by these alone, so more bytes do not change it.
    let window = &bytes[space..bytes.len().min(space + 1 + LONG_TARGET)];
    match target(window) {
        Sniff::NeedMore if window.len() > LONG_TARGET => Sniff::Yes(Side::Request),
        found => found,
    }
}

/// As [`request`], with another method.
fn unlisted(bytes: &[u8]) -> Sniff {
    let method = bytes.iter().take(LONGEST_METHOD + 1).take_while(|&&b| is_token(b)).count();
    match bytes.get(method) {
        None if method <= LONGEST_METHOD => Sniff::NeedMore,
        Some(b' ') if (1..=LONGEST_METHOD).contains(&method) => target(&bytes[method..]),
        _ => Sniff::No,
    }
}

/// Blanks, a target, blanks and ` HTTP/1.`, as far as they are there. More blanks than one are put up with by Node and nginx.
fn target(bytes: &[u8]) -> Sniff {
    let blanks = |bytes: &[u8]| bytes.iter().take_while(|&&b| b == b' ').count();
    let rest = &bytes[blanks(bytes)..];
    match rest.iter().position(|&b| b <= b' ' || b == 0x7f) {
        Some(end) => version(&rest[(end + blanks(&rest[end..])).saturating_sub(1)..]),
        None => Sniff::NeedMore,
    }
}

fn version(bytes: &[u8]) -> Sniff {
    const VERSION: &[u8] = b" HTTP/1.";
    if bytes.starts_with(VERSION) {
        Sniff::Yes(Side::Request)
    } else if VERSION.starts_with(bytes) {
        Sniff::NeedMore
    } else {
        Sniff::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_both_sides_and_waits_for_partial_ones() {
        for (bytes, side) in [
            ("GET / HTTP/1.1\r\n", Side::Request),
            ("OPTIONS * HTTP/1.0\r\n", Side::Request),
            ("CONNECT db:5432 HTTP/1.1\r\n", Side::Request),
            ("GET http://a/b HTTP/1.1\r\n", Side::Request),
            ("GET   /a   HTTP/1.1\r\n", Side::Request),
            ("M-SEARCH /a HTTP/1.1\r\n", Side::Request),
            ("\r\n\nGET / HTTP/1.1\r\n", Side::Request),
            ("HTTP/1.1 200 OK\r\n", Side::Response),
            ("HTTP/1.0 404\r\n", Side::Response),
        ] {
            assert_eq!(sniff(bytes.as_bytes()), Sniff::Yes(side), "{bytes}");
            let enough = bytes.find("HTTP/1.").map_or(0, |at| if at == 0 { 12 } else { at + 7 });
            for end in 1..enough {
                assert_eq!(sniff(&bytes.as_bytes()[..end]), Sniff::NeedMore, "{}", &bytes[..end]);
            }
        }
        assert_eq!(sniff(b""), Sniff::NeedMore);
    }

    #[test]
    fn any_method_opens_a_connection_but_is_not_found_inside_one() {
        let brew = b"\r\nbrew-it! /pot HTTP/1.1\r\n";
        assert_eq!(opens(brew), Sniff::Yes(Side::Request));
        assert_eq!(sniff(brew), Sniff::No);
        for end in 0..23 {
            assert_eq!(opens(&brew[..end]), Sniff::NeedMore, "{end}");
        }
        let word = "a".repeat(LONGEST_METHOD + 1);
        assert_eq!(opens(word.as_bytes()), Sniff::No);
        assert_eq!(opens(format!("{word} /pot HTTP/1.1\r\n").as_bytes()), Sniff::No, "once no, no");
    }

    #[test]
    fn believes_a_target_longer_than_the_capture() {
        let long = format!("GET /{}", "a".repeat(LONG_TARGET));
        assert_eq!(sniff(long.as_bytes()), Sniff::Yes(Side::Request));
    }

    #[test]
    fn rejects_others() {
        for other in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"API\0\0\0\0\x09v157..178",
            b"*1\r\n$4\r\nPING\r\n",
            b"GET key\r\n",
            b"get key\r\n",
            b"GET\r\n",
            b"GET HTTP/1.1\r\n",
            b"SUB subject HTTP/2.0\r\n",
            b"220 mail.example ESMTP\r\n",
            b"CONNECT {\"verbose\":false}\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"\0\0\0\x54\0\x03\0\0user\0ktrdr\0",
            b"OPTIONS sip:carol@chicago.com SIP/2.0\r\n",
            b"HTTP/2 200\r\n",
            b"RTSP/1.0 200 OK\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"{\"a\":1}",
        ] {
            assert_eq!(sniff(other), Sniff::No, "{}", other.escape_ascii());
            assert_eq!(opens(other), Sniff::No, "{}", other.escape_ascii());
        }
    }
}
