//! The wiring: where records come from, what the core makes of them, where that goes, and in which order all of it
//! stops.

mod announce;
mod budget;
pub mod gpu;
pub mod live;
mod metrics;
mod options;
mod python;
mod recorder;
mod remember;
pub mod replay;
mod scope;
mod selfmon;
mod signals;
mod stats;
mod stream;
mod watch;

pub use options::{kernel as kernel_options, self_telemetry};

use std::path::PathBuf;
use std::time::Duration;

/// Time that sinks get to deliver what they hold when the agent stops; with the rest of the shutdown it stays under
/// a second.
const FLUSH: Duration = Duration::from_millis(700);

/// What a run is to do besides its settings.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Stop by itself after this time.
    pub duration: Option<Duration>,
    /// Also write spans as JSON lines to this file.
    pub spans_out: Option<PathBuf>,
    /// Write the books of the run to this file.
    pub stats_out: Option<PathBuf>,
    /// Write raw records to this file.
    pub record: Option<PathBuf>,
    /// Make and export spans.
    pub export: bool,
    /// Remember recent traces and answer `explain` on the socket of the settings.
    pub socket: bool,
    /// Remember recent traces and show them over HTTP, where the settings say so.
    pub ui: bool,
}
