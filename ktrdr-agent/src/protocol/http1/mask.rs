//! Secrets in URLs do not leave the agent.

use std::borrow::Cow;

/// What stands in place of a secret (the word of the semantic conventions for `url.query`).
const REDACTED: &str = "REDACTED";

/// A parameter whose name holds one of these is a secret: tokens and keys under their many names (`access_token`,
/// `X-Amz-Security-Token`, `client_secret`, `passwd`, …).
const PARTS: &[&str] = &[
    "token",
    "secret",
    "passw",
    "pwd",
    "apikey",
    "signature",
    "credential",
    "awsaccesskeyid",
    "jwt",
    "session",
];

/// Names that are secrets only as a whole; `key`, `sig`, `auth` and `code` (OAuth) are parts of harmless words.
const WHOLE: &[&str] = &["key", "sig", "auth", "authorization", "code", "pass"];

/// Longest parameter name that is looked at.
const MAX_NAME: usize = 64;

/// The query with the values of secret parameters replaced. Borrowed if there are none.
pub(super) fn query(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let mut masked = String::with_capacity(query.len());
    for (at, pair) in query.split('&').enumerate() {
        if at > 0 {
            masked.push('&');
        }
        match pair.split_once('=') {
            Some((name, _)) if is_secret(pair) => {
                masked.push_str(name);
                masked.push('=');
                masked.push_str(REDACTED);
            }
            _ => masked.push_str(pair),
        }
    }
    Cow::Owned(masked)
}

/// An authority without its user information (RFC 3986 §3.2.1; deprecated for its passwords).
pub(super) fn authority(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn is_secret(pair: &str) -> bool {
    let Some((name, value)) = pair.split_once('=') else { return false };
    if value.is_empty() {
        return false;
    }
    // Case, percent-encoding and separators do not make another name: `API-Key`, `api_key`, `api%5Fkey`.
    let mut plain = [0; MAX_NAME];
    let mut len = 0;
    for byte in percent_encoding::percent_decode_str(name).filter(u8::is_ascii_alphanumeric).take(MAX_NAME) {
        plain[len] = byte.to_ascii_lowercase();
        len += 1;
    }
    let plain = &plain[..len];
    // Names are short: comparing windows beats setting up a substring search ten times.
    let holds = |part: &&str| plain.windows(part.len()).any(|window| window == part.as_bytes());
    WHOLE.iter().any(|whole| plain == whole.as_bytes()) || PARTS.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_values_of_secrets_only() {
        for (given, masked) in [
            ("a=1&token=abc&b=2", "a=1&token=REDACTED&b=2"),
            ("access_token=abc", "access_token=REDACTED"),
            ("API-Key=abc&api_key=d", "API-Key=REDACTED&api_key=REDACTED"),
            ("X-Amz-Signature=0f&X-Amz-Date=1", "X-Amz-Signature=REDACTED&X-Amz-Date=1"),
            (
                "sig=a%2Fb&password=x&AWSAccessKeyId=y",
                "sig=REDACTED&password=REDACTED&AWSAccessKeyId=REDACTED",
            ),
            ("t%6Fken=abc", "t%6Fken=REDACTED"),
            ("key=a=b", "key=REDACTED"),
        ] {
            assert_eq!(query(given), masked);
        }
        for harmless in
            ["", "a=1&b", "symbol=AAPL&timeframe=1h", "keyword=x&design=y&author=z", "token=", "token"]
        {
            assert!(matches!(query(harmless), Cow::Borrowed(same) if same == harmless), "{harmless}");
        }
    }

    #[test]
    fn drops_user_information() {
        assert_eq!(authority("user:pa@ss@host:1"), "host:1");
        assert_eq!(authority("host:1"), "host:1");
    }
}
