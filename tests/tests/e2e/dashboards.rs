//! Every expression of every dashboard and rule returns data: on the demo stack, from a real Prometheus.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use ktrdr_tests::agent::{Agent, Options, can_observe};
use ktrdr_tests::net::{free_port, listens};
use ktrdr_tests::process::{Process, output, python, root, run};
use ktrdr_tests::prometheus::Prometheus;
use ktrdr_tests::wait;

const API: &str = "ktrdr-api";
const IB_HOST: &str = "ktrdr-ib-host-service";
const GATEWAY: &str = "ib-gateway";
const BACKTESTER: &str = "ktrdr-backtest-worker-1";

/// Some services of the stack; they end with it, in order.
struct Part(Process);

impl Drop for Part {
    fn drop(&mut self) {
        // run.py ends what it started.
        self.0.terminate();
    }
}

/// The stack of the demo on free ports, in parts that can be stopped.
struct Stack<'a> {
    ports: Vec<(String, u16)>,
    dir: &'a Path,
}

impl<'a> Stack<'a> {
    fn new(dir: &'a Path) -> Self {
        let text = std::fs::read_to_string(root().join("tests/stack/services.json")).unwrap();
        let services: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names = services.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned());
        Self { ports: names.map(|name| (name, free_port())).collect(), dir }
    }

    fn port(&self, service: &str) -> u16 {
        self.ports.iter().find(|(name, _)| name == service).unwrap().1
    }

    /// Starts some services; returns once they listen.
    fn start(&self, wanted: impl Fn(&str) -> bool) -> Part {
        let mut command = Command::new(python());
        command.arg("-u").arg(root().join("tests/stack/run.py"));
        for (name, port) in &self.ports {
            command.args(["--port", &format!("{name}={port}")]);
            if !wanted(name) {
                command.args(["--without", name]);
            }
        }
        // A gateway that refuses is not tried again for minutes.
        command.env("IB_CONNECT_PATIENCE", "0").env("KTRDR_LOG_DIR", self.dir.join("logs"));
        let mut process = Process::start(command, self.dir);
        let waited: Vec<u16> = self.ports.iter().filter(|(name, _)| wanted(name)).map(|(_, p)| *p).collect();
        process.wait_until("the services listen", || waited.iter().all(|p| listens(*p)));
        Part(process)
    }

    fn ktrdr(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(python());
        command.arg(root().join("tests/stack/bin/ktrdr")).args(arguments);
        command.env("KTRDR_API_URL", format!("http://127.0.0.1:{}", self.port(API)));
        output(&mut command)
    }
}

/// What a user does, and what goes wrong meanwhile. Ends with a job that stands still, a worker that is free and one that
/// is gone.
fn play(stack: &Stack<'_>, agent: &Agent) -> Vec<Part> {
    let gateway = stack.start(|s| s == GATEWAY);
    let ib_host = stack.start(|s| s == IB_HOST);
    let backtester = stack.start(|s| s == BACKTESTER);
    let rest = stack.start(|s| ![IB_HOST, GATEWAY, BACKTESTER].contains(&s));
    agent.wait_for("registrations of three workers", |spans| {
        let registered = spans.iter().filter(|s| s.text("worker.registration_status") == Some("registered"));
        registered.count() >= 6
    });
    let fails = |arguments: &[&str]| assert!(!stack.ktrdr(arguments).status.success(), "{arguments:?}");
    let works = |arguments: &[&str]| {
        let done = stack.ktrdr(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stdout));
    };
    works(&["data", "load", "AAPL"]);
    works(&["backtest", "MSFT"]);
    works(&["train", "AAPL"]);
    fails(&["data", "load", "NOPE"]);
    // The gateway is not there; then the IB host, which comes back.
    drop(gateway);
    wait::until("the gateway is gone", || (!listens(stack.port(GATEWAY))).then_some(()));
    fails(&["data", "load", "AAPL"]);
    drop(ib_host);
    wait::until("the IB host is gone", || (!listens(stack.port(IB_HOST))).then_some(()));
    fails(&["data", "load", "AAPL"]);
    let gateway = stack.start(|s| s == GATEWAY);
    let ib_host = stack.start(|s| s == IB_HOST);
    works(&["data", "load", "MSFT"]);
    // Two workers get a job that stays; the third job is refused by both. Then one of them is free again.
    let [first, _] = [(); 2].map(|()| {
        let said = stack.ktrdr(&["train", "STALL", "--wait", "--detach"]).stdout;
        String::from_utf8_lossy(&said).split(':').next().unwrap_or_default().to_owned()
    });
    fails(&["train", "AAPL", "--wait"]);
    stack.ktrdr(&["operations", "cancel", &first]);
    // A worker that is gone, and an address without a way.
    drop(backtester);
    wait::until("the worker is gone", || (!listens(stack.port(BACKTESTER))).then_some(()));
    fails(&["backtest", "MSFT"]);
    let nowhere = format!("http://255.255.255.255:{}/", stack.port(API));
    assert!(!output(Command::new("curl").args(["-s", &nowhere])).status.success());
    vec![gateway, ib_host, rest]
}

