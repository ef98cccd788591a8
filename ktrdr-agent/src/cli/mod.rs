//! The command line: what can be said, and what each command does with it.

mod args;
mod check;
mod explain;
mod mcp;

use std::process::ExitCode;

use clap::Parser;

use crate::pipeline::{self, RunOptions};
use crate::settings::{self, Settings};
use args::{Args, Command, ConfigCommand};

/// Parses the command line, runs the command, and turns its outcome into an exit status: 0 = done, 1 = failed,
/// 2 = wrong usage.
pub fn main() -> ExitCode {
    let args = Args::parse();
    logs();
    match run(args) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// The agent's own logs go to standard error; `RUST_LOG` chooses, warnings and the start-up report by default.
fn logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,ktrdr_agent=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // They are reported on standard error, and a reader that has gone (`2>&1 | head`) must not end the agent.
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
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
            pipeline::live::run(&settings, &options)?;
        }
        Command::Record(a) => {
            let settings = a.common.settings(a.overrides())?;
            let options = RunOptions {
                duration: a.duration.map(|p| p.0),
                spans_out: a.common.spans_out.clone(),
                stats_out: None,
                record: Some(a.out.clone()),
                // A recording needs no spans, but those asked for show what a replay must give.
                export: a.common.spans_out.is_some(),
                socket: false,
                ui: false,
            };
            pipeline::live::run(&settings, &options)?;
        }
        Command::Replay(a) => {
            let settings = a.common.settings(a.common.overrides())?;
            pipeline::replay::run(&settings, &a.file, a.common.spans_out.as_deref(), a.repeat)?;
        }
        Command::Explain(a) => return explain::run(&a, &load(a.config.as_deref(), Vec::new())?),
        Command::Mcp(a) => mcp::run(&a, &load(a.config.as_deref(), Vec::new())?)?,
        Command::Check(a) => return check::run(&load(a.config.as_deref(), Vec::new())?, a.json),
        Command::Config { command: ConfigCommand::Print { config } } => match config {
            None => print!("{}", settings::default_file()),
            Some(path) => {
                load(Some(&path), Vec::new())?;
                print!("{}", std::fs::read_to_string(&path)?);
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn load(path: Option<&std::path::Path>, overrides: Vec<settings::Override>) -> anyhow::Result<Settings> {
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    Ok(Settings::load(path, &env, &overrides)?)
}
