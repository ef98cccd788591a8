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

    /// The verdict in one sentence; without `--json` it is a screen.
    pub fn explain(&self, operation: &str) -> Result<()> {
        let answer: serde_json::Value = serde_json::from_str(&self.ask(&["--json", operation])?)?;
        let word = |key: &str| answer["verdict"][key].as_str().unwrap_or_default();
        println!("$ ktrdr-agent explain {operation}\n  {}: {}", word("kind"), word("sentence"));
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
    // The command line ends with 1: the operation has not completed.
    let said = stack::ktrdr(api, &["train", "STALL", "--wait", "--detach"]).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let operation = said.split(':').next().filter(|id| id.starts_with("op_"));
    operation.map(str::to_owned).with_context(|| format!("no worker took a job: {said}"))
}

/// Takes the job back.
pub fn release(api: u16, operation: &str) -> Result<()> {
    stack::ktrdr(api, &["operations", "cancel", operation]).output()?;
    Ok(())
}
