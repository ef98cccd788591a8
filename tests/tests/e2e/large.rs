//! Bodies of 50 MB, both ways, with a known and an unknown length.

use std::process::Command;

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::compare;
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{program, python_program, run};
use ktrdr_tests::servers::Server;
use ktrdr_tests::truth::Truth;

const SIZE: usize = 50_000_000;

#[test]
fn fifty_megabytes_both_ways() {
    if !can_observe() {
        return;
    }
    for (server, hook) in [(Server::Aiohttp, "socket"), (Server::Node, "syscall")] {
        let dir = tempfile::tempdir().unwrap();
        let plan = serde_json::json!([
            {"method": "GET", "path": format!("bytes/{SIZE}")},
            {"method": "PUT", "path": "status/200", "body": SIZE},
            {"method": "PUT", "path": "status/200", "body": SIZE, "chunked": true, "piece": 250_000, "vague": true},
            {"method": "GET", "path": "bytes/3"},
        ]);
        let path = dir.path().join("plan.json");
        std::fs::write(&path, plan.to_string()).unwrap();
        let port = free_port();
        let _server = server.start(port, dir.path());
        let agent = Options::ports(&[port]).args(&["--hook", hook]).start();
        let base = format!("http://127.0.0.1:{port}");
        let mut said = run(python_program("clients.py").args([&base, "http.client"]).arg(&path));
        said += &run(Command::new("node").arg(program("node_client.js")).arg(&base).arg(&path));
        let truths = Truth::parse_all(&said);
        assert_eq!(truths.len(), 3 * 4);
        agent.wait_for_spans(truths.len() * 2);
        let finished = agent.stop();
        compare::same(&truths, &finished.spans);
        let stats = finished.stats.unwrap();
        assert_eq!(stats.kernel["records_lost_ring_full"], 0, "{stats:?}");
        assert!(stats.bytes.moved > 2 * 3 * 3 * SIZE as u64, "{stats:?}");
    }
}
