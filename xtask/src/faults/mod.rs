//! `cargo xtask faults`: the demo stack is broken in every way we know, and the running agent is asked why. Its
//! `explain --json` must name the true cause first; where nothing failed it must not name any.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

mod act;
mod judge;
mod table;

use crate::agent::Agent;
use crate::stack::Stack;
use crate::{build, host, setup, wait};
use act::Play;
use table::{Asked, FAULTS, Fault};

/// From the end of a fault to the answer: spans come within 200 ms, operations after their last word.
const ANSWER_DEADLINE: Duration = Duration::from_secs(6);
/// Services that are as patient as people's tests, not as production.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("KTRDR_IB_TIMEOUT", "1.5"),
    ("KTRDR_IB_TRIES", "1"),
    ("KTRDR_WORKER_TIMEOUT", "1.5"),
    ("KTRDR_HEALTH_INTERVAL", "2"),
    ("IB_CONNECT_PATIENCE", "0"),
    ("IB_CONNECT_TIMEOUT", "1"),
    ("IB_REQUEST_TIMEOUT", "1"),
];

/// Services that register with the API.
fn workers() -> [&'static str; 3] {
    [table::WORKER_1, table::WORKER_2, table::BACKTESTER]
}

/// How one fault went.
struct Outcome {
    fault: &'static Fault,
    wrong: Option<String>,
    said: String,
    took: Duration,
}

/// Plays the faults whose name contains one of `names`; all of them if there are none.
pub fn run(names: &[String]) -> Result<()> {
    let chosen: Vec<&Fault> = FAULTS
        .iter()
        .filter(|fault| names.is_empty() || names.iter().any(|name| fault.name.contains(name.as_str())))
        .collect();
    if chosen.is_empty() {
        let all: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        bail!("no fault has such a name; there are:\n  {}", all.join("\n  "));
    }
    setup::run(setup::For::Demo)?;
    let binary = build::development()?;
    let directory = host::target().join("faults");
    let mut stack = Stack::load(&directory)?;
    stack.ports_are_free()?;
    stack.set_env(&ENVIRONMENT);
    let explain = Explain { binary, socket: directory.join("agent.sock") };
    let mut agent = explain.agent(&stack, &directory)?;
    println!("faults: {} of them, on the demo stack (logs: {})", chosen.len(), directory.display());
    let begin = Instant::now();
    stack.start_all()?;
    stack.registered(workers().len())?;
    let mut outcomes = Vec::new();
    for fault in chosen {
        let outcome = play(fault, &mut stack, &explain)?;
        agent.still_runs()?;
        println!("{}", outcome.line());
        outcomes.push(outcome);
    }
    drop(stack);
    agent.stop();
    let right = outcomes.iter().filter(|outcome| outcome.wrong.is_none()).count();
    println!("faults: {right} of {} explained, in {:.0} s", outcomes.len(), begin.elapsed().as_secs_f64());
    if right < outcomes.len() {
        bail!("{} fault(s) were not explained", outcomes.len() - right);
    }
    Ok(())
}

fn play(fault: &'static Fault, stack: &mut Stack, explain: &Explain) -> Result<Outcome> {
    let begin = Instant::now();
    let mut play = Play::new(stack)?;
    let name = || format!("the fault `{}`", fault.name);
    fault.acts.iter().try_for_each(|act| play.act(*act)).with_context(name)?;
    let query = match fault.asked {
        Asked::LastError => "last error".to_owned(),
        Asked::Operation => play.operations.last().cloned().with_context(name)?,
    };
    let mut last = Value::Null;
    let right = wait::until(ANSWER_DEADLINE, || {
        last = explain.ask(&query);
        judge::wrong(&last, &fault.expected).is_none().then_some(())
    });
    let wrong = match right {
        Some(()) => None,
        None => judge::wrong(&last, &fault.expected),
    };
    play.heal().with_context(name)?;
    let verdict = &last["verdict"];
    let said = match verdict["sentence"].as_str() {
        Some(sentence) => format!("{}: {sentence}", verdict["kind"].as_str().unwrap_or_default()),
        None => format!("no answer to `{query}`: {}", last["error"].as_str().unwrap_or_default()),
    };
    Ok(Outcome { fault, wrong, said, took: begin.elapsed() })
}

impl Outcome {
    fn line(&self) -> String {
        let mark = if self.wrong.is_some() { "✗" } else { "✓" };
        let took = self.took.as_secs_f64();
        let mut line = format!("{mark} {} ({took:.1} s)\n    {}", self.fault.name, self.said);
        if let Some(wrong) = &self.wrong {
            line.push_str(&format!("\n    wrong: {wrong}"));
        }
        line
    }
}

/// The agent and how it is asked.
struct Explain {
    binary: PathBuf,
    socket: PathBuf,
}

impl Explain {
    fn agent(&self, stack: &Stack, directory: &Path) -> Result<Agent> {
        let mut run = Command::new(&self.binary);
        run.args(["run", "--console", "off", "--spans-out"]).arg(directory.join("spans.jsonl"));
        let ports = stack.ports().chain([act::ANOTHER_PORT, table::NOBODYS_PORT, table::LIVE_PORT]);
        run.args(ports.flat_map(|port| ["--port".to_owned(), port.to_string()]));
        run.env("KTRDR_AGENT_EXPLAIN__SOCKET", &self.socket);
        run.env("KTRDR_AGENT_OPERATIONS__STUCK_AFTER", "2s");
        Agent::start_command(&mut run, &directory.join("agent.log"))
    }

    /// The answer, or an object with the `error`.
    fn ask(&self, query: &str) -> Value {
        let mut command = Command::new(&self.binary);
        command.args(["explain", "--json", query, "--socket"]).arg(&self.socket);
        let failed = |why: String| serde_json::json!({ "error": why });
        match command.output() {
            Ok(said) if said.status.success() => {
                serde_json::from_slice(&said.stdout).unwrap_or_else(|error| failed(error.to_string()))
            }
            Ok(said) => failed(String::from_utf8_lossy(&said.stderr).trim().to_owned()),
            Err(error) => failed(error.to_string()),
        }
    }
}
