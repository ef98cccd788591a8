//! A running agent with its own files, and what it left behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;

use crate::process::{Process, root};
use crate::span::{Span, brief};
use crate::wait;

/// What its log says once every program is attached.
const READY: &str = "observing";
/// The agent promises to end within this time after Ctrl-C.
const END: Duration = Duration::from_secs(1);

/// The agent's binary: `KTRDR_AGENT_BIN`, else the newest one built here.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("KTRDR_AGENT_BIN") {
        let path = PathBuf::from(path);
        assert!(path.exists(), "KTRDR_AGENT_BIN names {}, which is not there", path.display());
        return path;
    }
    let built = ["debug", "release"].map(|profile| root().join("target").join(profile).join("ktrdr-agent"));
    let newest = built
        .into_iter()
        .filter_map(|path| Some((std::fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max();
    match newest {
        Some((_, path)) => path,
        None => panic!("there is no agent to test: `cargo build -p ktrdr-agent` makes one"),
    }
}

/// Whether these tests can run. Off CI, without root, they say so and pass.
pub fn can_observe() -> bool {
    // SAFETY: no arguments, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    assert!(root || std::env::var_os("CI").is_none(), "the end-to-end tests need root");
    if !root {
        skipped("observing needs root");
    }
    root
}

/// Says that something is not tested. Past the harness, which shows what a test prints only if it fails.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {what}");
}

/// How to start an agent.
pub struct Options {
    /// The agent, or a program that starts it with the words before the last.
    program: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Options {
    /// An agent for connections with these ports only, so that tests side by side do not see each other.
    pub fn ports(ports: &[u16]) -> Self {
        let mut arguments = vec!["run".to_owned(), "--console".into(), "off".into()];
        arguments.extend(ports.iter().flat_map(|p| ["--port".to_owned(), p.to_string()]));
        // Ports are narrowed behind the ring: what other tests move passes through it too, in bursts, and the agent may
        // be a debug build.
        let ring = ("KTRDR_AGENT_CAPTURE__RING_BYTES".to_owned(), "64MiB".to_owned());
        // What these tests are about is each call; the short programs that make them are commands, which are tested by
        // themselves.
        let commands = ("KTRDR_AGENT_COMMANDS__ENABLED".to_owned(), "false".to_owned());
        // Processes on pipes have no ports to be narrowed by: those of a test running beside are left out.
        let stdio = ("KTRDR_AGENT_CAPTURE__STDIO".to_owned(), "false".to_owned());
        // The agent may be a debug build on a machine with other things to do: what it shows is not to depend on what it takes.
        let budget = ("KTRDR_AGENT_BUDGET__CPU".to_owned(), "off".to_owned());
        let program = vec![binary().to_string_lossy().into_owned()];
        Self { program, arguments, environment: vec![ring, commands, stdio, budget] }
    }

    /// With spans for commands.
    #[must_use]
    pub fn commands(self) -> Self {
        self.env("KTRDR_AGENT_COMMANDS__ENABLED", "true")
    }

    /// With a budget, such as `5%`.
    #[must_use]
    pub fn budget(self, part: &str) -> Self {
        self.env("KTRDR_AGENT_BUDGET__CPU", part)
    }

    /// An agent that records, too.
    pub fn recording(ports: &[u16], out: &Path) -> Self {
        let mut options = Self::ports(ports);
        options.arguments[0] = "record".into();
        options.args(&["--out", &out.to_string_lossy()])
    }

    /// With more arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Started by these words in place of the binary's path. Its files go where every user may write.
    #[must_use]
    pub fn wrapped(mut self, program: &[String]) -> Self {
        self.program = program.to_vec();
        self
    }

    /// Starts it and waits until it observes.
    pub fn start(self) -> Agent {
        let dir = tempfile::tempdir().unwrap();
        if self.program.len() > 1 {
            // It may be another user there who writes.
            let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(dir.path(), everybody).unwrap();
        }
        let (spans, log) = (dir.path().join("spans.jsonl"), dir.path().join("agent.log"));
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).args(&self.arguments).arg("--spans-out").arg(&spans);
        let stats = (self.arguments[0] == "run").then(|| dir.path().join("stats.json"));
        if let Some(stats) = &stats {
            command.arg("--stats-out").arg(stats);
        }
        command.envs(self.environment).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut process = Process::start_as_is(command);
        let read = || std::fs::read_to_string(&log).unwrap_or_default();
        let ready = wait::within(wait::DEADLINE, || match process.ended() {
            Some(status) => panic!("the agent ended ({status}): {}", read()),
            None => read().contains(READY).then_some(()),
        });
        assert!(ready.is_some(), "the agent does not observe: {}", read());
        Agent { process, spans, stats, log, _dir: dir }
    }
}

/// A running agent.
pub struct Agent {
    process: Process,
    spans: PathBuf,
    stats: Option<PathBuf>,
    log: PathBuf,
    _dir: TempDir,
}

/// What an agent left behind.
#[derive(Debug)]
pub struct Finished {
    /// All its spans.
    pub spans: Vec<Span>,
    /// The same, as it wrote them.
    pub text: String,
    /// Its books, if it was a `run`.
    pub stats: Option<Stats>,
    /// Its log.
    pub log: String,
    /// From Ctrl-C to its end.
    pub took: Duration,
}

/// The books that `--stats-out` writes.
#[derive(Debug, Deserialize)]
pub struct Stats {
    pub ready_ms: u64,
    pub kernel: BTreeMap<String, u64>,
    pub program_runs_missed: u64,
    pub records_read: u64,
    pub records_unread: u64,
    pub shell_records: u64,
    pub decoded: u64,
    pub undecoded: BTreeMap<String, u64>,
    pub bytes: Bytes,
    pub transfers_without_address: u64,
    pub unpaired_responses: u64,
    pub requests_given_up: u64,
    pub connects_recovered: u64,
    pub connects_abandoned: u64,
    pub spans: u64,
    pub logs: BTreeMap<String, u64>,
    pub stdio: BTreeMap<String, u64>,
    pub sinks: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What became of the bytes that moved.
#[derive(Debug, Deserialize)]
pub struct Bytes {
    pub moved: u64,
    pub gaps: u64,
    pub parsed: u64,
    pub skipped: u64,
    pub lost: u64,
}

impl Agent {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    /// Waits until it ends by itself.
    pub fn wait_for_end(&mut self) -> std::process::ExitStatus {
        let status = self.process.wait(wait::DEADLINE);
        status.unwrap_or_else(|| panic!("the agent does not end: {}", self.log()))
    }

    /// Spans so far.
    pub fn spans(&self) -> Vec<Span> {
        Span::parse_all(&self.text())
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.spans).unwrap_or_default()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `enough` spans are there.
    pub fn wait_for(&self, what: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let found = wait::within(wait::DEADLINE, || Some(self.spans()).filter(|s| enough(s)));
        found.unwrap_or_else(|| panic!("no {what} in:\n{}\n{}", brief(&self.spans()), self.log()))
    }

    /// Waits for a number of spans.
    pub fn wait_for_spans(&self, n: usize) -> Vec<Span> {
        // Parsing thousands of spans every few milliseconds would take the machine from those who work.
        wait::within(wait::DEADLINE, || {
            (self.text().bytes().filter(|b| *b == b'\n').count() >= n).then_some(())
        });
        self.wait_for(&format!("{n} spans"), |s| s.len() >= n)
    }

    /// Ends it as Ctrl-C does. It must end in time, in order, and without a word of error.
    pub fn stop(mut self) -> Finished {
        let agents = agents();
        let begin = Instant::now();
        self.process.signal(libc::SIGINT);
        let status = self.process.wait(wait::DEADLINE);
        let took = begin.elapsed();
        let log = self.log();
        let status = status.unwrap_or_else(|| panic!("the agent does not end: {log}"));
        assert!(status.success(), "the agent ended with {status}: {log}");
        assert!(took < END * patience().max(agents), "the agent took {took:?} to end: {log}");
        for bad in [" ERROR ", "panicked"] {
            assert!(!log.contains(bad), "the agent's log has {bad:?}: {log}");
        }
        let text = self.text();
        let stats = self.stats.as_ref().map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
        });
        if let Some(stats) = &stats {
            balanced(stats);
        }
        Finished { spans: Span::parse_all(&text), text, stats, log, took }
    }
}

