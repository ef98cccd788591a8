//! Whether other kernels take the programs: boots Debian's kernels in an emulator, each with the agent, a server and a
//! client, and looks at what the agent made of their calls. A guest that says nothing has failed.

mod console;
mod guest;
mod kernels;
mod verdict;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{build, host, setup};
use kernels::Kernel;

/// Where kernels and images are kept between runs.
fn directory() -> PathBuf {
    host::target().join("vm")
}

/// Boots every kernel of the table whose name contains one of `only` (all, if there is none).
pub fn run(only: &[String]) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("only kernels for x86_64 can be tried so far");
    }
    setup::vm()?;
    let agent = build::development()?;
    let wanted = |kernel: &&Kernel| only.is_empty() || only.iter().any(|word| kernel.name.contains(&**word));
    let kernels: Vec<&Kernel> = kernels::ALL.iter().filter(wanted).collect();
    if kernels.is_empty() {
        let names: Vec<&str> = kernels::ALL.iter().map(|kernel| kernel.name).collect();
        bail!("no kernel is called like that; there are {}", names.join(", "));
    }
    let mut failed = Vec::new();
    for kernel in kernels {
        let files = kernel.fetch(&directory())?;
        eprintln!("vm: booting {} ({})", kernel.name, files.release);
        let outcome = guest::boot(&files, &agent, &directory()).and_then(|said| verdict::of(&said));
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
