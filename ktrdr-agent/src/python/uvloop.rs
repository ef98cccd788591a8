//! Which process runs uvloop of a kind that sends later what its tasks write, and what came of attaching to it.
//!
//! It is no module of CPython's and may be anywhere; so a process is asked what it maps, and asked again while that may be
//! to come.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::maps;
use super::module::Modules;
use super::probed::ProbeId;
use super::process::{self, PythonProcess};
use super::stream::Stream;
use super::watcher::Probes;
use crate::event::Ns;

/// The package's directory, what its module's file begins with, and the file that says which version it is.
const PACKAGE: &str = "uvloop";
const MODULE: &str = "loop.";
const VERSION: &str = "_version.py";
/// Bytes read of that: a licence, some words, and one assignment.
const MAX_VERSION: u64 = 16_384;
/// From this version on a task sends itself, if the connection takes it ("uvloop/handles/stream.pyx", `_initiate_write`).
const AT_ONCE: (u32, u32) = (0, 23);

/// The loop of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loop {
    /// None that is known. It may be loaded later.
    #[default]
    Unknown,
    /// uvloop, which needs nothing: its tasks send by themselves. Or one of which nothing can be seen.
    AtOnce,
    /// uvloop that sends later, and is seen to be given what. As `PyContexts::writes`.
    Later(u16),
}

/// What is known of the files.
#[derive(Debug)]
pub(super) struct Uvloops(Modules<Stream>);

impl Default for Uvloops {
    fn default() -> Self {
        Self(Modules::new("what tasks write through uvloop"))
    }
}

impl Uvloops {
    /// Sees what this process's loop is given, from now on, if it is such a one.
    ///
    /// # Errors
    /// It is, and why that cannot be seen.
    pub(super) fn attach(
        &mut self,
        process: &PythonProcess,
        probes: &mut dyn Probes,
    ) -> Result<Loop, String> {
        let mapped = maps::extension(process.tgid, PACKAGE, MODULE).map_err(|error| error.to_string())?;
        let Some(mapping) = mapped else { return Ok(Loop::Unknown) };
        if mapping.deleted {
            return Err(format!("{} was replaced on disk since the process started", mapping.path));
        }
        let path = process::reachable(process.tgid, &mapping);
        // Of one that does not say it, it does no harm to know who wrote.
        if version(&path.with_file_name(VERSION)).is_ok_and(|v| v.is_some_and(|v| v >= AT_ONCE)) {
            return Ok(Loop::AtOnce);
        }
        if process.is_free_threaded() {
            return Err("not known of builds without a lock for all threads".into());
        }
        let probe = |stream: &Stream| probes.attach_stream(&path, stream);
        let stream = self.0.attach(&path, process.tgid, Stream::open, probe)?;
        Ok(Loop::Later(stream.passed))
    }

    /// The process ended, or runs another program.
    pub(super) fn left(&mut self, tgid: u32, now: Ns) {
        self.0.left(tgid, now);
    }

    /// As [`Modules::unused`].
    pub(super) fn unused(&mut self, now: Ns) -> Vec<ProbeId> {
        self.0.unused(now)
    }
}

/// What the package's file says.
fn version(path: &Path) -> io::Result<Option<(u32, u32)>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_VERSION).read_to_end(&mut text)?;
    Ok(assigned(&String::from_utf8_lossy(&text)))
}

/// `__version__ = '0.22.1'`
fn assigned(text: &str) -> Option<(u32, u32)> {
    let assigned = text.lines().find_map(|line| line.trim().strip_prefix("__version__"))?;
    let quoted = assigned.trim_start().strip_prefix('=')?.trim_start().strip_prefix(['\'', '"'])?;
    let mut numbers = quoted.split(['.', '\'', '"']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_what_the_package_says() {
        let said = "# The version is X.Y.Z\n# __version__ is set here.\n\n__version__ = '0.22.1'\n";
        assert_eq!(assigned(said), Some((0, 22)));
        assert_eq!(assigned("__version__=\"1.0\""), Some((1, 0)));
        for odd in ["", "__version__", "__version__ = 0.22", "__version__ = '22'", "__version__ = 'x.y'"] {
            assert_eq!(assigned(odd), None, "{odd}");
        }
    }
}
