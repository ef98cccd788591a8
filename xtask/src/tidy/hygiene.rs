//! Small habits that keep the code honest, in every crate.

use super::Finding;
use super::tree::{Tree, has_word};

/// A sleep hopes that something has happened. Only a function that waits for a condition may pause between
/// two looks, and says so by its name or its file's.
pub fn no_sleep(tree: &Tree) -> Vec<Finding> {
    let sleeps = |line: &str| has_word(line, "thread::sleep") || has_word(line, "time::sleep");
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.path.ends_with("/wait.rs")) {
        let mut function = "";
        for (line, code) in file.code_lines() {
            function = function_name(code).unwrap_or(function);
            if sleeps(code) && !function.starts_with("wait_") {
                let what =
                    "sleeps; wait for a condition with a deadline, in a function called wait_… or in wait.rs";
                findings.push(Finding::new(&file.path, line, what));
            }
        }
    }
    findings
}

/// The name of the function that `line` begins, if it begins one.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    words.by_ref().take(4).find(|word| *word == "fn")?;
    words.next()?.split(['(', '<']).next()
}

/// Unused code is deleted, not excused. `expect` with a reason is no excuse: the compiler says when it has
/// become wrong, and a field that is only held for its drop has no other way.
pub fn no_dead_code_allowed(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let unused = |line: &str| has_word(line, "dead_code") || has_word(line, "unused");
        let excuses = |line: &str| line.contains("allow(") && unused(line);
        let lines = file.code_lines().filter(|(_, line)| excuses(line));
        findings.extend(lines.map(|(line, _)| Finding::new(&file.path, line, "excuses unused code")));
    }
    findings
}

/// What is missing is said in the README or the documentation, not in a note to oneself.
pub fn no_unfinished_marks(tree: &Tree) -> Vec<Finding> {
    // Put together, so that this file does not break its own rule.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let checked = |path: &str| [".rs", ".py", ".sh", ".md", ".toml"].iter().any(|kind| path.ends_with(kind));
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| checked(&file.path)) {
        for (index, line) in file.text.lines().enumerate() {
            if marks.iter().any(|mark| has_word(line, mark)) {
                findings.push(Finding::new(&file.path, index + 1, "leaves a note instead of the work"));
            }
        }
    }
    findings
}

/// A test that does not run says why.
pub fn no_ignored_tests_without_reason(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let lines = file.code_lines().filter(|(_, line)| line.trim() == "#[ignore]");
        findings
            .extend(lines.map(|(line, _)| Finding::new(&file.path, line, "ignores a test without a reason")));
    }
    findings
}

/// Every file begins by saying what it is; of a file of tests its name says it.
pub fn documented_modules(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| !file.text.trim().is_empty() && !file.path.ends_with("/tests.rs"))
        .filter(|file| !file.text.lines().any(|line| line.starts_with("//!")))
        .map(|file| Finding::new(&file.path, 0, "lacks a module comment (`//!`) that says what it is"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree_of;
    use super::*;

    fn found(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> usize {
        rule(&tree_of(&[(path, text)])).len()
    }

    #[test]
    fn a_sleep_is_found_except_where_a_condition_is_polled() {
        let sleep = "    std::thread::sleep(STEP);\n}\n";
        assert_eq!(found(no_sleep, "tests/tests/e2e.rs", &format!("fn f() {{\n{sleep}")), 1);
        let waits = format!("pub fn wait_until(c: impl Fn() -> bool) {{\n{sleep}fn g<T>() {{\n{sleep}");
        let lines: Vec<usize> =
            no_sleep(&tree_of(&[("a.rs", &waits)])).iter().map(|found| found.line).collect();
        assert_eq!(lines, [5]);
        assert_eq!(found(no_sleep, "tests/src/wait.rs", &format!("fn until() {{\n{sleep}")), 0);
    }

    #[test]
    fn an_excuse_for_unused_code_is_found() {
        assert_eq!(found(no_dead_code_allowed, "a/src/b.rs", "#[allow(dead_code)]\nfn f() {}"), 1);
        assert_eq!(found(no_dead_code_allowed, "a/src/b.rs", "#[allow(unused)]\nfn f() {}"), 1);
        assert_eq!(found(no_dead_code_allowed, "a/src/b.rs", "#[allow(clippy::panic)]\nfn f() {}"), 0);
    }

    #[test]
    fn a_note_to_oneself_is_found() {
        let note = format!("x\n// {}: later\n", concat!("TO", "DO"));
        assert_eq!(found(no_unfinished_marks, "a/src/b.rs", &note), 1);
        assert_eq!(found(no_unfinished_marks, "a/data.bin", &note), 0);
    }

    #[test]
    fn a_silently_ignored_test_is_found() {
        assert_eq!(found(no_ignored_tests_without_reason, "a/b.rs", "#[test]\n#[ignore]\nfn f() {}"), 1);
        assert_eq!(found(no_ignored_tests_without_reason, "a/b.rs", "#[ignore = \"why\"]\nfn f() {}"), 0);
    }

    #[test]
    fn a_file_without_a_module_comment_is_found() {
        assert_eq!(found(documented_modules, "a/b.rs", "// plain\nfn f() {}"), 1);
        assert_eq!(found(documented_modules, "a/b.rs", "//! What it is.\nfn f() {}"), 0);
    }
}
