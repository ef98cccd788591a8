//! Every client with every server of the libraries that KTRDR uses, and some that others use: exactly one client and
//! one server span per request, saying what the client says.

use std::process::Command;

use ktrdr_tests::agent::{Finished, Options, can_observe};
use ktrdr_tests::compare;
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{program, python_program, run};
use ktrdr_tests::servers::Server;
use ktrdr_tests::truth::Truth;

const PYTHON_LIBRARIES: &str = "httpx,httpx-async,httpx-concurrent,requests,aiohttp,http.client";

/// Lets every client do the plan against `base`, one after the other.
fn all_clients(base: &str) -> Vec<Truth> {
    let mut said = run(python_program("clients.py").args([base, PYTHON_LIBRARIES]));
    said += &run(Command::new("node").arg(program("node_client.js")).arg(base));
    said += &run(python_program("curl_client.py").arg(base));
    Truth::parse_all(&said)
}

fn base(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// What every run must show besides its spans: all records read and understood, every byte accounted for.
pub fn clean(finished: &Finished) {
    let stats = finished.stats.as_ref().unwrap();
    assert_eq!(stats.undecoded.len(), 0, "{stats:?}");
    assert_eq!(stats.kernel["records_lost_ring_full"], 0, "{stats:?}");
    assert_eq!(stats.kernel["kernel_read_faults"], 0, "{stats:?}");
    assert_eq!(stats.bytes.lost, 0, "{stats:?}");
    assert_eq!(stats.unpaired_responses, 0, "{stats:?}");
}

fn everyone_with(server: Server, hook: &str) {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _server = server.start(port, dir.path());
    let agent = Options::ports(&[port]).args(&["--hook", hook]).start();
    let truths = all_clients(&base(port));
    assert_eq!(truths.len(), 9 * 14);
    agent.wait_for_spans(truths.len() * 2);
    let finished = agent.stop();
    compare::same(&truths, &finished.spans);
    clean(&finished);
}

#[test]
fn uvicorn_with_asyncio_and_h11() {
    everyone_with(Server::UvicornH11, "auto");
}

#[test]
fn uvicorn_with_asyncio_and_h11_by_the_syscall_hook() {
    everyone_with(Server::UvicornH11, "syscall");
}

#[test]
fn uvicorn_with_httptools() {
    everyone_with(Server::UvicornHttptools, "auto");
}

#[test]
fn uvicorn_with_uvloop() {
    everyone_with(Server::UvicornUvloop, "auto");
}

#[test]
fn aiohttp() {
    everyone_with(Server::Aiohttp, "auto");
}

#[test]
fn python_http_server_with_threads() {
    everyone_with(Server::Threaded, "auto");
}

#[test]
fn node() {
    everyone_with(Server::Node, "auto");
}
