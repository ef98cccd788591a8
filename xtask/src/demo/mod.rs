//! `cargo xtask demo`: the stack fails and works, the agent watches, and we say what it saw.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

mod answers;
mod scenario;
mod screen;
mod spans;
mod story;
mod user;

use crate::agent::Agent;
use crate::stack::Stack;
use crate::{build, cmd, host, setup, stack, usage, wait};
use answers::Answers;
use scenario::Scenario;
use screen::Screen;
use spans::SpanFile;
use story::Story;
use user::User;

const API: &str = "ktrdr-api";

/// Where the agent's page is with `--keep`: the port of Jaeger's own.
const PAGE: &str = "127.0.0.1:16686";

/// From the end of a scenario's command to its spans. The agent shows a lone request within 200 ms.
const SPANS_DEADLINE: Duration = Duration::from_secs(10);

/// A day: `--keep` ends by Ctrl-C, or with the agent.
const KEPT_AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// How it is played.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Leave the agent and the stack running until Ctrl-C.
    pub keep: bool,
    /// The agent is another user, with the documented capabilities and no others.
    pub unprivileged: bool,
}

pub fn run(options: Options, development: bool) -> Result<()> {
    setup::run(setup::For::Demo)?;
    let binary = if development { build::development()? } else { build::release(false)? };
    play_all(&binary, options)
}

/// The demo with an agent that is built already.
pub fn play_all(binary: &Path, Options { keep, unprivileged }: Options) -> Result<()> {
    let directory = host::target().join("demo");
    let mut stack = Stack::load(&directory)?;
    stack.ports_are_free()?;

    say(match unprivileged {
        false => "starting the agent on the ports of the stack; no process is changed for it",
        true => "starting the agent as nobody, with four capabilities, on the ports of the stack",
    });
    let user = User::new(&directory, unprivileged)?;
    let spans_file = user.file("spans.jsonl")?;
    let mut run = user.command(binary);
    run.args(["run", "--console", "human", "--spans-out"]).arg(&spans_file);
    // Without these it would show whatever else this host is doing, in between.
    run.args(stack.ports().flat_map(|port| ["--port".to_owned(), port.to_string()]));
    let answers = Answers { binary: binary.to_owned(), socket: user.socket("agent.sock") };
    run.envs(screen::environment()).stdout(Stdio::piped());
    run.env("KTRDR_AGENT_EXPLAIN__SOCKET", &answers.socket);
    // The stack trains without a GPU. What a span would say of one is shown with a device that is invented, and says so.
    run.env("KTRDR_AGENT_GPU__SOURCE", "synthetic");
    // Somebody else may serve Jaeger's port, for example Jaeger; the demo does without, then.
    let page = (keep && TcpListener::bind(PAGE).is_ok()).then_some(PAGE);
    run.args(page.map(|at| format!("--ui-listen={at}")));
    // A gateway that refuses is not tried again for minutes.
    stack.set_env(&[("IB_CONNECT_PATIENCE", "0")]);
    let started = Instant::now();
    let mut agent = Agent::start_command(&mut run, &directory.join("agent.log"))?;
    let screen = agent.stdout().map(Screen::relay).context("the agent's output is no pipe")?;
    let mut spans = SpanFile::open(&spans_file);
    say("starting the demo stack: an API, an IB host service, an IB gateway (simulated), three workers");
    stack.start_all()?;
    workers_registered(&mut spans, &mut agent)?;

    let mut told = Vec::new();
    for scenario in scenario::ALL {
        println!();
        say(scenario.title);
        for service in [scenario::IB_HOST, scenario::GATEWAY] {
            match scenario.down.contains(&service) {
                true if stack.runs(service) => stack.stop(service)?,
                false if !stack.runs(service) => stack.start(service)?,
                _ => {}
            }
        }
        let api = stack.port(API)?;
        let held: Vec<String> =
            (0..scenario.busy).map(|_| answers::hold_a_worker(api)).collect::<Result<_>>()?;
        let story = play(&scenario, &stack, &mut spans, &mut agent);
        if let Ok(story) = &story {
            screen.wait_for(&story.trace_id);
            if let Some(operation) = story.operation.as_deref().filter(|_| scenario.fails) {
                answers.explain(operation)?;
                println!();
            }
        }
        held.iter().try_for_each(|operation| answers::release(api, operation))?;
        told.push((scenario, story));
    }

    println!();
    answers.list()?;
    println!();
    say(&cost(agent.id(), started.elapsed())?);
    if !keep {
        // It prints what it still holds before it ends, so the sentences come last.
        agent.stop();
        drop(stack);
        return tell(&told, &spans_file);
    }
    let done = tell(&told, &spans_file);
    println!();
    say(&format!("the agent (pid {}) and the stack keep running until Ctrl-C; try for example", agent.id()));
    println!("  {}", by_hand(&["backtest", "MSFT"]));
    println!("  {} explain \"last error\" --socket {}", binary.display(), answers.socket.display());
    if let Some(at) = page {
        println!("  a browser at http://{at}/");
    }
    println!("  tail -f {}", spans_file.display());
    wait::until(KEPT_AT_MOST, || agent.ended());
    done
}

