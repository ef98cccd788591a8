//! Which file has the queues of a process's pools of threads, and what came of attaching to it.
//!
//! A process may load the module long after it was looked at, and a probe is at a file, not in a process; so the file is
//! looked for where the interpreter will look for it.

use std::io;
use std::path::{Path, PathBuf};

use super::module::Modules;
use super::probed::ProbeId;
use super::process::PythonProcess;
use super::queue::Queue;
use super::watcher::Probes;
use super::{maps, process};
use crate::event::Ns;

/// Entries read of a directory: CPython's own modules are 80.
const MAX_ENTRIES: usize = 4_096;
/// Files of one version that are looked into: a directory may have the module for several machines or C libraries.
const MAX_MODULES: usize = 4;
/// Directories above the interpreter's that are taken for its prefix: `bin`, `lib`, or `lib` and the machine's name.
const MAX_ANCESTORS: usize = 4;
/// The module's file begins with it.
const MODULE: &str = "_queue.";

/// What is known of the files.
#[derive(Debug)]
pub(super) struct Pools(Modules<Queue>);

impl Default for Pools {
    fn default() -> Self {
        Self(Modules::new("what pools of Python threads are given"))
    }
}

impl Pools {
    /// Sees what this process's pools are given, from now on.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn attach(&mut self, process: &PythonProcess, probes: &mut dyn Probes) -> Result<(), String> {
        if process.is_free_threaded() {
            return Err("not known of builds without a lock for all threads".into());
        }
        let mut seen = Err("no module _queue is found".into());
        for path in modules(process)? {
            let probe = |queue: &Queue| probes.attach_pool(&path, queue);
            let attached = self.0.attach(&path, process.tgid, Queue::open, probe).map(|_| ());
            // Of several the process loads one.
            if seen.is_err() {
                seen = attached;
            }
        }
        seen
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

/// The files that may have the module, each for a kind of machine or C library: the module's own, or the interpreter.
fn modules(process: &PythonProcess) -> Result<Vec<PathBuf>, String> {
    let said = |error: io::Error| error.to_string();
    let minor = process.version.minor;
    let mapped = maps::module(process.tgid, MODULE).map_err(said)?;
    let mut directory = None;
    if let Some(mapping) = mapped {
        let path = process::reachable(process.tgid, &mapping);
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(MODULE.as_bytes())) {
            // Whatever is there now, the process has another.
            let replaced = || Err(format!("{} was replaced on disk since the process started", mapping.path));
            return if mapping.deleted { replaced() } else { Ok(vec![path]) };
        }
        directory = path.parent().map(Path::to_owned);
    }
    let mut found = directory.into_iter().chain(directories(&process.path, minor));
    let found = found.find_map(|directory| Some(named(&directory, minor)).filter(|found| !found.is_empty()));
    Ok(found.unwrap_or_else(|| vec![process.path.clone()]))
}

/// Where an interpreter's own modules may be.
fn directories(interpreter: &Path, minor: u8) -> impl Iterator<Item = PathBuf> {
    let above = interpreter.ancestors().skip(1).take(MAX_ANCESTORS);
    above.flat_map(move |prefix| {
        ["lib", "lib64", ""].map(|lib| prefix.join(lib).join(format!("python3.{minor}/{}", maps::MODULES)))
    })
}

/// The files of the module for this version there (PEP 3149). Those of a build without the lock for all threads have a `t`
/// behind the version.
fn named(directory: &Path, minor: u8) -> Vec<PathBuf> {
    let Ok(entries) = directory.read_dir() else { return Vec::new() };
    let begin = format!("{MODULE}cpython-3{minor}-");
    let fits = |name: &str| name.starts_with(&begin) && name.ends_with(".so");
    let names = entries.take(MAX_ENTRIES).flatten().map(|entry| entry.file_name());
    let mut found: Vec<_> = names.filter(|name| name.to_str().is_some_and(fits)).collect();
    found.sort();
    found.into_iter().take(MAX_MODULES).map(|name| directory.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_looked_for_where_the_interpreter_will_look() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("usr/lib/python3.13").join(maps::MODULES);
        std::fs::create_dir_all(&modules).unwrap();
        let files = [
            "_queue.cpython-313t-x86_64-linux-gnu.so",
            "_queue.cpython-312-x86_64-linux-gnu.so",
            "_queue.cpython-313-x86_64-linux-gnu.so",
            "_queue.cpython-313-x86_64-linux-musl.so",
            "_queue.cpython-313-x86_64-linux-gnu.so.old",
        ];
        for name in files {
            std::fs::write(modules.join(name), "").unwrap();
        }
        for interpreter in
            ["usr/bin/python3.13", "usr/lib/libpython3.13.so", "usr/lib/x86_64-linux-gnu/libpython3.13.so"]
        {
            let interpreter = dir.path().join(interpreter);
            let mut tried = directories(&interpreter, 13);
            let found =
                tried.find_map(|directory| Some(named(&directory, 13)).filter(|found| !found.is_empty()));
            assert_eq!(found, Some(vec![modules.join(files[2]), modules.join(files[3])]), "{interpreter:?}");
        }
        assert!(named(&modules, 11).is_empty());
    }
}
