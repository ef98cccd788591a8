//! The same load without the agent, with one that observes all, and with one that stays within the default budget, in turn.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::wrk::{Load, Measured};
use super::{Bench, median};
use crate::agent::Agent;
use crate::usage;

/// The default of `budget.cpu`.
pub const BUDGET: &str = "5%";
/// Seconds of the load before an agent with a budget leaves anything out: ten in which it does not look, and three above.
const LEAVES_OUT_AFTER: u64 = 13;
/// And until what it leaves out has come to rest.
const COMES_TO_REST: u64 = 7;

#[derive(Serialize)]
pub struct Round {
    pub without: Measured,
    #[serde(flatten)]
    pub observed: Observed,
    pub within_budget: Within,
}

/// Under an agent with a budget.
#[derive(Serialize)]
pub struct Within {
    #[serde(flatten)]
    pub observed: Observed,
    /// Processors that the agent used.
    pub agent_processors: f64,
    /// Part of the connections that it observed at the end.
    pub part: f64,
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
        // The load without the agent is in the middle, the others take turns, so that a drift of the machine hits all alike.
        let (without, observed, within_budget) = if round % 2 == 0 {
            let observed = observed(bench, load)?;
            (load.run()?, observed, within(bench, load)?)
        } else {
            let within = within(bench, load)?;
            (load.run()?, observed(bench, load)?, within)
        };
        eprintln!(
            "bench: {name}, round {} of {}: {:.0} requests/s without, {:.0} with the agent, {:.0} within its budget ({:.1} % observed)",
            round + 1,
            bench.rounds,
            without.requests_per_second,
            observed.with.requests_per_second,
            within_budget.observed.with.requests_per_second,
            within_budget.part * 100.0
        );
        rounds.push(Round { without, observed, within_budget });
    }
    Ok(Comparison { name: name.to_owned(), rounds })
}

fn observed(bench: &Bench, load: &Load) -> Result<Observed> {
    let agent = bench.agent()?;
    under(agent, load)
}

/// Under an agent whose budget had its effect.
fn within(bench: &Bench, load: &Load) -> Result<Within> {
    let books = bench.directory.join("budget-stats.json");
    let options = ["--cpu-budget", BUDGET, "--stats-out", &books.to_string_lossy()];
    let agent = bench.agent_with(&options)?;
    Load { url: load.url.clone(), seconds: LEAVES_OUT_AFTER + COMES_TO_REST, ..*load }.run()?;
    let observed = under(agent, load)?;
    let text = std::fs::read_to_string(&books).with_context(|| format!("cannot read {}", books.display()))?;
    let books: Value = serde_json::from_str(&text)?;
    let parts = books["budget"]["observed"].as_object().context("the agent tells nothing of its budget")?;
    let part = parts.values().filter_map(Value::as_f64).fold(1.0, f64::min);
    let agent_processors = observed.agent_cpu_seconds / load.seconds as f64;
    Ok(Within { observed, agent_processors, part })
}

fn under(mut agent: Agent, load: &Load) -> Result<Observed> {
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

    /// How much an agent within its budget takes away from the throughput, as a fraction, round by round.
    pub fn losses_within_budget(&self) -> Vec<f64> {
        let loss = |round: &Round| {
            1.0 - round.within_budget.observed.with.requests_per_second / round.without.requests_per_second
        };
        self.rounds.iter().map(loss).collect()
    }

    /// Processors that such an agent uses.
    pub fn processors_within_budget(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.within_budget.agent_processors).collect())
    }

    /// Part of the connections that it observes.
    pub fn part_within_budget(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.within_budget.part).collect())
    }

    pub fn most_resident(&self) -> u64 {
        self.rounds.iter().map(|round| round.observed.agent_resident).max().unwrap_or_default()
    }

    pub fn slowest_attach_ms(&self) -> f64 {
        self.rounds.iter().map(|round| round.observed.attached_in_ms).fold(0.0, f64::max)
    }
}
