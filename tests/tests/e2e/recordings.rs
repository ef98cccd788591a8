//! A recording replays to the very spans that the live agent made of the same records.

use std::path::Path;
use std::process::Command;

use ktrdr_tests::agent::{Options, binary, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{python_program, run};
use ktrdr_tests::raw::Listener;
use ktrdr_tests::servers::Server;

/// Spans of a replay, as text.
pub(super) fn replay(recording: &Path, ports: &[u16]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let spans = dir.path().join("spans.jsonl");
    let mut command = Command::new(binary());
    command
        .args(["replay", "--console", "off", "--spans-out"])
        .arg(&spans)
        .arg(recording)
        .env_remove("RUST_LOG");
    // A replay takes no scope: it is given by configuration.
    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
    command.env("KTRDR_AGENT_INCLUDE__PORTS", format!("[{}]", list.join(", ")));
    // As live: see `Options::ports`.
    command.env("KTRDR_AGENT_COMMANDS__ENABLED", "false");
    run(&mut command);
    std::fs::read_to_string(spans).unwrap()
}

#[test]
fn a_replay_gives_the_live_spans_byte_for_byte() {
    if !can_observe() {
        return;
    }
    for (hook, file) in [("socket", "recording.gz"), ("syscall", "recording")] {
        let dir = tempfile::tempdir().unwrap();
        let recording = dir.path().join(file);
        let (port, nobody) = (free_port(), free_port());
        let raw = Listener::new();
        let ports = [port, nobody, raw.port()];
        let agent = Options::recording(&ports, &recording).args(&["--hook", hook]).start();
        // The server begins after the agent: its listener and its process are seen, not read up.
        let server = Server::UvicornH11.start(port, dir.path());
        let base = format!("http://127.0.0.1:{port}");
        let said = run(python_program("clients.py").args([&base, "httpx,httpx-concurrent,requests"]));
        let refused = ["blocking", "127.0.0.1", &nobody.to_string()];
        run(python_program("connect.py").args(refused));
        // Ends that come late, or never.
        let reset = raw.serve(|mut peer| {
            peer.receive_head();
            peer.reset();
        });
        let mut client = raw.connect();
        client.send("GET /reset HTTP/1.1\r\nHost: t\r\n\r\n");
        client.receive_all();
        reset.join().unwrap();
        let open = raw.serve(|mut peer| {
            peer.receive_head();
            peer
        });
        let mut unanswered = raw.connect();
        unanswered.send("GET /open HTTP/1.1\r\nHost: t\r\n\r\n");
        let kept = open.join().unwrap();
        let expected = said.lines().count() * 2 + 1 + 2;
        agent.wait_for_spans(expected);
        let finished = agent.stop();
        drop((server, kept));
        // Two more calls were open when it ended.
        assert_eq!(finished.spans.len(), expected + 2, "{}", ktrdr_tests::span::brief(&finished.spans));
        let replayed = replay(&recording, &ports);
        // A recording narrowed to ports holds what a process wrote from its first wanted connection on; live, what it
        // wrote before is there too.
        let spans = |text: &str| -> Vec<String> {
            text.lines().filter(|l| !l.starts_with("{\"log\":")).map(str::to_owned).collect()
        };
        let (live, again) = (spans(&finished.text), spans(&replayed));
        for (n, (live, again)) in live.iter().zip(&again).enumerate() {
            assert_eq!(live, again, "line {n}");
        }
        assert_eq!(live.len(), again.len());
        // And again: nothing in it depends on the run.
        assert_eq!(replay(&recording, &ports), replayed);
    }
}
