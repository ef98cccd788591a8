//! `cargo xtask …`: the project's own commands. Each is one module; what they share is in `cmd`
//! (running programs), `host` (where we are, root) and `wait` (polling a condition).

use clap::{Parser, Subcommand};

mod agent;
mod bench;
mod build;
mod causality;
mod cmd;
mod demo;
mod faults;
mod host;
mod package;
mod setup;
mod stack;
mod test;
mod tidy;
mod usage;
mod vm;
mod wait;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install whatever building, testing and the demo need and this machine lacks
    Setup,
    /// Build the agent: target/release/ktrdr-agent
    Build {
        /// With names of pods and workloads from Kubernetes' API
        #[arg(long)]
        kubernetes: bool,
    },
    /// Build what is handed out into target/package: a binary for old distributions, and the Debian package
    Package {
        /// Package the development build: quick, for this host only
        #[arg(long)]
        development: bool,
    },
    /// Set up, then format check, lints, invariants and every test (as root)
    Test,
    /// Set up, build, and watch the demo stack fail and work through the agent's eyes (as root)
    Demo {
        /// Leave the agent and the stack running until Ctrl-C
        #[arg(long)]
        keep: bool,
        /// Run the agent as nobody, with the four capabilities of docs/privileges.md
        #[arg(long)]
        unprivileged: bool,
        /// With the development build: quick to make, slower to run
        #[arg(long)]
        development: bool,
    },
    /// Break the demo stack in every way we know and ask the agent why, each time (as root)
    Faults {
        /// Only the faults whose name contains one of these
        names: Vec<String>,
    },
    /// Check the architecture's invariants in the sources
    Tidy,
    /// Boot other kernels in an emulator and see whether the agent works there (Debian's archive)
    Vm {
        /// Only kernels whose name contains one of these: 5.10, 6.1, 6.12, newest; aarch64 if named
        only: Vec<String>,
        /// Also a FastAPI server (always on aarch64); takes minutes per kernel
        #[arg(long)]
        python: bool,
    },
    /// Measure what the agent costs (as root)
    Bench {
        /// Rounds per comparison, with and without the agent in turn
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of load per round
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        /// Something else than the cost
        #[command(subcommand)]
        what: Option<BenchOf>,
    },
}

#[derive(Subcommand)]
enum BenchOf {
    /// What the agent costs a service that logs as much as it can (as root)
    Logs,
    /// How fast recorded transfers become spans, and those OTLP (as root)
    Replay,
    /// Whether every call has its true parent, on real servers under load (as root)
    Causality {
        /// Options of tests/causality/run.py, e.g. `--in-flight 1,100 --only fastapi/uvloop`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Memory and time of metrics at 20,000 requests/s and 500 routes, held to their bound
    Metrics,
}

fn main() -> std::process::ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::run(setup::For::Test),
        Task::Build { kubernetes } => {
            setup::run(setup::For::Build).and_then(|()| build::release(kubernetes).map(drop))
        }
        Task::Package { development } => package::run(development).map(drop),
        Task::Test => host::as_root(test::run),
        Task::Demo { keep, unprivileged, development } => {
            host::as_root(|| demo::run(demo::Options { keep, unprivileged }, development))
        }
        Task::Faults { names } => host::as_root(|| faults::run(&names)),
        Task::Tidy => tidy::run(),
        Task::Vm { only, python } => vm::run(&only, python),
        Task::Bench { what: Some(BenchOf::Causality { options }), .. } => {
            host::as_root(|| causality::run(&options))
        }
        Task::Bench { rounds, seconds, what: Some(BenchOf::Logs) } => {
            host::as_root(|| bench::run_logs(rounds, seconds))
        }
        Task::Bench { what: Some(BenchOf::Replay), .. } => host::as_root(bench::run_replay),
        Task::Bench { what: Some(BenchOf::Metrics), .. } => bench::metrics(),
        Task::Bench { rounds, seconds, what: None } => host::as_root(|| bench::run(rounds, seconds)),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
