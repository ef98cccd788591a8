//! What came over a serial console, as text: without the firmware's escape sequences and carriage returns.

/// Makes it plain.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace('\r', "");
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        // `ESC [ parameters letter` or `ESC letter`.
        let sequence = part.strip_prefix('[').unwrap_or(part);
        let end = sequence.find(|c: char| c.is_ascii_alphabetic()).map_or(sequence.len(), |at| at + 1);
        plain.push_str(&sequence[end..]);
    }
    plain
}

/// The lines between `== <name>` and the next such line, for each time the section occurs.
pub fn sections<'a>(said: &'a str, name: &str) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in said.lines() {
        match line.strip_prefix("== ") {
            Some(section) => {
                inside = section.split(' ').next() == Some(name);
                if inside {
                    found.push(Vec::new());
                }
            }
            None if inside => found.last_mut().into_iter().for_each(|lines| lines.push(line)),
            None => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go_and_text_stays() {
        assert_eq!(plain(b"\x1bc\x1b[?7l\x1b[2Jabc\x1b[0m d\r\n"), "abc d\n");
    }

    #[test]
    fn sections_are_told_apart() {
        let said = "noise\n== spans\na\nb\n== stats\nc\n== spans\n== end\nd\n";
        assert_eq!(sections(said, "spans"), [vec!["a", "b"], vec![]]);
        assert_eq!(sections(said, "stats"), [vec!["c"]]);
        assert!(sections(said, "check").is_empty());
    }
}
