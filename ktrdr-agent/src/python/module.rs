//! Files of C extensions whose functions are probed: what was found in each, and for whom it is.

use std::collections::BTreeMap;
use std::path::Path;

use super::methods::MethodsError;
use super::probed::{FileId, ProbeId, Probed};
use crate::event::Ns;

/// Files remembered.
const MAX_FILES: usize = 256;

/// What is known of the files that may have a module. `T` says where its functions are.
#[derive(Debug)]
pub(super) struct Modules<T> {
    files: BTreeMap<FileId, File<T>>,
    probed: Probed,
    /// What is seen by it, for the log.
    what: &'static str,
}

/// One of them.
#[derive(Debug)]
struct File<T> {
    found: Result<T, String>,
    /// It was said that it is of no use.
    said: bool,
}

impl<T: std::fmt::Debug> Modules<T> {
    /// None yet.
    pub(super) fn new(what: &'static str) -> Self {
        Self { files: BTreeMap::new(), probed: Probed::default(), what }
    }

    /// Probes a file for this process, if nobody did.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn attach(
        &mut self,
        path: &Path,
        tgid: u32,
        open: impl FnOnce(&Path) -> Result<T, MethodsError>,
        attach: impl FnOnce(&T) -> Result<ProbeId, String>,
    ) -> Result<&T, String> {
        let id = FileId::of(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !self.files.contains_key(&id) && self.files.len() >= MAX_FILES {
            self.files.pop_first();
        }
        let file = self.files.entry(id).or_insert_with(|| File {
            found: open(path).map_err(|error| format!("{}: {error}", path.display())),
            said: false,
        });
        let attached = file.found.as_ref().map_err(String::clone).and_then(|found| {
            self.probed.uses(id, tgid, || {
                tracing::debug!("{} is seen in {}: {found:x?}", self.what, path.display());
                attach(found)
            })?;
            Ok(found)
        });
        if let Err(why) = &attached
            && !std::mem::replace(&mut file.said, true)
        {
            tracing::warn!("{} cannot be seen: {why}", self.what);
        }
        attached
    }

    /// The process ended, or runs another program.
    pub(super) fn left(&mut self, tgid: u32, now: Ns) {
        self.probed.left(tgid, now);
    }

    /// As [`Probed::unused`].
    pub(super) fn unused(&mut self, now: Ns) -> Vec<ProbeId> {
        self.probed.unused(now)
    }
}
