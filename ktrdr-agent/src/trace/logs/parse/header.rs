//! Lines with a prefix of time, level and logger, in any of the orders that loggers use.

use super::{Format, Parsed, Severity, Value, access, is_name, logfmt, split_once};

/// Words looked at between the time and the level: process, thread, logger.
const MAX_WORDS: usize = 6;
/// What stands between the parts of a prefix.
fn between(c: char) -> bool {
    matches!(c, ' ' | '|' | '-' | '\t' | ',')
}

/// A prefix that was found, with what is needed to take the rest apart.
struct Prefix<'a> {
    severity: Severity,
    /// The program's word for it.
    word: &'a str,
    rest: Rest<'a>,
}

/// What follows the level.
enum Rest<'a> {
    /// The message, and the logger that was named before it.
    Message(Option<&'a str>, &'a str),
    /// A logger may stand before the message; fields may follow it where the level stood in brackets.
    Open { text: &'a str, fields: bool },
}

/// Whether a line has such a prefix: what [`parse`] asks first, at a tenth of its price. Each line is asked this when it
/// is written, and taken apart when its record is complete.
pub fn begins(line: &str) -> bool {
    prefix(line).is_some()
}

/// Takes a line apart; `None` if it has no such prefix.
pub fn parse(line: &str) -> Option<Parsed> {
    let Prefix { severity, word, rest } = prefix(line)?;
    // What begins with an address and a port has no logger before it.
    let named = match rest {
        Rest::Open { text, fields: false } => access::parse(text).filter(|(peer, _)| peer.is_some()),
        _ => None,
    };
    let (logger, message, fields) = match rest {
        Rest::Message(logger, message) => (logger, message, false),
        Rest::Open { text, .. } if named.is_some() => (None, text, false),
        Rest::Open { text, fields } => {
            let (logger, message) = logger(text);
            (logger, message, fields)
        }
    };
    let mut parsed = Parsed {
        format: Format::Prefixed,
        severity,
        severity_text: word.to_owned(),
        logger: logger.map(str::to_owned),
        message: message.to_owned(),
        ..Parsed::default()
    };
    if fields {
        structlog(&mut parsed);
    }
    if let Some((peer, fields)) = named.or_else(|| access::parse(&parsed.message)) {
        parsed.format = Format::Access;
        parsed.peer = peer;
        parsed.fields = fields;
    }
    Some(parsed)
}

fn prefix(line: &str) -> Option<Prefix<'_>> {
    let (rest, priority) = priority(line);
    let (timed, rest) = match timestamp(rest) {
        Some(rest) => (true, rest.trim_start_matches(between)),
        None => (false, rest),
    };
    let found = match level_first(rest) {
        Some(found) => Some(found),
        None if timed => level_later(rest),
        None => None,
    };
    found.or_else(|| {
        let severity = priority?;
        Some(Prefix { severity, word: severity.name(), rest: Rest::Message(None, rest) })
    })
}

/// `<3>`: the priority that systemd takes from lines of services (sd-daemon(3)).
fn priority(line: &str) -> (&str, Option<Severity>) {
    let Some((digit, rest)) = line.strip_prefix('<').and_then(|l| l.split_once('>')) else {
        return (line, None);
    };
    let severity = match digit {
        "0" | "1" | "2" => Severity::FATAL,
        "3" => Severity::ERROR,
        "4" => Severity::WARN,
        "5" | "6" => Severity::INFO,
        "7" => Severity::DEBUG,
        _ => return (line, None),
    };
    (rest, Some(severity))
}

/// What follows a time at the beginning: `2026-11-22 09:26:24,275`, `[2026-11-22T09:26:24.275Z]`, `09:26:24.275`.
fn timestamp(line: &str) -> Option<&str> {
    let (line, bracket) = line.strip_prefix('[').map_or((line, false), |l| (l, true));
    let b = line.as_bytes();
    let digits = |at: usize, n: usize| b.get(at..at + n).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    let is = |at: usize, c: &[u8]| b.get(at).is_some_and(|x| c.contains(x));
    let date = digits(0, 4) && is(4, b"-/") && digits(5, 2) && is(7, b"-/") && digits(8, 2) && is(10, b" T");
    let at = if date { 11 } else { 0 };
    if !(digits(at, 2) && is(at + 2, b":") && digits(at + 3, 2) && is(at + 5, b":") && digits(at + 6, 2)) {
        return None;
    }
    // Fraction and zone.
    let zone = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | ':' | '+' | 'Z');
    let mut rest = line.get(at + 8..)?.trim_start_matches(zone);
    if let Some(after) =
        rest.strip_prefix('-').or_else(|| rest.strip_prefix(" +")).or_else(|| rest.strip_prefix(" -"))
        && after.bytes().take_while(u8::is_ascii_digit).count() >= 2
        && date
    {
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
    }
    if bracket { rest.strip_prefix(']') } else { Some(rest) }
}

