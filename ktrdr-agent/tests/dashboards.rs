//! Dashboards and rules under deploy/ against the table of instruments, without a kernel: every metric and label that they
//! name is one that the agent has. (That each query returns data is an end-to-end test.)

// Helpers of tests fail as tests do; clippy lets only `#[test]` functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ktrdr_agent::export::prometheus::names;
use ktrdr_agent::metrics::{Id, Kind};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What set-up installed under the target directory, unless the variable says another place.
fn installed(variable: &str, path: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| root().join(path), PathBuf::from);
    assert!(path.exists(), "{} is missing: `cargo xtask setup` installs it", path.display());
    path
}

fn clean(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Every name that a sample can have, and its labels.
fn samples() -> BTreeMap<String, Vec<String>> {
    let labels = |id: Id| {
        let own = id.instrument().attributes.iter().map(|a| names::plain(a));
        own.chain(names::SERVICE_LABELS.map(str::to_owned)).collect::<Vec<_>>()
    };
    Id::ALL.iter().flat_map(|id| names::samples(*id).into_iter().map(|name| (name, labels(*id)))).collect()
}

#[test]
fn every_metric_and_label_that_they_name_exists() {
    let python = installed("KTRDR_PYTHON", "tests/.venv/bin/python");
    let mut check = Command::new(python)
        .arg(root().join("tests/dashboards/check.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let json = serde_json::to_vec(&samples()).unwrap();
    check.stdin.take().unwrap().write_all(&json).unwrap();
    clean(&check.wait_with_output().unwrap());
}

#[test]
fn they_are_what_grafana_takes() {
    let dashboards = std::fs::read_dir(root().join("deploy/grafana/dashboards")).unwrap();
    let mut check = Command::new("node");
    check.arg(root().join("tests/dashboards/schema.mjs")).arg(installed("KTRDR_TOOLS", "target/tools"));
    check.args(dashboards.map(|file| file.unwrap().path()));
    clean(&check.output().unwrap());
}

const HEAD: &str = "\
# Metrics

Made from the table of instruments (`ktrdr-agent/src/metrics/instrument_table.rs`) by
`KTRDR_WRITE=1 cargo test -p ktrdr-agent --test dashboards`; a test compares. Names of Prometheus are those of its samples,
scraped or received over OTLP; a histogram has `_sum` and `_count` beside `_bucket`. Sums start with the agent. Every series
also says its service, host and, where there is one, container (OpenTelemetry Resource; for Prometheus `service_name`,
`service_namespace`, `service_instance_id`, `host_name`). The agent's own are of the service `ktrdr-agent`, and so are those
of GPUs.

Calls are counted where they are observed. As long as the agent leaves out a part of a port's connections to stay within its budget
([budget.md](budget.md)), `http.*`, `ktrdr.ib.*` and `traces_service_graph_*` count a part of the calls there: rates of that port
divided by `ktrdr_agent_observed_share_ratio` of the same `server_port` are about those of all; durations are about right as they are.
Connects are all counted, observed or not.

| metric, unit | in Prometheus | kind | attributes | what |
|---|---|---|---|---|
";

#[test]
fn the_page_of_metrics_lists_every_instrument() {
    let mut page = HEAD.to_owned();
    for id in Id::ALL {
        let i = id.instrument();
        let kind = match i.kind {
            Kind::Counter | Kind::FloatCounter => "counter",
            Kind::UpDown => "up-down",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let attributes: Vec<String> = i.attributes.iter().map(|a| format!("`{a}`")).collect();
        let unit = if i.unit.is_empty() { String::new() } else { format!(", {}", i.unit) };
        let sample = &names::samples(*id)[0];
        page += &format!(
            "| `{}`{unit} | `{sample}` | {kind} | {} | {} |\n",
            i.name,
            attributes.join(", "),
            i.description
        );
    }
    let file = root().join("docs/metrics.md");
    if std::env::var_os("KTRDR_WRITE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    assert!(std::fs::read_to_string(&file).is_ok_and(|is| is == page), "{} is out of date", file.display());
}
