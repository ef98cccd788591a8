//! What a user would ask the running agent, and the jobs that keep workers busy.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cmd, stack};

/// The agent and where it answers.
pub struct Answers {
    pub binary: PathBuf,
    pub socket: PathBuf,
}

impl Answers {
    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        cmd::output(command.arg("explain").args(arguments).arg("--socket").arg(&self.socket))
    }

    /// The answer as a user gets it, a screen.
    pub fn explain(&self, operation: &str) -> Result<()> {
        print!("$ ktrdr-agent explain {operation}\n{}", self.ask(&[operation])?);
        Ok(())
    }

    /// All operations, a few lines each.
    pub fn list(&self) -> Result<()> {
        print!("$ ktrdr-agent explain --list\n{}", self.ask(&["--list"])?);
        Ok(())
    }
}

/// Gives a worker a job that stays until it is taken back; gives the operation.
pub fn hold_a_worker(api: u16) -> Result<String> {
    let said = command(api, &["train", "STALL", "--wait", "--detach"])?;
    let operation = said.split(':').next().filter(|id| id.starts_with("op_"));
    operation.map(str::to_owned).with_context(|| format!("no worker took a job: {said}"))
}

/// Takes the job back.
pub fn release(api: u16, operation: &str) -> Result<()> {
    command(api, &["operations", "cancel", operation]).map(drop)
}

/// Runs a command of a user to its end; shows it with what it said.
pub fn command(api: u16, arguments: &[&str]) -> Result<String> {
    // A scenario that is meant to fail ends with 1; the spans are what is judged.
    let said = stack::ktrdr(api, arguments).output().context("cannot run the demo's command line")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    println!("$ ktrdr {}\n{}", arguments.join(" "), said.trim_end());
    Ok(said)
}
