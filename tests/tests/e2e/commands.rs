//! Programs that are started from a shell, call and end: the root of what they cause.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use ktrdr_tests::agent::{Agent, Options, can_observe};
use ktrdr_tests::net::{free_port, listens};
use ktrdr_tests::process::{Process, output, python, python_program, run};
use ktrdr_tests::servers::Server;
use ktrdr_tests::span::{Span, brief};
use ktrdr_tests::wait;

/// A server and an agent that watches its port.
struct Scene {
    port: u16,
    agent: Agent,
    dir: tempfile::TempDir,
    _server: Process,
}

impl Scene {
    fn new(hook: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let server = Server::UvicornH11.start(port, dir.path());
        let agent = Options::ports(&[port]).commands().args(&["--hook", hook]).start();
        Self { port, agent, dir, _server: server }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn python(&self, code: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(python());
        // As a script: a program with a name.
        let script = self.dir.path().join("ask");
        std::fs::write(&script, format!("import sys\nbase = sys.argv[1]\n{code}")).unwrap();
        command.arg(script).arg(self.url("")).args(arguments);
        command
    }
}

fn commands(spans: &[Span]) -> Vec<&Span> {
    spans.iter().filter(|s| s.kind == "internal").collect()
}

fn one_command(spans: &[Span], pid: u32) -> &Span {
    let found: Vec<&Span> =
        commands(spans).into_iter().filter(|s| s.int("process.pid") == Some(pid.into())).collect();
    assert_eq!(found.len(), 1, "commands of {pid} in\n{}", brief(spans));
    found[0]
}

/// The calls of a command are its children, and nothing of its trace hangs elsewhere.
fn is_root_of(root: &Span, calls: usize, spans: &[Span]) {
    assert_eq!(root.parent_span_id, None, "{}", root.brief());
    let trace: Vec<&Span> = spans.iter().filter(|s| s.trace_id == root.trace_id).collect();
    let below: Vec<&&Span> =
        trace.iter().filter(|s| s.parent_span_id.as_ref() == Some(&root.span_id)).collect();
    assert_eq!(below.len(), calls, "{}", brief(spans));
    for call in &below {
        assert_eq!(call.text("ktrdr.link.method"), Some("process"), "{}", call.brief());
        assert_eq!(call.text("ktrdr.link.certainty"), Some("exact"));
        assert!(call.start_time >= root.start_time && call.end_time <= root.end_time, "{}", brief(spans));
    }
    let servers = trace.iter().filter(|s| s.is_server()).count();
    assert_eq!((servers, trace.len()), (calls, 2 * calls + 1), "{}", brief(spans));
}

fn child(command: &mut Command) -> (u32, std::process::ExitStatus) {
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let pid = child.id();
    (pid, child.wait().unwrap())
}

#[test]
fn commands_are_the_roots_of_what_they_cause() {
    if !can_observe() {
        return;
    }
    for hook in ["socket", "syscall"] {
        let scene = Scene::new(hook);
        let secret = "hunter2hunter2";
        let mut curl = Command::new("curl");
        curl.args(["-s", "-u", &format!("me:{secret}"), &scene.url("/c/a/0/status/200")]);
        let (curl, status) = child(&mut curl);
        assert!(status.success());
        let code = "import httpx\nwith httpx.Client() as c:\n    for i in range(3): c.get(f'{base}/c/a/{i}/status/200')\nsys.exit(3)";
        let (cli, status) = child(&mut scene.python(code, &["--token", secret]));
        assert_eq!(status.code(), Some(3));
        scene.agent.wait_for("both commands", |s| commands(s).len() == 2);
        let spans = scene.agent.stop().spans;

        let root = one_command(&spans, curl);
        is_root_of(root, 1, &spans);
        assert_eq!(
            (root.name.as_str(), root.status.as_str(), root.int("process.exit.code")),
            ("curl", "unset", Some(0))
        );
        assert_eq!(root.text("process.executable.name"), Some("curl"));
        // Not known of one that was gone before `/proc` could be asked.
        assert_ne!(root.text("process.executable.path").map(|p| p.ends_with("/curl")), Some(false));

        let root = one_command(&spans, cli);
        is_root_of(root, 3, &spans);
        assert_eq!(
            (root.name.as_str(), root.status.as_str(), root.int("process.exit.code")),
            ("ask", "error", Some(3))
        );
        assert_eq!(root.status_message, "exited with status 3");
        let arguments = root.attributes["process.command_args"].to_string();
        assert!(arguments.contains("--token") && arguments.contains("REDACTED"), "{arguments}");
        assert!(spans.iter().all(|s| !format!("{s:?}").contains(secret)), "a secret is told");
    }
}

/// A few milliseconds from exec to exit, one after another and side by side: none is missed.
#[test]
fn short_commands_are_not_missed() {
    if !can_observe() {
        return;
    }
    let scene = Scene::new("auto");
    let mut pids = Vec::new();
    for round in 0..10 {
        let urls: Vec<String> = (0..5).map(|i| scene.url(&format!("/c/r{round}/{i}/status/200"))).collect();
        let children: Vec<_> = urls
            .iter()
            .map(|url| Command::new("curl").args(["-s", "-o", "/dev/null", url]).spawn().unwrap())
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
            pids.push(child.id());
        }
    }
    let all = pids.len();
    scene.agent.wait_for("all commands", |s| commands(s).len() == all);
    let spans = scene.agent.stop().spans;
    pids.iter().for_each(|pid| is_root_of(one_command(&spans, *pid), 1, &spans));
    // As short as this machine lets them be.
    let shortest = commands(&spans).iter().map(|s| s.duration_ms).fold(f64::MAX, f64::min);
    println!("the shortest took {shortest} ms");
}

