//! What the agent needs of root's powers, and what it keeps: run as another user with the documented capabilities it
//! sees what root sees, without any one of them it loses what `check` says, and once it observes it holds no more.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ktrdr_tests::agent::{Agent, Options, binary, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{Process, output, program, python, run};
use ktrdr_tests::servers::{Server, listening};
use ktrdr_tests::span::brief;
use ktrdr_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

/// The whole list, as docs/privileges.md and deploy/ have it.
const DOCUMENTED: [&str; 4] = ["bpf", "perfmon", "sys_ptrace", "dac_read_search"];
/// What its log says when it reads a Python process's contexts.
const EXACT: &str = "python causality: exact";
/// nobody.
const USER: u32 = 65534;

/// A directory that every user can enter, with a copy of the agent in it.
fn stage() -> TempDir {
    let dir = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    std::fs::copy(binary(), dir.path().join("ktrdr-agent")).unwrap();
    dir
}

/// The agent of `stage` as another user, with these capabilities and no others.
fn as_user(stage: &Path, capabilities: &[&str]) -> Vec<String> {
    let list: String = capabilities.iter().map(|c| format!(",+{c}")).collect();
    let mut words = vec!["setpriv".to_owned(), format!("--reuid={USER}"), format!("--regid={USER}")];
    words.extend(["--clear-groups".to_owned(), format!("--inh-caps=-all{list}")]);
    words.extend([format!("--ambient-caps=-all{list}"), format!("--bounding-set=-all{list}")]);
    words.push(stage.join("ktrdr-agent").to_string_lossy().into_owned());
    words
}

/// `check --json` with these capabilities: its verdict, and its rows by name.
fn check(stage: &Path, capabilities: &[&str]) -> (bool, BTreeMap<String, (String, String)>) {
    let words = as_user(stage, capabilities);
    let output = output(Command::new(&words[0]).args(&words[1..]).args(["check", "--json"]).current_dir("/"));
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = report["checks"].as_array().unwrap().iter();
    let rows = rows.map(|row| (text(row, "name"), (text(row, "status"), text(row, "detail")))).collect();
    (report["can_run"].as_bool().unwrap(), rows)
}

/// Names, services and outcomes of what was seen, without ids and times.
fn shapes(agent: &Agent, how_many: usize) -> BTreeSet<String> {
    let spans = agent.wait_for("spans", |spans| spans.len() >= how_many);
    assert_eq!(spans.len(), how_many, "{}", brief(&spans));
    let links = |s: &ktrdr_tests::span::Span| s.attributes.get("ktrdr.link.method").cloned();
    spans.iter().map(|s| format!("{} {} {:?} {:?}", s.service, s.name, s.kind, links(s))).collect()
}

/// A service of root's that calls another, and a connect to where nobody listens.
struct Scene {
    server: u16,
    nobody: u16,
    _process: Process,
    _dir: TempDir,
}

impl Scene {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = free_port();
        let process = Server::UvicornH11.start(server, dir.path());
        Self { server, nobody: free_port(), _process: process, _dir: dir }
    }

    fn options(&self) -> Options {
        Options::ports(&[self.server, self.nobody]).args(&["--no-socket"])
    }

    /// Two spans of an answered call, one of a refused connect.
    fn play(&self) {
        let url = |port: u16| format!("http://127.0.0.1:{port}/status/200");
        run(Command::new("curl").args(["--silent", "--output", "/dev/null", &url(self.server)]));
        let refused = output(Command::new("curl").args(["--silent", &url(self.nobody)]));
        assert_eq!(refused.status.code(), Some(7), "somebody listens on {}", self.nobody);
    }
}

#[test]
fn with_the_documented_capabilities_another_user_sees_what_root_sees() {
    if !can_observe() {
        return;
    }
    let (stage, scene) = (stage(), Scene::start());
    let root = scene.options().start();
    let user = scene.options().wrapped(&as_user(stage.path(), &DOCUMENTED)).start();
    scene.play();
    let (root_saw, user_saw) = (shapes(&root, 3), shapes(&user, 3));
    assert_eq!(root_saw, user_saw);
    assert!(user.log().contains(EXACT) && !user.log().contains("WARN"), "{}", user.log());
    let _ = (root.stop(), user.stop());
}

