//! What packaging takes: zig and cargo-zigbuild from their Python packages, cargo-deb from crates.io, all under the
//! target directory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{python, say};
use crate::{cmd, host};

const ZIG: [&str; 2] = ["cargo-zigbuild==0.24.1", "ziglang==0.15.2"];
const CARGO_DEB: &str = "cargo-deb@3.8.0";

fn directory() -> PathBuf {
    host::target().join("tools")
}

/// The program.
pub fn cargo_deb() -> PathBuf {
    directory().join("bin/cargo-deb")
}

/// The program.
pub fn zigbuild() -> PathBuf {
    directory().join("zig/bin/cargo-zigbuild")
}

/// The program.
pub fn zig() -> PathBuf {
    directory().join("zig/ziglang/zig")
}

/// Installs cargo-deb where it is missing.
pub fn deb() -> Result<()> {
    if cargo_deb().exists() {
        return Ok(());
    }
    say(&format!("building {CARGO_DEB} into {}", directory().display()));
    let mut install = host::cargo();
    install.args(["install", "--quiet", "--locked", "--no-default-features", CARGO_DEB, "--root"]);
    cmd::run_quietly(install.arg(directory()).env("CARGO_TARGET_DIR", directory().join("cargo-deb")))
}

/// Installs zig where it is missing.
pub fn zig_linker() -> Result<()> {
    if zigbuild().exists() && zig().exists() {
        return Ok(());
    }
    python::environment()?;
    say(&format!("installing {} into {}", ZIG.join(" and "), directory().display()));
    let mut pip = Command::new(python::interpreter());
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
    cmd::run_quietly(pip.arg(directory().join("zig")).args(ZIG))
}
