//! Builds the kernel programs (`ktrdr-ebpf`) for the BPF target and leaves the object in `OUT_DIR` for
//! `src/kernel/object.rs` to embed.
//!
//! The pinned stable toolchain builds them: `RUSTC_BOOTSTRAP=1` allows the two unstable things this needs
//! (`-Z build-std=core`, and the atomic-add intrinsic), so no second toolchain is installed.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

const PACKAGE: &str = "ktrdr-ebpf";
const TARGET: &str = "bpfel-unknown-none";

fn main() {
    if let Err(error) = build() {
        // One sentence, no backtrace: cargo shows the lines of a failed build script.
        println!("cargo::error={error:#}");
        std::process::exit(1);
    }
}

fn build() -> Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    let root = manifest.parent().context("the package lies in no workspace")?;
    for input in ["ktrdr-ebpf", "ktrdr-ebpf-common", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let path = path_with_linker()?;
    require_rust_src()?;

    // A target directory of its own: the outer cargo holds the lock of the other one.
    let target_dir = out.join("bpf-target");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("CARGO_CFG_TARGET_ARCH is not set")?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Clinker=bpf-linker".into(),
        "-Cdebuginfo=2".into(),
        // The kernel wants BTF for the programs' own types; the rest of the debug information stays out.
        "-Clink-arg=--btf".into(),
    ];
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--release", "--package", PACKAGE, "--target", TARGET])
        .args(["-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if env::var_os("CARGO_FEATURE_KERNEL_LOG").is_some() {
        cargo.args(["--features", "log"]);
    }
    // Wrappers and settings of the outer build (clippy's driver, coverage) are not for the kernel programs.
    for variable in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    let output = cargo.output().with_context(|| format!("cannot run {cargo:?}"))?;
    if !output.status.success() {
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning={line}");
        }
        bail!(
            "the kernel programs did not build ({}); `cargo xtask setup` installs what that needs",
            output.status
        );
    }
    let object = target_dir.join(TARGET).join("release").join(PACKAGE);
    std::fs::copy(&object, out.join("ktrdr-ebpf.o"))
        .with_context(|| format!("cannot copy the kernel object {}", object.display()))?;
    Ok(())
}

/// `PATH` with the directory of bpf-linker, which `cargo install` puts where not every `PATH` looks (sudo's does not).
fn path_with_linker() -> Result<OsString> {
    let mut directories: Vec<PathBuf> =
        env::var_os("PATH").map(|p| env::split_paths(&p).collect()).unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    directories.extend(cargo_home.map(|home| home.join("bin")));
    match directories.iter().find(|directory| directory.join("bpf-linker").is_file()) {
        None => bail!("bpf-linker was not found, which links the kernel programs: run `cargo xtask setup`"),
        Some(found) => println!("cargo::rerun-if-changed={}", found.join("bpf-linker").display()),
    }
    env::join_paths(directories).context("PATH cannot be extended")
}

/// Fails in words when the sources of `core` are missing, which has no built copy for the BPF target.
fn require_rust_src() -> Result<()> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().context("cannot run rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
        bail!(
            "the toolchain's rust-src component is missing, from which the kernel programs are built: run `cargo xtask setup`"
        );
    }
    Ok(())
}
