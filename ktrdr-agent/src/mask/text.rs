//! Secrets in free text: behind their names, and in URLs.

use super::names::{self, Level, MAX_NAME};
use super::{Found, Mask, shapes};

/// Blanks that may stand between a name, its separator and the value.
const MAX_BLANKS: usize = 8;

/// `name=value`, `name: value`, `"name": "value"`, `name => value`.
pub(super) fn named(mask: &Mask, text: &str, found: &mut Found) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for at in memchr::memchr2_iter(b'=', b':', bytes) {
        if at < done {
            continue;
        }
        let name = name_before(bytes, at);
        // Hardly any name can be a secret's, and the value need not be looked for then.
        if name.is_empty() || !mask.may_know(name) {
            continue;
        }
        let Some((start, end)) = value_after(bytes, at, name) else { continue };
        let Some(value) = text.get(start..end) else { continue };
        if value.is_empty() || !mask.names(name, value, Level::Text) {
            continue;
        }
        // In prose the name is a bare word.
        let prose = bytes[at] == b':'
            && !matches!(bytes.get(at.wrapping_sub(1)), Some(b'"' | b'\''))
            && names::prosaic(&names::normal(name))
            && (value.len() < 8 || !shapes::looks_random(value));
        if !prose {
            found.push(start..end);
            done = end;
        }
    }
}

/// The name that ends before the separator at `at`.
fn name_before(bytes: &[u8], at: usize) -> &[u8] {
    let back = |mut end: usize, most: usize, of: fn(u8) -> bool| {
        let from = end.saturating_sub(most);
        while end > from && of(bytes[end - 1]) {
            end -= 1;
        }
        end
    };
    let end = back(at, MAX_BLANKS, |b| b == b' ' || b == b'\t');
    let end = back(end, 2, |b| matches!(b, b'"' | b'\'' | b'\\'));
    let start = back(end, MAX_NAME, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'%'));
    &bytes[start..end]
}

/// Where the value after the separator at `at` begins and ends.
fn value_after(bytes: &[u8], at: usize, name: &[u8]) -> Option<(usize, usize)> {
    let mut start = at + 1;
    // `:=`, `=>`, `==`, `::`.
    if matches!(bytes.get(start), Some(b'=' | b'>' | b':')) {
        start += 1;
    }
    let blanks =
        bytes.get(start..)?.iter().take(MAX_BLANKS).take_while(|b| **b == b' ' || **b == b'\t').count();
    start += blanks;
    let escaped = bytes.get(start) == Some(&b'\\') && matches!(bytes.get(start + 1), Some(b'"' | b'\''));
    if escaped {
        start += 1;
    }
    let rest = bytes.get(start..)?;
    match *rest.first()? {
        quote @ (b'"' | b'\'') => {
            let inside = start + 1;
            Some((inside, inside + quoted(bytes.get(inside..)?, quote, escaped)))
        }
        // A list of them.
        b'[' => Some((start, start + rest.iter().position(|b| *b == b']').map_or(rest.len(), |n| n + 1))),
        b'{' => None,
        _ if names::may_be_known(name) && names::to_line_end(&names::normal(name)) => {
            let ends = |b: &u8| matches!(b, b'\r' | b'\n' | b'"' | b'\'');
            Some((start, start + rest.iter().position(ends).unwrap_or(rest.len())))
        }
        _ => {
            let ends = |b: &u8| {
                b.is_ascii_whitespace()
                    || matches!(
                        b,
                        b',' | b';' | b'&' | b'"' | b'\'' | b'<' | b'>' | b')' | b']' | b'}' | b'|' | b'#'
                    )
            };
            Some((start, start + rest.iter().position(ends).unwrap_or(rest.len())))
        }
    }
}

/// Length of what stands before the closing quote; all of it where the text ends before.
fn quoted(bytes: &[u8], quote: u8, escaped: bool) -> usize {
    let mut at = 0;
    while let Some(n) = memchr::memchr2(quote, b'\\', bytes.get(at..).unwrap_or_default()) {
        at += n;
        if bytes[at] == quote || (escaped && bytes.get(at + 1) == Some(&quote)) {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

/// `scheme://user:password@host`: what stands before the `@`.
pub(super) fn user_information(text: &str, found: &mut Found) {
    let bytes = text.as_bytes();
    if memchr::memchr(b'@', bytes).is_none() {
        return;
    }
    for at in memchr::memmem::find_iter(bytes, b"://") {
        let start = at + 3;
        let rest = &bytes[start..];
        let ends =
            |b: &u8| b.is_ascii_whitespace() || matches!(b, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>');
        let authority = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
        if let Some(n) = memchr::memrchr(b'@', authority).filter(|n| *n > 0) {
            found.push(start..start + n);
        }
    }
}
