//! Metrics, once all that was said about them is checked.

use std::net::SocketAddr;
use std::time::Duration;

use super::ui::listen;
use super::{Bad, said, values::Secret};

/// Metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How often they are sent.
    pub interval: Duration,
    /// Where they can be scraped, if they can.
    pub listen: Option<SocketAddr>,
    /// What a client must show, if anything.
    pub token: Secret,
}

impl Metrics {
    /// More often than every 100 ms would only repeat the same numbers.
    pub(super) fn resolve(said: &said::Metrics) -> Result<Self, Bad> {
        let interval = said.interval.0;
        if interval < Duration::from_millis(100) {
            return Err(Bad::new("metrics.interval", "must be at least 100ms"));
        }
        let listen = listen("metrics", "127.0.0.1:9464", &said.listen, &said.token)?;
        let token = said.token.clone();
        Ok(Self { interval, listen, token })
    }
}
