//! Metrics, once all that was said about them is checked.

use std::net::SocketAddr;
use std::time::Duration;

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
        let listen = match said.listen.as_str() {
            "" => None,
            text => Some(text.parse::<SocketAddr>().map_err(|_| {
                Bad::new("metrics.listen", "must be an address and a port, such as 127.0.0.1:9464")
            })?),
        };
        let token = said.token.clone();
        if listen.is_some_and(|l| !l.ip().is_loopback()) && token.reveal().is_none() {
            return Err(Bad::new(
                "metrics.listen",
                "is not a loopback address, so metrics.token must be set: others can reach it",
            ));
        }
        Ok(Self { interval, listen, token })
    }
}
