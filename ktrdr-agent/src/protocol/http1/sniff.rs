//! Where an HTTP/1 message begins.

use memchr::memchr;

use crate::protocol::{Side, Sniff};

/// Methods that begin a message on a connection not known to speak HTTP. RFC 9110, RFC 5789, RFC 10008 (`QUERY`),
/// WebDAV (RFC 4918, 3253, 5323, 4791) and the cache purge of nginx and Varnish. Others are taken on a connection
/// that is known to speak HTTP.
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
    "PURGE",
];

/// A target this long is believed before its end is seen: text protocols with the same words (Redis' inline `GET`,
/// SIP, RTSP) have short first lines, and a capture may end inside a long one.
const LONG_TARGET: usize = 1024;

/// Judges the beginning of a transfer.
pub(super) fn sniff(bytes: &[u8]) -> Sniff {
    match response(bytes) {
        Sniff::No => request(bytes),
        found => found,
    }
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
    let rest = &bytes[space + 1..];
    match rest.iter().position(|&b| b <= b' ' || b == 0x7f) {
        Some(0) => Sniff::No,
        Some(end) => version(&rest[end..]),
        None if rest.len() >= LONG_TARGET => Sniff::Yes(Side::Request),
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
            b"GET  / HTTP/1.1\r\n",
            b"get key\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"\0\0\0\x54\0\x03\0\0user\0ktrdr\0",
            b"OPTIONS sip:carol@chicago.com SIP/2.0\r\n",
            b"HTTP/2 200\r\n",
            b"RTSP/1.0 200 OK\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"{\"a\":1}",
        ] {
            assert_eq!(sniff(other), Sniff::No, "{}", other.escape_ascii());
        }
    }
}
