//! From bytes to a line of text: no colours, no control characters, valid UTF-8.

use std::borrow::Cow;

/// Part of a line that may be undecodable or unprintable before it is no text: a UTF-8 name cut here and there is one,
/// a binary protocol is not.
const MOST_UNPRINTABLE: f64 = 0.2;

/// A line as text; `None` if it is none.
pub fn line(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    // Nearly all lines are nothing but this.
    if is_plain(bytes)
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return Some(Cow::Borrowed(text.trim_end()));
    }
    other(bytes).map(Cow::Owned)
}

/// Whether all of it is printable ASCII and tabs. Asked block by block without a branch in between, which makes vectors
/// of it.
fn is_plain(bytes: &[u8]) -> bool {
    let odd = |any: u8, b: &u8| any | u8::from(b.wrapping_sub(b' ') > b'~' - b' ' && *b != b'\t');
    let (blocks, rest) = bytes.as_chunks::<16>();
    blocks.iter().all(|block| block.iter().fold(0, odd) == 0) && rest.iter().fold(0, odd) == 0
}

/// A line with colours, other languages' characters, or what is no text.
fn other(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let plain = without_escapes(&text);
    let odd = |c: &char| *c == char::REPLACEMENT_CHARACTER || (c.is_control() && *c != '\t');
    let unprintable = plain.chars().filter(odd).count();
    if unprintable == 0 {
        return Some(plain.trim_end().to_owned());
    }
    if plain.contains('\0') || unprintable as f64 > plain.chars().count() as f64 * MOST_UNPRINTABLE {
        return None;
    }
    // What is left of carriage returns is a progress bar's: its last state is the line.
    let last = plain.trim_end().rsplit('\r').next().unwrap_or_default();
    Some(last.chars().filter(|c| !c.is_control() || *c == '\t').collect::<String>().trim_end().to_owned())
}

/// The text without escape sequences (ECMA-48: CSI `ESC [ … final`, OSC `ESC ] … BEL | ESC \`, two-character ones).
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(0x1b, rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = after_escape(&rest[at + 1..]);
    }
    out.push_str(rest);
    out
}

/// What follows a sequence whose escape character has been read.
fn after_escape(rest: &str) -> &str {
    let from = |at: usize| rest.get(at..).unwrap_or_default();
    match rest.as_bytes().first() {
        Some(b'[') => {
            let end = rest.bytes().skip(1).position(|b| !(0x20..=0x3f).contains(&b));
            // Not ended: all of it was parameters. An end that is no final byte belongs to the text.
            let Some(end) = end.map(|n| n + 1) else { return "" };
            if (0x40..=0x7e).contains(&rest.as_bytes()[end]) { from(end + 1) } else { from(end) }
        }
        Some(b']') => match rest.find(['\u{7}', '\u{1b}']) {
            Some(end) if rest.as_bytes()[end] == 7 => from(end + 1),
            Some(end) => from(end).strip_prefix("\u{1b}\\").unwrap_or_else(|| from(end + 1)),
            None => "",
        },
        Some(0x20..=0x7e) => from(1),
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_titles_are_removed() {
        assert_eq!(line(b"\x1b[91mERROR \x1b[0m | a\tb\r").unwrap(), "ERROR  | a\tb");
        assert_eq!(line(b"\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y\x1b(z").unwrap(), "xyz");
        assert_eq!(line("\x1b[31\u{e9}".as_bytes()).unwrap(), "\u{e9}");
        assert_eq!(line(b"10 %\r50 %\r100 %").unwrap(), "100 %");
    }

    #[test]
    fn binary_is_no_text_and_a_cut_character_is_no_harm() {
        assert_eq!(line(b"\x00\x01\x02"), None);
        assert_eq!(line(&[0xff; 20]), None);
        assert_eq!(line(b"a long enough line \xc3").unwrap(), "a long enough line \u{fffd}");
        assert_eq!(line(b"").unwrap(), "");
    }

    proptest::proptest! {
        #[test]
        fn plain_is_what_is_printable(bytes in proptest::collection::vec(proptest::prop_oneof![9 => b' '..=b'~', 1 => proptest::num::u8::ANY], 0..70)) {
            let each = bytes.iter().all(|b| matches!(b, b' '..=b'~' | b'\t'));
            proptest::prop_assert_eq!(is_plain(&bytes), each);
        }

        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>) {
            if let Some(text) = line(&bytes) {
                proptest::prop_assert!(!text.contains('\x1b') && !text.contains('\n') || bytes.contains(&b'\n'));
            }
        }

        #[test]
        fn plain_text_stays(text in "[a-zA-Z0-9 :|{}\u{e9}]{0,60}[a-z]") {
            let kept = line(text.as_bytes());
            proptest::prop_assert_eq!(kept.as_deref(), Some(&*text));
        }
    }
}
