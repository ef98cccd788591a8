//! Spans from a recorded file: the very same core, fed from a file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use flate2::read::GzDecoder;

use super::options;
use crate::core::{Core, Output};
use crate::event::file::{FileError, Reader};
use crate::event::shell::ShellEvent;
use crate::export::Exporters;
use crate::settings::Settings;

/// How long the sinks may take for what is left in their queues: nobody waits for Ctrl-C here.
const REPLAY_FLUSH: Duration = Duration::from_secs(10);

/// Replays `path`, `repeat` times from the start, to the exporters that the settings name.
pub fn run(settings: &Settings, path: &Path, spans_out: Option<&Path>, repeat: u32) -> anyhow::Result<()> {
    let records = read(path)?;
    let exporters = Exporters::start(options::export(settings, spans_out))?;
    let (mut spans, mut fed) = (0u64, 0u64);
    let started = Instant::now();
    let mut last = None;
    for _ in 0..repeat.max(1) {
        let names = crate::meta::service::Namer::new(&settings.services).port_names();
        let mut core = Core::new(options::core(settings, names));
        for record in &records {
            fed += 1;
            core.feed(record);
            while let Some(output) = core.next_output() {
                spans += deliver(output, &exporters);
            }
        }
        core.feed(&ShellEvent::End.to_record(0));
        while let Some(output) = core.next_output() {
            spans += deliver(output, &exporters);
        }
        last = Some(core.counts());
    }
    let took = started.elapsed();
    exporters.flush_and_stop(REPLAY_FLUSH);
    if repeat > 1 {
        let per_second = |n: u64| (n as f64 / took.as_secs_f64()).round();
        eprintln!(
            "{fed} records in {:.3} s: {} records/s, {} spans/s",
            took.as_secs_f64(),
            per_second(fed),
            per_second(spans)
        );
    }
    if let Some(counts) = last {
        let refused: u64 = counts.undecoded.values().sum();
        if refused > 0 {
            tracing::warn!(
                "{refused} records of {} were not understood: {:?}",
                path.display(),
                counts.undecoded
            );
        }
        for (name, n) in counts.lost {
            tracing::warn!("the recording lacks {n} × {name}");
        }
    }
    Ok(())
}

/// Gives a product to the exporters. Returns how many spans that was.
fn deliver(output: Output, exporters: &Exporters) -> u64 {
    match output {
        Output::Span(span) => exporters.submit_waiting(span),
        Output::Log(record) => {
            exporters.submit_log_waiting(*record);
            return 0;
        }
        // Words to a kernel that is not there.
        Output::Capture(..) | Output::Forget(_) | Output::Watch(..) | Output::Deaf(_) => return 0,
    }
    1
}

/// All that the core makes of a recording, as it is made.
pub fn products(
    settings: &Settings,
    path: &Path,
    mut take: impl FnMut(Output),
) -> anyhow::Result<crate::core::CoreCounts> {
    let names = crate::meta::service::Namer::new(&settings.services).port_names();
    let mut core = Core::new(options::core(settings, names));
    let mut drain = |core: &mut Core| {
        while let Some(output) = core.next_output() {
            take(output);
        }
    };
    for record in read(path)? {
        core.feed(&record);
        drain(&mut core);
    }
    core.feed(&ShellEvent::End.to_record(0));
    drain(&mut core);
    Ok(core.counts())
}

/// All records of a file.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let file = BufReader::with_capacity(1 << 20, file);
    let input: Box<dyn Read> = match path.extension() {
        Some(e) if e == "gz" => Box::new(BufReader::new(GzDecoder::new(file))),
        _ => Box::new(file),
    };
    let what = || format!("cannot replay {}", path.display());
    let mut reader = Reader::new(input).with_context(what)?;
    let mut records = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some(record)) => records.push(record.to_vec()),
            Ok(None) => return Ok(records),
            // What was written before the recording ended, by a full disk or with its agent, is whole.
            Err(error @ FileError::Truncated { .. }) => {
                tracing::warn!("{}: {error}; what comes before is read", path.display());
                return Ok(records);
            }
            Err(error) => return Err(error).with_context(what),
        }
    }
}
