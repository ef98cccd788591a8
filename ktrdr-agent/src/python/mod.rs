//! CPython processes: where a thread keeps its current `contextvars` context, and where contexts are copied.
//!
//! Nothing private of the interpreter is called or patched: exported symbols, its own published offsets (3.13+) or a
//! table, all checked against the live process before anything is believed.
//!
//! - [`image`]: the interpreter's file: symbols, version, the cheapest place for the probe.
//! - [`offsets`]: where the fields are, by version.
//! - [`memory`], [`walk`]: bounded reading of a process's threads.
//! - `freelist`: where the interpreter keeps contexts for the next copies.
//! - `methods`: where the functions of a C extension are in its file.
//! - [`queue`]: those through which pools of threads are given work; `pool`: which file has them.
//! - [`stream`]: those by which tasks give uvloop what it sends later; [`uvloop`]: which process needs that.
//! - `module`: files that have such functions.
//! - `tls`: where the C library keeps what belongs to a thread.
//! - [`process`]: all of that for one process.
//! - `probed`: which files are probed, and for whom.
//! - [`watcher`]: when to look, and what to tell the kernel programs.

mod freelist;
pub mod image;
pub mod maps;
pub mod memory;
pub mod methods;
#[cfg(test)]
mod methods_tests;
mod module;
pub mod offsets;
mod pool;
mod probed;
pub mod process;
pub mod queue;
pub mod stream;
mod tls;
pub mod uvloop;
pub mod walk;
pub mod watcher;

pub use probed::{FileId, ProbeId};
pub use process::{PythonProcess, Tls};
pub use watcher::{Probes, Watcher};
