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
    if text.len() < 14 || !possible(text.as_bytes()) {
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

/// Bytes of which each shape has one in its beginning. A table: most texts are too short for a search by blocks.
const MARKS: [bool; 256] = {
    let mut marks = [false; 256];
    let mut all: &[u8] = b"_- \tJI";
    while let [mark, rest @ ..] = all {
        marks[*mark as usize] = true;
        all = rest;
    }
    marks
};

/// Whether a text holds the beginning of a shape: much cheaper than the expression, which then decides. Every text on its
/// way out comes here, and hardly any holds one.
fn possible(text: &[u8]) -> bool {
    let mut marks = text.iter().enumerate().filter(|(_, b)| MARKS[usize::from(**b)]);
    marks.any(|(at, _)| match text.split_at(at) {
        (before, [b'_', ..]) => matches!(
            before,
            [.., b'g', b'h', b'p' | b'o' | b'u' | b's' | b'r']
                | [.., b'p', b'a', b't']
                | [.., b'n', b'p', b'm']
                | [.., b'h', b'f']
                | [.., b'r' | b's', b'k']
        ),
        (before, [b'-', ..]) => matches!(
            before,
            [.., b'x', b'o', b'x', _]
                | [.., b'p', b'a', b't']
                | [.., b'-', b'-', b'-', b'-']
                | [.., b's', b'k']
                | [.., b'p', b'y', b'p', b'i']
        ),
        (before, [b'J', ..]) => matches!(before, [.., b'e', b'y']),
        (before, [b'I', ..]) => matches!(before, [.., b'A', b'K' | b'S'] | [.., b'A']),
        // `Bearer` and `Basic`.
        (before, _) => matches!(before, [.., b'r' | b'R' | b'c' | b'C']),
    })
}

/// No word of a language: it has a digit, or capitals among small letters.
pub(super) fn looks_random(word: &str) -> bool {
    let bytes = word.as_bytes();
    let inside = bytes.get(1..).unwrap_or_default();
    bytes.iter().any(u8::is_ascii_digit)
        || (inside.iter().any(u8::is_ascii_uppercase) && bytes.iter().any(u8::is_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_beginning_of_a_shape_has_none() {
        let random = "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0Uv1Wx2Yz3";
        for beginning in [
            "eyJhbGciOiJI.",
            "AKIA",
            "ASIA",
            "ghp_",
            "gho_",
            "ghu_",
            "ghs_",
            "ghr_",
            "github_pat_",
            "glpat-",
            "xoxb-",
            "xoxp-",
            "AIza",
            "npm_",
            "hf_",
            "rk_live_",
            "sk_test_",
            "-----BEGIN PRIVATE KEY-----",
            "sk-",
            "pypi-",
            "Bearer ",
            "BASIC\t",
            "bEaReR  ",
        ] {
            let tail = if beginning.ends_with("IA") { "ABCDEFGHIJKLMNOP" } else { random };
            let text = format!("x {beginning}{tail}");
            let text = if beginning.ends_with("IA") { text } else { text + " y" };
            let mut found = Found::new();
            find(&text, &mut found);
            let expected = REGEX.is_match(&text);
            assert!(!expected || possible(text.as_bytes()), "{text}");
            assert_eq!(!found.is_empty(), expected, "{text}");
        }
    }

    proptest::proptest! {
        /// Made of the pieces that shapes are made of, so that many match.
        #[test]
        fn nothing_that_the_expression_finds_is_passed_over(
            pieces in proptest::collection::vec(
                "eyJ|[.]|AKIA|ASIA|gh[pousrx]_|github_pat_|glpat-|xox[abz]-|AIza|npm_|hf_|[rs]k_(live|test)_|-----BEGIN |\
                 RSA |PRIVATE KEY-----|sk-|pypi-|(?i:bearer|basic)[ \t]{1,2}|[A-Z0-9]{16}|[A-Za-z0-9]{36}| |-|_|\u{17f}",
                1..6,
            )
        ) {
            let text = pieces.concat();
            proptest::prop_assert!(!REGEX.is_match(&text) || possible(text.as_bytes()), "{}", text);
        }
    }
}