/// The books of every run balance, whatever was lost: what the kernel produced is what was read and what is counted
/// as lost, records and bytes alike.
fn balanced(stats: &Stats) {
    assert_eq!(stats.kernel["records_submitted"], stats.records_read + stats.records_unread, "{stats:?}");
    let undecoded: u64 = stats.undecoded.values().sum();
    assert_eq!(stats.decoded + undecoded, stats.records_read + stats.shell_records, "{stats:?}");
    let bytes = &stats.bytes;
    assert_eq!(bytes.moved + bytes.gaps, bytes.parsed + bytes.skipped + bytes.lost, "{stats:?}");
    let logs = |what: &[&str]| what.iter().map(|name| stats.logs[*name]).sum::<u64>();
    let records = ["record_bytes", "copy_bytes", "output_bytes", "binary_bytes", "blank_bytes"];
    let others = ["unobserved_bytes", "conversation_bytes", "no_log_bytes"];
    assert_eq!(logs(&["bytes"]), logs(&records) + logs(&others), "{stats:?}");
    if stats.records_unread + undecoded == 0 {
        let captured = stats.kernel["write_bytes_captured"];
        assert_eq!(captured, stats.logs["bytes"] + stats.stdio["bytes"], "{stats:?}");
    }
    for (name, sink) in &stats.sinks {
        let settled = sink["exported"]
            + sink["dropped_full"]
            + sink["dropped_stop"]
            + sink["rejected"]
            + sink["sampled_out"];
        assert_eq!(sink["submitted"], settled, "{name}: {stats:?}");
        let given = match name.as_str() {
            "otlp" | "store" => stats.spans,
            "otlp_logs" => stats.logs["records"],
            _ => stats.spans + stats.logs["records"],
        };
        assert_eq!(sink["submitted"], given, "{name}: {stats:?}");
    }
}

/// Agents that run on this host, this one among them. From tracepoints and functions of system calls the kernel takes programs
/// away one after the other, all agents' alike.
fn agents() -> u32 {
    let name = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("comm")).ok();
    let running = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(name);
    let count = running.filter(|name| name.trim_end() == "ktrdr-agent").count();
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

/// By how much a promise of time may be stretched: on a machine with many more programs than cores it is the
/// machine that is late.
pub fn patience() -> u32 {
    let load: f64 = std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if load > 2.0 * cores as f64 { 5 } else { 1 }
}
