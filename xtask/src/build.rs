//! Building the agent.

use std::path::PathBuf;

use anyhow::Result;

use crate::{cmd, host};

/// Builds the finished binary; gives its path.
pub fn release(kubernetes: bool) -> Result<PathBuf> {
    let mut build = host::cargo();
    build.args(["build", "--release", "--package", "ktrdr-agent"]);
    if kubernetes {
        build.args(["--features", "kubernetes"]);
    }
    cmd::run(&mut build)?;
    Ok(host::target().join("release/ktrdr-agent"))
}

/// Builds the binary that the tests drive; gives its path. The development profile, because `cargo test`
/// needs those artefacts anyway and an optimised build would double the time on a small machine.
pub fn development() -> Result<PathBuf> {
    cmd::run(host::cargo().args(["build", "--package", "ktrdr-agent"]))?;
    Ok(host::target().join("debug/ktrdr-agent"))
}
