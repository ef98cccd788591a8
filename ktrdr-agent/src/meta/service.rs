//! Names services. A name comes from the first of
//! 1. the configuration's rules, in their order;
//! 2. `OTEL_SERVICE_NAME`, then `service.name` in `OTEL_RESOURCE_ATTRIBUTES` of the process;
//! 3. KTRDR's layout ([`super::ktrdr`]), unless switched off;
//! 4. a guess from the command line ([`super::guess`]).
//!
//! A process that was spawned to do its parent's work (`multiprocessing.spawn`, a reloader's child) is named by
//! the command line of that parent, its origin, and by its own ports.

use super::{container::ContainerNames, guess, ktrdr, pattern, process::Process};
use crate::{
    event::shell::NameSource,
    settings::{Rule, Services},
};

/// Who a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `service.name`.
    pub name: String,
    /// `service.namespace`, empty = none.
    pub namespace: String,
    /// `service.version`, empty = none.
    pub version: String,
    /// Where the name comes from.
    pub source: NameSource,
}

/// All that is known about a process when it is named.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The process.
    pub process: &'a Process,
    /// The process whose work it does: itself, or the parent it was spawned from.
    pub origin: &'a Process,
    /// Ports on which it, or its origin, listens; ascending.
    pub ports: &'a [u16],
    /// Names of its container.
    pub container: &'a ContainerNames,
}

impl<'a> Subject<'a> {
    /// The port that tells instances apart: the lowest it listens on, else the one its command line asks for.
    pub fn port(&self) -> Option<u16> {
        self.ports.first().copied().or_else(|| guess::port_argument(&self.origin.args))
    }

    /// Working directory, of the origin where the process's own is not known.
    pub fn cwd(&self) -> &'a str {
        if self.process.cwd.is_empty() { &self.origin.cwd } else { &self.process.cwd }
    }
}

/// The naming rules.
#[derive(Clone, Debug)]
pub struct Namer {
    rules: Vec<Rule>,
    namespace: String,
    ktrdr: Option<Vec<Rule>>,
}

impl Namer {
    /// Naming as configured.
    pub fn new(services: &Services) -> Self {
        let ktrdr = services.ktrdr.then(ktrdr::rules);
        Self { rules: services.rules.clone(), namespace: services.namespace.clone(), ktrdr }
    }

    /// Names a process. Never empty.
    pub fn name(&self, subject: &Subject<'_>) -> Service {
        let otel = &subject.process.otel;
        let attribute = |key: &str| otel.attribute(key).unwrap_or_default().to_owned();
        let mut service = Service {
            namespace: attribute("service.namespace"),
            version: attribute("service.version"),
            ..Service::default()
        };
        if let Some(rule) = self.rules.iter().find(|r| matches(r, subject)) {
            service.name = fill(&rule.name, subject);
            service.source = NameSource::Config;
            for (own, given) in
                [(&mut service.namespace, &rule.namespace), (&mut service.version, &rule.version)]
            {
                if !given.is_empty() {
                    own.clone_from(given);
                }
            }
        } else if let Some(name) = otel.service_name.as_deref().or_else(|| otel.attribute("service.name")) {
            service.name = name.to_owned();
            service.source = NameSource::Environment;
        } else {
            let guess = guess::guess(subject);
            let ktrdr = self.ktrdr.as_ref().and_then(|rules| {
                let by_command = rules.iter().find(|r| matches(r, subject)).map(|r| fill(&r.name, subject));
                by_command.or_else(|| ktrdr::by_port(subject, &guess))
            });
            service.source = if ktrdr.is_some() { NameSource::Builtin } else { NameSource::Guess };
            service.name = ktrdr.unwrap_or(guess.name);
        }
        service.name = presentable(&service.name);
        if service.namespace.is_empty() {
            service.namespace.clone_from(&self.namespace);
        }
        service
    }

    /// The service expected behind a port, for peers that are not observed: of the rules that give ports alone,
    /// then KTRDR's layout.
    pub fn peer(&self, port: u16) -> Option<String> {
        let ports_only = |r: &&Rule| {
            r.ports.contains(&port)
                && [&r.executable, &r.command, &r.cwd, &r.container].iter().all(|c| c.is_empty())
        };
        let configured =
            self.rules.iter().find(ports_only).map(|r| r.name.replace("{port}", &port.to_string()));
        configured.or_else(|| self.ktrdr.as_ref().and_then(|_| ktrdr::peer(port)))
    }

    /// Every port that [`Namer::peer`] knows, ascending.
    pub fn port_names(&self) -> Vec<(u16, String)> {
        let configured = self.rules.iter().flat_map(|r| r.ports.iter().copied());
        let mut ports: Vec<u16> = configured.chain(ktrdr::PEERS.iter().map(|(port, _)| *port)).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.into_iter().filter_map(|p| Some((p, self.peer(p)?))).collect()
    }
}

/// Characters of a service's name that are kept; names become labels of metrics and tables.
const MAX_NAME: usize = 128;

/// A command line can hold anything; a name is one short line.
fn presentable(name: &str) -> String {
    let clean = name.chars().map(|c| if c.is_control() { '?' } else { c });
    clean.take(MAX_NAME).collect()
}

/// Whether every condition of the rule holds.
fn matches(rule: &Rule, s: &Subject<'_>) -> bool {
    let holds = |pattern: &str, test: &dyn Fn() -> bool| pattern.is_empty() || test();
    let line = |p: &Process| p.args.join(" ");
    (rule.ports.is_empty() || rule.ports.iter().any(|p| s.ports.contains(p)))
        && holds(&rule.executable, &|| executable(&rule.executable, s.process))
        && holds(&rule.command, &|| {
            [s.process, s.origin].iter().any(|p| pattern::command(&rule.command, &line(p)))
        })
        && holds(&rule.cwd, &|| pattern::path(&rule.cwd, s.cwd()))
        && holds(&rule.container, &|| {
            let id = s.process.container.as_ref().map_or("", |c| c.id.as_str());
            // At least the short form that runtimes print.
            let by_id = rule.container.len() >= 12 && id.starts_with(&rule.container);
            by_id || (!s.container.name.is_empty() && pattern::glob(&rule.container, &s.container.name))
        })
}

/// Whether the pattern names the process's executable; one that could not be read is taken from its arguments.
pub(super) fn executable(pattern: &str, p: &Process) -> bool {
    let exe = if p.exe.is_empty() { p.args.first().map_or("", String::as_str) } else { &p.exe };
    pattern::path(pattern, exe)
}

/// Fills the placeholders of a name. One without a value goes, with the separator before it: a worker whose port
/// is not known yet is `ktrdr-training-worker`.
fn fill(name: &str, s: &Subject<'_>) -> String {
    let values = [
        ("{port}", s.port().map(|p| p.to_string())),
        ("{pid}", Some(s.process.pid.to_string())),
        ("{dir}", Some(pattern::last(s.cwd()).to_owned())),
        ("{container}", Some(s.container.name.clone())),
    ];
    let mut out = name.to_owned();
    for (placeholder, value) in values {
        out = match value.filter(|v| !v.is_empty()) {
            Some(value) => out.replace(placeholder, &value),
            None => {
                ["-", "_", ".", ""].iter().fold(out, |o, sep| o.replace(&format!("{sep}{placeholder}"), ""))
            }
        };
    }
    // A name of placeholders alone, none of which has a value.
    if out.is_empty() { guess::guess(s).name } else { out }
}

#[cfg(test)]
mod tests;
