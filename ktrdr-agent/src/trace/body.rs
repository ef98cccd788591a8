//! A streaming look into JSON bodies of which only a prefix may be at hand: reports scalars with their JSON pointers
//! as far as the bytes go. Not a validator: what is not JSON yields nothing, or little, and never an error.

use std::fmt::Write as _;

/// Nesting that is followed; KTRDR's bodies are 4 deep. What lies deeper is passed over.
const MAX_DEPTH: usize = 16;
/// Longest pointer and longest text that are reported; longer ones are cut.
const MAX_TEXT: usize = 512;
/// Scalars reported per body, against bodies made of nothing else.
const MAX_SCALARS: usize = 512;

/// A scalar value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// Text, unescaped. Cut at the end of the bytes: not reported.
    Text(&'a str),
    /// Number.
    Number(f64),
    /// Truth value.
    Bool(bool),
    /// `null`.
    Null,
}

/// Calls `visit` with the pointer (RFC 6901, without escapes) and value of each scalar; stops when it returns false.
pub fn scan(bytes: &[u8], visit: &mut dyn FnMut(&str, Scalar<'_>) -> bool) {
    let mut s = Scan { bytes, at: 0, path: String::new(), text: String::new(), left: MAX_SCALARS, visit };
    s.value(0);
}

struct Scan<'a, 'v> {
    bytes: &'a [u8],
    at: usize,
    path: String,
    text: String,
    left: usize,
    visit: &'v mut dyn FnMut(&str, Scalar<'_>) -> bool,
}

