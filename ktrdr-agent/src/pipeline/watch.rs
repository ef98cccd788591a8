//! Tells the kernel side whose writes are wanted, and which files are logs. What it refuses is not captured, and said.

use ktrdr_ebpf_common::maps::Watch;

use crate::core::Watched;
use crate::event::shell::FileMeta;
use crate::kernel::Kernel;

/// Captures what a process writes.
pub fn process(kernel: &mut Kernel, tgid: u32, much: Watched, rate: u32) {
    let flags = match much {
        Watched::Logs => Watch::FILES,
        Watched::Json => Watch::FILES | Watch::JSON,
        Watched::Pipes => Watch::FILES | Watch::PIPES,
    };
    if let Err(e) = kernel.watch(tgid, rate, flags) {
        tracing::warn!("log lines of process {tgid} are not seen: {e}");
    }
}

/// Captures nothing more of what a process reads.
pub fn deaf(kernel: &mut Kernel, tgid: u32) {
    if let Err(e) = kernel.speaks_not(tgid) {
        tracing::warn!("what process {tgid} reads is captured for nothing: {e}");
    }
}

/// Says of each file whether it is a log.
pub fn files(kernel: &mut Kernel, files: &mut Vec<FileMeta>) {
    for file in files.drain(..) {
        if let Err(e) = kernel.set_file(file.id(), file.log) {
            tracing::warn!("whether {} is a log cannot be told: {e}", file.path);
        }
    }
}
