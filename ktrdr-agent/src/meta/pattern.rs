//! Patterns with `*` and `?`, as rules and filters use them.

/// Whether `pattern` (`*` = any text, `?` = one character) matches the whole of `text`.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on if the last `*` has to take one more character.
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, taken)) => {
                    retry = Some((star, taken + 1));
                    p = star + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// A path: its last part or the whole of it.
pub fn path(pattern: &str, path: &str) -> bool {
    !path.is_empty() && (glob(pattern, path) || glob(pattern, last(path)))
}

/// A command line: a pattern for all of it, or without wildcards a text that occurs in it.
pub fn command(pattern: &str, line: &str) -> bool {
    if has_wildcard(pattern) { glob(pattern, line) } else { line.contains(pattern) }
}

/// Last part of a path.
pub fn last(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_the_whole_text() {
        for (pattern, text, want) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*b*b*", "abcb", true),
            ("a?c", "aéc", true),
            ("a?", "a", false),
            ("python*", "python3.13", true),
            ("abc", "ab", false),
            ("*a*a*a*a*a*b", &"a".repeat(2000), false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn paths_match_by_their_last_part_too() {
        assert!(path("python*", "/usr/bin/python3") && path("/usr/*", "/usr/bin/python3"));
        assert!(!path("bin", "/usr/bin/python3") && !path("*", ""));
        assert!(path("ib-host-service", "/srv/ib-host-service/"));
    }

    #[test]
    fn commands_without_wildcards_match_by_occurrence() {
        assert!(command("app:main", "uvicorn app:main --reload") && command("uvicorn *", "uvicorn app:main"));
        assert!(!command("uvicorn", "python x") && !command("app*", "uvicorn app:main"));
    }
}
