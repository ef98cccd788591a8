//! How fast the agent's core turns recorded transfers into spans, and those into OTLP: no kernel, no waiting.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::Bench;
use super::sink::Sink;
use super::wrk::Load;
use crate::agent::Agent;
use crate::cmd;

/// So often is the recording replayed, for a time that is long against the start of the process.
const REPEAT: u32 = 10;
/// A request on this host gives two spans: the client's and the server's.
const SPANS_PER_REQUEST: f64 = 2.0;

#[derive(Serialize)]
pub struct Replayed {
    /// Requests whose both ends went through decode, parsing and assembly, on one core.
    pub requests_per_second: f64,
    /// Spans delivered to a receiver on this host through OTLP over HTTP.
    pub otlp_spans_per_second: f64,
}

pub fn measure(bench: &Bench, load: &Load) -> Result<Replayed> {
    let file = bench.directory.join("recording");
    record(bench, load, &file)?;
    let spans = replay(bench, &file, &["--console", "off"])?;
    let sink = Sink::start()?;
    let options = ["--console", "off", "--otlp-protocol", "http/protobuf", "--otlp-endpoint", &sink.url()];
    replay(bench, &file, &options)?;
    let delivered = sink.spans_per_second()?;
    std::fs::remove_file(&file)?;
    Ok(Replayed { requests_per_second: spans / SPANS_PER_REQUEST, otlp_spans_per_second: delivered })
}

/// A second of the load as raw records.
fn record(bench: &Bench, load: &Load, file: &Path) -> Result<()> {
    let arguments = ["record", "--out", &file.to_string_lossy()];
    let log = bench.directory.join("record.log");
    let mut recorder = Agent::start(&bench.binary, &arguments, &log)?;
    Load { url: load.url.clone(), seconds: 1, ..*load }.run()?;
    recorder.still_runs()?;
    recorder.stop();
    Ok(())
}

/// Spans per second by the replay's own clock, which leaves out its start.
fn replay(bench: &Bench, file: &Path, options: &[&str]) -> Result<f64> {
    let mut replay = Command::new(&bench.binary);
    replay.arg("replay").arg(file).args(["--repeat", &REPEAT.to_string()]).args(options);
    let said = replay.stdin(Stdio::null()).output().context("cannot run the replay")?;
    let text = String::from_utf8_lossy(&said.stderr);
    if !said.status.success() {
        bail!("`{}` failed ({}):\n{text}", cmd::shown(&replay), said.status);
    }
    spans_per_second(&text).with_context(|| format!("`{}` told no speed:\n{text}", cmd::shown(&replay)))
}

/// From "… 123 records/s, 45 spans/s".
fn spans_per_second(said: &str) -> Option<f64> {
    let before = said.split(" spans/s").next().filter(|before| before.len() < said.len())?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replays_speed_is_read() {
        let said = "WARN x\n5000 records in 0.010 s: 500000 records/s, 125000 spans/s\nmore\n";
        assert_eq!(spans_per_second(said), Some(125_000.0));
        assert_eq!(spans_per_second("nothing"), None);
    }
}