#[test]
fn each_documented_capability_is_needed() {
    if !can_observe() {
        return;
    }
    let stage = stage();
    let (can_run, rows) = check(stage.path(), &DOCUMENTED);
    assert!(can_run, "{rows:?}");
    for capability in DOCUMENTED {
        let name = format!("CAP_{}", capability.to_uppercase());
        assert_eq!(rows[&name].0, "ok", "{rows:?}");
        let others: Vec<&str> = DOCUMENTED.into_iter().filter(|other| *other != capability).collect();
        let (can_run, rows) = check(stage.path(), &others);
        match capability {
            // Without these the kernel itself refuses the programs.
            "bpf" | "perfmon" => {
                assert!(!can_run && rows[&name].0 == "failed", "{rows:?}");
                assert_eq!(rows["programs"].0, "failed", "{rows:?}");
                let words = as_user(stage.path(), &others);
                let refused = output(Command::new(&words[0]).args(&words[1..]).arg("run").current_dir("/"));
                let said = String::from_utf8_lossy(&refused.stderr).into_owned();
                assert!(
                    !refused.status.success() && said.contains(&format!("observing needs {name}")),
                    "{said}"
                );
            }
            _ => assert!(can_run && rows[&name].0 == "warning", "{rows:?}"),
        }
    }
    // What `check` says of the other two is true.
    let scene = Scene::start();
    let private = Private::start();
    let with = |capabilities: &[&str]| {
        let options = Options::ports(&[scene.server, scene.nobody, private.port]).args(&["--no-socket"]);
        options.wrapped(&as_user(stage.path(), capabilities)).start()
    };
    let without = |capability| {
        let others: Vec<&str> = DOCUMENTED.into_iter().filter(|other| *other != capability).collect();
        with(&others)
    };
    let (all, blind, half) = (with(&DOCUMENTED), without("sys_ptrace"), without("dac_read_search"));
    scene.play();
    for agent in [&all, &blind, &half] {
        assert_eq!(agent.wait_for("spans", |spans| spans.len() >= 3).len(), 3);
    }
    // A process is looked at when it does something.
    let url = format!("http://127.0.0.1:{}/status/200", private.port);
    run(Command::new("curl").args(["--silent", "--output", "/dev/null", &url]));
    let pid = private.process.id();
    let says = |agent: &Agent, what: &str| {
        wait::until(&format!("{what:?} in the log"), || agent.log().contains(what).then_some(()));
    };
    says(&all, &format!("{EXACT} (pid {pid},"));
    assert!(!blind.log().contains(EXACT), "{}", blind.log());
    says(&half, &format!("python causality: degraded (pid {pid})"));
    let _ = (all.stop(), blind.stop(), half.stop());
}

/// A server whose interpreter lies where only root may look.
struct Private {
    port: u16,
    process: Process,
    _dir: TempDir,
}

impl Private {
    fn start() -> Self {
        let dir = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o700)).tempdir().unwrap();
        let ask = "import sys; print(sys.base_prefix, sys.exec_prefix, *sys.version_info[:2])";
        let said = run(Command::new(python()).args(["-c", ask]));
        let [home, environment, major, minor] = said.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{said}")
        };
        let own = dir.path().join("python");
        std::fs::copy(std::fs::canonicalize(python()).unwrap(), &own).unwrap();
        let port = free_port();
        let mut command = Command::new(own);
        command.args(["-m", "uvicorn", "--app-dir"]).arg(program("")).arg("asgi_app:app");
        command.args(["--loop", "asyncio", "--port", &port.to_string(), "--log-level", "warning"]);
        command.env("PYTHONHOME", home);
        command.env("PYTHONPATH", format!("{environment}/lib/python{major}.{minor}/site-packages"));
        let process = listening(command, port, dir.path());
        Self { port, process, _dir: dir }
    }
}

/// Every thread of a process: its name, and the fields of its status.
fn threads(pid: u32) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: std::fs::DirEntry| {
        // One that only had something to do for a moment may be gone.
        let text = std::fs::read_to_string(task.path().join("status")).ok()?;
        let pair = |l: &str| l.split_once(':').map(|(k, v)| (k.to_owned(), v.trim().to_owned()));
        let fields: BTreeMap<_, _> = text.lines().filter_map(pair).collect();
        Some((fields["Name"].clone(), fields))
    };
    tasks.filter_map(|task| status(task.unwrap())).collect()
}

#[test]
fn once_it_observes_it_holds_no_more_than_it_needs() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/explain.sock");
    let agent = |confine: &str| {
        Options::ports(&[free_port()])
            .args(&["--otlp-endpoint", "http://127.0.0.1:9"])
            // They are sent at the end, to nobody, which is an error in the log.
            .env("OTEL_METRICS_EXPORTER", "none")
            .env("KTRDR_AGENT_EXPLAIN__SOCKET", &socket.to_string_lossy())
            .env("KTRDR_AGENT_SECURITY__CONFINE", confine)
            // The SDK's threads are others' code.
            .env("KTRDR_AGENT_SELF_TELEMETRY__ENDPOINT", "http://127.0.0.1:9")
            .start()
    };
    let confined = agent("true");
    // CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF.
    let needed = "000000c000080004";
    let all = threads(confined.id());
    // The observing thread, the sender, the file of spans, the socket, and three of the SDK.
    assert!(all.len() >= 7, "{all:?}");
    assert_eq!(all.iter().filter(|(name, _)| name.starts_with("OpenTelemetry")).count(), 2, "{all:?}");
    for (name, status) in &all {
        let expected = if name == "ktrdr-agent" { needed } else { "0000000000000000" };
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(status[set], expected, "{set} of {name}: {status:?}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set} of {name}");
        }
        assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"), "{name}");
    }
    // It still answers and ends in order.
    let answer = run(Command::new(binary())
        .args(["explain", "--list"])
        .env("KTRDR_AGENT_EXPLAIN__SOCKET", socket.as_os_str()));
    assert!(!answer.is_empty() && !confined.log().contains("less confined"), "{}", confined.log());
    let _ = confined.stop();
    assert!(!socket.exists());
    let free = agent("false");
    assert!(free.log().contains("security.confine = false"), "{}", free.log());
    assert!(threads(free.id()).iter().all(|(_, status)| status["Seccomp"] == "0"));
    let _ = free.stop();
}
