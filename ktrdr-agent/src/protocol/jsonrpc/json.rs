//! A shallow look into JSON text of which only a prefix may be at hand: values as they stand, whole or cut. Nothing
//! recurses and nothing is copied before it is asked for, so depth and size of hostile texts cost nothing but a pass.
//! Not a validator: what is not JSON yields nothing, or little, and never an error.

use memchr::memchr2;

/// A value as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// Its bytes, without white space around it.
    pub bytes: &'a [u8],
    /// It ends within the bytes at hand.
    pub whole: bool,
}

/// The first value of a text.
pub fn first(text: &[u8]) -> Option<Raw<'_>> {
    let at = blank(text, 0);
    let start = *text.get(at)?;
    let mut raw = value(text, at)?;
    // A scalar may end where the text does.
    raw.whole |= !matches!(start, b'{' | b'[' | b'"') && at + raw.bytes.len() == text.len();
    Some(raw)
}

impl<'a> Raw<'a> {
    /// The members of an object, in order, as far as they go; nothing for anything else.
    pub fn members(self) -> Members<'a> {
        Members { text: self.bytes, at: if self.bytes.first() == Some(&b'{') { 1 } else { usize::MAX } }
    }

    /// The items of an array, as far as they go; nothing for anything else.
    pub fn items(self) -> Items<'a> {
        Items { text: self.bytes, at: if self.bytes.first() == Some(&b'[') { 1 } else { usize::MAX } }
    }

    /// The member of this name; of several the last, as JSON readers have it.
    pub fn member(self, name: &str) -> Option<Raw<'a>> {
        self.members().filter(|(key, _)| key.is_text(name)).last().map(|(_, value)| value)
    }

    /// The value at a path of names.
    pub fn at(self, path: &[&str]) -> Option<Raw<'a>> {
        path.iter().try_fold(self, |value, name| value.member(name))
    }

    /// A string's text, at most `max` bytes of it; `None` if it is no string.
    pub fn text(self, max: usize) -> Option<String> {
        let inside = self.bytes.strip_prefix(b"\"")?;
        let inside = if self.whole { inside.strip_suffix(b"\"")? } else { inside };
        // An escape takes at most six bytes for at least one of text.
        let cut = inside.len() > max.saturating_mul(6);
        let inside = &inside[..inside.len().min(max.saturating_mul(6))];
        let mut text = unescape(&String::from_utf8_lossy(inside), cut || !self.whole)?;
        truncate(&mut text, max);
        Some(text)
    }

    /// An integer's value.
    pub fn int(self) -> Option<i64> {
        if !self.whole {
            return None;
        }
        std::str::from_utf8(self.bytes).ok()?.parse().ok()
    }

    /// Whether it is this word: a number as written, `true`, `false` or `null`.
    pub fn is(self, word: &str) -> bool {
        self.whole && self.bytes == word.as_bytes()
    }

    /// Whether it is a string.
    pub fn is_string(self) -> bool {
        self.bytes.first() == Some(&b'"')
    }

    /// Whether it is a number.
    pub fn is_number(self) -> bool {
        self.bytes.first().is_some_and(|b| b.is_ascii_digit() || *b == b'-')
    }

    /// Whether it is this string.
    pub fn is_text(self, text: &str) -> bool {
        let plain = self.whole && self.bytes.len() == text.len() + 2 && self.is_string();
        // Names and words of protocols are written without escapes by everybody.
        plain && &self.bytes[1..=text.len()] == text.as_bytes()
    }
}

/// Cuts a text to at most `max` bytes, at a character's boundary.
pub fn truncate(text: &mut String, max: usize) {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// Reads what stands between the quotes; of a `cut` text the end may be half an escape.
fn unescape(inside: &str, cut: bool) -> Option<String> {
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Some(inside.to_owned());
    }
    // Two halves of a surrogate pair: 12 bytes, of which 11 may be there.
    for less in 0..=if cut { 11 } else { 0 } {
        let Some(part) = inside.get(..inside.len().checked_sub(less)?) else { continue };
        if let Ok(text) = serde_json::from_str(&format!("\"{}\"", part.replace('\n', "\\n"))) {
            return Some(text);
        }
    }
    // Control characters or lone halves of pairs: as it stands.
    Some(inside.to_owned())
}

/// See [`Raw::members`].
pub struct Members<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Raw<'a>, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = blank(self.text, self.at);
        if self.text.get(at) != Some(&b'"') {
            return None;
        }
        let key = value(self.text, at)?;
        let at = blank(self.text, at + key.bytes.len());
        if self.text.get(at) != Some(&b':') {
            return None;
        }
        let at = blank(self.text, at + 1);
        let found = value(self.text, at)?;
        self.at = next(self.text, at + found.bytes.len());
        Some((key, found))
    }
}

/// See [`Raw::items`].
pub struct Items<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = blank(self.text, self.at);
        let found = value(self.text, at)?;
        self.at = next(self.text, at + found.bytes.len());
        Some(found)
    }
}

