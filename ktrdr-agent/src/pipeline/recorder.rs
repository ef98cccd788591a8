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
    writer: Writer<Out>,
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
        let out = match path.extension() {
            // The fastest level: a recording must keep up with the traffic.
            Some(e) if e == "gz" => Out::Compressed(GzEncoder::new(file, Compression::fast())),
            _ => Out::Plain(file),
        };
        Ok(Self { writer: Writer::new(out)?, records: 0 })
    }

    /// Appends a record.
    pub fn record(&mut self, record: &[u8]) -> anyhow::Result<()> {
        self.records += 1;
        self.writer.record(record).context("cannot go on recording")
    }

    /// What was recorded so far is in the file, whatever becomes of this process.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.writer.flush().context("cannot go on recording")
    }

    /// Completes the file.
    pub fn finish(self) -> anyhow::Result<u64> {
        self.writer.finish().and_then(Out::finish).context("cannot complete the recording")?;
        Ok(self.records)
    }
}

/// The file.
enum Out {
    Plain(BufWriter<File>),
    Compressed(GzEncoder<BufWriter<File>>),
}

impl Out {
    fn finish(self) -> std::io::Result<()> {
        match self {
            Out::Plain(mut file) => file.flush(),
            Out::Compressed(gz) => gz.finish()?.flush(),
        }
    }
}

impl Write for Out {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Out::Plain(file) => file.write(buf),
            Out::Compressed(gz) => gz.write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Out::Plain(file) => file.flush(),
            Out::Compressed(gz) => gz.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::shell::tick;
    use crate::pipeline::replay;

    /// An agent that is killed, or a disk that is full.
    #[test]
    fn what_was_flushed_is_replayed_though_the_recording_was_never_completed() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["plain", "compressed.gz"] {
            let path = directory.path().join(name);
            let mut recorder = Recorder::create(&path).unwrap();
            for n in 1..100 {
                recorder.record(&tick(n)).unwrap();
            }
            recorder.flush().unwrap();
            let flushed = std::fs::read(&path).unwrap();
            recorder.finish().unwrap();
            std::fs::write(&path, &flushed).unwrap();
            assert_eq!(replay::read(&path).unwrap().len(), 99, "{name}");
            // In the middle of a record.
            std::fs::write(&path, &flushed[..flushed.len() - 12]).unwrap();
            assert!((1..99).contains(&replay::read(&path).unwrap().len()), "{name}");
        }
    }
}
