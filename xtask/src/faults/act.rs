//! What is done to the stack.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::table::API;
use crate::stack::{self, Env, Stack};

/// Name and port of a second API with a configuration of its own.
const ANOTHER_API: &str = "another-api";
pub const ANOTHER_PORT: u16 = 8001;

#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// A command of the CLI, to its end. How it ends is not judged: `explain` is.
    Cli(&'static [&'static str]),
    /// The same, with a CLI that waits a second only.
    Impatient(&'static [&'static str]),
    /// Begins a command and goes on once it has told its operation; [`Act::End`] waits for it, or it is broken off.
    Begin(&'static [&'static str]),
    End,
    /// Follows the last operation to its end, or cancels it.
    Follow,
    Cancel,
    Start(&'static str),
    Stop(&'static str),
    Restart(&'static str, Env<'static>),
    /// SIGKILL, for the service and what it started.
    Kill(&'static str),
    /// SIGSTOP: its sockets stay open, and nobody answers.
    Halt(&'static str),
    /// Waits until a service's log has a text.
    Logged(&'static str, &'static str),
    /// Commands go to another API from now on, started with these variables.
    AnotherApi(Env<'static>),
}

/// The stack while a fault is played.
pub struct Play<'a> {
    stack: &'a mut Stack,
    /// Where commands go.
    api: u16,
    begun: Option<(Child, BufReader<ChildStdout>)>,
    /// Operations that commands told, the last one at the end.
    pub operations: Vec<String>,
    /// Operations that go on until they are cancelled.
    held: Vec<String>,
    /// Services to be made whole again.
    touched: Vec<&'static str>,
}

impl<'a> Play<'a> {
    pub fn new(stack: &'a mut Stack) -> Result<Self> {
        let api = stack.port(API)?;
        Ok(Self { stack, api, begun: None, operations: Vec::new(), held: Vec::new(), touched: Vec::new() })
    }

    pub fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Cli(arguments) => {
                self.run(&mut stack::ktrdr(self.api, arguments))?;
                if arguments.contains(&"--detach") {
                    self.held.extend(self.operations.last().cloned());
                }
                Ok(())
            }
            Act::Impatient(arguments) => {
                self.run(stack::ktrdr(self.api, arguments).env("KTRDR_CLI_TIMEOUT", "1"))
            }
            Act::Begin(arguments) => {
                let mut command = stack::ktrdr(self.api, arguments);
                let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
                let mut child = child.context("cannot run the command line")?;
                let mut output = BufReader::new(child.stdout.take().context("no pipe")?);
                let mut line = String::new();
                output.read_line(&mut line).context("the command line told nothing")?;
                self.told(line.as_bytes());
                self.begun = Some((child, output));
                Ok(())
            }
            Act::End => {
                let (mut child, mut output) = self.begun.take().context("no command was begun")?;
                let mut rest = Vec::new();
                output.read_to_end(&mut rest).context("cannot read the command line")?;
                child.wait().context("cannot wait for the command line")?;
                self.told(&rest);
                Ok(())
            }
            Act::Follow => self.about("follow"),
            Act::Cancel => self.about("cancel"),
            Act::Start(service) => self.stack.start(service),
            Act::Stop(service) => self.on(service, |stack| stack.stop(service)),
            Act::Restart(service, env) => self.on(service, |stack| {
                stack.stop(service)?;
                stack.start_with(service, env)
            }),
            Act::Kill(service) => self.on(service, |stack| {
                stack.signal(service, libc::SIGKILL)?;
                stack.stop(service)
            }),
            Act::Halt(service) => self.on(service, |stack| stack.signal(service, libc::SIGSTOP)),
            Act::Logged(service, text) => self.stack.logged(service, text),
            Act::AnotherApi(env) => {
                self.api = ANOTHER_PORT;
                self.stack.start_another(API, ANOTHER_API, ANOTHER_PORT, env)
            }
        }
    }

    fn on(&mut self, service: &'static str, does: impl FnOnce(&mut Stack) -> Result<()>) -> Result<()> {
        self.touched.push(service);
        does(self.stack)
    }

    fn about(&mut self, what: &str) -> Result<()> {
        let operation = self.operations.last().cloned().context("no operation was told")?;
        self.run(&mut stack::ktrdr(self.api, &["operations", what, &operation]))
    }

    fn run(&mut self, command: &mut Command) -> Result<()> {
        let said = command.stdin(Stdio::null()).output().context("cannot run the command line")?;
        // 2 is the command line's own complaint: the table is wrong.
        if said.status.code() == Some(2) {
            bail!("{}", String::from_utf8_lossy(&said.stderr));
        }
        self.told(&said.stdout);
        Ok(())
    }

    /// Operations are told as `op_…: status`.
    fn told(&mut self, said: &[u8]) {
        for line in String::from_utf8_lossy(said).lines() {
            let id = line.split(':').next().unwrap_or_default();
            if id.starts_with("op_") && self.operations.last().is_none_or(|last| last != id) {
                self.operations.push(id.to_owned());
            }
        }
    }

    /// Makes the stack whole again: nothing is left halted, down, differently configured or at work.
    pub fn heal(mut self) -> Result<()> {
        if let Some((mut child, _)) = self.begun.take() {
            child.kill().and_then(|()| child.wait()).context("cannot end the command line")?;
            self.held.extend(self.operations.last().cloned());
        }
        for operation in std::mem::take(&mut self.held) {
            self.run(&mut stack::ktrdr(self.api, &["operations", "cancel", &operation]))?;
        }
        if self.api == ANOTHER_PORT {
            self.stack.stop(ANOTHER_API)?;
        }
        let mut touched = std::mem::take(&mut self.touched);
        // A new API knows no workers until they come anew.
        if touched.contains(&API) {
            touched.extend(super::workers());
        }
        touched.sort_unstable();
        touched.dedup();
        for service in &touched {
            if self.stack.runs(service) {
                // One that is still patient with the gateway would let us wait as long.
                self.stack.signal(service, libc::SIGKILL)?;
                self.stack.stop(service)?;
            }
        }
        let before = if touched.contains(&API) { 0 } else { self.stack.registrations() };
        for service in &touched {
            self.stack.start(service)?;
        }
        let anew = touched.iter().filter(|service| super::workers().contains(service)).count();
        self.stack.registered(before + anew)
    }
}