#[test]
fn every_expression_returns_data_on_the_demo_stack() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::new(dir.path());
    let metrics = free_port();
    let ports: Vec<u16> = stack.ports.iter().map(|(_, port)| *port).collect();
    let _statistics = statistics();
    let agent = Options::ports(&ports)
        .args(&["--metrics-listen", &format!("127.0.0.1:{metrics}")])
        .env("KTRDR_AGENT_GPU__SOURCE", "synthetic")
        .start();
    let prometheus = Prometheus::start(metrics, dir.path());
    let running = play(&stack, &agent);
    // Requests that wait for two seconds each, so that one is being served whenever somebody looks; and work for the GPU.
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                stack.ktrdr(&["data", "load", "SLOW", "--wait"]);
                stack.ktrdr(&["train", "AAPL", "--epochs", "40"]);
            }
        });
        let mut live = Command::new(python());
        live.arg(root().join("tests/dashboards/live.py")).arg(prometheus.url()).args(["--patience", "90"]);
        let said = output(&mut live);
        done.store(true, Ordering::Relaxed);
        said
    });
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{text}");
    every_instrument_is_fed(metrics);
    // Alerts of what went wrong, and of nothing about the agent.
    let alerts = prometheus.ask("alerts", &[]);
    let firing: Vec<&str> = alerts["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|alert| alert["state"] == "firing")
        .filter_map(|alert| alert["labels"]["alertname"].as_str())
        .collect();
    for wanted in ["KtrdrOperationFailed", "KtrdrConnectionsRefused"] {
        assert!(firing.contains(&wanted), "{wanted} is not among {firing:?}");
    }
    assert!(!firing.iter().any(|name| name.starts_with("KtrdrAgent")), "{alerts}");
    drop(running);
    agent.stop();
}

/// What docs/metrics.md promises is there, all of it.
fn every_instrument_is_fed(metrics: u16) {
    let page = run(Command::new("curl").args(["-sf", &format!("http://127.0.0.1:{metrics}/metrics")]));
    let promised = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let samples = promised.lines().filter(|line| line.starts_with("| `"));
    let names = samples.map(|line| line.split('|').nth(2).unwrap().trim().trim_matches('`'));
    let missing: Vec<&str> =
        names.filter(|name| !page.lines().any(|l| l.starts_with(&format!("{name}{{")))).collect();
    assert!(missing.is_empty(), "nothing feeds {missing:?}");
    // And every reason for a loss is explained.
    let explained = std::fs::read_to_string(root().join("docs/deploy.md")).unwrap();
    let losses = page.lines().filter(|line| line.starts_with("ktrdr_agent_lost_total{"));
    let reasons: Vec<&str> =
        losses.map(|line| line.split("reason=\"").nth(1).unwrap().split('"').next().unwrap()).collect();
    assert!(reasons.contains(&"records_lost_ring_full"), "{page}");
    for reason in reasons {
        assert!(explained.contains(&format!("`{reason}`")), "docs/deploy.md does not explain {reason}");
    }
}

/// Has the kernel measure its programs as long as this lives (bpf(2), `BPF_ENABLE_STATS`).
fn statistics() -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd as _;
    const BPF_ENABLE_STATS: libc::c_int = 32;
    // `union bpf_attr`, as far as this command reads it: the kind of statistics, 0 = run time.
    let attributes: u32 = 0;
    // SAFETY: the kernel reads four bytes of `attributes`; what it returns is a descriptor of our own.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const attributes, size_of::<u32>());
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        std::os::fd::OwnedFd::from_raw_fd(libc::c_int::try_from(fd).unwrap())
    }
}
