//! Services that end in the middle of a request: the end is on all that it cut off.

use std::path::{Path, PathBuf};
use std::process::Command;

use ktrdr_tests::agent::{Options, can_observe, skipped};
use ktrdr_tests::net::{free_port, listens};
use ktrdr_tests::process::{Process, output, python, python_program, run};
use ktrdr_tests::servers::listening;
use ktrdr_tests::span::{Span, brief};
use ktrdr_tests::wait;

/// Reads a request, tells so by a file, and then does what it is told instead of an answer.
const SERVER: &str = "
import os, signal, socket, sys, threading, time
port, asked, how, cgroup = sys.argv[1:]
if cgroup:
    open(cgroup + '/cgroup.procs', 'w').write(str(os.getpid()))
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', int(port))); s.listen()
# Not the only thread: the process ends with the last of them.
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
c, _ = s.accept()
c.recv(65536)
open(asked, 'w').close()
if how == 'exit': os._exit(3)
if how == 'abort': os.abort()
if how == 'eat':
    held = []
    while True: held.append(bytearray(os.urandom(1 << 16)) * 16)
time.sleep(3600)
";

struct Server {
    port: u16,
    asked: PathBuf,
    process: Process,
}

fn server(how: &str, cgroup: &str, port: u16, dir: &Path) -> Server {
    let asked = dir.join(format!("asked-{port}-{how}"));
    let mut command = Command::new(python());
    command.args(["-c", SERVER, &port.to_string()]).arg(&asked).args([how, cgroup]);
    // Each port a service of its own: the ends of another test's are not this one's.
    command.env("OTEL_SERVICE_NAME", format!("ends-{port}"));
    let process = listening(command, port, dir);
    Server { port, asked, process }
}

/// Asks, and waits for whatever comes.
fn ask(port: u16, dir: &Path) -> Process {
    let mut command = Command::new("curl");
    command.args(["-s", &format!("http://127.0.0.1:{port}/job")]);
    Process::start(command, dir)
}

fn of<'a>(spans: &'a [Span], kind: &str, port: u16) -> &'a Span {
    let its = |s: &&Span| s.kind == kind && s.int("server.port") == Some(port.into());
    let found: Vec<&Span> = spans.iter().filter(its).collect();
    assert_eq!(found.len(), 1, "{kind} of {port} in\n{}", brief(spans));
    found[0]
}

/// A memory cgroup for one test, whichever version the host has; it goes with the value.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("ktrdr-e2e-{}", std::process::id());
        for (root, limit) in
            [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
        {
            let path = Path::new(root).join(&name);
            if std::fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self(path);
            let limit = group.0.join(limit);
            // Elsewhere it is a directory like any other.
            if limit.exists() && std::fs::write(&limit, bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn the_end_of_a_service_is_on_all_that_it_cut_off() {
    if !can_observe() {
        return;
    }
    let group = Cgroup::new(48 << 20);
    if group.is_none() {
        skipped("how lack of memory shows: no memory cgroup can be made here");
    }
    for hook in ["socket", "syscall"] {
        let dir = tempfile::tempdir().unwrap();
        let mut cases = vec![
            ("sleep", "was killed by SIGKILL"),
            ("exit", "exited with status 3"),
            ("abort", "was killed by SIGABRT"),
        ];
        if group.is_some() {
            cases.push(("eat", "was killed by SIGKILL (out of memory)"));
        }
        let cgroup = |how: &str| match &group {
            Some(g) if how == "eat" => g.0.to_string_lossy().into_owned(),
            _ => String::new(),
        };
        let mut servers: Vec<Server> =
            cases.iter().map(|(how, _)| server(how, &cgroup(how), free_port(), dir.path())).collect();
        let ports: Vec<u16> = servers.iter().map(|s| s.port).collect();
        let agent = Options::ports(&ports).args(&["--hook", hook]).start();
        for (server, (how, _)) in servers.iter_mut().zip(&cases) {
            let mut client = ask(server.port, dir.path());
            wait::until("the request is read", || server.asked.exists().then_some(()));
            if *how == "sleep" {
                server.process.signal(libc::SIGKILL);
            }
            assert!(server.process.wait(wait::DEADLINE).is_some(), "{how} does not end");
            assert!(!client.wait(wait::DEADLINE).unwrap().success());
        }
        agent.wait_for_spans(2 * cases.len());
        let spans = agent.stop().spans;
        for (server, (how, end)) in servers.iter().zip(&cases) {
            let end = if *how == "abort" { "was killed by SIGABRT" } else { end };
            let (client, served) = (of(&spans, "client", server.port), of(&spans, "server", server.port));
            let pid = i64::from(server.process.id());
            assert!(
                matches!(client.text("error.type"), Some("connection_reset" | "peer_closed")),
                "{}",
                client.brief()
            );
            assert_eq!(client.int("ktrdr.peer.pid"), Some(pid), "{how}: {}", client.brief());
            let told = client.text("ktrdr.peer.exit").unwrap_or_default();
            // Whether a core is written is the host's choice.
            assert!(told == end || (*how == "abort" && told.starts_with(end)), "{how}: {told}");
            assert!(client.status_message.contains(&format!("; pid {pid} `")), "{}", client.status_message);
            assert_eq!(served.text("error.type"), Some("process_ended"), "{how}: {}", served.brief());
            assert!(
                served.status_message.contains(&format!("(pid {pid}) {end}")),
                "{}",
                served.status_message
            );
            for span in [client, served] {
                let event = span.events.iter().find(|e| e.name == "process.ended");
                let event = event.unwrap_or_else(|| panic!("{how}: {:?}", span.events));
                assert_eq!(event.attributes["process.pid"], pid);
                assert!(event.time <= span.end_time, "{how}: {event:?}");
            }
        }
    }
}

#[test]
fn a_service_that_ends_again_and_again_is_said_to() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let agent = Options::ports(&[port]).start();
    for round in 0..3 {
        let here = dir.path().join(round.to_string());
        std::fs::create_dir(&here).unwrap();
        let mut server = server("exit", "", port, &here);
        let status = output(Command::new("curl").args(["-s", &format!("http://127.0.0.1:{port}/")])).status;
        assert!(!status.success());
        assert_eq!(server.process.wait(wait::DEADLINE).unwrap().code(), Some(3));
    }
    assert!(!listens(port));
    run(python_program("connect.py").args(["blocking", "127.0.0.1", &port.to_string()]));
    agent.wait_for_spans(7);
    let spans = agent.stop().spans;
    let refused = spans.iter().find(|s| s.text("error.type") == Some("connection_refused")).unwrap();
    assert!(refused.status_message.contains("has ended 3 times within "), "{}", refused.status_message);
    assert_eq!(refused.int("ktrdr.peer.restarts"), Some(3));
    let cut: Vec<&Span> = spans.iter().filter(|s| s.text("ktrdr.peer.exit").is_some()).collect();
    assert_eq!(cut.len(), 3, "{}", brief(&spans));
    // The third one may say so already, the first two cannot.
    assert!(cut[..2].iter().all(|s| s.int("ktrdr.peer.restarts").is_none()), "{}", brief(&spans));
}
