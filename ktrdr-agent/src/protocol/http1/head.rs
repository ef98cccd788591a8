//! Heads: the first line and the header fields that matter to framing and attributes, in one pass.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};

use super::body::{self, content_length};

/// Header fields that are kept apart. Apache allows 100, h11 and nginx have no count, browsers send about 20.
const SLOTS: usize = 128;

/// Fields that can be asked for by name.
pub(super) const MAX_KEPT: usize = 8;

/// The fields that matter, as they stand in the head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields<'a> {
    /// `Content-Length`: `Some(Err)` = contradictory or no number.
    pub content_length: Option<Result<u64, ()>>,
    /// `Transfer-Encoding`: whether it ends in `chunked`; `None` also where it names no coding.
    pub transfer_encoding: Option<bool>,
    /// `Host`.
    pub host: Option<&'a str>,
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// `X-Request-ID`.
    pub request_id: Option<&'a str>,
    /// First hop of `X-Forwarded-For`, not trimmed further.
    pub x_forwarded_for: Option<&'a str>,
    /// `X-Forwarded-Proto`.
    pub x_forwarded_proto: Option<&'a str>,
    /// `Forwarded` (RFC 7239).
    pub forwarded: Option<&'a str>,
    /// `traceparent`; `Some(Err)` = several, which is invalid.
    pub traceparent: Option<Result<&'a [u8], ()>>,
    /// The body is JSON.
    pub json: bool,
    /// The body is a stream of server-sent events.
    pub events: bool,
    /// `Mcp-Session-Id` (Model Context Protocol).
    pub mcp_session: Option<&'a str>,
    /// `Mcp-Protocol-Version`.
    pub mcp_version: Option<&'a str>,
    /// Values of the fields that were asked for, in the order of their names.
    pub kept: [Option<&'a str>; MAX_KEPT],
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
}

/// A request's head.
pub(super) struct RequestHead<'a> {
    /// Bytes of the head.
    pub len: usize,
    /// Method, as sent.
    pub method: &'a str,
    /// Target, as sent.
    pub target: &'a str,
    /// Digit after `HTTP/1.`.
    pub minor: u8,
    /// Fields.
    pub fields: Fields<'a>,
}

/// A response's head.
pub(super) struct ResponseHead<'a> {
    /// Bytes of the head.
    pub len: usize,
    /// Status code, three digits.
    pub code: u16,
    /// Fields.
    pub fields: Fields<'a>,
}

/// Result of reading a head.
pub(super) enum Read<T> {
    /// All of it.
    Whole(T),
    /// Its end is not there yet.
    Partial,
    /// Not as it should be, or with more fields than are kept apart: see [`super::odd`].
    Odd,
}

impl<T> Read<T> {
    /// Goes on with a whole head.
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Read<U> {
        match self {
            Read::Whole(head) => Read::Whole(f(head)),
            Read::Partial => Read::Partial,
            Read::Odd => Read::Odd,
        }
    }
}

/// Reads a request's head.
pub(super) fn request<'a>(bytes: &'a [u8], kept: &[String]) -> Read<RequestHead<'a>> {
    let mut slots = [const { MaybeUninit::uninit() }; SLOTS];
    let mut head = httparse::Request::new(&mut []);
    match ParserConfig::default().parse_request_with_uninit_headers(&mut head, bytes, &mut slots) {
        Ok(Status::Complete(len)) => {
            let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
                return Read::Odd;
            };
            Read::Whole(RequestHead {
                len,
                method,
                target,
                minor,
                fields: fields(head.headers.iter().copied(), kept),
            })
        }
        Ok(Status::Partial) => Read::Partial,
        Err(_) => Read::Odd,
    }
}

/// Reads a response's head.
pub(super) fn response<'a>(bytes: &'a [u8], kept: &[String]) -> Read<ResponseHead<'a>> {
    let mut slots = [const { MaybeUninit::uninit() }; SLOTS];
    let mut head = httparse::Response::new(&mut []);
    match ParserConfig::default().parse_response_with_uninit_headers(&mut head, bytes, &mut slots) {
        Ok(Status::Complete(len)) => match head.code {
            Some(code) => {
                Read::Whole(ResponseHead { len, code, fields: fields(head.headers.iter().copied(), kept) })
            }
            None => Read::Odd,
        },
        Ok(Status::Partial) => Read::Partial,
        Err(_) => Read::Odd,
    }
}

