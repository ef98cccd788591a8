//! Settings of log lines, checked.

use super::{Bad, said};

/// Log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// Read them at all.
    pub enabled: bool,
    /// Patterns of files.
    pub files: Vec<String>,
    /// Most bytes a second of one process.
    pub rate: u32,
    /// Longest record in bytes.
    pub max_record: usize,
}

impl Logs {
    /// Below, an ordinary traceback would not fit; above, one process could fill the ring or a record a request.
    pub(super) fn resolve(said: &said::Logs) -> Result<Self, Bad> {
        let rate = u32::try_from(said.rate.0).ok().filter(|n| (1024..=64 << 20).contains(n));
        let rate = rate.ok_or_else(|| Bad::new("logs.rate", "must be from 1KiB to 64MiB"))?;
        let max_record = usize::try_from(said.max_record.0).ok().filter(|n| (1024..=1 << 20).contains(n));
        let max_record =
            max_record.ok_or_else(|| Bad::new("logs.max_record", "must be from 1KiB to 1MiB"))?;
        Ok(Self { enabled: said.enabled, files: said.files.clone(), rate, max_record })
    }
}
