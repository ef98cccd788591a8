//! A store filled from files: lines of spans, or recordings.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;

use super::{Limits, Store, join};
use crate::core::Output;
use crate::explain::parse::{Parsed, Parser};
use crate::settings::Settings;
use crate::trace::model::Span;

/// Longest line: a span has a bounded number of bounded texts, and a file may be anything.
const MAX_LINE: u64 = 4 << 20;

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Io(PathBuf, io::Error),
    /// There is no span in it.
    #[error(
        "{0} holds no spans (line 1: {1}): give a file from `--spans-out`, or a recording from `ktrdr-agent record`"
    )]
    NoSpans(PathBuf, String),
    /// The recording cannot be read.
    #[error("{0:#}")]
    Recording(anyhow::Error),
}

/// Reads all of them. Of several, what their agents saw of one call is joined.
///
/// # Errors
/// One of them cannot be read, or holds no spans.
pub fn from_files(paths: &[PathBuf], settings: &Settings) -> Result<Store, FileError> {
    let store = Store::new(Limits::FILE);
    if let [path] = paths {
        let lost = read(path, settings, |line| match line {
            Parsed::Span(span) => store.add(&Arc::new(*span)),
            Parsed::Log(record) => store.log(&record),
        })?;
        store.lost_throughout(lost);
        return Ok(store);
    }
    let (mut files, mut logs, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for (n, path) in paths.iter().enumerate() {
        let mut spans = Vec::new();
        lost.extend(read(path, settings, |line| match line {
            Parsed::Span(span) => spans.push(*span),
            Parsed::Log(record) => logs.push((n, *record)),
        })?);
        files.push(spans);
    }
    let joined = join::join(&mut files);
    for (file, mut record) in logs {
        joined.move_log(file, &mut record);
        store.log(&record);
    }
    tracing::info!("{} calls have their two ends in different files", joined.calls);
    for (path, ns) in paths.iter().zip(&joined.moved_ns).filter(|(_, ns)| **ns != 0) {
        let ms = *ns as f64 / 1e6;
        tracing::warn!("times of {} are moved by {ms:.3} ms: its host's clock differs", path.display());
    }
    let mut spans: Vec<Span> = files.into_iter().flatten().collect();
    // As one agent would have seen them end.
    spans.sort_by_key(|s| (s.end_wall_ns(), s.span_id));
    spans.into_iter().for_each(|s| store.add(&Arc::new(s)));
    store.lost_throughout(lost);
    Ok(store)
}

/// Reads one; returns what a recording lacks. Lines that are no spans are counted, and said.
fn read(
    path: &Path,
    settings: &Settings,
    mut take: impl FnMut(Parsed),
) -> Result<Vec<(String, u64)>, FileError> {
    let failed = |e: io::Error| FileError::Io(path.to_owned(), e);
    let mut input = open(path).map_err(failed)?;
    if input.fill_buf().map_err(failed)?.starts_with(crate::event::file::MAGIC) {
        drop(input);
        let counts = crate::pipeline::replay::products(settings, path, |product| match product {
            Output::Span(span) => take(Parsed::Span(span)),
            Output::Log(record) => take(Parsed::Log(record)),
            // Words to a kernel that is not there.
            Output::Capture(..) | Output::Forget(_) | Output::Watch(..) | Output::Deaf(_) => {}
        });
        let counts = counts.map_err(FileError::Recording)?;
        return Ok(counts.lost.into_iter().map(|(name, n)| (name.to_string(), n)).collect());
    }
    let (mut parser, mut first_error, mut bad, mut good) = (Parser::default(), None, 0u64, 0u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            continue;
        }
        match parser.any(text.trim()) {
            Ok(line) => {
                good += u64::from(matches!(line, Parsed::Span(_)));
                take(line);
            }
            Err(e) => {
                bad += 1;
                first_error.get_or_insert(e.to_string());
            }
        }
    }
    match first_error {
        _ if good == 0 => {
            Err(FileError::NoSpans(path.to_owned(), first_error.unwrap_or_else(|| "empty".to_owned())))
        }
        Some(e) => {
            tracing::warn!("{bad} lines of {} are no spans or log records (the first: {e})", path.display());
            Ok(Vec::new())
        }
        None => Ok(Vec::new()),
    }
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    Ok(match path.extension() {
        Some(e) if e == "gz" => Box::new(BufReader::new(GzDecoder::new(file))),
        _ => Box::new(file),
    })
}