/// Where the value behind the comma begins; past the text if there is none.
fn next(text: &[u8], at: usize) -> usize {
    let at = blank(text, at);
    if text.get(at) == Some(&b',') { at + 1 } else { usize::MAX }
}

/// Passes over white space.
fn blank(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at.saturating_add(rest.iter().take_while(|b| b.is_ascii_whitespace()).count())
}

/// The value at `at`.
fn value(text: &[u8], at: usize) -> Option<Raw<'_>> {
    let rest = text.get(at..)?;
    let end = match rest.first()? {
        b'"' => string(rest),
        b'{' | b'[' => container(rest),
        b'}' | b']' | b',' | b':' => return None,
        _ => rest.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b',' | b'}' | b']')),
    };
    Some(Raw { bytes: &rest[..end.unwrap_or(rest.len())], whole: end.is_some() })
}

/// Length of the string that `text` begins with.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        let n = memchr2(b'"', b'\\', text.get(at..)?)?;
        at += n;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Length of the object or array that `text` begins with. Which bracket closes which is left to readers.
fn container(text: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => {
                at += string(&text[at..])?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<(String, String, bool)> {
        let show = |raw: Raw<'_>| String::from_utf8_lossy(raw.bytes).into_owned();
        let object = first(text.as_bytes()).unwrap();
        object.members().map(|(key, value)| (show(key), show(value), value.whole)).collect()
    }

    #[test]
    fn members_stand_as_they_are_written() {
        let got = shown(r#" { "a" : 1 , "b":{"c":[1,{"]":"}"}]}, "d":"x\"y" ,"e":null} "#);
        let want =
            [("\"a\"", "1"), ("\"b\"", r#"{"c":[1,{"]":"}"}]}"#), ("\"d\"", r#""x\"y""#), ("\"e\"", "null")];
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned(), true)));
    }

    #[test]
    fn a_cut_text_gives_what_is_there_and_says_so() {
        let whole = r#"{"method":"tools/call","params":{"name":"add","x":[1,2]},"id":12}"#;
        let full = shown(whole);
        for end in 1..whole.len() {
            let part = shown(&whole[..end]);
            for ((key, value, is_whole), (full_key, full_value, _)) in part.iter().zip(&full) {
                assert_eq!(key, full_key);
                assert!(full_value.starts_with(value.as_str()));
                assert!(!is_whole || value == full_value, "cut at {end}: {value} was taken for whole");
            }
        }
    }

    #[test]
    fn texts_are_unescaped_and_bounded() {
        let text = |t: &[u8], max| first(t).and_then(|r| r.text(max));
        assert_eq!(text(r#""a\u00e4\ud83d\ude00\n""#.as_bytes(), 99).as_deref(), Some("aä😀\n"));
        assert_eq!(text(r#""cut \ud83d\ud"#.as_bytes(), 99).as_deref(), Some("cut "));
        assert_eq!(text("\"äöü\"".as_bytes(), 3).as_deref(), Some("ä"));
        assert_eq!(text(b"\"\xff\xfe\"", 9).as_deref(), Some("\u{fffd}\u{fffd}"));
        assert_eq!(text(b"12", 9), None);
        let long = format!("\"{}\"", "\\u0041".repeat(100_000));
        assert_eq!(text(long.as_bytes(), 100).as_deref(), Some("A".repeat(100).as_str()));
    }

    #[test]
    fn hostile_texts_cost_one_pass() {
        let deep = "[".repeat(1_000_000);
        assert_eq!(first(deep.as_bytes()).map(|r| r.whole), Some(false));
        let closed = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        assert_eq!(first(closed.as_bytes()).and_then(|r| r.member("a")).map(|r| r.whole), Some(true));
        assert_eq!(first(b"}").map(|r| r.whole), None);
        assert_eq!(first(b"  "), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            if let Some(raw) = first(&bytes) {
                for (key, value) in raw.members() {
                    key.text(10);
                    value.text(10);
                    value.int();
                }
                raw.items().count();
            }
        }

        #[test]
        fn agrees_with_a_real_parser(key in "[a-z\\\\\"\u{e9}\u{1f600}\\n ]{1,20}", n in -1000i64..1000) {
            let json = serde_json::json!({"k": key, "n": n, "l": [key, {"n": [n]}]});
            let text = serde_json::to_string(&json).unwrap();
            let raw = first(text.as_bytes()).unwrap();
            let got = raw.member("k").unwrap().text(1000);
            proptest::prop_assert_eq!(got.as_deref(), Some(key.as_str()));
            proptest::prop_assert_eq!(raw.member("n").unwrap().int(), Some(n));
            let list: Vec<_> = raw.member("l").unwrap().items().collect();
            proptest::prop_assert_eq!(list.len(), 2);
            let got = list[0].text(1000);
            proptest::prop_assert_eq!(got.as_deref(), Some(key.as_str()));
            let inner = list[1].member("n").unwrap().items().next().unwrap().int();
            proptest::prop_assert_eq!(inner, Some(n));
        }
    }
}
