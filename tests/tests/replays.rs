//! Recordings of real programs, replayed: the spans must be the ones that were looked at when they were put here. Needs
//! no kernel and no privileges. `KTRDR_UPDATE_GOLDEN=1` writes them anew, to be looked at again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, also in its helpers")]

use std::path::PathBuf;
use std::process::Command;

use ktrdr_tests::agent::binary;
use ktrdr_tests::process::{root, run};

/// The calls of a recording, as they are without commands.
fn replays_to_its_golden(name: &str) {
    replays_to(name, name, false);
}

fn replays_to(name: &str, golden: &str, commands: bool) {
    let here: PathBuf = root().join("tests/replay");
    let golden = here.join(format!("{golden}.spans.jsonl"));
    let dir = tempfile::tempdir().unwrap();
    let spans = dir.path().join("spans.jsonl");
    let mut command = Command::new(binary());
    command.env("KTRDR_AGENT_COMMANDS__ENABLED", commands.to_string());
    command.args(["replay", "--console", "off", "--spans-out"]).arg(&spans);
    run(command.arg(here.join(format!("{name}.rec.gz"))));
    let now = std::fs::read_to_string(&spans).unwrap();
    if std::env::var_os("KTRDR_UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, now).unwrap();
        return;
    }
    let before = std::fs::read_to_string(&golden).unwrap();
    for (n, (now, before)) in now.lines().zip(before.lines()).enumerate() {
        assert_eq!(now, before, "span {} of {name}; if it is better now: KTRDR_UPDATE_GOLDEN=1", n + 1);
    }
    assert_eq!(now.lines().count(), before.lines().count(), "spans of {name}");
}

/// httpx and requests with uvicorn: every kind of body and status.
#[test]
fn calls() {
    replays_to_its_golden("calls");
}

/// Refused, tried again, answered on the other address, and a listener that ended with a status.
#[test]
fn connects() {
    replays_to_its_golden("connects");
}

/// The same with the programs that tried, each the root of its attempts.
#[test]
fn commands() {
    replays_to("connects", "commands", true);
}

/// The calls again with a ring of 64 KiB: records are missing, and no span is wrong.
#[test]
fn losses() {
    replays_to_its_golden("losses");
}

/// What a GPU did meanwhile, from the stand-in for NVIDIA's library: windows, a span without a sample, a device that was lost
/// for a while, one that was full, and one that nobody used.
#[test]
fn gpu() {
    replays_to_its_golden("gpu");
}

/// A service that logs on its console and in a file, from tasks and threads, tracebacks among it: every record once, on the
/// span it was written in.
#[test]
fn logs() {
    replays_to_its_golden("logs");
}
