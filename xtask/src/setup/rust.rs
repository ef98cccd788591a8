//! Parts of the Rust toolchain: the sources of `core`, which the kernel programs are built from, and other machines.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::say;
use crate::{cmd, host};

/// Adds `rust-src` to the pinned toolchain if it is not there.
pub fn sources() -> Result<()> {
    let sysroot = cmd::output(rustc().args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
        return Ok(());
    }
    if host::which("rustup").is_none() {
        bail!("the Rust toolchain at {} has no rust-src, and there is no rustup to add it", sysroot.trim());
    }
    say("adding rust-src to the pinned toolchain with rustup");
    cmd::run_quietly(Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(host::root()))
}

/// Adds the standard library of another machine to the pinned toolchain if it is not there.
pub fn target(name: &str) -> Result<()> {
    let sysroot = cmd::output(rustc().args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(name).join("lib").exists() {
        return Ok(());
    }
    say(&format!("adding the standard library of {name} to the pinned toolchain with rustup"));
    cmd::run_quietly(Command::new("rustup").args(["target", "add", name]).current_dir(host::root()))
}

/// The major version of the LLVM that the pinned rustc was built with.
pub fn llvm_major() -> Result<u32> {
    let version = cmd::output(rustc().arg("-vV"))?;
    parse_llvm_major(&version).with_context(|| format!("`rustc -vV` names no LLVM version:\n{version}"))
}

fn rustc() -> Command {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(host::root());
    rustc
}

fn parse_llvm_major(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_version_is_read_from_rustc() {
        assert_eq!(parse_llvm_major("rustc 1.95.0\nhost: x\nLLVM version: 22.1.2\n"), Some(22));
        assert_eq!(parse_llvm_major("rustc 1.95.0\n"), None);
    }
}
