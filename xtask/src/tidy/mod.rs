//! `cargo xtask tidy`: the architecture's invariants, checked over the sources.
//!
//! A rule is one function from the tree to findings, with tests of its own in the same file.

use anyhow::{Result, bail};

mod core_rules;
mod hygiene;
mod layers;
mod layout;
mod lexer;
mod modules;
mod sizes;
mod tree;

use tree::Tree;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// 1-based; 0 means the file as a whole.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

#[rustfmt::skip]
const RULES: [Rule; 16] = [
    layout::top_level,
    layout::lints_are_inherited,
    modules::every_file_is_compiled,
    sizes::files_stay_readable,
    layers::aya_only_in_kernel,
    layers::otlp_only_in_exporters,
    layers::proc_only_where_metadata_is_read,
    core_rules::no_unsafe,
    core_rules::no_clock,
    core_rules::no_io,
    core_rules::no_hash_iteration,
    hygiene::no_sleep,
    hygiene::no_dead_code_allowed,
    hygiene::no_unfinished_marks,
    hygiene::no_ignored_tests_without_reason,
    hygiene::documented_modules,
];

pub fn run() -> Result<()> {
    let tree = Tree::of_checkout()?;
    for (path, lines) in sizes::to_look_hard_at(&tree) {
        eprintln!("tidy: warning: {path} has {lines} lines; look hard at anything over {}", sizes::WARNED);
    }
    let findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    for Finding { path, line, what } in &findings {
        match line {
            0 => eprintln!("tidy: {path}: {what}"),
            line => eprintln!("tidy: {path}:{line}: {what}"),
        }
    }
    if !findings.is_empty() {
        bail!("tidy found {} place(s) that break an invariant", findings.len());
    }
    Ok(())
}
