//! Secrets do not leave the agent: one set of rules for everything that is stored, printed or sent.
//!
//! A secret is known by the name in front of it ([`names`]: `password=…`, `"apiKey": "…"`, `Cookie: …`, `--token …`),
//! by its own shape ([`shapes`]: JWT, `AKIA…`, `ghp_…`, PEM keys, `Bearer …`), by its place (user information of a
//! URL), or by a rule of the configuration. What is found is replaced by [`REDACTED`]; masking what is
//! masked brings nothing back.
//! All of it is linear in the text: no rule looks back further than [`names::MAX_NAME`] bytes, and the regular
//! expressions are those of the `regex` crate, which does not backtrack.

mod args;
mod names;
mod shapes;
mod span;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::ops::Range;

use names::Level;
use regex::Regex;
use smallvec::SmallVec;

/// What stands in place of a secret (the word of the semantic conventions for `url.query`).
pub const REDACTED: &str = "REDACTED";

/// Most patterns of the configuration: each is one more pass over every text.
const MAX_PATTERNS: usize = 64;

/// Pieces of a text that are secret.
type Found = SmallVec<[Range<usize>; 4]>;

/// The rules in force: the built-in ones and those of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    /// Further names, normalised.
    keys: Vec<Vec<u8>>,
    /// Names that are harmless here although a built-in rule knows them, normalised.
    allowed: Vec<Vec<u8>>,
    patterns: Vec<Regex>,
}

impl PartialEq for Mask {
    fn eq(&self, other: &Self) -> bool {
        let text = |m: &Self| m.patterns.iter().map(|p| p.as_str().to_owned()).collect::<Vec<_>>();
        self.keys == other.keys && self.allowed == other.allowed && text(self) == text(other)
    }
}

impl Mask {
    /// Rules of the configuration beside the built-in ones: names whose values are secret, names whose values are
    /// not, and regular expressions (of which the first group is the secret, or without a group the whole match).
    /// The error is a sentence.
    pub fn new(keys: &[String], allowed: &[String], patterns: &[String]) -> Result<Self, String> {
        if patterns.len() > MAX_PATTERNS {
            return Err(format!("has {} entries, at most {MAX_PATTERNS} are allowed", patterns.len()));
        }
        let normal = |names: &[String]| -> Vec<Vec<u8>> {
            names.iter().map(|n| names::normal(n.as_bytes()).to_vec()).filter(|n| !n.is_empty()).collect()
        };
        let compile = |p: &String| {
            let regex = regex::RegexBuilder::new(p).size_limit(1 << 20).build();
            let regex = regex.map_err(|e| {
                let why = e.to_string();
                format!(
                    "`{p}` is not a regular expression: {}",
                    why.lines().last().unwrap_or_default().trim()
                )
            })?;
            if regex.is_match("") {
                Err(format!("`{p}` matches an empty text, so everywhere"))
            } else {
                Ok(regex)
            }
        };
        let patterns = patterns.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { keys: normal(keys), allowed: normal(allowed), patterns })
    }

    /// Free text with its secrets replaced: log lines, messages, bodies, URLs, header lines.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut found = Found::new();
        text::named(self, text, &mut found);
        text::user_information(text, &mut found);
        shapes::find(text, &mut found);
        for pattern in &self.patterns {
            for c in pattern.captures_iter(text) {
                found.extend(c.get(1).or(c.get(0)).map(|m| m.range()));
            }
        }
        replace(text, found)
    }

    /// [`Self::text`] in place.
    pub fn string(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.text(text) {
            *text = masked;
        }
    }

    /// The value that stands under `name` (a JSON key, a header, a log field): all of it if the name says so,
    /// otherwise what its text holds.
    pub fn value<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if self.is_secret(name, value) { Cow::Borrowed(REDACTED) } else { self.text(value) }
    }

    /// Whether what stands under this name (a JSON key, a header, a log field) is a secret.
    pub fn is_secret(&self, name: &str, value: &str) -> bool {
        self.names(name.as_bytes(), value, Level::Text)
    }

    /// A command line, argument by argument: also the argument after `--password`, and `user:password` after `-u`.
    pub fn args(&self, args: &[String]) -> Vec<String> {
        args::mask(self, args)
    }

    /// A query (`a=b&c=d`, as sent) with the values of secret parameters replaced. Borrowed if there are none.
    pub fn query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let mut found = Found::new();
        let mut at = 0;
        for pair in query.split('&') {
            if let Some((name, value)) = pair.split_once('=')
                && !value.is_empty()
                && self.names(name.as_bytes(), value, Level::Wide)
            {
                found.push(at + name.len() + 1..at + pair.len());
            }
            at += pair.len() + 1;
        }
        replace(query, found)
    }

    /// Whether a name can be a secret's at all: cheap, and hardly any is.
    fn may_know(&self, name: &[u8]) -> bool {
        !self.keys.is_empty() || names::may_be_known(name)
    }

    fn names(&self, name: &[u8], value: &str, level: Level) -> bool {
        if !self.may_know(name) {
            return false;
        }
        let name = names::normal(name);
        if self.allowed.iter().any(|a| a[..] == *name) {
            return false;
        }
        names::builtin(&name, value, level) || self.keys.iter().any(|k| k[..] == *name)
    }
}

/// A URL of the agent's own settings as it may be shown: without a password and without tokens.
pub fn url(url: &str) -> String {
    Mask::default().text(url).into_owned()
}

/// An authority without its user information (RFC 3986 §3.2.1; deprecated for its passwords).
pub fn authority(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Puts [`REDACTED`] in place of what was found, once for pieces that overlap.
fn replace(text: &str, mut found: Found) -> Cow<'_, str> {
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_unstable_by_key(|r| (r.start, r.end));
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let mut pieces = found.into_iter().peekable();
    while let Some(mut piece) = pieces.next() {
        while let Some(next) = pieces.next_if(|n| n.start < piece.end) {
            piece.end = piece.end.max(next.end);
        }
        out.push_str(text.get(at..piece.start).unwrap_or_default());
        out.push_str(REDACTED);
        at = piece.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}
