//! `cargo xtask bench causality`: real servers whose calls carry the id of the request that caused them.
//!
//! The runner, the servers and the judge are in `tests/causality/`; this sets up, builds and starts them.

use std::process::Command;

use anyhow::Result;

use crate::{build, cmd, host, setup};

/// Prints the table, and what following contexts costs unless only some cases are asked for; an error if an edge is
/// wrong or too many are missing.
pub fn run(arguments: &[String]) -> Result<()> {
    setup::run(setup::For::Test)?;
    let agent = build::release(false)?;
    let script = |name: &str| {
        let mut command = Command::new(setup::python::interpreter());
        command.arg(host::root().join("tests/causality").join(name)).arg("--agent").arg(&agent);
        command
    };
    cmd::run(script("run.py").args(arguments))?;
    if arguments.is_empty() { cmd::run(&mut script("cost.py")) } else { Ok(()) }
}
