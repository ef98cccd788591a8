//! What it costs a service that logs as much as it can: the same flood with and without the agent in turn, and what
//! became of every byte of it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Bench, median};
use crate::stack::child::Child;
use crate::stack::ports;
use crate::usage;
use crate::{cmd, host, setup, wait};

const PORT: u16 = 18082;
const START_DEADLINE: Duration = Duration::from_secs(10);
/// What the service itself may say besides: a line about each of the two requests.
const OWN_LINES: u64 = 1_024;
/// The flood before the one that is measured: its process becomes known to the agent by it.
const WARM_UP_SECONDS: &str = "0.5";
/// Characters of a message: with the first, Python's logging writes about 100 MB/s here.
const MESSAGES: [u32; 2] = [1_000, 200];

/// What the service says of a flood.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Flood {
    pub bytes: u64,
    pub lines: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
}

impl Flood {
    /// Processor time per line (s). A busy machine takes from the throughput, from this hardly.
    fn cpu_per_line(&self) -> f64 {
        self.cpu_seconds / self.lines as f64
    }

    fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

#[derive(Debug, Serialize)]
pub struct Round {
    pub without: Flood,
    pub with: Flood,
    /// CPU time of the agent during the flood (s).
    pub agent_cpu_seconds: f64,
    /// Its resident memory after it (bytes).
    pub agent_resident: u64,
    /// Bytes that it read.
    pub captured: u64,
    /// Bytes beyond the process's rate, which it counted.
    pub over_rate: u64,
}

/// Rounds with messages of one length.
#[derive(Debug, Serialize)]
pub struct Floods {
    pub characters: u32,
    pub rounds: Vec<Round>,
}

impl Floods {
    /// Throughput that the agent takes from the service, as a fraction.
    pub fn loss(&self) -> f64 {
        median(self.rounds.iter().map(|r| 1.0 - r.with.rate() / r.without.rate()).collect())
    }

    /// What a line costs the service more, as a fraction of its processor time.
    pub fn cpu(&self) -> f64 {
        median(self.rounds.iter().map(|r| r.with.cpu_per_line() / r.without.cpu_per_line() - 1.0).collect())
    }

    /// The same in nanoseconds.
    pub fn nanoseconds_per_line(&self) -> f64 {
        median(self.rounds.iter().map(|r| (r.with.cpu_per_line() - r.without.cpu_per_line()) * 1e9).collect())
    }

    pub fn megabytes_per_second(&self) -> f64 {
        median(self.rounds.iter().map(|r| r.without.rate() / 1e6).collect())
    }

    pub fn most_resident(&self) -> u64 {
        self.rounds.iter().map(|r| r.agent_resident).max().unwrap_or_default()
    }

    /// Share of a processor that the agent uses meanwhile.
    pub fn agent_cpu(&self) -> f64 {
        median(self.rounds.iter().map(|r| r.agent_cpu_seconds / r.with.seconds).collect())
    }

    /// Share of the bytes that the agent read; it counted the others.
    pub fn captured(&self) -> f64 {
        median(self.rounds.iter().map(|r| r.captured as f64 / (r.captured + r.over_rate) as f64).collect())
    }
}

pub fn measure(bench: &Bench, seconds: u64) -> Result<Vec<Floods>> {
    let service = Service::start(&bench.directory)?;
    MESSAGES.iter().map(|characters| floods(bench, &service, seconds, *characters)).collect()
}

fn floods(bench: &Bench, service: &Service, seconds: u64, characters: u32) -> Result<Floods> {
    let seconds = seconds.to_string();
    // Caches and branch predictors; not counted.
    service.flood(WARM_UP_SECONDS, characters)?;
    let mut rounds = Vec::new();
    for n in 0..bench.rounds {
        // Each goes first in half of the rounds, so that a drift of the machine hits both alike.
        let round = if n % 2 == 0 {
            let without = service.flood(&seconds, characters)?;
            observed(bench, service, &seconds, characters, Some(without))?
        } else {
            observed(bench, service, &seconds, characters, None)?
        };
        eprintln!(
            "bench: logs of {characters} characters, round {} of {}: {:.1} MB/s without, {:.1} with the agent",
            n + 1,
            bench.rounds,
            round.without.rate() / 1e6,
            round.with.rate() / 1e6
        );
        rounds.push(round);
    }
    Ok(Floods { characters, rounds })
}

fn observed(
    bench: &Bench,
    service: &Service,
    seconds: &str,
    characters: u32,
    without: Option<Flood>,
) -> Result<Round> {
    let books = bench.directory.join("logs-stats.json");
    // Of this service alone: its bytes are compared with the counters.
    let port = PORT.to_string();
    let options = ["--no-socket", "--port", &port, "--stats-out", &books.to_string_lossy()];
    let mut agent = bench.agent_with(&options)?;
    let first = service.flood(WARM_UP_SECONDS, characters)?;
    let begin = usage::cpu_seconds(agent.id())?;
    let with = service.flood(seconds, characters)?;
    agent.still_runs()?;
    let agent_cpu_seconds = usage::cpu_seconds(agent.id())? - begin;
    let agent_resident = usage::resident(agent.id())?;
    agent.stop();
    let (captured, over_rate) = counted(&books)?;
    // It may have come to know the service in the middle of the first flood, and of no other.
    let seen = captured + over_rate;
    if seen < with.bytes || seen > with.bytes + first.bytes + OWN_LINES {
        bail!("of {} bytes written (and {} before) the agent counted {seen}", with.bytes, first.bytes);
    }
    let without = match without {
        Some(flood) => flood,
        None => service.flood(seconds, characters)?,
    };
    Ok(Round { without, with, agent_cpu_seconds, agent_resident, captured, over_rate })
}

/// Bytes of writes that were read and that were beyond the rate.
fn counted(books: &Path) -> Result<(u64, u64)> {
    let text = std::fs::read_to_string(books).with_context(|| format!("cannot read {}", books.display()))?;
    let books: Value = serde_json::from_str(&text)?;
    let counter = |name: &str| books["kernel"][name].as_u64().with_context(|| format!("no counter {name}"));
    // What lies beyond the longest write that is read is none here: a line is a write.
    if counter("write_bytes_truncated")? > 0 || counter("records_lost_ring_full")? > 0 {
        bail!("the agent lost records, or parts of lines: {text}");
    }
    Ok((counter("write_bytes_captured")?, counter("write_bytes_over_rate")?))
}

struct Service {
    _child: Child,
}

impl Service {
    fn start(directory: &Path) -> Result<Self> {
        if let Some(owner) = ports::listener(PORT)? {
            bail!(
                "port {PORT} is needed for the benchmark's service and is in use by {owner}: stop that first"
            );
        }
        let mut command = Command::new(setup::python::interpreter());
        command.arg(host::root().join("tests/programs/flooding_app.py")).arg(PORT.to_string());
        let output = directory.join("flood.out");
        command.stdout(File::create(&output).with_context(|| format!("cannot write {}", output.display()))?);
        let child = Child::spawn_as_is("the logging service", command.stderr(Stdio::inherit()))?;
        let up = wait::until(START_DEADLINE, || matches!(ports::listens(PORT), Ok(true)).then_some(()));
        up.context("the logging service does not listen")?;
        Ok(Self { _child: child })
    }

    fn flood(&self, seconds: &str, characters: u32) -> Result<Flood> {
        let url = format!("http://127.0.0.1:{PORT}/{seconds}/{characters}");
        let said = cmd::output(Command::new("curl").args(["-sS", "--fail", &url]))?;
        serde_json::from_str(&said).with_context(|| format!("the logging service says: {said}"))
    }
}
