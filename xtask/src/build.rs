//! Building the agent.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{cmd, host, setup};

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

/// Oldest glibc that the binary runs with which is handed out: that of RHEL 7 (2014), older than any kernel the agent
/// runs on.
pub const GLIBC: (u32, u32) = (2, 17);

/// Builds it for a machine with zig as compiler of the C parts and as linker, and for [`GLIBC`].
pub fn with_zig(machine: &str, release: bool) -> Result<PathBuf> {
    let target = format!("{machine}-unknown-linux-gnu");
    let (major, minor) = GLIBC;
    let mut zig = Command::new(setup::packaging::zigbuild());
    zig.current_dir(host::root()).args(["zigbuild", "--package", "ktrdr-agent"]);
    if release {
        zig.arg("--release");
    }
    zig.arg("--target").arg(format!("{target}.{major}.{minor}"));
    zig.env("CARGO_ZIGBUILD_ZIG_PATH", setup::packaging::zig());
    cmd::run(&mut zig)?;
    Ok(host::target().join(target).join(if release { "release" } else { "debug" }).join("ktrdr-agent"))
}
