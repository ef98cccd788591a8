//! Text in columns. Widths are counted in characters; names of services and routes are all but ASCII.

/// Characters that would move the cursor, colour the screen or end the line are shown as `·`: names and messages
/// come from the network.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_format(c) { '·' } else { c }).collect()
}

/// Invisible characters that reorder text (Unicode's bidirectional controls) or hide in it.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Width in columns.
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// At most `max` columns; what is cut shows as `…`.
pub fn fit(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(max.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// Breaks a sentence at blanks into lines of at most `max` columns; a longer word is cut where the line ends.
pub fn wrap(text: &str, max: usize) -> Vec<String> {
    let max = max.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut columns = 0;
    for word in text.split_whitespace() {
        let mut word = word;
        let mut len = width(word);
        if columns > 0 && columns + 1 + len > max {
            lines.push(std::mem::take(&mut line));
            columns = 0;
        }
        while len > max {
            let cut = word.char_indices().nth(max).map_or(word.len(), |(at, _)| at);
            lines.push(word[..cut].to_owned());
            word = &word[cut..];
            len = width(word);
        }
        if columns > 0 {
            line.push(' ');
            columns += 1;
        }
        line.push_str(word);
        columns += len;
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// A duration with three significant digits: `0.12 ms`, `34.1 ms`, `1.25 s`, `2 m 05 s`.
pub fn duration(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    match ms {
        ms if ms < 9.995 => format!("{ms:.2} ms"),
        ms if ms < 99.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 9_995.0 => format!("{:.2} s", ms / 1e3),
        ms if ms < 59_950.0 => format!("{:.1} s", ms / 1e3),
        ms => {
            let seconds = (ms / 1e3).round() as u64;
            format!("{} m {:02} s", seconds / 60, seconds % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_digits() {
        let shown: Vec<_> =
            [0, 100_000, 9_994_000, 9_996_000, 34_123_000, 99_960_000, 999_400_000, 999_600_000]
                .into_iter()
                .chain([9_996_000_000, 59_940_000_000, 59_990_000_000, 125_000_000_000])
                .map(duration)
                .collect();
        assert_eq!(
            shown.join(", "),
            "0.00 ms, 0.10 ms, 9.99 ms, 10.0 ms, 34.1 ms, 100 ms, 999 ms, 1.00 s, 10.0 s, 59.9 s, 1 m 00 s, 2 m 05 s"
        );
    }

    #[test]
    fn sentences_break_at_blanks() {
        assert_eq!(wrap("a bb  ccc dddd", 4), ["a bb", "ccc", "dddd"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("über straße", 5), ["über", "straß", "e"]);
        assert!(wrap("  ", 4).is_empty());
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }

    #[test]
    fn texts_are_cut_and_cleaned() {
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("äöü", 3), "äöü");
        assert_eq!(fit("abc", 0), "…");
        assert_eq!(clean("a\x1b[31m\nb\u{202e}c"), "a·[31m·b·c");
    }
}
