//! bpf-linker, which turns rustc's bitcode into a BPF object. It must read the bitcode of rustc's own
//! LLVM, and newer LLVM writes what older cannot read: so it is built against the same major version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::{apt, rust, say};
use crate::{cmd, host};

/// Version that is known to build the kernel programs.
const WANTED: &str = "0.13";

pub fn bpf_linker() -> Result<()> {
    let major = rust::llvm_major()?;
    if host::which("bpf-linker").is_some_and(|path| fits(&path, major)) {
        return Ok(());
    }
    let prefix = llvm(major)?;
    say(&format!("building bpf-linker {WANTED} against LLVM {major} with cargo (some minutes)"));
    let mut install = host::cargo();
    install.args(["install", "bpf-linker", "--version", &format!("^{WANTED}"), "--locked", "--force"]);
    install.args(["--no-default-features", "--features", &format!("llvm-{major}")]);
    install.env("LLVM_PREFIX", &prefix);
    cmd::run_quietly(&mut install)?;
    match host::which("bpf-linker") {
        Some(path) if fits(&path, major) => Ok(()),
        Some(path) => bail!("{} hides the bpf-linker that was just installed: remove it", path.display()),
        None => bail!("cargo's bin directory is not on the PATH: add ~/.cargo/bin to it"),
    }
}

/// The directory of this LLVM, installed if need be.
fn llvm(major: u32) -> Result<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    if !prefix.join("include/llvm-c/Core.h").exists() || !prefix.join("bin/clang").exists() {
        let ours = [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev"), format!("clang-{major}")];
        let mut packages: Vec<&str> = ours.iter().map(String::as_str).collect();
        packages.extend(["libzstd-dev", "zlib1g-dev"]);
        apt::install(&packages).map_err(|error| {
            error.context(format!(
                "LLVM {major} is needed to build bpf-linker; if this release does not carry it, add LLVM's own \
                 package source for apt (its name is apt.llvm.org) and run this again"
            ))
        })?;
    }
    Ok(prefix)
}

/// Whether this bpf-linker is of the wanted version and reads what our rustc writes.
fn fits(path: &Path, llvm_major: u32) -> bool {
    let version = cmd::output(Command::new(path).arg("--version")).unwrap_or_default();
    let libraries = cmd::output(Command::new("ldd").arg(path)).unwrap_or_default();
    is_wanted_version(&version) && linked_llvm(&libraries).is_none_or(|linked| linked >= llvm_major)
}

fn is_wanted_version(said: &str) -> bool {
    said.split_whitespace().nth(1).is_some_and(|version| version.starts_with(&format!("{WANTED}.")))
}

/// The LLVM major version among the shared libraries; none if LLVM is linked in statically.
fn linked_llvm(libraries: &str) -> Option<u32> {
    let rest = libraries.lines().find_map(|line| line.trim().strip_prefix("libLLVM"))?;
    let digits = rest.trim_start_matches("-").trim_start_matches(".so.");
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        assert!(is_wanted_version("bpf-linker 0.13.0\n"));
        assert!(!is_wanted_version("bpf-linker 0.9.15\n"));
        assert!(!is_wanted_version(""));
    }

    #[test]
    fn the_linked_llvm_is_read_from_ldd() {
        assert_eq!(linked_llvm("\tlibc.so.6 => /lib/libc.so.6\n\tlibLLVM.so.22.1 => /usr/lib/x\n"), Some(22));
        assert_eq!(linked_llvm("\tlibLLVM-17.so.1 => /usr/lib/x\n"), Some(17));
        assert_eq!(linked_llvm("\tlibc.so.6 => /lib/libc.so.6\n"), None);
    }
}
