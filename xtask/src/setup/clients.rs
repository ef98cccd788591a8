//! Clients of what the agent serves, for the tests of it: one of Jaeger's API, and a browser's document model. Under
//! the target directory, because their versions are not those of the services observed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{python, say};
use crate::{cmd, host};

/// The newest that runs on Node 18.
const BROWSER: &str = "jsdom@26.1.0";

fn directory() -> PathBuf {
    host::target().join("tools")
}

/// Installs what is missing.
pub fn install() -> Result<()> {
    jaeger()?;
    browser()
}

fn jaeger() -> Result<()> {
    let file = host::root().join("tests/jaeger/requirements.txt");
    let pinned = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let to = directory().join("jaeger-client");
    // Written last, so an interrupted set-up is begun again.
    let mark = to.join("installed-requirements.txt");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == pinned) {
        return Ok(());
    }
    say(&format!("installing a client of Jaeger's API into {}", to.display()));
    if to.exists() {
        std::fs::remove_dir_all(&to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    let mut pip = Command::new(python::interpreter());
    // The pins are the whole closure; without --no-deps pip compares them with the environment's own packages.
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
    cmd::run_quietly(pip.arg(&to).arg("--requirement").arg(&file))?;
    std::fs::write(&mark, pinned).with_context(|| format!("cannot write {}", mark.display()))
}

fn browser() -> Result<()> {
    if directory().join("node_modules/jsdom/package.json").exists() {
        return Ok(());
    }
    say(&format!("installing {BROWSER} with npm into {}", directory().display()));
    std::fs::create_dir_all(directory())?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"]).arg(directory()).arg(BROWSER);
    cmd::run_quietly(&mut npm)
}