/// Whether the end of a head lies in `bytes`, of which the first `searched` were searched before: an empty line.
pub(super) fn has_end(bytes: &[u8], searched: usize) -> bool {
    let from = searched.saturating_sub(3).min(bytes.len());
    memchr::memchr_iter(b'\n', &bytes[from..]).any(|at| {
        let after = &bytes[from + at + 1..];
        after.starts_with(b"\n") || after.starts_with(b"\r\n")
    })
}

pub(super) fn fields<'a>(headers: impl Iterator<Item = Header<'a>>, kept: &[String]) -> Fields<'a> {
    let mut fields = Fields::default();
    for header in headers {
        let value = header.value;
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let text = || std::str::from_utf8(value).ok().map(str::trim).filter(|v| !v.is_empty());
        // By length first: most fields of a head are none of these.
        match header.name.len() {
            4 if is("host") => fields.host = fields.host.or_else(text),
            6 if is("expect") => {
                fields.expects_continue = value.trim_ascii().eq_ignore_ascii_case(b"100-continue")
            }
            9 if is("forwarded") => fields.forwarded = fields.forwarded.or_else(text),
            10 if is("user-agent") => fields.user_agent = text(),
            11 if is("traceparent") => {
                fields.traceparent =
                    Some(if fields.traceparent.is_none() { Ok(value.trim_ascii()) } else { Err(()) });
            }
            12 if is("content-type") => {
                fields.json = is_json(value);
                fields.events = media_type(value).eq_ignore_ascii_case(b"text/event-stream");
            }
            14 if is("mcp-session-id") => fields.mcp_session = text(),
            14 if is("content-length") => {
                fields.content_length = content_length(fields.content_length, value)
            }
            15 if is("x-forwarded-for") => fields.x_forwarded_for = fields.x_forwarded_for.or_else(text),
            17 if is("transfer-encoding") => {
                fields.transfer_encoding = body::transfer_encoding(fields.transfer_encoding, value)
            }
            17 if is("x-forwarded-proto") => fields.x_forwarded_proto = text(),
            20 if is("mcp-protocol-version") => fields.mcp_version = text(),
            length => {
                // May be asked for by name as well.
                if length == 12 && is("x-request-id") {
                    fields.request_id = fields.request_id.or_else(text);
                }
                if let Some(at) = kept.iter().take(MAX_KEPT).position(|name| is(name)) {
                    fields.kept[at] = fields.kept[at].or_else(text);
                }
            }
        }
    }
    fields
}

fn media_type(value: &[u8]) -> &[u8] {
    value.split(|&b| b == b';').next().unwrap_or(value).trim_ascii()
}

/// `application/json` or a `+json` suffix (RFC 6839), whatever parameters follow.
fn is_json(value: &[u8]) -> bool {
    let kind = media_type(value);
    let suffix = kind.len().checked_sub(5).is_some_and(|at| kind[at..].eq_ignore_ascii_case(b"+json"));
    suffix || kind.eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_fields_that_matter() {
        let bytes = b"POST /a HTTP/1.1\r\nhost: one\r\nHost: two\r\nTransfer-Encoding: gzip, Chunked\r\n\
            content-type: application/problem+json; charset=utf-8\r\nExpect: 100-Continue\r\n\r\nrest";
        let Read::Whole(head) = request(bytes, &[]) else { panic!("not whole") };
        assert_eq!(head.len, bytes.len() - 4);
        assert_eq!((head.method, head.target, head.minor), ("POST", "/a", 1));
        assert_eq!(head.fields.host, Some("one"));
        assert_eq!(head.fields.transfer_encoding, Some(true));
        assert!(head.fields.json && head.fields.expects_continue);
    }

    #[test]
    fn leaves_what_is_odd_to_others() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(SLOTS + 1));
        for bytes in
            [&b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n"[..], b"GET  / HTTP/1.1\r\n\r\n", many.as_bytes()]
        {
            assert!(matches!(request(bytes, &[]), Read::Odd), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn takes_lone_line_feeds_and_missing_reasons() {
        let Read::Whole(head) = response(b"HTTP/1.0 404\nContent-Length: 3\n\n", &[]) else {
            panic!("not whole")
        };
        assert_eq!((head.code, head.fields.content_length), (404, Some(Ok(3))));
    }

    #[test]
    fn finds_the_end_of_a_head_across_searches() {
        let head = b"GET / HTTP/1.1\r\nA: b\r\n\r\n";
        for searched in 0..head.len() {
            assert!(!has_end(&head[..searched], 0), "{searched}");
            assert!(has_end(head, searched), "{searched}");
        }
    }
}
