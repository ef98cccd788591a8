//! Arguments of a call, for reading: masked, and bounded by shortening values before names.

use serde_json::{Map, Value};

use super::json::{Raw, truncate};
use crate::mask::Mask;

/// Text kept of one value.
const MAX_VALUE: usize = 256;
/// Text kept of all of them together; beyond, a value is [`MORE`].
const MAX_ALL: usize = 2048;
/// Names kept on one level, and levels.
const MAX_NAMES: usize = 64;
const MAX_DEPTH: usize = 8;
/// Larger arguments are looked at on their first level only.
const MAX_PARSED: usize = 64 * 1024;
/// Stands for what was left out.
const MORE: &str = "…";

/// Arguments as a JSON text; `None` if there are none.
pub fn shown(arguments: Raw<'_>, mask: &Mask) -> Option<String> {
    let mut left = MAX_ALL;
    let mut shown = Map::new();
    if arguments.whole
        && arguments.bytes.len() <= MAX_PARSED
        && let Ok(value) = serde_json::from_str(&String::from_utf8_lossy(arguments.bytes))
    {
        return Some(cut("", value, mask, &mut left, 0).to_string());
    }
    for (key, value) in arguments.members() {
        if shown.len() >= MAX_NAMES {
            break;
        }
        let Some(key) = key.text(MAX_VALUE) else { continue };
        // More than is kept: masked before it is cut, as half a secret has not its shape.
        let bytes = &value.bytes[..value.bytes.len().min(4 * MAX_VALUE)];
        let value = match value.text(4 * MAX_VALUE) {
            Some(text) => text,
            None => String::from_utf8_lossy(bytes).into_owned(),
        };
        let value = cut(&key, Value::String(value), mask, &mut left, 1);
        shown.insert(key, value);
    }
    (!shown.is_empty()).then(|| Value::Object(shown).to_string())
}

/// The value under a name, masked and no longer than there is room for.
fn cut(name: &str, value: Value, mask: &Mask, left: &mut usize, depth: usize) -> Value {
    let more = || Value::String(MORE.into());
    if *left == 0 || depth > MAX_DEPTH {
        return more();
    }
    match value {
        Value::String(text) => {
            let mut masked = mask.value(name, &text).into_owned();
            let room = MAX_VALUE.min(*left);
            if masked.len() > room {
                truncate(&mut masked, room);
                masked.push_str(MORE);
            }
            *left = left.saturating_sub(masked.len());
            Value::String(masked)
        }
        Value::Array(items) => {
            let many = items.len() > MAX_NAMES;
            let kept = items.into_iter().take(MAX_NAMES).map(|v| cut(name, v, mask, left, depth + 1));
            let mut kept: Vec<Value> = kept.collect();
            kept.extend(many.then(more));
            Value::Array(kept)
        }
        Value::Object(members) => {
            let many = members.len() > MAX_NAMES;
            let mut kept = Map::new();
            for (mut key, value) in members.into_iter().take(MAX_NAMES) {
                let value = cut(&key, value, mask, left, depth + 1);
                truncate(&mut key, MAX_VALUE);
                *left = left.saturating_sub(key.len());
                kept.insert(key, value);
            }
            if many {
                kept.insert(MORE.into(), more());
            }
            Value::Object(kept)
        }
        other => {
            let text = other.to_string();
            *left = left.saturating_sub(text.len());
            if mask.is_secret(name, &text) { Value::String(crate::mask::REDACTED.into()) } else { other }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::first;
    use super::*;

    fn of(text: &str) -> String {
        shown(first(text.as_bytes()).unwrap(), &Mask::default()).unwrap()
    }

    #[test]
    fn secrets_are_masked_by_name_wherever_they_stand() {
        let text = of(r#"{"path":"/a","api_key":"hunter2","n":[1,{"password":["a","b"]}],"token":12345}"#);
        assert_eq!(
            text,
            r#"{"path":"/a","api_key":"REDACTED","n":[1,{"password":["REDACTED","REDACTED"]}],"token":"REDACTED"}"#
        );
        // Cut off, and too large to be read whole.
        assert_eq!(of(r#"{"api_key":"hunter2","b":{"c":1"#), r#"{"api_key":"REDACTED","b":"{\"c\":1"}"#);
        let large = format!(r#"{{"x":"{}","api_key":"hunter2"}}"#, "a".repeat(MAX_PARSED));
        assert!(of(&large).contains(r#""api_key":"REDACTED""#));
    }

    #[test]
    fn anything_becomes_a_short_json_text() {
        let wide: String = (0..5000).map(|i| format!("\"k{i}\":{i},")).collect();
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        for text in [
            format!("{{{wide}\"z\":1}}"),
            deep,
            format!("{{\"a\":\"{}\"}}", "x".repeat(50_000)),
            format!("{{\"{}\":1}}", "k".repeat(50_000)),
            format!("[{}1]", "\"aaaaaaaaaaaaaaaaaaaaaa\",".repeat(2000)),
            "[1,2]".to_owned(),
            "\"text\"".to_owned(),
        ] {
            let shown = of(&text);
            assert!(shown.len() < 3 * MAX_ALL, "{} bytes", shown.len());
            serde_json::from_str::<Value>(&shown).unwrap();
        }
        let too_deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(shown(first(too_deep.as_bytes()).unwrap(), &Mask::default()), None);
    }
}
