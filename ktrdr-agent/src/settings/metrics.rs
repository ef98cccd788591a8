//! Metrics, once all that was said about them is checked.

use std::time::Duration;

use super::{Bad, said};

/// Metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How often they are sent.
    pub interval: Duration,
}

impl Metrics {
    /// More often than every 100 ms would only repeat the same numbers.
    pub(super) fn resolve(said: &said::Metrics) -> Result<Self, Bad> {
        let interval = said.interval.0;
        if interval < Duration::from_millis(100) {
            return Err(Bad::new("metrics.interval", "must be at least 100ms"));
        }
        Ok(Self { interval })
    }
}
