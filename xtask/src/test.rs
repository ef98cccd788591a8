//! `cargo xtask test`: everything that must hold, cheapest first, each step named when it fails.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{build, cmd, demo, host, package, setup, tidy};

/// The crate of the kernel programs builds for another target, so it is left out of host builds.
const KERNEL_CRATE: &str = "ktrdr-ebpf";
/// All that can be switched on is tested; the development build has none of it.
const FEATURES: &str = "--features=ktrdr-agent/kubernetes";

/// What is drawn for the properties is the same each time, so that a change is judged by what it changes. Plain
/// `cargo test` draws anew: that is where to look for more. Someone else's choice of seed stands.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20251113");

pub fn run() -> Result<()> {
    setup::run(setup::For::Test)?;
    step("format", || cmd::run(host::cargo().args(["fmt", "--all", "--check"])))?;
    step("tidy", tidy::run)?;
    step("clippy", || {
        cmd::run(
            host::cargo()
                .args(["clippy", "--workspace", "--exclude", KERNEL_CRATE, "--all-targets", FEATURES])
                .args(DENY),
        )
    })?;
    step("clippy of the kernel programs", || cmd::run(kernel_clippy().args(DENY)))?;
    let agent = step("build", build::development)?;
    // The whole demo judges itself: what it shows, it shows without root.
    step("demo without root", || demo::play_all(&agent, demo::Options { keep: false, unprivileged: true }))?;
    let package = step("package", || package::run(true))?;
    step("tests", || {
        let mut test = host::cargo();
        test.args(["test", "--workspace", "--exclude", KERNEL_CRATE, "--no-fail-fast", FEATURES]);
        test.env("KTRDR_AGENT_BIN", &agent).env("KTRDR_PYTHON", setup::python::interpreter());
        test.env("KTRDR_HELM", setup::npm::helm()).env("KTRDR_TOOLS", setup::npm::directory());
        test.env("KTRDR_DEB", &package);
        if std::env::var_os(SEED.0).is_none() {
            test.env(SEED.0, SEED.1);
        }
        cmd::run(&mut test)
    })
}

const DENY: [&str; 3] = ["--", "-D", "warnings"];

/// As the agent's build script compiles them: core from source, for the BPF target.
fn kernel_clippy() -> Command {
    let mut clippy = host::cargo();
    clippy.args(["clippy", "--package", KERNEL_CRATE, "--bins", "--release"]);
    clippy.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"]);
    clippy.arg("--target-dir").arg(host::target().join("ebpf-clippy"));
    clippy.env("RUSTC_BOOTSTRAP", "1");
    clippy.env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH));
    clippy
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("xtask: {name}");
    work().with_context(|| format!("step \"{name}\""))
}
