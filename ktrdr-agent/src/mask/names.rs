//! Names in front of secrets.

use smallvec::SmallVec;

/// Longest name that is looked at, in bytes.
pub(super) const MAX_NAME: usize = 64;

/// How much a name has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// In prose, logs and JSON, where `code`, `key` and `session` are everyday words.
    Text,
    /// In queries and options, where they are not.
    Wide,
}

/// A name that holds one of these is a secret's: tokens and keys under their many names (`access_token`,
/// `X-Amz-Security-Token`, `client_secret`, `passwd`, …).
const PARTS: &[&str] = &[
    "token",
    "secret",
    "passw",
    "passphrase",
    "pwd",
    "apikey",
    "accesskey",
    "privatekey",
    "signature",
    "credential",
    "cookie",
    "authorization",
    "jwt",
];
/// Likewise at [`Level::Wide`].
const WIDE_PARTS: &[&str] = &["session"];
/// Names that are a secret's only as a whole; they are parts of harmless words.
const WHOLE: &[&str] = &["authorization", "auth", "sig", "pass", "awsaccesskeyid", "xauthkey"];
/// Likewise at [`Level::Wide`]; `code` is OAuth's.
const WIDE_WHOLE: &[&str] = &["key", "code"];
/// Counts and limits of tokens, in requests to language models and their answers.
const COUNTS: &[&str] = &["tokens", "tokencount", "tokenlimit", "maxtoken", "tokenize", "tokentype"];

/// A name without case, percent-encoding and separators, which do not make another name of it: `API-Key`, `api_key`,
/// `api%5Fkey`.
pub(super) fn normal(name: &[u8]) -> SmallVec<[u8; MAX_NAME]> {
    let plain = percent_encoding::percent_decode(name).filter(u8::is_ascii_alphanumeric);
    plain.take(MAX_NAME).map(|b| b.to_ascii_lowercase()).collect()
}

/// Whether a built-in rule knows the (normalised) name, with this value.
pub(super) fn builtin(name: &[u8], value: &str, level: Level) -> bool {
    // Names are short: comparing windows beats setting up a substring search a dozen times.
    let holds = |part: &&str| name.windows(part.len()).any(|window| window == part.as_bytes());
    let whole = |whole: &&str| name == whole.as_bytes();
    let known = PARTS.iter().any(holds)
        || WHOLE.iter().any(whole)
        || (level == Level::Wide && (WIDE_PARTS.iter().any(holds) || WIDE_WHOLE.iter().any(whole)));
    known && !harmless(name, value, level)
}

/// Whether a built-in rule may know the name: every word above has one of these letters, and most names in front of a
/// colon (`http`, `127.0.0.1`) have none.
pub(super) fn may_be_known(name: &[u8]) -> bool {
    name.iter().any(|b| matches!(b.to_ascii_lowercase(), b'c' | b'k' | b's' | b'u' | b'w' | b'%'))
}

/// Values that are plainly no secret, whatever their name: `max_tokens=4096`, `PWD=/srv`, `pass: 12`.
fn harmless(name: &[u8], value: &str, level: Level) -> bool {
    let number =
        !value.is_empty() && value.len() <= 9 && value.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match name {
        b"pwd" | b"oldpwd" => value.starts_with('/'),
        b"pass" | b"sig" | b"auth" if level == Level::Text => {
            number || matches!(value, "true" | "false" | "null" | "None" | "True" | "False")
        }
        _ if matches!(value, "true" | "false" | "null" | "None" | "True" | "False") => true,
        _ => {
            let counts = |part: &&str| name.windows(part.len()).any(|window| window == part.as_bytes());
            number && COUNTS.iter().any(counts)
        }
    }
}

/// Names whose values are several words: the rest of the line is theirs.
pub(super) fn to_line_end(name: &[u8]) -> bool {
    let ends = |part: &[u8]| name.ends_with(part);
    ends(b"authorization") || ends(b"cookie") || ends(b"cookies")
}

/// A word of prose may follow these after a colon ("invalid token: expected a number"); a secret looks like one.
pub(super) fn prosaic(name: &[u8]) -> bool {
    matches!(
        name,
        b"token"
            | b"tokens"
            | b"signature"
            | b"auth"
            | b"pass"
            | b"sig"
            | b"credentials"
            | b"secret"
            | b"secrets"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_word_has_one_of_the_letters_that_are_looked_for() {
        for word in [PARTS, WIDE_PARTS, WHOLE, WIDE_WHOLE].concat() {
            assert!(builtin(word.as_bytes(), "v4lue", Level::Wide), "{word}");
            assert!(may_be_known(word.as_bytes()) && may_be_known(word.to_uppercase().as_bytes()), "{word}");
        }
    }
}
