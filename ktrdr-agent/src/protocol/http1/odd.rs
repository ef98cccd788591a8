//! Heads that are not as they should be, and were taken all the same.
//!
//! Servers and clients differ in what they put up with, and those that refuse a request answer it with 400: either way it
//! was made. So whatever has a recognisable first line and an end is read, by the rules that the tolerant ones have in
//! common (RFC 9112 §2.2, §3, §5). Only heads come here that the strict reader gave up on, and the beginnings of heads
//! whose rest was not captured.

use httparse::Header;

use super::head::{Fields, RequestHead, ResponseHead, fields};
use super::sniff::LONG_TARGET;
use crate::protocol::Side;

/// What was found.
pub(super) enum Found {
    /// A head, to its end.
    Head(Odd),
    /// Could be one; its end is not there yet.
    Partial,
    /// None.
    Nothing,
}

/// A head, written out anew as it should have been.
pub(super) struct Odd {
    len: usize,
    first: First,
    /// Names and values of all fields, one behind the other.
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// First lines.
#[derive(Clone, Debug, PartialEq, Eq)]
enum First {
    Request { method: String, target: String, minor: u8 },
    Status(u16),
}

/// Where the parts of a field lie in the text: name, value, end.
#[derive(Clone, Copy)]
struct Field {
    name: usize,
    value: usize,
    end: usize,
}

/// Reads a head of one side. `broken_off`: no more of it will come; what is whole of it counts, at least its first line as
/// far as the version or the status.
pub(super) fn read(side: Side, bytes: &[u8], broken_off: bool) -> Found {
    let mut rest = bytes;
    let mut in_first = false;
    let line = match take_line(&mut rest) {
        Some(line) => line,
        None if broken_off => {
            in_first = true;
            std::mem::take(&mut rest)
        }
        None if may_begin(side, bytes) => return Found::Partial,
        None => return Found::Nothing,
    };
    let first = match side {
        Side::Request if in_first => request_line(line).or_else(|| long_line(line)),
        Side::Request => request_line(line),
        Side::Response => status_line(line),
    };
    let Some(first) = first else { return Found::Nothing };
    let mut odd = Odd { len: 0, first, text: Vec::new(), fields: Vec::new() };
    loop {
        match take_line(&mut rest) {
            Some([]) => break,
            Some(line) => odd.line(side, line),
            None if broken_off => break,
            None => return Found::Partial,
        }
    }
    odd.len = if broken_off { bytes.len() } else { bytes.len() - rest.len() };
    Found::Head(odd)
}

impl Odd {
    fn line(&mut self, side: Side, line: &[u8]) {
        // A value goes on in lines that begin with a blank (RFC 9112 §5.2); before the first field they belong to nothing.
        if matches!(line, [b' ' | b'\t', ..]) {
            if let Some(last) = self.fields.last_mut() {
                self.text.push(b' ');
                push_value(&mut self.text, line);
                last.end = self.text.len();
            }
            return;
        }
        let Some(colon) = memchr::memchr(b':', line) else { return };
        let (mut name, value) = (&line[..colon], &line[colon + 1..]);
        // In a response blanks before the colon are removed. A request with such a field is refused, or the field is
        // ignored (nginx); if it were believed, this would be another request than the server's (RFC 9112 §5.1).
        if side == Side::Response {
            name = name.trim_ascii_end();
        }
        if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
            // No continuation of it is one of the field before.
            let at = self.text.len();
            self.fields.push(Field { name: at, value: at, end: at });
            return;
        }
        let at = self.text.len();
        self.text.extend_from_slice(name);
        push_value(&mut self.text, value);
        self.fields.push(Field { name: at, value: at + name.len(), end: self.text.len() });
    }

    /// As a request's.
    pub(super) fn request(&self, kept: &[String]) -> Option<RequestHead<'_>> {
        let First::Request { method, target, minor } = &self.first else { return None };
        Some(RequestHead { len: self.len, method, target, minor: *minor, fields: self.fields(kept) })
    }

    /// As a response's.
    pub(super) fn response(&self, kept: &[String]) -> Option<ResponseHead<'_>> {
        let First::Status(code) = self.first else { return None };
        Some(ResponseHead { len: self.len, code, fields: self.fields(kept) })
    }

    fn fields(&self, kept: &[String]) -> Fields<'_> {
        let headers = self.fields.iter().map(|field| Header {
            name: std::str::from_utf8(&self.text[field.name..field.value]).unwrap_or_default(),
            value: self.text[field.value..field.end].trim_ascii(),
        });
        fields(headers, kept)
    }
}

