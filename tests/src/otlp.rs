//! Python's gRPC and protobuf as an OTLP receiver: it says what comes, one line of JSON per request.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::net::free_port;
use crate::process::{Process, python, root};
use crate::wait;

/// A running receiver of spans, metrics and log records; killed when dropped.
pub struct Receiver {
    process: Process,
    port: u16,
}

impl Receiver {
    /// Starts it and waits until it listens.
    pub fn start(dir: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(python());
        command
            .arg("-u")
            .arg(root().join("tests/receivers/otlp.py"))
            .args(["--grpc-port", &port.to_string()]);
        let mut process = Process::start(command, dir);
        let begun = Process::log;
        wait::until("the receiver says its ports", || begun(&process).contains("\"grpc\"").then_some(()));
        assert!(process.ended().is_none(), "{}", process.log());
        Self { process, port }
    }

    /// Where it takes gRPC.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of that.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// All data points of a metric so far, in the order in which they came.
    pub fn points(&self, name: &str) -> Vec<Value> {
        self.items("metrics").into_iter().filter(|p| p["name"] == name).collect()
    }

    /// All `spans`, `metrics` or `logs` so far, in the order in which they came.
    pub fn items(&self, what: &str) -> Vec<Value> {
        self.requests().iter().filter_map(|r| r[what].as_array().cloned()).flatten().collect()
    }

    /// All requests so far; those with spans say their `headers`.
    pub fn requests(&self) -> Vec<Value> {
        let log = self.process.log();
        log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect()
    }
}
