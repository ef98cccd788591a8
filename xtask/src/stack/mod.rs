//! The demo stack: starts and stops the services that `tests/stack/services.json` describes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

pub mod child;
pub mod ports;

use crate::{host, setup, wait};
use child::Child;

/// A Python service imports for about a second on a fast machine; a busy one gets its time.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Environment variables on top of those of `services.json`.
pub type Env<'a> = &'a [(&'a str, &'a str)];

#[derive(Clone, Debug, Deserialize)]
struct Service {
    name: String,
    port: u16,
    /// From the stack's directory.
    cwd: PathBuf,
    /// Program and arguments, with `{bin}`, `{port}` and `{other-service}` (its port) to fill in.
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    /// What its log says once it serves. Asking it would be a call that the agent shows.
    ready: String,
}

pub struct Stack {
    services: Vec<Service>,
    running: BTreeMap<String, Child>,
    logs: PathBuf,
    /// For every service that is started.
    env: BTreeMap<String, String>,
}

impl Stack {
    /// Reads the description; what the services print goes into `logs`, a file for each.
    pub fn load(logs: &Path) -> Result<Self> {
        let file = directory().join("services.json");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let services = serde_json::from_str(&text).with_context(|| format!("{} is wrong", file.display()))?;
        std::fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self { services, running: BTreeMap::new(), logs: logs.to_owned(), env: BTreeMap::new() })
    }

    /// Gives every service started from now on these environment variables.
    pub fn set_env(&mut self, env: Env<'_>) {
        self.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }

    pub fn names(&self) -> Vec<String> {
        self.services.iter().map(|service| service.name.clone()).collect()
    }

    pub fn port(&self, name: &str) -> Result<u16> {
        self.service(name).map(|service| service.port)
    }

    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.services.iter().map(|service| service.port)
    }

    /// An error that names the owner if a port of the stack is taken.
    pub fn ports_are_free(&self) -> Result<()> {
        for Service { name, port, .. } in &self.services {
            if let Some(owner) = ports::listener(*port)? {
                bail!("port {port} is needed for {name} and is in use by {owner}: stop that first");
            }
        }
        Ok(())
    }

    /// Starts every service and returns once all serve.
    pub fn start_all(&mut self) -> Result<()> {
        let names = self.names();
        for name in &names {
            self.spawn(name, &[])?;
        }
        names.iter().try_for_each(|name| self.serves(name))
    }

    /// Starts a service and returns once it serves.
    pub fn start(&mut self, name: &str) -> Result<()> {
        self.start_with(name, &[])
    }

    /// Starts a service with more environment variables and returns once it serves.
    pub fn start_with(&mut self, name: &str, env: Env<'_>) -> Result<()> {
        self.spawn(name, env)?;
        self.serves(name)
    }

    /// Starts `service` once more, under another name, on another port and with more environment variables.
    pub fn start_another(&mut self, service: &str, name: &str, port: u16, env: Env<'_>) -> Result<()> {
        let mut another = self.service(service)?.clone();
        (another.name, another.port) = (name.to_owned(), port);
        self.services.retain(|known| known.name != name);
        self.services.push(another);
        self.start_with(name, env)
    }

    fn spawn(&mut self, name: &str, env: Env<'_>) -> Result<()> {
        let service = self.service(name)?;
        let mut command = self.command(service);
        command.envs(env.iter().copied());
        let child = Child::spawn(name, &mut command, &self.log(name))?;
        self.running.insert(name.to_owned(), child);
        Ok(())
    }

    /// Returns once a service that was started serves.
    fn serves(&mut self, name: &str) -> Result<()> {
        let (log, ready) = (self.log(name), self.service(name)?.ready.clone());
        let child = self.running.get_mut(name).with_context(|| format!("{name} was not started"))?;
        let up = wait::until(START_DEADLINE, || match child.exited() {
            Some(status) => Some(Err(status)),
            None => says(&log, &ready).then_some(Ok(())),
        });
        match up {
            Some(Ok(())) => Ok(()),
            Some(Err(status)) => bail!("{name} ended at its start ({status}): see {}", log.display()),
            None => bail!("{name} does not serve: see {}", log.display()),
        }
    }

    /// Ends a service and returns once nothing listens on its port any more.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        let port = self.port(name)?;
        drop(self.running.remove(name));
        let gone = wait::until(START_DEADLINE, || matches!(ports::listens(port), Ok(false)).then_some(()));
        gone.with_context(|| format!("port {port} is still in use after {name} was stopped"))
    }

    /// Sends a signal to a service and the processes it started.
    pub fn signal(&self, name: &str, signal: i32) -> Result<()> {
        let child = self.running.get(name).with_context(|| format!("{name} does not run"))?;
        child.signal(signal);
        Ok(())
    }

    /// Whether a service runs that was started.
    pub fn runs(&mut self, name: &str) -> bool {
        self.running.get_mut(name).is_some_and(|child| child.exited().is_none())
    }

    /// Returns once a service's log has the text.
    pub fn logged(&self, name: &str, text: &str) -> Result<()> {
        let log = self.log(name);
        let found = wait::until(START_DEADLINE, || says(&log, text).then_some(()));
        found.with_context(|| format!("{} does not say `{text}`", log.display()))
    }

    /// Registrations of workers with the API so far, by the API's log.
    pub fn registrations(&self) -> usize {
        let text = std::fs::read_to_string(self.log("ktrdr-api")).unwrap_or_default();
        text.matches("/workers/register HTTP/1.1\" 200").count()
    }

    /// Returns once there were so many registrations.
    pub fn registered(&self, count: usize) -> Result<()> {
        let enough = wait::until(START_DEADLINE, || (self.registrations() >= count).then_some(()));
        enough.context("the workers did not register with the API")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn service(&self, name: &str) -> Result<&Service> {
        self.services
            .iter()
            .find(|service| service.name == name)
            .with_context(|| format!("no service {name}"))
    }

    fn command(&self, service: &Service) -> Command {
        let fill = |text: &str| self.filled(service, text);
        let mut command = Command::new(fill(&service.argv[0]));
        command.args(service.argv[1..].iter().map(|argument| fill(argument)));
        command.envs(service.env.iter().map(|(name, value)| (name, fill(value))));
        command.envs(&self.env);
        command.env("KTRDR_LOG_DIR", self.logs.join(&service.name));
        command.current_dir(directory().join(&service.cwd));
        command
    }

    fn filled(&self, service: &Service, text: &str) -> String {
        let bin = setup::python::interpreter();
        let bin = bin.parent().unwrap_or(&bin).to_string_lossy();
        let text = text.replace("{bin}", &bin).replace("{port}", &service.port.to_string());
        self.services
            .iter()
            .fold(text, |text, other| text.replace(&format!("{{{}}}", other.name), &other.port.to_string()))
    }
}

/// Whether a log has the text by now.
fn says(log: &Path, text: &str) -> bool {
    std::fs::read(log).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
}

/// A command of the demo's command line, to the API on this port.
pub fn ktrdr(api: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(setup::python::interpreter());
    command.arg(directory().join("bin/ktrdr")).args(arguments);
    command.env("KTRDR_API_URL", format!("http://127.0.0.1:{api}"));
    command
}

/// Where the stack's sources lie.
pub fn directory() -> PathBuf {
    host::root().join("tests/stack")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_whole_and_fills_in() {
        let logs = tempfile::tempdir().unwrap();
        let stack = Stack::load(logs.path()).unwrap();
        assert!(stack.services.len() >= 6);
        for service in &stack.services {
            let command = stack.command(service);
            let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
            let values = service.env.values().map(|value| stack.filled(service, value));
            for word in words.chain(values) {
                assert!(!word.contains(['{', '}']), "{}: {word} has a name that nothing fills", service.name);
            }
            assert!(directory().join(&service.cwd).is_dir());
            assert!(!service.ready.is_empty());
        }
    }
}
