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
    let safe = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if let Some(rest) = text.strip_prefix("op_").or_else(|| text.strip_prefix("op-")) {
        return (6..=MAX_ID).contains(&rest.len())
            && rest.as_bytes()[0].is_ascii_alphanumeric()
            && safe(rest);
    }
    let rest = text.strip_prefix("worker_training_").or_else(|| text.strip_prefix("worker_backtest_"));
    rest.is_some_and(|r| r.len() == 12 && r.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The id in a JSON field, if it is one.
pub fn in_field<'a>(pointer: &str, value: &'a str) -> Option<&'a str> {
    let key = pointer.rsplit('/').next().unwrap_or_default();
    let plausible = || {
        (1..=MAX_ID).contains(&value.len())
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b))
    };
    ((KEYS.contains(&key) && plausible()) || (MAYBE_KEYS.contains(&key) && looks_like(value)))
        .then_some(value)
}

/// The id in a URL path or query, if there is one.
pub fn in_path(path: &str) -> Option<&str> {
    path.split(['/', '?', '&', '=', '#']).find(|s| looks_like(s))
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
    use super::*;

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
            assert_eq!(in_path(&format!("/api/v1/operations/{id}/metrics?cursor=3")), Some(id));
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
