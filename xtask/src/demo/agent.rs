//! The agent under demonstration: its tree on our terminal, its spans in a file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::stack::child::Child;
use crate::wait;

/// It attaches in under a second; the verifier of a debug kernel takes longer.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// A day: `--keep` ends by Ctrl-C, or with the agent.
const KEPT_AT_MOST: Duration = Duration::from_secs(24 * 3600);

pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts it and returns once it observes.
    pub fn start(binary: &Path, spans: &Path, log: &Path) -> Result<Self> {
        // What an earlier demo saw is not this one's.
        File::create(spans).with_context(|| format!("cannot write {}", spans.display()))?;
        let mut command = Command::new(binary);
        command.args(["run", "--console", "human", "--spans-out"]).arg(spans);
        command.stderr(File::create(log).with_context(|| format!("cannot write {}", log.display()))?);
        let child = Child::spawn_as_is("ktrdr-agent", &mut command)?;
        let mut agent = Self { child, log: log.to_owned() };
        let ready =
            wait::until(READY_DEADLINE, || (agent.ended().is_some() || agent.is_ready()).then_some(()));
        if let Some(status) = agent.ended() {
            bail!("the agent ended at its start ({status}): {}", agent.last_words());
        }
        ready.with_context(|| format!("the agent does not observe after {} s", READY_DEADLINE.as_secs()))?;
        Ok(agent)
    }

    /// Its log says so, once every program is attached.
    fn is_ready(&self) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains("observing"))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.exited()
    }

    /// The end of its log, and where the rest is.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it logged nothing");
        format!("{last} (log: {})", self.log.display())
    }

    pub fn stop(&mut self) {
        self.child.stop();
    }

    pub fn until_it_ends(&mut self) {
        wait::until(KEPT_AT_MOST, || self.ended());
    }
}
