//! The demo stack: starts and stops the services that `tests/stack/services.json` describes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

pub mod child;
pub mod ports;

use crate::{host, setup, wait};
use child::Child;

/// A Python service imports for about a second on a fast machine; a busy one gets its time.
const START_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
struct Service {
    name: String,
    port: u16,
    /// From the stack's directory.
    cwd: PathBuf,
    /// Program and arguments, with `{bin}`, `{port}` and `{other-service}` (its port) to fill in.
    argv: Vec<String>,
    env: BTreeMap<String, String>,
}

pub struct Stack {
    services: Vec<Service>,
    running: BTreeMap<String, Child>,
    logs: PathBuf,
}

impl Stack {
    /// Reads the description; what the services print goes into `logs`, a file for each.
    pub fn load(logs: &Path) -> Result<Self> {
        let file = directory().join("services.json");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let services = serde_json::from_str(&text).with_context(|| format!("{} is wrong", file.display()))?;
        std::fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self { services, running: BTreeMap::new(), logs: logs.to_owned() })
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

    /// Starts a service and returns once it listens.
    pub fn start(&mut self, name: &str) -> Result<()> {
        let service = self.service(name)?;
        let log = self.logs.join(format!("{name}.log"));
        let mut child = Child::spawn(name, &mut self.command(service), &log)?;
        let port = service.port;
        let up = wait::until(START_DEADLINE, || match child.exited() {
            Some(status) => Some(Err(anyhow!("{name} ended at its start ({status}): see {}", log.display()))),
            None => matches!(ports::listens(port), Ok(true)).then_some(Ok(())),
        });
        up.unwrap_or_else(|| bail!("{name} does not listen on port {port}: see {}", log.display()))?;
        self.running.insert(name.to_owned(), child);
        Ok(())
    }

    /// Ends a service and returns once nothing listens on its port any more.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        let port = self.port(name)?;
        drop(self.running.remove(name));
        let gone = wait::until(START_DEADLINE, || matches!(ports::listens(port), Ok(false)).then_some(()));
        gone.with_context(|| format!("port {port} is still in use after {name} was stopped"))
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
        assert!(stack.services.len() >= 5);
        for service in &stack.services {
            let command = stack.command(service);
            let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
            let values = service.env.values().map(|value| stack.filled(service, value));
            for word in words.chain(values) {
                assert!(!word.contains(['{', '}']), "{}: {word} has a name that nothing fills", service.name);
            }
            assert!(directory().join(&service.cwd).is_dir());
        }
    }
}
