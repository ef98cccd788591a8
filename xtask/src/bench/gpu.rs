//! What sampling GPUs costs: the CPU time of the sampling thread at each pace, against a stand-in for NVIDIA's library. A
//! real driver's own work comes on top; the agent's part is what is measured here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::Bench;
use crate::agent::Agent;
use crate::{cmd, host, wait};

/// The sampling thread's name.
const THREAD: &str = "gpu-sampler";
/// How long each pace is watched.
const WATCHED: Duration = Duration::from_secs(5);
/// Periods in milliseconds: idle, and the busy ones.
const PERIODS: [u64; 3] = [1000, 250, 100];

#[derive(Debug, Serialize)]
pub struct Pace {
    pub period_ms: u64,
    /// CPU time of the thread per hour (s).
    pub seconds_per_hour: f64,
}

pub fn measure(bench: &Bench) -> Result<Vec<Pace>> {
    let library = stand_in(&bench.directory)?;
    PERIODS.iter().map(|period| one(bench, &library, *period)).collect()
}

fn one(bench: &Bench, library: &Path, period_ms: u64) -> Result<Pace> {
    let mut command = Command::new(&bench.binary);
    command.args(["run", "--console", "off", "--no-socket"]);
    command.env("KTRDR_AGENT_GPU__LIBRARY", library);
    command.env("KTRDR_AGENT_GPU__IDLE_PERIOD", format!("{period_ms}ms"));
    let mut agent = Agent::start_command(&mut command, &bench.directory.join("agent-gpu.log"))?;
    let (begin, before) = (Instant::now(), cpu(agent.id())?);
    wait::until(WATCHED, || agent.ended());
    agent.still_runs()?;
    let used = cpu(agent.id())? - before;
    Ok(Pace { period_ms, seconds_per_hour: used / begin.elapsed().as_secs_f64() * 3600.0 })
}

fn stand_in(directory: &Path) -> Result<PathBuf> {
    let library = directory.join("standin.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(host::root().join("tests/gpu/standin.c"));
    cmd::run_quietly(&mut cc)?;
    let script = "util 0 80 40\nproc 0 1 1073741824 80\n";
    std::fs::write(directory.join("standin.so.script"), script).context("the stand-in's script")?;
    Ok(library)
}

/// CPU time of the sampling thread so far (s): the first field of its schedstat, in ns.
fn cpu(pid: u32) -> Result<f64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).context("the agent's threads")?;
    for task in tasks.flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() == THREAD {
            let text = read("schedstat");
            let ns: f64 =
                text.split_whitespace().next().and_then(|n| n.parse().ok()).context("no schedstat")?;
            return Ok(ns / 1e9);
        }
    }
    bail!("the agent has no thread {THREAD}")
}
