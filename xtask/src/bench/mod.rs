//! `cargo xtask bench`: what the agent costs, and where.
//!
//! Every comparison runs with and without the agent in turn, in one go, and is told as the median of the
//! rounds' ratios: the absolute figures belong to the machine, and it drifts.

use std::path::PathBuf;

use anyhow::{Context, Result};

mod compare;
mod gpu;
mod logs;
mod median;
mod nginx;
mod programs;
mod replay;
mod report;
mod sink;
mod wrk;

use crate::agent::Agent;
use crate::stack::Stack;
use crate::{build, cmd, host, setup, usage};
use compare::Comparison;
use median::median;
use wrk::Load;

/// Load average over a minute from which on something else competes for the processors.
const BUSY: f64 = 0.7;

/// What every part of the benchmark needs.
pub struct Bench {
    pub binary: PathBuf,
    pub directory: PathBuf,
    pub rounds: usize,
}

impl Bench {
    /// An agent that makes spans and shows them to nobody.
    fn agent(&self) -> Result<Agent> {
        self.agent_with(&[])
    }

    fn agent_with(&self, options: &[&str]) -> Result<Agent> {
        let arguments = [&["run", "--console", "off"], options].concat();
        Agent::start(&self.binary, &arguments, &self.directory.join("agent.log"))
    }
}

/// Only what logs cost.
pub fn run_logs(rounds: usize, seconds: u64) -> Result<()> {
    let bench = prepared(rounds)?;
    let mut report = report::Report::default();
    report.logs(&logs::measure(&bench, seconds)?);
    report.print();
    report.write(&host::target().join("bench-logs.json"))
}

/// Only how fast recorded transfers become spans.
pub fn run_replay() -> Result<()> {
    let bench = prepared(1)?;
    let nginx = nginx::Nginx::start(&bench.directory)?;
    let load = Load { url: nginx.url(), connections: 32, seconds: 1 };
    let mut report = report::Report::default();
    report.replay(&replay::measure(&bench, &load)?);
    report.print();
    report.write(&host::target().join("bench-replay.json"))
}

fn prepared(rounds: usize) -> Result<Bench> {
    setup::run(setup::For::Test)?;
    let bench = Bench { binary: build::release(false)?, directory: host::target().join("bench"), rounds };
    if let Some(load) = usage::load_average().filter(|load| *load > BUSY) {
        eprintln!("bench: this machine is busy (load average {load}): the figures will be worth little");
    }
    std::fs::create_dir_all(&bench.directory)
        .with_context(|| format!("cannot make {}", bench.directory.display()))?;
    Ok(bench)
}

pub fn run(rounds: usize, seconds: u64) -> Result<()> {
    let bench = prepared(rounds)?;
    let mut report = report::Report::default();

    let nginx = nginx::Nginx::start(&bench.directory)?;
    let load = Load { url: nginx.url(), connections: 32, seconds };
    let compared = compare::run(&bench, "nginx under wrk", &load)?;
    report.comparison(&compared);
    report.programs("captured", "< 600 ns", &programs::measure(&bench, &load, &[])?);
    let ignored = ["--exclude-port", &nginx::PORT.to_string()];
    report.programs("ignored", "< 150 ns", &programs::measure(&bench, &load, &ignored)?);
    report.replay(&replay::measure(&bench, &load)?);
    drop(nginx);

    let mut stack = Stack::load(&bench.directory)?;
    stack.ports_are_free()?;
    stack.start("ktrdr-api")?;
    let url = format!("http://127.0.0.1:{}/api/v1/symbols", stack.port("ktrdr-api")?);
    report.comparison(&compare::run(&bench, "FastAPI under wrk", &Load { url, connections: 16, seconds })?);
    drop(stack);

    report.logs(&logs::measure(&bench, seconds)?);
    report.gpu(&gpu::measure(&bench)?);

    report.print();
    report.write(&host::target().join("bench.json"))
}

/// Metrics alone: no kernel, no load. The program says what it measured, and fails beyond the bounds.
pub fn metrics() -> Result<()> {
    setup::run(setup::For::Build)?;
    cmd::run(host::cargo().args(["bench", "--package", "ktrdr-agent", "--bench", "metrics"]))
}

impl Comparison {
    /// How much the agent takes away from `of`, as a fraction, round by round.
    fn losses(&self, of: impl Fn(&wrk::Measured) -> f64) -> Vec<f64> {
        self.rounds.iter().map(|round| 1.0 - of(&round.observed.with) / of(&round.without)).collect()
    }
}
