//! `ktrdr-agent mcp`: the running agent's answers as tools of a language model.

use std::path::PathBuf;

use anyhow::Context;

use crate::mcp;
use crate::settings::Settings;

/// `mcp`.
#[derive(Debug, clap::Args)]
pub struct Mcp {
    /// Socket of the running agent [default: the setting explain.socket].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration file (see `config print`).
    #[arg(long, value_name = "FILE", env = "KTRDR_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Serves until standard input ends. That no agent runs (yet) is no error: each call says so.
pub fn run(args: &Mcp, settings: &Settings) -> anyhow::Result<()> {
    let socket = args.socket.clone().or_else(|| settings.explain.socket.clone());
    let socket = socket.context("the settings name no socket (explain.socket): give --socket")?;
    mcp::serve(socket)
}
