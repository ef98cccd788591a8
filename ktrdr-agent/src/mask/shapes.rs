//! Secrets known by their own shape.

use std::sync::LazyLock;

use regex::Regex;

use super::Found;

/// What issuers document, each with the least length they give. Groups: `word` has to look random besides, so that
/// `Basic authentication` and `sk-learn-extras-package` stay.
const SHAPES: &str = r"(?x-u)
    # JSON Web Token (RFC 7519): its header is JSON in base64url, which begins `eyJ`.
    \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?
    # AWS access key ids.
  | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
    # GitHub, GitLab, Slack, Google, npm, Hugging Face, Stripe.
  | \bgh[pousr]_[A-Za-z0-9]{36,}
  | \bgithub_pat_[A-Za-z0-9_]{22,}
  | \bglpat-[A-Za-z0-9_-]{20,}
  | \bxox[abeposr]-[A-Za-z0-9-]{10,}
  | \bAIza[0-9A-Za-z_-]{35}
  | \bnpm_[A-Za-z0-9]{36}
  | \bhf_[A-Za-z0-9]{30,}
  | \b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}
    # PEM (RFC 7468): to its end mark, or as far as the text goes.
  | -----BEGIN\ [A-Z0-9\ ]*PRIVATE\ KEY-----(?su:.*?)(?:-----END\ [A-Z0-9\ ]*PRIVATE\ KEY-----|\z)
    # OpenAI, Anthropic and those who took over their form; PyPI.
  | \b(?P<word>(?:sk|pypi)-[A-Za-z0-9_-]{16,})
    # RFC 6750 and RFC 7617, wherever they stand.
  | \b(?i:bearer|basic)[\ \t]+(?P<scheme>[A-Za-z0-9._~+/-]{8,}=*)
";

#[expect(clippy::expect_used, reason = "a constant that a test compiles")]
static REGEX: LazyLock<Regex> = LazyLock::new(|| Regex::new(SHAPES).expect("the built-in shapes compile"));

/// Finds them.
pub(super) fn find(text: &str, found: &mut Found) {
    // The shortest is `Bearer` with its 8 characters.
    if text.len() < 14 {
        return;
    }
    for c in REGEX.captures_iter(text) {
        let piece = match c.name("word").or(c.name("scheme")) {
            Some(m) if looks_random(m.as_str()) => Some(m),
            Some(_) => None,
            None => c.get(0),
        };
        found.extend(piece.map(|m| m.range()));
    }
}

/// No word of a language: it has a digit, or capitals among small letters.
pub(super) fn looks_random(word: &str) -> bool {
    let bytes = word.as_bytes();
    let inside = bytes.get(1..).unwrap_or_default();
    bytes.iter().any(u8::is_ascii_digit)
        || (inside.iter().any(u8::is_ascii_uppercase) && bytes.iter().any(u8::is_ascii_lowercase))
}