/// The workers tell the API of themselves; the agent is asked, not the API, so no extra call is shown.
fn workers_registered(spans: &mut SpanFile, agent: &mut Agent) -> Result<()> {
    let seen = wait::until(SPANS_DEADLINE, || {
        spans.refresh();
        let registrations = spans
            .since(0)
            .iter()
            .filter(|span| span.is_server_of(API) && span.path().ends_with("/workers/register"));
        (registrations.count() >= 3 || agent.ended().is_some()).then_some(())
    });
    agent.still_runs()?;
    seen.with_context(|| {
        format!(
            "the agent showed no registration of the workers within {} s: {}",
            SPANS_DEADLINE.as_secs(),
            agent.last_words()
        )
    })
}

/// Runs a scenario's command and waits until the agent has shown what came of it; gives the sentence.
fn play(scenario: &Scenario, stack: &Stack, spans: &mut SpanFile, agent: &mut Agent) -> Result<Story> {
    spans.refresh();
    let begin = spans.len();
    let said = answers::command(stack.port(API)?, scenario.arguments)?;
    let operation = said.split(':').next().filter(|id| id.starts_with("op_"));
    let story = wait::until(SPANS_DEADLINE, || {
        spans.refresh();
        story::of(spans.since(begin), scenario, operation)
    });
    agent.still_runs()?;
    story.with_context(|| {
        format!("the agent did not show {} within {} s", scenario.expected, SPANS_DEADLINE.as_secs())
    })
}

/// What the agent takes: processor time with its start, memory now. While it starts, it reads the kernel's type information.
fn cost(agent: u32, ran: Duration) -> Result<String> {
    const MIB: u64 = 1024 * 1024;
    let cpu = usage::cpu_seconds(agent)?;
    let (now, most) = (usage::resident(agent)? / MIB, usage::peak_resident(agent)? / MIB);
    let (share, ran) = (100.0 * cpu / ran.as_secs_f64(), ran.as_secs());
    Ok(format!(
        "the agent took {cpu:.2} s of CPU time in {ran} s ({share:.0} % of a core), and {now} MiB of memory \
         ({most} MiB while it started)"
    ))
}

fn by_hand(arguments: &[&str]) -> String {
    cmd::shown(&stack::ktrdr(0, arguments))
}

fn tell(told: &[(Scenario, Result<Story>)], spans: &Path) -> Result<()> {
    println!("\nWhat happened, from the spans in {}:", spans.display());
    let mut missing = 0;
    for (scenario, sentence) in told {
        match sentence {
            Ok(story) => println!("- {}: {}", scenario.title, story.sentence),
            Err(error) => {
                missing += 1;
                println!("- {}: {error:#}", scenario.title);
            }
        }
    }
    if missing > 0 {
        bail!("{missing} scenario(s) were not shown as they happened");
    }
    Ok(())
}

fn say(what: &str) {
    println!("demo: {what}");
}
