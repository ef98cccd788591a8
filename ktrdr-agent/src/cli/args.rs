//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::settings::values::Period;
use crate::settings::{Override, Settings};

const EXAMPLES: &str = "\
Begin with:
  ktrdr-agent check                         can this host run it?
  sudo ktrdr-agent run --console human      watch; leave it running and ask it from elsewhere:
  sudo ktrdr-agent explain --list           recent operations and failures, a sentence each
  sudo ktrdr-agent explain last error       why the newest failure failed
  sudo ktrdr-agent explain op_training_…    the same of an operation; it need not have ended";

/// See which service called which on this host, and why calls fail, without changing the services.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Observe this host and emit spans until stopped (Ctrl-C).
    Run(Run),
    /// Say whether this host can run the agent: what was found, attached, skipped, and why.
    Check(Check),
    /// Write the raw records of the kernel programs to a file, for `replay`.
    Record(Record),
    /// Make spans from a recorded file; needs no kernel and no privileges.
    Replay(Replay),
    /// Say why an operation or a call failed, from the traces a running agent remembers (or from a file).
    Explain(super::explain::Explain),
    /// Let a language model ask the running agent: an MCP server on standard input and output.
    Mcp(super::mcp::Mcp),
    /// The configuration.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print all settings with their meaning and default, as a configuration file; or check the file named.
    Print {
        /// Check and print this file instead.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Options that several commands share.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Configuration file (see `config print`).
    #[arg(long, value_name = "FILE", env = "KTRDR_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to print on standard output: human (a tree per trace), json (a span per line) or off.
    #[arg(long, value_name = "FORM")]
    pub console: Option<String>,
    /// Also write every span as a line of JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub spans_out: Option<PathBuf>,
    /// Send spans to this OpenTelemetry receiver, e.g. http://localhost:4317.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// grpc, http/protobuf or http/json.
    #[arg(long, value_name = "PROTOCOL")]
    pub otlp_protocol: Option<String>,
}

impl Common {
    /// The options as settings.
    pub fn overrides(&self) -> Vec<Override> {
        let mut all = Vec::new();
        let mut set = |flag, key, value: &Option<String>| {
            if let Some(v) = value {
                all.push(Override::new(flag, key, v.clone()));
            }
        };
        set("--console", "console.format", &self.console);
        set("--otlp-endpoint", "otlp.endpoint", &self.otlp_endpoint);
        set("--otlp-protocol", "otlp.protocol", &self.otlp_protocol);
        all
    }

    /// Whether spans are asked for here.
    pub fn asks_for_spans(&self) -> bool {
        let console = self.console.as_deref().is_some_and(|form| form != "off");
        self.spans_out.is_some() || console || self.otlp_endpoint.is_some()
    }

    /// All settings, with these on top.
    pub fn settings(&self, overrides: Vec<Override>) -> anyhow::Result<Settings> {
        super::load(self.config.as_deref(), overrides)
    }
}

/// What to observe.
#[derive(Debug, clap::Args)]
pub struct Scope {
    /// Only connections with this port at either end (repeatable).
    #[arg(long, value_name = "PORT")]
    pub port: Vec<u16>,
    /// Only this process (repeatable).
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Not the processes whose executable or command line matches (repeatable).
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Not connections with this port at either end (repeatable).
    #[arg(long, value_name = "PORT")]
    pub exclude_port: Vec<u16>,
    /// Kernel hooks: auto, socket or syscall.
    #[arg(long, value_name = "HOOK")]
    pub hook: Option<String>,
    /// GPU samples: nvml, synthetic (invented, for a demonstration), recording or off.
    #[arg(long, value_name = "SOURCE")]
    pub gpu: Option<String>,
    /// Part of this host's processors from which on the agent observes only a part of the busiest connections (5%); off: never.
    #[arg(long, value_name = "PART", allow_hyphen_values = true)]
    pub cpu_budget: Option<String>,
}

impl Scope {
    fn overrides(&self) -> Vec<Override> {
        let mut all = Vec::new();
        let numbers = |list: Vec<String>| format!("[{}]", list.join(", "));
        if !self.port.is_empty() {
            let list = self.port.iter().map(ToString::to_string).collect();
            all.push(Override::new("--port", "include.ports", numbers(list)));
        }
        if !self.pid.is_empty() {
            let list = self.pid.iter().map(ToString::to_string).collect();
            all.push(Override::new("--pid", "include.pids", numbers(list)));
        }
        if !self.exclude.is_empty() {
            let list = self.exclude.iter().map(|p| format!("{p:?}")).collect();
            all.push(Override::new("--exclude", "exclude.commands", numbers(list)));
        }
        if !self.exclude_port.is_empty() {
            let list = self.exclude_port.iter().map(ToString::to_string).collect();
            all.push(Override::new("--exclude-port", "exclude.ports", numbers(list)));
        }
        if let Some(hook) = &self.hook {
            all.push(Override::new("--hook", "capture.hook", hook.clone()));
        }
        if let Some(source) = &self.gpu {
            all.push(Override::new("--gpu", "gpu.source", source.clone()));
        }
        if let Some(budget) = &self.cpu_budget {
            all.push(Override::new("--cpu-budget", "budget.cpu", budget.clone()));
        }
        all
    }
}

/// `run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
    /// What to observe.
    #[command(flatten)]
    pub scope: Scope,
    /// At the end, write what was seen, read, lost and exported to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub stats_out: Option<PathBuf>,
    /// Stop after this time, e.g. 30s.
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub duration: Option<Period>,
    /// Serve metrics for Prometheus at this address, e.g. 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<String>,
    /// Show recent traces to browsers and Jaeger's clients at this address, e.g. 127.0.0.1:16686.
    #[arg(long, value_name = "ADDRESS")]
    pub ui_listen: Option<String>,
    /// Do not open the socket that `explain` asks, and remember no traces for it.
    #[arg(long)]
    pub no_socket: bool,
}

impl Run {
    /// The options as settings.
    pub fn overrides(&self) -> Vec<Override> {
        let mut all = self.common.overrides();
        all.extend(self.scope.overrides());
        if let Some(listen) = &self.metrics_listen {
            all.push(Override::new("--metrics-listen", "metrics.listen", listen.clone()));
        }
        if let Some(listen) = &self.ui_listen {
            all.push(Override::new("--ui-listen", "ui.listen", listen.clone()));
        }
        all
    }
}

/// `record`.
#[derive(Debug, clap::Args)]
pub struct Record {
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
    /// What to observe.
    #[command(flatten)]
    pub scope: Scope,
    /// Where to; compressed if the name ends in .gz.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Stop after this time, e.g. 30s.
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub duration: Option<Period>,
}

impl Record {
    /// The options as settings.
    pub fn overrides(&self) -> Vec<Override> {
        let mut all = self.common.overrides();
        // A file of spans is no reason to print them as well.
        if self.common.console.is_none() {
            all.push(Override::new("--out", "console.format", "off"));
        }
        all.extend(self.scope.overrides());
        all
    }
}

/// `replay`.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
    /// The recorded file.
    pub file: PathBuf,
    /// Feed the file this many times and report the speed on standard error.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repeat: u32,
}

/// `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Configuration file.
    #[arg(long, value_name = "FILE", env = "KTRDR_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

fn period(text: &str) -> Result<Period, String> {
    text.parse()
}