#[test]
fn a_command_that_is_killed_says_by_what() {
    if !can_observe() {
        return;
    }
    let scene = Scene::new("auto");
    let code = "import os, httpx\nhttpx.get(f'{base}/c/a/0/status/200')\nos.kill(os.getpid(), 9)";
    let (cli, status) = child(&mut scene.python(code, &[]));
    assert_eq!(status.signal(), Some(9));
    scene.agent.wait_for("the command", |s| commands(s).len() == 1);
    let spans = scene.agent.stop().spans;
    let root = one_command(&spans, cli);
    is_root_of(root, 1, &spans);
    assert_eq!((root.status.as_str(), root.status_message.as_str()), ("error", "was killed by SIGKILL"));
    assert_eq!(
        (root.text("error.type"), root.text("ktrdr.process.signal")),
        (Some("SIGKILL"), Some("SIGKILL"))
    );
    assert_eq!(root.int("process.exit.code"), None);
}

/// Who listens, who was there before, and who goes on are no commands; their calls are what they were.
#[test]
fn services_and_daemons_are_no_commands() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _server = Server::UvicornH11.start(port, dir.path());
    let base = format!("http://127.0.0.1:{port}");
    let go = dir.path().join("go");
    // Waits for the file, then asks once; `listen`: as somebody who listens, `stay`: and goes on until the file is gone.
    let code = "
import os, socket, sys, time, httpx
base, go, how = sys.argv[1:]
if how == 'listen':
    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
