//! What lies at the top, and what every crate inherits.

use super::Finding;
use super::tree::Tree;

/// Everything the top level has, and nothing else; files that begin with a dot are tools' settings.
const TOP_LEVEL: [&str; 14] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deploy",
    "docs",
    "ktrdr-agent",
    "ktrdr-ebpf",
    "ktrdr-ebpf-common",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
    "xtask",
];

pub fn top_level(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: Vec<&str> = tree.files.iter().filter_map(|file| file.path.split('/').next()).collect();
    seen.sort_unstable();
    seen.dedup();
    for name in &seen {
        if !name.starts_with('.') && !TOP_LEVEL.contains(name) {
            findings.push(Finding::new(name, 0, "does not belong at the top level"));
        }
    }
    for name in TOP_LEVEL {
        if !seen.contains(&name) {
            findings.push(Finding::new(name, 0, "is missing at the top level"));
        }
    }
    findings
}

/// A crate that does not take the workspace's lints silently has none.
pub fn lints_are_inherited(tree: &Tree) -> Vec<Finding> {
    let is_crate = |path: &str| path.ends_with("/Cargo.toml") && path.matches('/').count() == 1;
    let crates = tree.files.iter().filter(|file| is_crate(&file.path));
    crates
        .filter(|file| {
            let mut lines = file.text.lines().map(str::trim).skip_while(|line| *line != "[lints]");
            lines.nth(1) != Some("workspace = true")
        })
        .map(|file| Finding::new(&file.path, 0, "lacks `[lints] workspace = true`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree_of;
    use super::*;

    #[test]
    fn strangers_and_gaps_at_the_top_are_found() {
        let mut files: Vec<(String, &str)> = TOP_LEVEL.iter().map(|name| (format!("{name}/x"), "")).collect();
        files.push((".ci/run".to_owned(), ""));
        let of = |files: &[(String, &str)]| {
            tree_of(&files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>())
        };
        assert_eq!(top_level(&of(&files)), []);
        files.push(("scripts/x".to_owned(), ""));
        assert_eq!(top_level(&of(&files)).len(), 1);
        assert_eq!(top_level(&of(&files[1..]))[1].path, "Cargo.lock");
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        let tree = tree_of(&[
            ("a/Cargo.toml", "[package]\n\n[lints]\nworkspace = true\n"),
            ("b/Cargo.toml", "[package]\n"),
            ("Cargo.toml", "[workspace]\n"),
        ]);
        assert_eq!(
            lints_are_inherited(&tree),
            [Finding::new("b/Cargo.toml", 0, "lacks `[lints] workspace = true`")]
        );
    }
}
