//! The command line: what can be said, and what each command does with it.

mod args;
mod check;
mod explain;
mod mcp;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::pipeline::{self, RunOptions};
use crate::settings::{self, Settings};
use crate::{privileges, telemetry};
use args::{Args, Command, ConfigCommand};

/// Parses the command line, runs the command, and turns its outcome into an exit status: 0 = done, 1 = failed,
/// 2 = wrong usage.
pub fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    // These two may send their log elsewhere, which the settings say first.
    if !matches!(command, Command::Run(_) | Command::Record(_)) {
        telemetry::start(None);
    }
    match command {
        Command::Run(a) => {
            let settings = a.common.settings(a.overrides())?;
            let options = RunOptions {
                duration: a.duration.map(|p| p.0),
                spans_out: a.common.spans_out.clone(),
                stats_out: a.stats_out.clone(),
                record: None,
                export: true,
                socket: !a.no_socket,
                ui: true,
            };
            observe(&settings, &options)?;
        }
        Command::Record(a) => {
            let settings = a.common.settings(a.overrides())?;
            let options = RunOptions {
                duration: a.duration.map(|p| p.0),
                spans_out: a.common.spans_out.clone(),
                stats_out: None,
                record: Some(a.out.clone()),
                // A recording needs no spans, but those asked for show what a replay must give.
                export: a.common.asks_for_spans(),
                socket: false,
                ui: false,
            };
            observe(&settings, &options)?;
        }
        Command::Replay(a) => {
            let settings = a.common.settings(a.common.overrides())?;
            pipeline::replay::run(&settings, &a.file, a.common.spans_out.as_deref(), a.repeat)?;
        }
        Command::Explain(a) => return explain::run(&a, &load(a.config.as_deref(), Vec::new())?),
        Command::Mcp(a) => mcp::run(&a, &load(a.config.as_deref(), Vec::new())?)?,
        Command::Check(a) => return check::run(&load(a.config.as_deref(), Vec::new())?, a.json),
        Command::Config { command: ConfigCommand::Print { config } } => match config {
            None => output::print(&settings::default_file())?,
            Some(path) => {
                load(Some(&path), Vec::new())?;
                output::print(&std::fs::read_to_string(&path)?)?;
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn load(path: Option<&std::path::Path>, overrides: Vec<settings::Override>) -> anyhow::Result<Settings> {
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    Ok(telemetry::early(|| Settings::load(path, &env, &overrides))?)
}

/// Observes, and tells the receiver of the agent's own telemetry, if there is one, how that went.
fn observe(settings: &Settings, options: &RunOptions) -> anyhow::Result<()> {
    privileges::confine(settings.security.confine);
    let sender = pipeline::self_telemetry(settings).map(telemetry::Sender::start).transpose()?;
    telemetry::start(sender.as_ref());
    let outcome = pipeline::live::run(settings, options);
    if let Some(sender) = sender {
        let _ = outcome.as_ref().inspect_err(|e| telemetry::failed(e));
        sender.stop();
    }
    outcome
}
