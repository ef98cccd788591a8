//! The way of every record: into the recording, if there is one, and into the core.

use super::recorder::Recorder;
use super::scope::Scope;
use crate::core::Core;

/// The records on their way to the core and, if there is one, into the recording.
pub(super) struct Stream {
    pub(super) core: Core,
    pub(super) recorder: Option<(Recorder, Scope)>,
    /// Records that the shell put into it.
    pub(super) shell_records: u64,
}

impl Stream {
    /// A record of the kernel programs.
    pub(super) fn feed(&mut self, record: &[u8]) -> anyhow::Result<()> {
        if let Some((recorder, scope)) = &mut self.recorder
            && let Some(record) = scope.keep(record)
        {
            recorder.record(&record)?;
        }
        self.core.feed(record);
        Ok(())
    }

    /// What is recorded so far survives the agent.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.recorder.as_mut().map_or(Ok(()), |(recorder, _)| recorder.flush())
    }

    /// A record of the shell.
    pub(super) fn fact(&mut self, record: &[u8]) -> anyhow::Result<()> {
        self.shell_records += 1;
        self.feed(record)
    }
}
