//! What the running system, not its disk, has to offer.

use std::path::Path;
use std::process::Command;

use super::say;
use crate::{cmd, host};

const TRACEFS: &str = "/sys/kernel/tracing";

/// Mounts tracefs where a minimal system has not: tracepoints are described there. The agent's `check`
/// reports a host where this cannot be done, so it is no error here.
pub fn tracefs() {
    if Path::new(TRACEFS).join("events").exists() || !host::is_root() {
        return;
    }
    say(&format!("mounting tracefs at {TRACEFS}"));
    if let Err(error) = cmd::run_quietly(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS])) {
        say(&format!("{error:#}"));
    }
}
