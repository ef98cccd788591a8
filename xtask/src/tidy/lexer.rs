//! Enough of Rust's lexis to tell code from comments and literals.

/// Blanks comments and literals in `text`, keeping its lines; gives the string literals with the line
/// each begins on (escapes as written).
pub fn split(text: &str) -> (String, Vec<(usize, String)>) {
    let mut lexer = Lexer { rest: text, line: 1, code: String::with_capacity(text.len()), strings: vec![] };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    (lexer.code, lexer.strings)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    code: String,
    strings: Vec<(usize, String)>,
}

impl Lexer<'_> {
    fn step(&mut self) {
        if self.rest.starts_with("//") {
            self.blank(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.blank(block_comment(self.rest));
        } else if let Some((open, end, close)) = self.string() {
            self.strings.push((self.line, self.rest[open..end - close].to_owned()));
            self.blank(end);
        } else if let Some(end) = character(self.rest) {
            self.blank(end);
        } else {
            self.keep();
        }
    }

    /// A string literal here: length of its opening, of all of it, and of its closing.
    fn string(&self) -> Option<(usize, usize, usize)> {
        // `r"…"` after a letter is the end of a name such as `bar"`, which Rust does not allow anyway.
        let prefix = self.rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r')).unwrap_or(0);
        let after_name = self.code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if prefix > 2 || (prefix > 0 && after_name) {
            return None;
        }
        let raw = self.rest[..prefix].contains('r');
        let body = &self.rest[prefix..];
        let hashes = if raw { body.find(|c| c != '#').unwrap_or(0) } else { 0 };
        if !body[hashes..].starts_with('"') {
            return None;
        }
        let open = prefix + hashes + 1;
        if raw {
            let closing = format!("\"{}", "#".repeat(hashes));
            let length =
                self.rest[open..].find(&closing).map_or(self.rest.len() - open, |at| at + closing.len());
            return Some((open, open + length, closing.len().min(length)));
        }
        let end = open + escaped_until(&self.rest[open..], '"');
        Some((open, end, usize::from(self.rest[..end].ends_with('"') && end > open)))
    }

    fn blank(&mut self, length: usize) {
        let (gone, rest) = self.rest.split_at(length);
        self.code.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }

    fn keep(&mut self) {
        let mut chars = self.rest.chars();
        if let Some(c) = chars.next() {
            self.line += usize::from(c == '\n');
            self.code.push(c);
        }
        self.rest = chars.as_str();
    }
}

/// Length of the block comment that `text` begins with; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length up to and with the first `close` that no backslash escapes.
fn escaped_until(text: &str, close: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == close => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Length of a character literal here; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let mut chars = body.chars();
    let first = chars.next()?;
    if first == '\\' {
        return Some(1 + escaped_until(body, '\''));
    }
    (chars.next()? == '\'').then(|| 1 + first.len_utf8() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        split(text).0
    }

    #[test]
    fn comments_and_literals_are_blank_and_lines_stay() {
        assert_eq!(code("a // unsafe\nb"), "a          \nb");
        assert_eq!(code("a /* x\n/* y */ z */ b").split_whitespace().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(code("f(\"unsafe\", 'x', b'\\'')").replace(' ', ""), "f(,,b)");
        assert_eq!(code("a\n\"x\ny\"\nb").lines().count(), 4);
    }

    #[test]
    fn lifetimes_are_code() {
        assert_eq!(code("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
    }

    #[test]
    fn strings_are_given_with_their_lines() {
        let strings = split("a\n\"one\" r#\"t\"wo\"# b\"three\\\"\"").1;
        let expected = [(2, "one"), (2, "t\"wo"), (2, "three\\\"")];
        assert_eq!(strings, expected.map(|(line, text)| (line, text.to_owned())));
    }

    #[test]
    fn an_unclosed_literal_ends_with_the_file() {
        assert_eq!(split("a \"b").1, [(1, "b".to_owned())]);
        assert_eq!(code("/* x").trim(), "");
    }
}
