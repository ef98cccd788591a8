//! Where a message's body ends: RFC 9112 §6 (framing) and §7.1 (chunks).

use memchr::memchr;

use super::head::Fields;

/// Largest body or chunk that is believed: OTLP integers are signed 64-bit, and no real body comes near.
const MAX_LENGTH: u64 = i64::MAX as u64;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, then trailers.
    Chunked,
    /// All bytes until the sender closes.
    UntilClose,
    /// The head contradicts itself: receivers refuse the message and close (RFC 9112 §6.3 item 5).
    Invalid,
}

/// What a response's framing needs to know about its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Neither of the others.
    Plain,
    /// `HEAD`: a head that speaks of a body which does not come.
    Head,
    /// `CONNECT`: success turns the connection into a tunnel.
    Connect,
}

/// Framing of a request (RFC 9112 §6.3 items 3 to 7).
pub(super) fn of_request(fields: &Fields<'_>) -> Framing {
    declared(fields).unwrap_or(Framing::None)
}

/// Framing of a final response that is no tunnel (RFC 9112 §6.3 items 1 and 3 to 8).
pub(super) fn of_response(code: u16, asked: Asked, fields: &Fields<'_>) -> Framing {
    if asked == Asked::Head || matches!(code, 100..200 | 204 | 304) {
        return Framing::None;
    }
    declared(fields).unwrap_or(Framing::UntilClose)
}

/// `Transfer-Encoding` overrides `Content-Length` (item 3). A coding that does not end in `chunked` leaves only the
/// close (item 4); a server would answer such a request with 400 and close as well.
fn declared(fields: &Fields<'_>) -> Option<Framing> {
    match (fields.transfer_encoding, fields.content_length) {
        (Some(true), _) => Some(Framing::Chunked),
        (Some(false), _) => Some(Framing::UntilClose),
        (None, Some(Ok(0))) => Some(Framing::None),
        (None, Some(Ok(n))) => Some(Framing::Length(n)),
        (None, Some(Err(()))) => Some(Framing::Invalid),
        (None, None) => None,
    }
}

/// Folds one more `Content-Length` line into what the earlier ones said. Equal values, also in a comma-separated
/// list, count as one (RFC 9110 §8.6); anything else is invalid.
pub(super) fn content_length(seen: Option<Result<u64, ()>>, value: &[u8]) -> Option<Result<u64, ()>> {
    let mut folded = seen;
    for part in value.split(|&b| b == b',') {
        let number = decimal(part.trim_ascii());
        folded = Some(match (folded, number) {
            (None, Some(n)) => Ok(n),
            (Some(Ok(before)), Some(n)) if before == n => Ok(n),
            _ => Err(()),
        });
    }
    folded
}

/// Folds one more `Transfer-Encoding` line into what the earlier ones said: the last coding decides. Empty elements of the
/// list are none (RFC 9110 §5.6.1), and neither is `identity`, of the first HTTP/1.1 (RFC 2616 §3.6): curl and Python's
/// `http.client` go by the length that comes with it.
pub(super) fn transfer_encoding(seen: Option<bool>, value: &[u8]) -> Option<bool> {
    let mut codings = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    let last = codings.rfind(|c| !c.is_empty() && !c.eq_ignore_ascii_case(b"identity"));
    last.map(|coding| coding.eq_ignore_ascii_case(b"chunked")).or(seen)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits
        .iter()
        .try_fold(0u64, |n, &b| {
            let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
            n.checked_mul(10)?.checked_add(digit)
        })
        .filter(|&n| n <= MAX_LENGTH)
}

/// The first line of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkLine {
    /// Not all there.
    Partial,
    /// Not such a line.
    Invalid,
    /// `size` bytes of data follow its `len` bytes, and a line end after them.
    Size {
        /// Bytes of the line with its end.
        len: usize,
        /// Bytes of data; 0 = the last chunk: trailers follow.
        size: u64,
    },
}

