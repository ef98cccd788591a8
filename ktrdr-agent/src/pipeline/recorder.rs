//! Writes the records of a run to a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::event::file::Writer;

/// An open recording.
pub struct Recorder {
    writer: Writer<Box<dyn Write>>,
    /// Records written.
    pub records: u64,
}

impl Recorder {
    /// Begins a recording; compressed if the name ends in `.gz`.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        // Payload is what it is: for its owner's eyes only.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("cannot write a recording to {}", path.display()))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let out: Box<dyn Write> = match path.extension() {
            // The fastest level: a recording must keep up with the traffic.
            Some(e) if e == "gz" => Box::new(Finishing(Some(GzEncoder::new(file, Compression::fast())))),
            _ => Box::new(file),
        };
        Ok(Self { writer: Writer::new(out)?, records: 0 })
    }

    /// Appends a record.
    pub fn record(&mut self, record: &[u8]) -> anyhow::Result<()> {
        self.records += 1;
        self.writer.record(record).context("cannot go on recording")
    }

    /// Completes the file.
    pub fn finish(self) -> anyhow::Result<u64> {
        self.writer.finish().context("cannot complete the recording")?;
        Ok(self.records)
    }
}

/// Ends the gzip stream at the flush that ends the recording.
struct Finishing<W: Write>(Option<GzEncoder<W>>);

impl<W: Write> Write for Finishing<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match &mut self.0 {
            Some(gz) => gz.write(buf),
            None => Err(std::io::Error::other("the recording is complete")),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        match self.0.take() {
            Some(gz) => gz.finish()?.flush(),
            None => Ok(()),
        }
    }
}