/// The level stands first: `ERROR | ib.connection | …`, `INFO:     …`, `[ERROR] …`, `WARNING:root:…`, `ERROR a::b: …`.
fn level_first(text: &str) -> Option<Prefix<'_>> {
    let (word, rest, mark) = word(text)?;
    let severity = Severity::of_word(word)?;
    // Without a time before it, only what no sentence begins with.
    let certain = mark || rest.starts_with([':', '|']) || rest.trim_start().starts_with('|');
    let upper = word.bytes().all(|b| b.is_ascii_uppercase());
    if !certain && !upper {
        return None;
    }
    // Python's default, `WARNING:root:message`.
    if let Some(after) = rest.strip_prefix(':')
        && !after.starts_with(' ')
        && let Some((logger, message)) = after.split_once(':')
        && is_name(logger)
    {
        return Some(Prefix { severity, word, rest: Rest::Message(Some(logger), message.trim_start()) });
    }
    let text = rest.strip_prefix(':').unwrap_or(rest).trim_start_matches(between);
    Some(Prefix { severity, word, rest: Rest::Open { text, fields: mark } })
}

/// The level stands after process, thread or logger: `ib.connection - ERROR - …`, `[1234] [INFO] …`.
fn level_later(text: &str) -> Option<Prefix<'_>> {
    let mut rest = text;
    let mut logger = None;
    for _ in 0..MAX_WORDS {
        let (word, after, _) = word(rest)?;
        if let Some(severity) = Severity::of_word(word) {
            let text = after.strip_prefix(':').unwrap_or(after).trim_start_matches(between);
            let rest = match logger {
                Some(_) => Rest::Message(logger, text),
                None => Rest::Open { text, fields: false },
            };
            return Some(Prefix { severity, word, rest });
        }
        let number = word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !number && !is_name(word) && word != "---" {
            return None;
        }
        if is_name(word) {
            logger = Some(word);
        }
        rest = after.trim_start_matches(between);
    }
    None
}

/// The first word, what follows it, and whether it stood in brackets.
fn word(text: &str) -> Option<(&str, &str, bool)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (word, rest) = inner.split_once(']')?;
        return Some((word.trim(), rest, true));
    }
    // A colon ends it, too, unless it is a path of modules, which has colons of its own.
    let (mut colon, mut path, mut before) = (None, false, ' ');
    let blank = text.char_indices().find(|(at, c)| {
        if *c == ':' {
            path |= before == ':';
            colon.get_or_insert(*at);
        }
        before = *c;
        c.is_whitespace() || *c == '|'
    });
    let end = blank.map_or(text.len(), |(at, _)| at);
    let end = if path { end } else { colon.unwrap_or(end) };
    (end > 0).then(|| (&text[..end], &text[end..], false))
}

/// A logger before the message: `ib.connection | m`, `[a.b] m`, `a.b - m`, `a::b: m`, `1 --- [main] c.x.Y : m`.
fn logger(text: &str) -> (Option<&str>, &str) {
    let java = split_once(text, " --- [").and_then(|(pid, rest)| {
        let (_, rest) = rest.split_once(']').filter(|_| pid.bytes().all(|b| b.is_ascii_digit()))?;
        Some(rest.trim_start())
    });
    let text = java.unwrap_or(text);
    if let Some((name, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']'))
        && is_name(name)
    {
        return (Some(name), rest.trim_start_matches(between).trim_start_matches(':').trim_start());
    }
    for between in [" | ", " - ", " : ", ": "] {
        let Some((name, message)) = split_once(text, between) else { continue };
        // A message may well begin with a word and a colon: a logger's name has a dot or stands before a bar.
        let certain = between != ": " || name.contains('.') || name.contains("::");
        if certain && is_name(name.trim()) {
            return (Some(name.trim()), message);
        }
    }
    (None, text)
}

/// structlog's console: `event    [logger] key=value key=value`.
fn structlog(parsed: &mut Parsed) {
    let (message, pairs) = logfmt::trailing(&parsed.message);
    if pairs.is_empty() {
        return;
    }
    let message = message.to_owned();
    let (message, logger) = match message.rsplit_once('[') {
        Some((before, name)) if name.strip_suffix(']').is_some_and(is_name) => {
            (before.trim_end().to_owned(), name.strip_suffix(']').map(str::to_owned))
        }
        _ => (message, None),
    };
    parsed.logger = parsed.logger.take().or(logger);
    parsed.message = message;
    parsed.fields.extend(pairs.into_iter().map(|(k, v)| (k.into(), Value::from(v))));
}