/// Reads `chunk-size [ chunk-ext ] CRLF` (a lone LF is taken too).
pub(super) fn chunk_line(bytes: &[u8]) -> ChunkLine {
    let mut size = 0u64;
    let mut digits = 0;
    for &b in bytes {
        let Some(digit) = (b as char).to_digit(16) else { break };
        // Any number of zeros may lead, as far as a line is waited for.
        if size > MAX_LENGTH >> 4 {
            return ChunkLine::Invalid;
        }
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    match bytes.get(digits) {
        None => ChunkLine::Partial,
        Some(b'\r' | b'\n' | b';' | b' ' | b'\t') if digits > 0 => match memchr(b'\n', &bytes[digits..]) {
            Some(end) => ChunkLine::Size { len: digits + end + 1, size },
            None => ChunkLine::Partial,
        },
        Some(_) => ChunkLine::Invalid,
    }
}

/// Whether a line that reads as a chunk's, found out of step, is one; `None`: more bytes will tell. Data may end in hex
/// digits, and with the line end behind it that reads as a size, of gigabytes even: believed, it would swallow the
/// messages that follow.
pub(super) fn begins_chunk(bytes: &[u8]) -> Option<bool> {
    let ChunkLine::Size { len, size } = chunk_line(bytes) else { return Some(false) };
    let rest = &bytes[len..];
    let size = usize::try_from(size).ok().filter(|n| *n > 0);
    // Where the end of the data is in hand, it decides.
    if let Some(end) = size.and_then(|n| rest.get(n..n.saturating_add(2))) {
        return Some(end == b"\r\n");
    }
    // Behind the end of a chunk's data stands the next one's line, behind its line hardly ever another.
    match chunk_line(rest) {
        ChunkLine::Size { .. } => Some(false),
        ChunkLine::Partial => None,
        ChunkLine::Invalid => Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(transfer_encoding: Option<bool>, content_length: Option<Result<u64, ()>>) -> Fields<'static> {
        Fields { transfer_encoding, content_length, ..Fields::default() }
    }

    #[test]
    fn frames_by_the_rules_in_their_order() {
        let plain = Asked::Plain;
        assert_eq!(of_request(&fields(None, None)), Framing::None);
        assert_eq!(of_request(&fields(Some(true), Some(Ok(5)))), Framing::Chunked);
        assert_eq!(of_request(&fields(None, Some(Ok(5)))), Framing::Length(5));
        assert_eq!(of_request(&fields(None, Some(Err(())))), Framing::Invalid);
        assert_eq!(of_request(&fields(Some(true), Some(Err(())))), Framing::Chunked);
        assert_eq!(of_response(200, plain, &fields(None, None)), Framing::UntilClose);
        assert_eq!(of_response(200, plain, &fields(Some(false), Some(Ok(5)))), Framing::UntilClose);
        assert_eq!(of_response(200, Asked::Head, &fields(Some(true), None)), Framing::None);
        assert_eq!(of_response(204, plain, &fields(None, Some(Ok(5)))), Framing::None);
        assert_eq!(of_response(304, plain, &fields(None, Some(Ok(5)))), Framing::None);
        assert_eq!(of_response(200, plain, &fields(None, Some(Ok(0)))), Framing::None);
    }

    #[test]
    fn folds_content_lengths() {
        assert_eq!(content_length(None, b" 42 "), Some(Ok(42)));
        assert_eq!(content_length(None, b"42, 42"), Some(Ok(42)));
        assert_eq!(content_length(Some(Ok(42)), b"42"), Some(Ok(42)));
        for bad in [
            &b""[..],
            b"-1",
            b"+1",
            b"4 2",
            b"42,43",
            b"0x10",
            b"99999999999999999999",
            b"9223372036854775808",
        ] {
            assert_eq!(content_length(None, bad), Some(Err(())), "{}", bad.escape_ascii());
        }
        assert_eq!(content_length(Some(Ok(42)), b"43"), Some(Err(())));
        assert_eq!(content_length(Some(Err(())), b"43"), Some(Err(())), "once wrong, wrong");
    }

    #[test]
    fn the_last_coding_decides() {
        for (lines, said) in [
            (&["chunked"][..], Some(true)),
            (&["gzip, Chunked "], Some(true)),
            (&["gzip", "chunked"], Some(true)),
            (&["chunked", "gzip"], Some(false)),
            (&["chunked,", ""], Some(true)),
            (&["chunked", "identity"], Some(true)),
            (&["pigeons"], Some(false)),
            (&["xchunked"], Some(false)),
            (&[" ", ",,", "identity"], None),
        ] {
            let folded = lines.iter().fold(None, |seen, line| transfer_encoding(seen, line.as_bytes()));
            assert_eq!(folded, said, "{lines:?}");
        }
    }

    #[test]
    fn reads_chunk_lines() {
        let size = |len, size| ChunkLine::Size { len, size };
        assert_eq!(chunk_line(b"1a\r\nrest"), size(4, 26));
        assert_eq!(chunk_line(b"0\n"), size(2, 0));
        assert_eq!(chunk_line(b"A;name=\"v\"\r\n"), size(12, 10));
        assert_eq!(chunk_line(b"5 \r\n"), size(4, 5));
        assert_eq!(chunk_line(b"0000000000000000000001f\r\n"), size(25, 31));
        for partial in [&b""[..], b"1", b"1a\r", b"1a;ext"] {
            assert_eq!(chunk_line(partial), ChunkLine::Partial);
        }
        for bad in
            [&b"\r\n"[..], b"xyz", b"-1\r\n", b"1g\r\n", b"ffffffffffffffff\r\n", b"8000000000000000\r\n"]
        {
            assert_eq!(chunk_line(bad), ChunkLine::Invalid, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn the_end_of_data_is_not_taken_for_a_chunk_line() {
        for (bytes, is) in [
            (&b"3\r\nabc\r\n"[..], Some(true)),
            (b"3d090\r\nxyz", Some(true)),
            (b"0\r\n\r\n", Some(true)),
            (b"0\r\nDigest: x\r\n\r\n", Some(true)),
            (b"bbbbbbbb\r\n3d090\r\nxyz", Some(false)),
            (b"bbbbbbbb\r\n0\r\n\r\n", Some(false)),
            (b"0\r\n3d090\r\nxyz", Some(false)),
            (b"3\r\nabcdef", Some(false)),
            (b"bbbbbbbb\r\n", None),
            (b"bbbbbbbb\r\n3d0", None),
        ] {
            assert_eq!(begins_chunk(bytes), is, "{}", bytes.escape_ascii());
        }
    }
}
