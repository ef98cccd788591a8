//! Reports as text.

mod human;

pub use human::{listing, report};

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of the screen.
    pub width: usize,
    /// Use colours.
    pub color: bool,
    /// Seconds that local time is ahead of UTC at a second since the Unix epoch.
    pub utc_offset: fn(u64) -> i64,
}
