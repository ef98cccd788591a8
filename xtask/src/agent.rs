//! A running agent, for the demo and the benchmark.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::stack::child::Child;
use crate::wait;

/// It attaches in under a second; the verifier of a debug kernel takes longer.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// What its log says once every program is attached.
const READY: &str = "observing";

pub struct Agent {
    child: Child,
    log: PathBuf,
    attached_in: Duration,
}

impl Agent {
    /// Starts `binary` with `arguments`, its output to nobody, and returns once it observes.
    pub fn start(binary: &Path, arguments: &[&str], log: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        Self::start_command(command.args(arguments).stdout(Stdio::null()), log)
    }

    /// Starts `command` and returns once it observes. Its own log goes into `log`.
    pub fn start_command(command: &mut Command, log: &Path) -> Result<Self> {
        // What is shown or measured is all there is, unless an option says otherwise.
        command.env("KTRDR_AGENT_BUDGET__CPU", "off");
        command.stderr(File::create(log).with_context(|| format!("cannot write {}", log.display()))?);
        let begin = Instant::now();
        let child = Child::spawn_as_is("ktrdr-agent", command)?;
        let mut agent = Self { child, log: log.to_owned(), attached_in: Duration::ZERO };
        let ready =
            wait::until(READY_DEADLINE, || (agent.ended().is_some() || agent.is_ready()).then_some(()));
        agent.attached_in = begin.elapsed();
        agent.still_runs()?;
        ready.with_context(|| format!("the agent does not observe after {} s", READY_DEADLINE.as_secs()))?;
        Ok(agent)
    }

    /// The reading end of its standard output, if that is a pipe and was not taken yet.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout()
    }

    /// From its start to its being attached.
    pub fn attached_in(&self) -> Duration {
        self.attached_in
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.exited()
    }

    /// An error with its last words if it has ended by itself.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.ended() {
            Some(status) => bail!("the agent ended ({status}): {}", self.last_words()),
            None => Ok(()),
        }
    }

    /// The end of its log, and where the rest is.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it logged nothing");
        format!("{last} (log: {})", self.log.display())
    }

    /// Ends it and waits for that.
    pub fn stop(&mut self) {
        self.child.stop();
    }

    fn is_ready(&self) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(READY))
    }
}
