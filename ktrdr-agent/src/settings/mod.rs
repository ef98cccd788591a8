//! Settings: what the user said ([`said`]) and what the program needs ([`Settings`]), kept apart.
//!
//! A setting is defined in one place, its doc-commented field in [`said`]: file, environment variable, spelling
//! help and `config print` follow from it.

mod budget;
mod error;
pub mod gpu;
mod kubernetes;
mod load;
mod logs;
pub mod metrics;
mod operations;
mod otel_env;
pub mod otlp;
mod print;
pub mod said;
mod sampling;
mod schema;
mod self_telemetry;
#[cfg(test)]
mod tests;
mod ui;
pub mod values;

use std::{path::Path, time::Duration};

pub use self::{
    budget::CpuBudget,
    error::{Origin, SettingsError},
    gpu::Gpu,
    kubernetes::Kubernetes,
    load::Override,
    logs::Logs,
    metrics::Metrics,
    otel_env::environment,
    otlp::{Otlp, Target, Tls},
    print::{default_file, file},
    said::{Console, Exclude, Include, Rule, Said, Services},
    sampling::Sampling,
    ui::Ui,
    values::{CallEnds, Colour, Compression, ConsoleFormat, Hook, Protocol, Semconv},
};
use ktrdr_ebpf_common::limits::MAX_PAYLOAD;

/// What the program works with: checked, in the program's units.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What is read from the kernel.
    pub capture: Capture,
    /// What is observed; empty lists = everything.
    pub include: Include,
    /// What is left out, included or not.
    pub exclude: Exclude,
    /// What is secret.
    pub mask: std::sync::Arc<crate::mask::Mask>,
    /// How services are named.
    pub services: Services,
    /// HTTP.
    pub http: Http,
    /// How long a failed connect waits for another address of the same name to succeed.
    pub connect_grace: Duration,
    /// Log lines.
    pub logs: Logs,
    /// Command lines.
    pub commands: said::Commands,
    /// CPython processes.
    pub python: said::Python,
    /// Metrics.
    pub metrics: Metrics,
    /// Sending to an OpenTelemetry receiver.
    pub otlp: Otlp,
    /// Which spans are sent.
    pub sampling: Sampling,
    /// What is printed.
    pub console: Console,
    /// What tells operations and failures.
    pub operations: crate::trace::operations::rules::Rules,
    /// Answering `explain`.
    pub explain: Explain,
    /// Recent traces over HTTP.
    pub ui: Ui,
    /// Sampling GPUs.
    pub gpu: Gpu,
    /// Kubernetes metadata.
    pub kubernetes: Kubernetes,
    /// Bounds on memory.
    pub limits: said::Limits,
    /// What the agent may take of the host's processors.
    pub budget: CpuBudget,
    /// What the agent may do itself.
    pub security: said::Security,
    /// Where the agent's own telemetry goes, if anywhere.
    pub self_telemetry: Option<Target>,
    /// Where the host's files are.
    pub host: said::Host,
}

/// What is read from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Kernel hooks.
    pub hook: Hook,
    /// Where the ends of single system calls are looked at.
    pub call_ends: CallEnds,
    /// Bytes copied of each transfer.
    pub capture_bytes: u32,
    /// Size of the ring: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// JSON-RPC on standard input and output.
    pub stdio: bool,
}

/// HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Longest head in bytes.
    pub max_head: usize,
    /// Give the attribute names from before the stable ones, too.
    pub old_names: bool,
}

/// Answering `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// Path of the socket, if there is to be one.
    pub socket: Option<std::path::PathBuf>,
    /// Bytes for recent traces.
    pub memory: usize,
}

/// A value that does not fit: its key and why.
#[derive(Debug)]
pub(crate) struct Bad {
    key: String,
    message: String,
}

impl Bad {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl Default for Settings {
    #[expect(clippy::expect_used, reason = "a test resolves the defaults; no input is involved")]
    fn default() -> Self {
        Self::resolve(&Said::default()).expect("the defaults are valid")
    }
}

impl Settings {
    /// Reads the file (if one is named), the environment and the command line, the latter over the former.
    pub fn load(
        path: Option<&Path>,
        env: &[(String, String)],
        cli: &[Override],
    ) -> Result<Self, SettingsError> {
        let text = match path {
            None => None,
            Some(path) => {
                let read = std::fs::read_to_string(path);
                let text = read.map_err(|why| SettingsError::Read { path: path.to_owned(), why })?;
                Some((path, text))
            }
        };
        Self::from_text(text.as_ref().map(|(path, text)| (*path, text.as_str())), env, cli)
    }

    /// As [`Settings::load`], from a file already read.
    pub fn from_text(
        file: Option<(&Path, &str)>,
        env: &[(String, String)],
        cli: &[Override],
    ) -> Result<Self, SettingsError> {
        let mut layers = load::Layers::default();
        if let Some((path, text)) = file {
            layers.lay_file(path, text)?;
        }
        layers.lay_environment(env)?;
        layers.lay_overrides(cli)?;
        Self::resolve(&layers.said()?).map_err(|Bad { key, message }| SettingsError::BadValue {
            origin: layers.origin(&key),
            key,
            message,
        })
    }

