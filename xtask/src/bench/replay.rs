//! How fast the agent's core turns recorded transfers into spans: no kernel, no waiting.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use super::Bench;
use super::wrk::Load;
use crate::agent::Agent;
use crate::cmd;

/// So often is the recording replayed, for a time that is long against the start of the process.
const REPEAT: u64 = 10;

#[derive(Serialize)]
pub struct Replayed {
    /// In the recording, as the client counted them.
    pub requests: u64,
    /// Requests (two spans each) through decode and span, on one core.
    pub requests_per_second: f64,
}

pub fn measure(bench: &Bench, load: &Load) -> Result<Replayed> {
    let file = bench.directory.join("recording");
    let path = file.to_string_lossy();
    let log = bench.directory.join("record.log");
    let mut recorder = Agent::start(&bench.binary, &["record", "--out", &path], Stdio::null(), &log)?;
    let requests = Load { url: load.url.clone(), seconds: 1, ..*load }.run()?.requests;
    recorder.still_runs()?;
    recorder.stop();

    let begin = Instant::now();
    let mut replay = Command::new(&bench.binary);
    replay.args(["replay", &path, "--console", "off", "--repeat", &REPEAT.to_string()]);
    cmd::run_quietly(&mut replay)?;
    let seconds = begin.elapsed().as_secs_f64();
    std::fs::remove_file(&file)?;
    Ok(Replayed { requests, requests_per_second: (requests * REPEAT) as f64 / seconds })
}
