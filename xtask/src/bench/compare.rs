//! The same load with and without the agent, in turn.

use anyhow::Result;
use serde::Serialize;

use super::wrk::{Load, Measured};
use super::{Bench, median};
use crate::usage;

#[derive(Serialize)]
pub struct Round {
    pub without: Measured,
    #[serde(flatten)]
    pub observed: Observed,
}

#[derive(Serialize)]
pub struct Observed {
    pub with: Measured,
    /// CPU time of the agent during the load (s).
    pub agent_cpu_seconds: f64,
    /// Its resident memory after the load (bytes).
    pub agent_resident: u64,
    pub attached_in_ms: f64,
}

#[derive(Serialize)]
pub struct Comparison {
    pub name: String,
    pub rounds: Vec<Round>,
}

pub fn run(bench: &Bench, name: &str, load: &Load) -> Result<Comparison> {
    // Caches, connections and branch predictors of the server; not counted.
    load.run()?;
    let mut rounds = Vec::new();
    for round in 0..bench.rounds {
        // Each goes first in half of the rounds, so that a drift of the machine hits both alike.
        let (without, observed) = if round % 2 == 0 {
            (load.run()?, observed(bench, load)?)
        } else {
            let observed = observed(bench, load)?;
            (load.run()?, observed)
        };
        eprintln!(
            "bench: {name}, round {} of {}: {:.0} requests/s without, {:.0} with the agent",
            round + 1,
            bench.rounds,
            without.requests_per_second,
            observed.with.requests_per_second
        );
        rounds.push(Round { without, observed });
    }
    Ok(Comparison { name: name.to_owned(), rounds })
}

fn observed(bench: &Bench, load: &Load) -> Result<Observed> {
    let mut agent = bench.agent()?;
    let begin = usage::cpu_seconds(agent.id())?;
    let with = load.run()?;
    agent.still_runs()?;
    let observed = Observed {
        with,
        agent_cpu_seconds: usage::cpu_seconds(agent.id())? - begin,
        agent_resident: usage::resident(agent.id())?,
        attached_in_ms: agent.attached_in().as_secs_f64() * 1000.0,
    };
    agent.stop();
    Ok(observed)
}

impl Comparison {
    /// CPU seconds of the agent for 10,000 requests (both of whose ends it observed).
    pub fn cpu_per_10k(&self) -> f64 {
        let cost =
            |round: &Round| round.observed.agent_cpu_seconds / round.observed.with.requests as f64 * 10_000.0;
        median(self.rounds.iter().map(cost).collect())
    }

    pub fn most_resident(&self) -> u64 {
        self.rounds.iter().map(|round| round.observed.agent_resident).max().unwrap_or_default()
    }

    pub fn slowest_attach_ms(&self) -> f64 {
        self.rounds.iter().map(|round| round.observed.attached_in_ms).fold(0.0, f64::max)
    }
}