    /// Checks what the types alone cannot.
    fn resolve(said: &Said) -> Result<Self, Bad> {
        check_rules(&said.services.rules)?;
        Ok(Self {
            capture: Capture::resolve(&said.capture)?,
            include: said.include.clone(),
            exclude: said.exclude.clone(),
            mask: mask(&said.mask)?,
            services: said.services.clone(),
            http: Http::resolve(&said.http)?,
            connect_grace: said.connect.grace.0,
            logs: Logs::resolve(&said.logs)?,
            commands: said.commands.clone(),
            python: said.python.clone(),
            metrics: Metrics::resolve(&said.metrics)?,
            otlp: Otlp::resolve(&said.otlp)?,
            sampling: Sampling::resolve(&said.sampling)?,
            console: said.console.clone(),
            operations: operations::resolve(&said.operations)?,
            explain: Explain::resolve(&said.explain)?,
            ui: Ui::resolve(&said.ui)?,
            gpu: Gpu::resolve(&said.gpu)?,
            kubernetes: Kubernetes::resolve(&said.kubernetes)?,
            limits: check_limits(&said.limits)?,
            budget: said.budget.cpu,
            security: said.security.clone(),
            self_telemetry: self_telemetry::resolve(&said.self_telemetry)?,
            host: said.host.clone(),
        })
    }
}

impl Capture {
    /// The verifier follows payload lengths up to [`MAX_PAYLOAD`]; the kernel takes rings of a power of two pages.
    fn resolve(said: &said::Capture) -> Result<Self, Bad> {
        let capture_bytes = u32::try_from(said.capture_bytes.0).ok().filter(|n| *n as usize <= MAX_PAYLOAD);
        let capture_bytes = capture_bytes.filter(|n| *n >= 64).ok_or_else(|| {
            Bad::new("capture.capture_bytes", format!("must be from 64 bytes to {}KiB", MAX_PAYLOAD >> 10))
        })?;
        let ring_bytes = u32::try_from(said.ring_bytes.0).ok();
        let ring_bytes = ring_bytes.filter(|n| n.is_power_of_two() && *n >= 64 << 10).ok_or_else(|| {
            Bad::new(
                "capture.ring_bytes",
                "must be a power of two from 64KiB to 2GiB (16MiB, 32MiB, 64MiB, …)",
            )
        })?;
        let (hook, call_ends) = (said.hook, said.call_ends);
        Ok(Self { hook, call_ends, capture_bytes, ring_bytes, stdio: said.stdio })
    }
}

impl Http {
    fn resolve(said: &said::Http) -> Result<Self, Bad> {
        // Below, ordinary heads would not fit; above, one connection could hold too much memory.
        let max_head = usize::try_from(said.max_head.0).ok().filter(|n| (1024..=1 << 20).contains(n));
        let max_head = max_head.ok_or_else(|| Bad::new("http.max_head", "must be from 1KiB to 1MiB"))?;
        Ok(Self { max_head, old_names: said.semconv == Semconv::Dup })
    }
}

impl Explain {
    /// Less would not hold one trace of an hour's polling.
    fn resolve(said: &said::Explain) -> Result<Self, Bad> {
        let memory = usize::try_from(said.memory.0).ok().filter(|n| *n >= 1 << 20);
        let memory = memory.ok_or_else(|| Bad::new("explain.memory", "must be at least 1MiB"))?;
        let socket = (!said.socket.is_empty()).then(|| said.socket.clone().into());
        Ok(Self { socket, memory })
    }
}

fn check_limits(limits: &said::Limits) -> Result<said::Limits, Bad> {
    for (key, value) in [("processes", limits.processes), ("connections", limits.connections)] {
        if value == 0 {
            return Err(Bad::new(format!("limits.{key}"), "must be at least 1"));
        }
    }
    let most = crate::engine::MAX_CONNS;
    if limits.connections > most {
        return Err(Bad::new("limits.connections", format!("must be at most {most}")));
    }
    Ok(limits.clone())
}

fn mask(said: &said::Mask) -> Result<std::sync::Arc<crate::mask::Mask>, Bad> {
    let mask = crate::mask::Mask::new(&said.keys, &said.allow, &said.patterns);
    mask.map(Into::into).map_err(|why| Bad::new("mask.patterns", why))
}

fn check_rules(rules: &[Rule]) -> Result<(), Bad> {
    for (i, rule) in rules.iter().enumerate() {
        let conditions = [&rule.executable, &rule.command, &rule.cwd, &rule.container];
        let problem = if rule.name.is_empty() {
            "has no name"
        } else if rule.ports.is_empty() && conditions.iter().all(|c| c.is_empty()) {
            "has no condition: give ports, executable, command, cwd or container"
        } else {
            continue;
        };
        return Err(Bad::new("services.rules", format!("rule {} {problem}", i + 1)));
    }
    Ok(())
}