while not os.path.exists(go): time.sleep(0.01)
httpx.get(f'{base}/c/{how}/0/status/200')
while how == 'stay' and os.path.exists(go): time.sleep(0.01)
";
    let start = |how: &str| {
        let mut command = Command::new(python());
        command.args(["-c", code, &base]).arg(&go).arg(how);
        Process::start(command, dir.path())
    };
    let mut older = start("older");
    wait::until("it runs", || {
        std::fs::read_to_string(format!("/proc/{}/cmdline", older.id())).ok().filter(|c| c.contains("older"))
    });
    let agent = Options::ports(&[port]).commands().start();
    let mut others = [start("listen"), start("stay")];
    std::fs::write(&go, "").unwrap();
    // The one that stays is given up on after two seconds; it ends only then.
    let calls = |s: &[Span]| s.iter().filter(|s| s.is_client()).count();
    agent.wait_for("all calls", |s| calls(s) == 3);
    std::fs::remove_file(&go).unwrap();
    for process in others.iter_mut().chain([&mut older]) {
        assert!(process.wait(wait::DEADLINE).unwrap().success(), "{}", process.log());
    }
    let spans = agent.stop().spans;
    assert_eq!((commands(&spans).len(), spans.len()), (0, 6), "{}", brief(&spans));
    assert!(spans.iter().all(|s| !s.is_client() || s.parent_span_id.is_none()), "{}", brief(&spans));
}

/// A named command is one however long it runs, and what it starts hangs below it.
#[test]
fn what_a_named_command_starts_is_below_it() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _server = Server::UvicornH11.start(port, dir.path());
    let agent = Options::ports(&[port]).commands().env("KTRDR_AGENT_COMMANDS__PROGRAMS", "nightly*").start();
    let base = format!("http://127.0.0.1:{port}");
    let script = dir.path().join("nightly-job");
    let code = "import os, sys, httpx, subprocess\nbase = sys.argv[2]\nhttpx.get(f'{base}/c/own/0/status/200')\n\
                subprocess.run(['curl', '-s', f'{base}/c/curl/0/status/200'], check=True)\n\
                child = os.fork()\nif child == 0:\n    httpx.get(f'{base}/c/fork/0/status/200')\n    os._exit(0)\nos.waitpid(child, 0)\n\
                raise ValueError('no such symbol')\n";
    std::fs::write(&script, code).unwrap();
    let mut command = Command::new(python());
    command.arg(&script).args(["sync", &base]);
    let said = output(&mut command);
    assert_eq!(said.status.code(), Some(1));
    agent.wait_for("both commands", |s| commands(s).len() == 2);
    let spans = agent.stop().spans;
    let root =
        spans.iter().find(|s| s.name == "nightly-job sync").unwrap_or_else(|| panic!("{}", brief(&spans)));
    assert_eq!(
        (root.status_message.as_str(), root.int("process.exit.code")),
        ("exited with status 1", Some(1))
    );
    let below = |id: &str| -> Vec<&Span> {
        spans.iter().filter(|s| s.parent_span_id.as_deref() == Some(id)).collect()
    };
    let children = below(&root.span_id);
    let curl = spans.iter().find(|s| s.name == "curl").unwrap();
    assert_eq!(children.len(), 3, "{}", brief(&spans));
    assert!(children.iter().any(|s| s.span_id == curl.span_id));
    assert_eq!(below(&curl.span_id).len(), 1);
    assert!(spans.iter().all(|s| s.trace_id == root.trace_id) && spans.len() == 8, "{}", brief(&spans));
    // What it said at its end is on its own span.
    let event =
        root.events.iter().find(|e| e.name == "exception").unwrap_or_else(|| panic!("{:?}", root.events));
    assert_eq!(event.attributes["exception.message"], "no such symbol");
}

#[test]
fn a_refused_call_is_below_its_command() {
    if !can_observe() {
        return;
    }
    let port = free_port();
    assert!(!listens(port));
    let agent = Options::ports(&[port]).commands().start();
    run(python_program("connect.py").args(["httpx", "127.0.0.1", &port.to_string()]));
    agent.wait_for("the command", |s| commands(s).len() == 1 && s.len() == 2);
    let spans = agent.stop().spans;
    let (root, call) = (commands(&spans)[0], spans.iter().find(|s| s.is_client()).unwrap());
    assert_eq!((root.name.as_str(), root.int("process.exit.code")), ("connect.py httpx", Some(0)));
    assert_eq!(call.parent_span_id.as_ref(), Some(&root.span_id), "{}", brief(&spans));
}
