//! `cargo xtask bench causality`: real servers whose calls carry the id of the request that caused them.
//!
//! The runner, the servers and the judge are in `tests/causality/`; this sets up, builds and starts them.

use std::process::Command;

use anyhow::Result;

use crate::{build, cmd, host, setup};

/// Prints the table; an error if an edge is wrong or too many are missing.
pub fn run(arguments: &[String]) -> Result<()> {
    setup::run(setup::For::Test)?;
    let agent = build::release()?;
    cmd::run(
        Command::new(setup::python::interpreter())
            .arg(host::root().join("tests/causality/run.py"))
            .arg("--agent")
            .arg(agent)
            .args(arguments),
    )
}
