//! Which part of the agent may know what.

use super::Finding;
use super::tree::{File, Tree, has_word};

const AGENT: &str = "ktrdr-agent/src/";

/// Only the kernel-facing module loads and reads programs.
pub fn aya_only_in_kernel(tree: &Tree) -> Vec<Finding> {
    let names = ["aya", "aya_obj", "aya_log"];
    names_outside(tree, &names, &["kernel"], "aya belongs to ktrdr-agent/src/kernel")
}

/// Only the exporters know how spans travel, and `telemetry` how the agent's own do.
pub fn otlp_only_in_exporters(tree: &Tree) -> Vec<Finding> {
    let names = [
        "opentelemetry",
        "opentelemetry_sdk",
        "opentelemetry_otlp",
        "opentelemetry_proto",
        "opentelemetry_appender_tracing",
        "tracing_opentelemetry",
        "tonic",
        "prost",
    ];
    names_outside(tree, &names, &["export", "telemetry"], "OTLP belongs to ktrdr-agent/src/export")
}

/// Only these modules read /proc: elsewhere a process is what they say it is. The settings may name it,
/// because where it is mounted is one of them.
pub fn proc_only_where_metadata_is_read(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in outside(tree, &["meta", "kernel", "python", "settings"]) {
        let literals = file.strings.iter().filter(|(line, _)| *line < file.tests_from);
        for (line, _) in literals.filter(|(_, text)| text.starts_with("/proc/") || text == "/proc") {
            findings.push(Finding::new(&file.path, *line, "only meta/, kernel/ and python/ read /proc"));
        }
    }
    findings
}

fn names_outside(tree: &Tree, names: &[&str], homes: &[&str], what: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in outside(tree, homes) {
        let lines = file.code_lines().filter(|(_, line)| names.iter().any(|name| has_word(line, name)));
        findings.extend(lines.map(|(line, _)| Finding::new(&file.path, line, what)));
    }
    findings
}

/// The agent's files outside the modules `homes` (a directory or a file of that name, at any depth).
fn outside<'a>(tree: &'a Tree, homes: &'a [&str]) -> impl Iterator<Item = &'a File> {
    tree.rust_under(&[AGENT]).filter(|file| !file.test).filter(move |file| {
        let inside = &file.path[AGENT.len()..];
        !inside.split('/').any(|part| homes.contains(&part.trim_end_matches(".rs")))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::tree_of;
    use super::*;

    fn paths(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.path.as_str()).collect()
    }

    #[test]
    fn aya_elsewhere_is_found() {
        let text = "use aya::maps::RingBuf;\n";
        let tree =
            tree_of(&[("ktrdr-agent/src/kernel/load.rs", text), ("ktrdr-agent/src/pipeline.rs", text)]);
        assert_eq!(paths(&aya_only_in_kernel(&tree)), ["ktrdr-agent/src/pipeline.rs"]);
    }

    #[test]
    fn otlp_elsewhere_is_found_and_comments_are_not() {
        let tree = tree_of(&[
            ("ktrdr-agent/src/export/otlp.rs", "use opentelemetry_proto::tonic;"),
            ("ktrdr-agent/src/trace/span.rs", "// as opentelemetry says\nuse prost::Message;"),
        ]);
        assert_eq!(paths(&otlp_only_in_exporters(&tree)), ["ktrdr-agent/src/trace/span.rs"]);
        assert_eq!(otlp_only_in_exporters(&tree)[0].line, 2);
    }

    #[test]
    fn proc_elsewhere_is_found() {
        let tree = tree_of(&[
            ("ktrdr-agent/src/meta/cmdline.rs", "let a = \"/proc/1/cmdline\";"),
            ("ktrdr-agent/src/trace/b.rs", "let a = \"/process\";\nlet b = \"/proc/self\";"),
        ]);
        assert_eq!(proc_only_where_metadata_is_read(&tree)[0].line, 2);
        assert_eq!(proc_only_where_metadata_is_read(&tree).len(), 1);
    }
}