impl Scan<'_, '_> {
    /// Reads a value; `None` = stop.
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.container(depth, b'}', true),
            b'[' => self.container(depth, b']', false),
            b'"' => {
                self.string()?;
                let text = std::mem::take(&mut self.text);
                let go_on = self.report(Scalar::Text(&text));
                self.text = text;
                go_on
            }
            _ => self.word(),
        }
    }

    fn container(&mut self, depth: usize, close: u8, keyed: bool) -> Option<()> {
        self.at += 1;
        if depth >= MAX_DEPTH {
            return self.pass_over();
        }
        let outer = self.path.len();
        let mut index = 0usize;
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            self.path.push('/');
            if keyed {
                if self.peek()? != b'"' {
                    return None;
                }
                self.string()?;
                let room = MAX_TEXT.saturating_sub(self.path.len());
                let key = cut(&self.text, room);
                self.path.push_str(key);
                if self.peek()? != b':' {
                    return None;
                }
                self.at += 1;
            } else {
                // Writing to a string cannot fail.
                let _ = write!(self.path, "{index}");
                index += 1;
            }
            self.value(depth + 1)?;
            self.path.truncate(outer);
            match self.peek()? {
                b',' => self.at += 1,
                c if c == close => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Passes over a container that lies too deep, without recursion.
    fn pass_over(&mut self) -> Option<()> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.peek()? {
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b'"' => self.string()?,
                _ => self.at += 1,
            }
        }
        Some(())
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b) = self.bytes.get(self.at) {
            if !b.is_ascii_whitespace() {
                return Some(*b);
            }
            self.at += 1;
        }
        None
    }

    /// Reads a string into `text`; `None` if it does not end within the bytes.
    fn string(&mut self) -> Option<()> {
        self.at += 1;
        self.text.clear();
        let rest = self.bytes.get(self.at..)?;
        let n = memchr::memchr2(b'"', b'\\', rest)?;
        // Nearly all of them: short and without escapes.
        if rest[n] == b'"'
            && n <= MAX_TEXT
            && let Ok(text) = std::str::from_utf8(&rest[..n])
        {
            self.text.push_str(text);
            self.at += n + 1;
            return Some(());
        }
        self.escaped()
    }

    /// The rest of [`string`](Self::string), for texts with escapes and for what is too long or no text.
    fn escaped(&mut self) -> Option<()> {
        let mut raw = Vec::new();
        loop {
            let rest = self.bytes.get(self.at..)?;
            let n = memchr::memchr2(b'"', b'\\', rest)?;
            let room = MAX_TEXT.saturating_sub(raw.len());
            raw.extend_from_slice(&rest[..n.min(room)]);
            self.at += n + 1;
            if rest[n] == b'"' {
                break;
            }
            let escape = *self.bytes.get(self.at)?;
            self.at += 1;
            let c = match escape {
                b'n' => '\n',
                b't' => '\t',
                b'r' => '\r',
                b'b' | b'f' => ' ',
                b'u' => self.unicode()?,
                other => char::from(other),
            };
            if raw.len() < MAX_TEXT {
                raw.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        match String::from_utf8(raw) {
            Ok(text) => self.text = text,
            Err(e) => self.text.push_str(&String::from_utf8_lossy(e.as_bytes())),
        }
        Some(())
    }

    /// The four digits of `\uXXXX`, and of the low half that follows a high one (RFC 8259 §7).
    fn unicode(&mut self) -> Option<char> {
        let high = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) {
            return Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if self.bytes.get(self.at..self.at + 2)? != b"\\u" {
            return Some(char::REPLACEMENT_CHARACTER);
        }
        self.at += 2;
        let low = self.hex4()?;
        let code = 0x10000 + ((high - 0xd800) << 10) + low.wrapping_sub(0xdc00) % 0x400;
        Some(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = std::str::from_utf8(self.bytes.get(self.at..self.at + 4)?).ok()?;
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    /// A number, `true`, `false` or `null`; one that the end of the bytes may have cut is not reported.
    fn word(&mut self) -> Option<()> {
        let rest = self.bytes.get(self.at..)?;
        let n = rest.iter().position(|b| !b.is_ascii_alphanumeric() && !b"+-.".contains(b))?;
        let word = std::str::from_utf8(&rest[..n]).ok()?;
        self.at += n;
        let value = match word {
            "true" => Scalar::Bool(true),
            "false" => Scalar::Bool(false),
            "null" => Scalar::Null,
            _ => Scalar::Number(word.parse().ok()?),
        };
        self.report(value)
    }

    fn report(&mut self, value: Scalar<'_>) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        (self.visit)(&self.path, value).then_some(())
    }
}

/// The longest prefix of `text` with at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        let mut out = Vec::new();
        scan(bytes, &mut |path, value| {
            out.push(format!("{path}={value:?}"));
            true
        });
        out
    }

    #[test]
    fn scalars_have_pointers() {
        assert_eq!(
            all(br#"{"a": 1, "b": {"c": [true, null, "x"]}, "d": "y"}"#),
            ["/a=Number(1.0)", "/b/c/0=Bool(true)", "/b/c/1=Null", "/b/c/2=Text(\"x\")", "/d=Text(\"y\")"]
        );
    }

    #[test]
    fn a_cut_body_reports_what_is_whole() {
        let whole = br#"{"success":false,"error":"Ged\u00e4chtnis \"voll\"","n":12}"#;
        let full = all(whole);
        assert_eq!(full[1], "/error=Text(\"Gedächtnis \\\"voll\\\"\")");
        for end in 0..whole.len() {
            let part = all(&whole[..end]);
            assert_eq!(part, full[..part.len()], "cut at {end}");
        }
    }

    #[test]
    fn hostile_bodies_cost_little() {
        assert_eq!(all(&[b'['; 100_000]), Vec::<String>::new());
        let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
        assert_eq!(all(deep.as_bytes()), Vec::<String>::new());
        let wide = format!("[{}1]", "1,".repeat(10_000));
        assert_eq!(all(wide.as_bytes()).len(), MAX_SCALARS);
        for text in
            ["{\"a\" 1}", "{a:1}", "\"\\u12", "{\"\\ud83d\\ude00\":1}", "[1,]", "nul", "\u{feff}{}", ""]
        {
            all(text.as_bytes());
        }
        all(b"{\"a\":\"\xff\xfe\"}");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            all(&bytes);
        }

        #[test]
        fn agrees_with_a_real_parser(value in "[a-z\\\\\"\u{e9}\u{1f600}\\n ]{0,20}", n in -1000i32..1000) {
            let json = serde_json::json!({"k": value, "n": n, "l": [value]});
            let got = all(serde_json::to_string(&json).unwrap().as_bytes());
            proptest::prop_assert_eq!(got, vec![
                format!("/k={:?}", Scalar::Text(&value)),
                format!("/n={:?}", Scalar::Number(f64::from(n))),
                format!("/l/0={:?}", Scalar::Text(&value)),
            ]);
        }
    }
}
