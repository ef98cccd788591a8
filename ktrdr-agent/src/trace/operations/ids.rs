//! What an operation id looks like and where it stands.

/// Longest id; KTRDR's are under 60 characters.
const MAX_ID: usize = 96;

/// JSON keys whose value is an operation id, whatever it looks like.
const KEYS: &[&str] = &[
    "operation_id",
    "current_operation_id",
    "parent_operation_id",
    "backend_operation_id",
    "worker_operation_id",
];
/// JSON keys whose value is one if it looks like one.
const MAYBE_KEYS: &[&str] = &["task_id", "session_id", "current_operation", "id"];

/// Whether a text looks like an operation id: `op_…`, `op-…`, `worker_training_…`, `worker_backtest_…`.
pub fn looks_like(text: &str) -> bool {
    // Every part of every URL comes here.
    if !matches!(text.as_bytes().first(), Some(b'o' | b'w')) {
        return false;
    }
    if let Some(rest) = text.strip_prefix("op_").or_else(|| text.strip_prefix("op-")) {
        return is_tail(rest);
    }
    let rest = text.strip_prefix("worker_training_").or_else(|| text.strip_prefix("worker_backtest_"));
    rest.is_some_and(|r| r.len() == 12 && r.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether an id that [`looks_like`] one can stand in a text, by what each begins with: much cheaper than to take every
/// line and every path apart into words.
pub fn may_stand_in(text: &[u8]) -> bool {
    memchr::memchr2_iter(b'_', b'-', text).any(|at| {
        let before = text.get(..at).unwrap_or_default();
        before.ends_with(b"op") || before.ends_with(b"worker")
    })
}

/// Whether a text can be an id at all, where the place says that it is one.
pub fn plausible(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b))
}

/// Whether a text can stand behind the beginning of an id.
pub fn is_tail(text: &str) -> bool {
    (6..=MAX_ID).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Whether the value of this JSON key is an operation id.
pub fn is_key(key: &str) -> bool {
    KEYS.contains(&key)
}

/// Whether the value of this JSON key is an operation id if it looks like one.
pub fn may_be_key(key: &str) -> bool {
    MAYBE_KEYS.contains(&key)
}

/// `operation.type` as the id tells it: `op_training_20251113_…` → `training`, `worker_backtest_…` → `backtesting`.
pub fn kind(id: &str) -> Option<&str> {
    if id.starts_with("worker_backtest_") {
        return Some("backtesting");
    }
    if id.starts_with("worker_training_") {
        return Some("training");
    }
    let rest = id.strip_prefix("op_")?;
    let end = rest.char_indices().find(|(i, c)| *c == '_' && next_is_number(rest, *i)).map(|(i, _)| i)?;
    let kind = &rest[..end];
    (!kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).then_some(kind)
}

/// Whether the part after the underscore at `at` is a date or a hexadecimal tail.
fn next_is_number(text: &str, at: usize) -> bool {
    let part = text[at + 1..].split('_').next().unwrap_or_default();
    part.len() >= 8 && part.bytes().all(|b| b.is_ascii_hexdigit()) && part.bytes().any(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::rules::Rules;
    use super::*;

    fn in_path(path: &str) -> Option<String> {
        Rules::default().in_path(path).map(str::to_owned)
    }
    fn in_field<'a>(pointer: &str, value: &'a str) -> Option<&'a str> {
        Rules::default().in_field(pointer, value).then_some(value)
    }

    #[test]
    fn ids_of_every_form_are_found() {
        for (id, want) in [
            ("op_training_20251113_101112_1a2b3c4d", Some("training")),
            ("op_data_load_20251113_101112_1a2b3c4d", Some("data_load")),
            ("op_agent_research_20251113_101112_1a2b3c4d", Some("agent_research")),
            ("op_assessment_1a2b3c4d5e6f", Some("assessment")),
            ("worker_training_1a2b3c4d5e6f", Some("training")),
            ("worker_backtest_1a2b3c4d5e6f", Some("backtesting")),
            ("op-1a2b3c4d", None),
            ("op-xyz-789", None),
        ] {
            assert!(looks_like(id), "{id}");
            assert_eq!(kind(id), want, "{id}");
            assert_eq!(in_path(&format!("/api/v1/operations/{id}/metrics?cursor=3")), Some(id.to_owned()));
            assert_eq!(in_field("/data/operation_id", id), Some(id));
            assert_eq!(in_field("/task_id", id), Some(id));
        }
    }

    #[test]
    fn other_words_are_not() {
        for text in [
            "options",
            "op_",
            "op_x",
            "opera",
            "worker_training_xyz",
            "open_orders_list",
            "op_a b c d e f",
            "",
        ] {
            assert!(!looks_like(text), "{text}");
        }
        assert_eq!(in_field("/task_id", "3f2b"), None);
        assert_eq!(in_field("/operation_id", &"x".repeat(10_000)), None);
        assert_eq!(in_path("/api/v1/symbols"), None);
    }
}
