//! Attributes of a series: borrowed where a measurement is made, owned where it is kept.

use compact_str::CompactString;

/// An attribute's value as a measurement gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label<'a> {
    /// Text; at most [`MAX_TEXT`] bytes of it, see `From`.
    Str(&'a str),
    /// Integer.
    Int(i64),
    /// Truth value.
    Bool(bool),
}

impl<'a> From<&'a str> for Label<'a> {
    fn from(s: &'a str) -> Self {
        Label::Str(cut(s))
    }
}
impl From<i64> for Label<'_> {
    fn from(n: i64) -> Self {
        Label::Int(n)
    }
}

/// A named attribute, as given.
pub type Given<'a> = (&'static str, Label<'a>);

/// The same as a series keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedLabel {
    /// Text.
    Str(CompactString),
    /// Integer.
    Int(i64),
    /// Truth value.
    Bool(bool),
}

/// Longest text of an attribute: identifiers are shorter, and a series must stay small.
const MAX_TEXT: usize = 256;

impl OwnedLabel {
    /// Takes a copy.
    pub fn of(label: Label<'_>) -> Self {
        match label {
            Label::Str(s) => OwnedLabel::Str(CompactString::new(s)),
            Label::Int(n) => OwnedLabel::Int(n),
            Label::Bool(b) => OwnedLabel::Bool(b),
        }
    }

    /// The value again.
    pub fn get(&self) -> Label<'_> {
        match self {
            OwnedLabel::Str(s) => Label::Str(s),
            OwnedLabel::Int(n) => Label::Int(*n),
            OwnedLabel::Bool(b) => Label::Bool(*b),
        }
    }
}

/// At most [`MAX_TEXT`] bytes of a text, whole characters.
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}