/// The next line without its end, if it has one: a line feed, as a rule behind a carriage return.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(b'\n', rest)?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Whether a first line may begin like this.
fn may_begin(side: Side, bytes: &[u8]) -> bool {
    match side {
        Side::Request => {
            let method = bytes.iter().take_while(|&&b| is_token(b)).count();
            method > 0 && matches!(bytes.get(method), None | Some(b' ' | b'\t'))
        }
        Side::Response => bytes.iter().zip(b"HTTP/1.").all(|(b, expected)| b == expected),
    }
}

/// Method, target and version with any blanks between and behind them. In the target stands whatever was sent; what no
/// text can hold, and blanks, in percent-encoding.
fn request_line(line: &[u8]) -> Option<First> {
    let line = line.trim_ascii_end();
    let method = line.iter().position(|b| is_blank(*b))?;
    let last = line.iter().rposition(|b| is_blank(*b))?;
    let (method, version) = (&line[..method], &line[last + 1..]);
    let target = line.get(method.len()..last)?.trim_ascii();
    let &[b'H', b'T', b'T', b'P', b'/', b'1', b'.', digit @ b'0'..=b'9'] = version else { return None };
    if target.is_empty() || method.is_empty() || !method.iter().all(|&b| is_token(b)) {
        return None;
    }
    let method = std::str::from_utf8(method).ok()?.to_owned();
    // A later minor version is read as the last one that is known (RFC 9110 §2.5).
    Some(First::Request { method, target: encoded(target), minor: (digit - b'0').min(1) })
}

/// A request line that is longer than what is copied of a transfer: its target, as far as that was captured. Of a shorter one the
/// rest never came.
fn long_line(line: &[u8]) -> Option<First> {
    let method = line.iter().position(|b| is_blank(*b))?;
    let (method, target) = (&line[..method], &line[method + 1..]);
    let is_target = target.starts_with(b"/") || target.starts_with(b"http");
    if method.is_empty() || !method.iter().all(|&b| is_token(b)) || !is_target || target.len() < LONG_TARGET {
        return None;
    }
    let method = std::str::from_utf8(method).ok()?.to_owned();
    let target = target.iter().position(|b| is_blank(*b)).map_or(target, |end| &target[..end]);
    Some(First::Request { method, target: encoded(target), minor: 1 })
}

/// Version and three digits; a reason may say anything.
fn status_line(line: &[u8]) -> Option<First> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor, blank, rest @ ..] = line else { return None };
    if !minor.is_ascii_digit() || !is_blank(*blank) {
        return None;
    }
    let [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', after @ ..] = rest.trim_ascii_start() else {
        return None;
    };
    let digit = |b: &u8| u16::from(b - b'0');
    let ends = after.first().is_none_or(|b| is_blank(*b));
    ends.then(|| First::Status(100 * digit(a) + 10 * digit(b) + digit(c)))
}

fn encoded(target: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(target.len() + 8);
    // Writing into a String cannot fail.
    for chunk in target.utf8_chunks() {
        for c in chunk.valid().chars() {
            let _ = if c.is_ascii_control() || c == ' ' {
                write!(text, "%{:02X}", u32::from(c))
            } else {
                text.write_char(c)
            };
        }
        for b in chunk.invalid() {
            let _ = write!(text, "%{b:02X}");
        }
    }
    text
}

/// Control characters become blanks (RFC 9110 §5.5), so that nothing odd gets further.
fn push_value(text: &mut Vec<u8>, value: &[u8]) {
    text.extend(value.trim_ascii().iter().map(|b| if b.is_ascii_control() { b' ' } else { *b }));
}

fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// A character of a token (RFC 9110 §5.6.2).
pub(super) fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: &[u8]) -> Odd {
        match read(Side::Request, bytes, false) {
            Found::Head(odd) => odd,
            _ => panic!("{}", bytes.escape_ascii()),
        }
    }

    fn response(bytes: &[u8]) -> Odd {
        match read(Side::Response, bytes, false) {
            Found::Head(odd) => odd,
            _ => panic!("{}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn request_lines_are_taken_apart_whatever_is_between() {
        for (line, target, minor) in [
            ("GET  /a   HTTP/1.1 ", "/a", 1),
            ("GET\t/a\tHTTP/1.0", "/a", 0),
            ("GET /a b HTTP/1.9", "/a%20b", 1),
            ("GET /\u{e9}\u{1} HTTP/1.1", "/\u{e9}%01", 1),
        ] {
            let odd = request(format!("{line}\r\n\r\nrest").as_bytes());
            let head = odd.request(&[]).unwrap();
            assert_eq!(
                (head.method, head.target, head.minor, head.len),
                ("GET", target, minor, line.len() + 4)
            );
        }
        assert_eq!(request(b"GET /caf\xe9 HTTP/1.1\n\n").request(&[]).unwrap().target, "/caf%E9");
        for other in [
            &b"GET HTTP/1.1\n\n"[..],
            b"GET /a HTTP/2.0\n\n",
            b"G(T /a HTTP/1.1\n\n",
            b"GET /a\n\n",
            b" /a HTTP/1.1\n\n",
        ] {
            assert!(matches!(read(Side::Request, other, false), Found::Nothing), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn status_lines_end_in_anything() {
        for (line, code) in
            [(&b"HTTP/1.1 404 Not\x01 \xfffound"[..], 404), (b"HTTP/1.0  200", 200), (b"HTTP/1.7\t503 ", 503)]
        {
            let odd = response(&[line, b"\r\n\r\n"].concat());
            assert_eq!(odd.response(&[]).unwrap().code, code, "{}", line.escape_ascii());
        }
        for other in [&b"HTTP/1.1 20 OK\n\n"[..], b"HTTP/1.1 2000 OK\n\n", b"HTTP/2 200\n\n", b"HTTP/1.1\n\n"]
        {
            assert!(matches!(read(Side::Response, other, false), Found::Nothing), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn values_go_on_in_lines_that_begin_with_a_blank() {
        let bytes = b"POST /a HTTP/1.1\r\n lost\r\nTransfer-Encoding: gzip,\r\n\tchunked\r\nContent-Length:\r\n 3\r\n\
            Bad Name: 1\r\n , 7\r\nUser-Agent: a\x01b\r\n\r\n";
        let odd = request(bytes);
        let fields = odd.request(&[]).unwrap().fields;
        assert_eq!(fields.transfer_encoding, Some(true));
        assert_eq!(fields.content_length, Some(Ok(3)), "the odd line takes its continuation with it");
        assert_eq!(fields.user_agent, Some("a b"));
    }

    #[test]
    fn blanks_before_the_colon_count_in_responses_alone() {
        let fields = "Content-Length : 3\r\n\r\n";
        let odd = response(format!("HTTP/1.1 200 OK\r\n{fields}").as_bytes());
        assert_eq!(odd.response(&[]).unwrap().fields.content_length, Some(Ok(3)));
        let odd = request(format!("POST / HTTP/1.1\r\n{fields}").as_bytes());
        assert_eq!(odd.request(&[]).unwrap().fields.content_length, None);
    }

    #[test]
    fn any_beginning_waits_for_more_and_a_broken_off_one_says_what_is_there() {
        let head = b"GET  /a HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n";
        for end in 1..head.len() {
            assert!(matches!(read(Side::Request, &head[..end], false), Found::Partial), "{end}");
        }
        let Found::Head(odd) = read(Side::Request, &head[..30], true) else { panic!("nothing") };
        let head = odd.request(&[]).unwrap();
        assert_eq!((head.target, head.fields.host, head.len), ("/a", Some("h"), 30));
        let code = |bytes| match read(Side::Response, bytes, true) {
            Found::Head(odd) => odd.response(&[]).map(|head| head.code),
            _ => None,
        };
        assert_eq!(code(b"HTTP/1.1 503 Serv"), Some(503));
        assert_eq!(code(b"HTTP/1.1 50"), None);
        let Found::Head(odd) = read(Side::Request, b"GET /a?b HTTP/1.1", true) else { panic!("nothing") };
        assert_eq!(odd.request(&[]).unwrap().target, "/a?b");
        assert!(matches!(read(Side::Request, b"GET  /a?b", true), Found::Nothing));
        assert!(matches!(read(Side::Request, b"\x16\x03\x01", false), Found::Nothing));
        let long = format!("GET /a?{}", "b".repeat(LONG_TARGET));
        let Found::Head(odd) = read(Side::Request, long.as_bytes(), true) else { panic!("nothing") };
        assert_eq!(odd.request(&[]).unwrap().target, &long[4..]);
        assert!(matches!(read(Side::Request, long.as_bytes(), false), Found::Partial));
        let words = format!("GET {}", "b".repeat(LONG_TARGET));
        assert!(matches!(read(Side::Request, words.as_bytes(), true), Found::Nothing));
        assert!(matches!(read(Side::Response, b"HTTP/2", false), Found::Nothing));
    }
}
