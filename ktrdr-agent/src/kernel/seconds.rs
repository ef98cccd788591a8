//! Second programs at the socket tracepoints, for the transfers that the first are not run for.

use super::features;

/// The first Linux that lets a thread be interrupted inside a program at a tracepoint, and then refuses the program to the
/// others on that processor ("tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with SRCU-fast").
const INTERRUPTS: (u32, u32) = (7, 0);

/// Whether second programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seconds {
    /// Where the kernel may refuse the first ones a run. Elsewhere they would cost 40 ns a transfer, for nothing.
    #[default]
    Auto,
    /// Always.
    Beside,
    /// Instead of the first ones, as if those were refused every run. For tests.
    Alone,
}

impl Seconds {
    /// Whether they are attached on this kernel.
    pub(super) fn wanted(self) -> bool {
        match self {
            Seconds::Auto => features::running_version().is_some_and(|version| version >= INTERRUPTS),
            Seconds::Beside | Seconds::Alone => true,
        }
    }
}
