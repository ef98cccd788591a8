//! The Debian package: judged by Debian's own tools, installed, used, removed and purged on this machine.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ktrdr_tests::agent::can_observe;
use ktrdr_tests::process::{output, root, run};

const CONFIG: &str = "/etc/ktrdr-agent/config.toml";
const UNIT: &str = "ktrdr-agent.service";

/// The package that `cargo xtask test` made, else one made now, of the development build.
fn package() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = std::env::var_os("KTRDR_DEB") {
        return path.into();
    }
    let make = || {
        let said = run(Command::new("cargo").args(["xtask", "package", "--development"]).current_dir(root()));
        said.lines().rfind(|line| line.ends_with(".deb")).map(PathBuf::from).unwrap()
    };
    MADE.get_or_init(make).clone()
}

/// What the package puts where.
fn files(package: &Path) -> Vec<PathBuf> {
    let listing = run(Command::new("dpkg-deb").arg("--contents").arg(package));
    let names = listing.lines().filter_map(|line| line.split_whitespace().nth(5));
    let files = names.filter(|name| !name.ends_with('/')).map(|name| name.trim_start_matches('.').into());
    files.collect()
}

fn is_installed() -> bool {
    let status = output(Command::new("dpkg-query").args(["--show", "--showformat=${Status}", "ktrdr-agent"]));
    status.status.success() && !String::from_utf8_lossy(&status.stdout).contains("not-installed")
}

/// Purges what the test installed, however the test ends.
struct Purge;

impl Drop for Purge {
    fn drop(&mut self) {
        if is_installed() {
            let _ = Command::new("dpkg").args(["--purge", "ktrdr-agent"]).output();
        }
    }
}

#[test]
fn lintian_has_nothing_to_say() {
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root"]).arg(package());
    let said = output(&mut lintian);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text}{}", String::from_utf8_lossy(&said.stderr));
    // What it overrides is explained beside the override.
    assert!(text.is_empty(), "{text}");
}

#[test]
fn the_manual_page_names_every_command() {
    let page = std::fs::read_to_string(root().join("deploy/debian/ktrdr-agent.8")).unwrap();
    let help = run(Command::new(ktrdr_tests::agent::binary()).arg("--help"));
    let commands = help.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1);
    let commands: Vec<&str> = commands
        .take_while(|l| !l.is_empty())
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(commands.len() > 5, "{help}");
    for command in commands.into_iter().filter(|c| *c != "help") {
        assert!(page.contains(&format!("\n.B {command}")), "{command} is not in the manual page");
    }
}

#[test]
fn it_is_installed_checked_removed_and_purged() {
    if !can_observe() {
        return;
    }
    assert!(!is_installed(), "ktrdr-agent is installed on this machine: not touched");
    let package = package();
    let files = files(&package);
    let _purge = Purge;
    run(Command::new("dpkg").arg("--install").arg(&package));
    for file in &files {
        assert!(file.exists(), "{} is not there", file.display());
    }
    assert_eq!(
        run(Command::new("dpkg-query").args(["--show", "--showformat=${Conffiles}", "ktrdr-agent"]))
            .trim()
            .split(' ')
            .next(),
        Some(CONFIG)
    );

    // From where it was installed, with the configuration that came with it.
    let check = output(Command::new("/usr/bin/ktrdr-agent").args(["check", "--config", CONFIG]));
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let unit = files.iter().find(|f| f.ends_with(UNIT)).unwrap();
    let verify = output(Command::new("systemd-analyze").arg("verify").arg(unit));
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert!(verify.status.success() && !said.contains(UNIT), "{said}");
    // The lower the safer, in tenths; what is left is what observing takes (docs/privileges.md).
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=yes", "--threshold=35", "--no-pager"]).arg(unit);
    let judged = output(&mut security);
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));

    // What the user changed outlives a removal, and not a purge.
    let mut config = std::fs::read_to_string(CONFIG).unwrap();
    config.push_str("# changed\n");
    std::fs::write(CONFIG, &config).unwrap();
    run(Command::new("dpkg").args(["--remove", "ktrdr-agent"]));
    assert!(!Path::new("/usr/bin/ktrdr-agent").exists());
    assert_eq!(std::fs::read_to_string(CONFIG).unwrap(), config);
    run(Command::new("dpkg").args(["--purge", "ktrdr-agent"]));
    for file in &files {
        assert!(!file.exists(), "{} was left behind", file.display());
    }
    assert!(!Path::new(CONFIG).parent().unwrap().exists(), "its directory was left behind");
    // Nor what keeps a removed unit from being started.
    let left = run(Command::new("find").args(["/etc/systemd", "/var/lib/systemd", "-name", "*ktrdr-agent*"]));
    assert_eq!(left, "");
    assert!(!is_installed());
}
