//! `ts=… level=error msg="no gateway" port=4002` (logfmt).

use super::{Format, MAX_FIELDS, MAX_KEY, Parsed, Severity, Value};

/// Takes a line apart that consists of pairs, one of them a level.
pub fn parse(line: &str) -> Option<Parsed> {
    let pairs = pairs(line, true)?;
    let of = |keys: &[&str]| pairs.iter().find(|(k, _)| keys.contains(&k.as_str())).map(|(_, v)| v.clone());
    let level = of(&["level", "lvl", "severity", "levelname"])?;
    let severity = Severity::of_word(&level)?;
    let rest = |k: &str| {
        ![
            "level",
            "lvl",
            "severity",
            "levelname",
            "msg",
            "message",
            "event",
            "logger",
            "ts",
            "time",
            "timestamp",
        ]
        .contains(&k)
    };
    Some(Parsed {
        format: Format::Logfmt,
        severity,
        severity_text: level,
        logger: of(&["logger", "component", "caller"]),
        message: of(&["msg", "message", "event"]).unwrap_or_else(|| line.to_owned()),
        fields: pairs.into_iter().filter(|(k, _)| rest(k)).map(|(k, v)| (k.into(), Value::from(v))).collect(),
        ..Parsed::default()
    })
}

/// The pairs at the end of a message (structlog's console), and the message before them.
pub fn trailing(message: &str) -> (&str, Vec<(String, String)>) {
    let mut from = message.len();
    // Back to the first word from which everything is a pair.
    for (at, _) in message.char_indices().rev().filter(|(at, c)| *c == ' ' && *at + 1 < message.len()) {
        if !starts_pair(&message[at + 1..]) {
            continue;
        }
        match pairs(&message[at + 1..], true) {
            Some(_) => from = at,
            None => break,
        }
        if message.len() - at > 2_000 {
            break;
        }
    }
    let found = pairs(&message[from..], true).unwrap_or_default();
    (message[..from].trim_end(), found)
}

fn starts_pair(text: &str) -> bool {
    text.split_once('=').is_some_and(|(key, _)| is_key(key))
}

fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// All pairs of a text; `None` if something else stands between them and `strict` asks for nothing else.
fn pairs(text: &str, strict: bool) -> Option<Vec<(String, String)>> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && out.len() < MAX_FIELDS {
        let Some((key, after)) = rest.split_once('=').filter(|(key, _)| is_key(key)) else {
            return if strict { None } else { Some(out) };
        };
        let (value, after) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => quoted(&after[1..], quote)?,
            _ => {
                let end = after.find(' ').unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        out.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Some(out)
}

/// A quoted value and what follows it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                value.push(if c == 'n' { '\n' } else { c });
                escaped = false;
            }
            '\\' => escaped = true,
            c if c == quote => return Some((value, &text[at + c.len_utf8()..])),
            c => value.push(c),
        }
    }
    None
}
