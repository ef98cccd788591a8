//! From decoded event to finished span the code is sans-IO and deterministic.

use super::Finding;
use super::tree::{File, Tree, has_word};

/// The pure core: same input, byte-identical output.
const CORE: [&str; 7] = [
    "ktrdr-agent/src/event/",
    "ktrdr-agent/src/engine/",
    "ktrdr-agent/src/protocol/",
    "ktrdr-agent/src/trace/",
    "ktrdr-agent/src/explain/",
    "ktrdr-agent/src/metrics/",
    "ktrdr-agent/src/mask/",
];

pub fn no_unsafe(tree: &Tree) -> Vec<Finding> {
    words(tree, &["unsafe"], "the core has no unsafe code")
}

/// Time comes with the events. A duration is a value, so it may be named.
pub fn no_clock(tree: &Tree) -> Vec<Finding> {
    words(tree, &["Instant", "SystemTime", "UNIX_EPOCH"], "the core has no clock; time comes with the events")
}

pub fn no_io(tree: &Tree) -> Vec<Finding> {
    let names = ["tokio", "std::fs", "std::thread", "std::process", "TcpStream", "TcpListener", "UdpSocket"];
    words(tree, &names, "the core does no IO; the shell feeds it")
}

/// The standard maps order their entries by a random seed.
pub fn no_hash_iteration(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust_under(&CORE) {
        let maps = hash_names(file);
        for (line, code) in file.product_lines() {
            if let Some(name) = maps.iter().find(|name| iterates(code, name)) {
                let what = format!("`{name}` is a hash map: its order is not part of the input");
                findings.push(Finding::new(&file.path, line, what));
            }
        }
    }
    findings
}

fn words(tree: &Tree, words: &[&str], what: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust_under(&CORE).filter(|file| !file.test) {
        let lines = file.product_lines().filter(|(_, line)| words.iter().any(|word| has_word(line, word)));
        findings.extend(lines.map(|(line, _)| Finding::new(&file.path, line, what)));
    }
    findings
}

/// Names that this file gives to hash maps and sets: `name: HashMap<…>` and `name = HashMap::…`.
fn hash_names(file: &File) -> Vec<&str> {
    let mut names = Vec::new();
    for (_, line) in file.product_lines() {
        for kind in ["HashMap", "HashSet"] {
            let Some(at) = line.find(kind) else { continue };
            let before = line[..at].trim_end_matches(|c: char| c.is_alphanumeric() || c == ':' || c == '_');
            // Either the type after `name:` (whose colon the trimming took) or the value after `name =`.
            let before = before.trim_end().trim_end_matches(['=', ':']).trim_end();
            let name = before.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
            if !name.is_empty() && !["use", "type", "mut"].contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn iterates(line: &str, name: &str) -> bool {
    const METHODS: [&str; 8] = [
        "iter()",
        "iter_mut()",
        "keys()",
        "values()",
        "values_mut()",
        "into_iter()",
        "drain()",
        "into_values()",
    ];
    let called = METHODS.iter().any(|method| has_word_prefix(line, &format!("{name}.{method}")));
    let looped = line.trim_start().starts_with("for ")
        && line.split(" in ").nth(1).is_some_and(|over| {
            let over = over.trim_start_matches(['&', ' ']).trim_start_matches("mut ");
            over.trim_start_matches("self.").split('{').next().map(str::trim) == Some(name)
        });
    called || looped
}

fn has_word_prefix(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree_of;
    use super::*;

    fn lines(rule: fn(&Tree) -> Vec<Finding>, text: &str) -> Vec<usize> {
        let outside = rule(&tree_of(&[("ktrdr-agent/src/kernel/x.rs", text)]));
        assert_eq!(outside, [], "outside the core the rule does not hold");
        rule(&tree_of(&[("ktrdr-agent/src/engine/x.rs", text)])).iter().map(|found| found.line).collect()
    }

    #[test]
    fn unsafe_is_found_in_code_only() {
        assert_eq!(lines(no_unsafe, "// unsafe\nlet a = unsafe { b() };\n"), [2]);
    }

    #[test]
    fn clocks_are_found_and_durations_are_not() {
        assert_eq!(lines(no_clock, "use std::time::Duration;\nlet now = std::time::Instant::now();\n"), [2]);
    }

    #[test]
    fn io_is_found_and_addresses_are_not() {
        assert_eq!(
            lines(no_io, "use std::net::IpAddr;\nuse tokio::time;\nuse std::net::TcpStream;\n"),
            [2, 3]
        );
    }

    #[test]
    fn iteration_over_a_hash_map_is_found() {
        let text = "struct A {\n    calls: HashMap<u32, Call>,\n}\nfn f() {\n    self.calls.get(&1);\n    \
                    for call in self.calls.values() {}\n    for (k, v) in &self.calls {}\n    let seen = HashSet::new();\n    \
                    seen.iter();\n}\n";
        assert_eq!(lines(no_hash_iteration, text), [6, 7, 9]);
    }

    #[test]
    fn ordered_maps_are_free() {
        assert!(lines(no_hash_iteration, "a: BTreeMap<u32, u32>,\nfor x in a.iter() {}\n").is_empty());
    }
}
