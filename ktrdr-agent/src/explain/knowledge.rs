//! Facts about others: how operation ids look, how HTTP statuses are called.

use crate::trace::operations::ids;

/// Longest id: KTRDR's have at most 60 characters.
const MAX_ID: usize = 84;

/// Operation ids in a text, as KTRDR writes them: `op_training_20251113_101500_0a1b2c3d`, `op-xyz-789`,
/// `worker_training_0123456789ab`.
pub fn operation_ids(text: &str) -> Vec<&str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let mut found = Vec::new();
    // Most URLs hold none, and every span's comes here.
    if !ids::may_stand_in(text.as_bytes()) {
        return found;
    }
    for part in text.split(|c: char| !c.is_ascii() || !word(c as u8)) {
        if part.len() <= MAX_ID && is_operation_id(part) && !found.contains(&part) {
            found.push(part);
        }
    }
    found
}

fn is_operation_id(word: &str) -> bool {
    if let Some(rest) = word.strip_prefix("op_").or_else(|| word.strip_prefix("op-")) {
        return rest.len() >= 6 && rest.as_bytes()[0].is_ascii_alphanumeric();
    }
    let rest = word.strip_prefix("worker_training_").or_else(|| word.strip_prefix("worker_backtest_"));
    rest.is_some_and(|hex| hex.len() == 12 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// The type of an operation, from its id: `op_data_load_20251113_…` → `data_load`.
pub fn operation_type(id: &str) -> Option<&str> {
    if let Some(rest) = id.strip_prefix("worker_") {
        return rest.rsplit_once('_').map(|(kind, _)| kind);
    }
    let rest = id.strip_prefix("op_")?;
    let digits = |s: &str| s.len() == 8 && s.bytes().all(|b| b.is_ascii_digit());
    let mut at = 0;
    for part in rest.split('_') {
        if digits(part) {
            return (at > 0).then(|| &rest[..at - 1]);
        }
        at += part.len() + 1;
    }
    None
}

/// Reason phrase of an HTTP error status (RFC 9110).
pub const fn reason(code: i64) -> &'static str {
    match code {
        400 => "bad request",
        401 => "not authenticated",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        408 => "request timeout",
        409 => "conflict",
        413 => "too large",
        422 => "the request's content is not valid",
        429 => "too many requests",
        500 => "internal error",
        501 => "not implemented",
        502 => "bad gateway",
        503 => "not available",
        504 => "gateway timeout",
        _ if code < 500 => "the server blames the request",
        _ => "the server failed",
    }
}

/// What resolvers say, as runtimes pass it on (`gai_strerror` of glibc and musl, Node, Java, Windows names left out).
const NAME_ERRORS: [&str; 9] = [
    "name or service not known",
    "temporary failure in name resolution",
    "no address associated with hostname",
    "nodename nor servname provided",
    "name does not resolve",
    "name resolution",
    "getaddrinfo failed",
    "getaddrinfo enotfound",
    "unknownhostexception",
];

/// Whether a message says that a name has no address.
pub fn is_about_a_name(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    NAME_ERRORS.iter().any(|words| message.contains(words))
}

/// What a program means by its exit status, where that is documented (curl's manual, "EXIT CODES").
pub fn exit_status(program: &str, code: i64) -> Option<&'static str> {
    match (program.split(' ').next()?, code) {
        ("curl", 6) => Some("curl: the host's name was not resolved"),
        ("curl", 7) => Some("curl: it could not connect"),
        ("curl", 22) => Some("curl: the answer was an HTTP error"),
        ("curl", 28) => Some("curl: its time was over"),
        ("curl", 52) => Some("curl: nothing was answered"),
        ("curl", 56) => Some("curl: the answer could not be read to its end"),
        _ => None,
    }
}

/// Whether a message says that there is no worker to be asked: "no training worker is available".
pub fn is_about_no_worker(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let words: Vec<&str> = message.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let no = words.iter().position(|w| *w == "no");
    let worker = words.iter().position(|w| matches!(*w, "worker" | "workers"));
    // "no training worker": at most a word between.
    matches!((no, worker), (Some(no), Some(worker)) if worker > no && worker - no <= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_where_they_stand() {
        let url =
            "http://127.0.0.1:8000/api/v1/operations/op_training_20251113_101500_0a1b2c3d/metrics?cursor=3";
        assert_eq!(operation_ids(url), ["op_training_20251113_101500_0a1b2c3d"]);
        assert_eq!(
            operation_ids("a op-xyz-789, worker_backtest_0123456789ab."),
            ["op-xyz-789", "worker_backtest_0123456789ab"]
        );
        for none in [
            "",
            "/operations",
            "op_",
            "op_abc",
            "shop_20251113_101500",
            "worker_training_0123",
            "op__abcdefgh",
        ] {
            assert!(operation_ids(none).is_empty(), "{none}");
        }
        assert!(operation_ids(&format!("op_{}", "a".repeat(10_000))).is_empty());
    }

    #[test]
    fn messages_of_known_kinds_are_told_apart() {
        assert!(is_about_a_name("[Errno -2] Name or service not known"));
        assert!(is_about_a_name("getaddrinfo ENOTFOUND ib-host"));
        assert!(!is_about_a_name("no such symbol name: AAPL"));
        assert!(is_about_no_worker("no training worker is available (0 registered)"));
        assert!(is_about_no_worker("Error: No workers available"));
        for other in ["worker 3 has no memory left", "no answer came from the worker", "the worker died"] {
            assert!(!is_about_no_worker(other), "{other}");
        }
    }

    #[test]
    fn types_stand_before_the_date() {
        assert_eq!(operation_type("op_data_load_20251113_101500_0a1b2c3d"), Some("data_load"));
        assert_eq!(operation_type("worker_training_0123456789ab"), Some("training"));
        for none in ["op-xyz-789", "op_20251113_101500_0a1b2c3d", "op_abc", ""] {
            assert_eq!(operation_type(none), None, "{none}");
        }
    }
}
