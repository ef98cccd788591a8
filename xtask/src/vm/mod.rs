//! Whether other kernels take the programs: boots Debian's kernels in an emulator, each with the agent, a server and a
//! client, and looks at what the agent made of their calls. A guest that says nothing has failed.

mod console;
mod guest;
mod kernels;
mod verdict;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{build, host, setup};
use guest::Guest;
use kernels::{Kernel, Machine};

/// Where kernels and images are kept between runs.
fn directory() -> PathBuf {
    host::target().join("vm")
}

/// Boots every kernel of the table whose name contains one of `only` (all, if there is none), on request
/// with a Python server besides.
pub fn run(only: &[String], python: bool) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("kernels can be tried on x86_64 only");
    }
    let wanted = |kernel: &&Kernel| match only {
        // Another machine takes a build of its own and minutes of emulated Python: only when it is named.
        [] => kernel.machine == Machine::X86_64,
        words => words.iter().any(|word| kernel.name.contains(&**word)),
    };
    let kernels: Vec<&Kernel> = kernels::ALL.iter().filter(wanted).collect();
    if kernels.is_empty() {
        let names: Vec<&str> = kernels::ALL.iter().map(|kernel| kernel.name).collect();
        bail!("no kernel is called like that; there are {}", names.join(", "));
    }
    let of = |machine| kernels.iter().any(|kernel| kernel.machine == machine);
    setup::vm(of(Machine::Aarch64))?;
    let x86_64 = of(Machine::X86_64).then(build::development).transpose()?;
    let aarch64 = of(Machine::Aarch64).then(|| build::with_zig("aarch64", false)).transpose()?;
    let mut failed = Vec::new();
    for kernel in kernels {
        let files = kernel.fetch(&directory())?;
        eprintln!("vm: booting {} ({})", kernel.name, files.release);
        let with_python = python || kernel.machine == Machine::Aarch64;
        let userland = with_python.then(|| kernels::userland(kernel.machine, &directory())).transpose()?;
        let agent = if kernel.machine == Machine::X86_64 { &x86_64 } else { &aarch64 };
        let guest = Guest {
            kernel: &files,
            machine: kernel.machine,
            agent: agent.as_deref().context("no agent was built for it")?,
            userland: userland.as_deref(),
        };
        let outcome = guest::boot(&guest, &directory()).and_then(|said| {
            let mut seen = verdict::of(&said)?;
            if userland.is_some() {
                seen.push(verdict::python(&said, &directory())?);
            }
            Ok(seen)
        });
        match outcome {
            Ok(hooks) => println!("{:<9} {:<30} passed: {}", kernel.name, files.release, hooks.join(", ")),
            Err(why) => {
                println!("{:<9} {:<30} FAILED: {why:#}", kernel.name, files.release);
                failed.push(kernel.name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not on {}; what the guests said is in {}", failed.join(", "), directory().display())
}
