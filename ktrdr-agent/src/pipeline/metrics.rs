//! When metrics leave the agent, and where to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options;
use crate::export::Books;
use crate::export::otlp::metrics::SERIES_PER_REQUEST;
use crate::export::otlp::{OtlpOptions, OtlpSink, Signal};
use crate::export::prometheus::{Endpoint, EndpointOptions};
use crate::metrics::{Slice, Snapshot};
use crate::settings::Settings;

/// Requests waiting for an absent receiver: four snapshots of the most series there can be. Older sums are contained in newer
/// ones, so more would only say the same again.
const WAITING: usize = 64;
/// What delivery may take once the spans are delivered.
const LAST: Duration = Duration::from_millis(100);

/// Where metrics go.
pub struct Measures {
    otlp: Option<OtlpSink<Slice>>,
    endpoint: Option<Endpoint>,
    interval: Duration,
    next: Instant,
}

impl Measures {
    /// Starts what the settings name.
    pub fn start(settings: &Settings, export: bool) -> anyhow::Result<Self> {
        let target = settings.otlp.metrics.as_ref().filter(|_| export);
        let options = target.map(|target| OtlpOptions {
            queue_size: WAITING,
            batch_size: 1,
            batch_delay: Duration::ZERO,
            ..options::otlp_options(settings, target)
        });
        let interval = settings.metrics.interval;
        let token = settings.metrics.token.reveal().map(str::to_owned);
        let listen = settings.metrics.listen.filter(|_| export);
        let endpoint = listen.map(|listen| Endpoint::start(EndpointOptions { listen, token })).transpose()?;
        if let Some(endpoint) = &endpoint {
            tracing::info!("metrics at http://{}/metrics", endpoint.address());
        }
        let otlp = options.map(OtlpSink::start).transpose()?;
        Ok(Self { otlp, endpoint, interval, next: Instant::now() + interval })
    }

    /// Gives out a snapshot, made by `take`, if somebody waits for one or it is time.
    pub fn turn(&mut self, take: impl FnOnce() -> Option<Snapshot>) {
        let waiting = self.endpoint.as_ref().map(Endpoint::turn).unwrap_or_default();
        let due = self.otlp.is_some() && Instant::now() >= self.next;
        if waiting.is_empty() && !due {
            return;
        }
        let Some(snapshot) = take().map(Arc::new) else { return };
        for client in waiting {
            // It may have gone meanwhile.
            let _ = client.send(snapshot.clone());
        }
        if due {
            self.next = Instant::now() + self.interval;
            self.send(&snapshot);
        }
    }

    /// Sends what there is at the end.
    pub fn last(&mut self, snapshot: Option<Snapshot>) {
        if let Some(snapshot) = snapshot {
            self.send(&Arc::new(snapshot));
        }
    }

    fn send(&self, snapshot: &Arc<Snapshot>) {
        if let Some(otlp) = &self.otlp {
            snapshot.slices(SERIES_PER_REQUEST).for_each(|slice| otlp.take(slice));
        }
    }

    /// The books of what is sent.
    pub fn books(&self) -> Option<(&'static str, Books)> {
        self.otlp.as_ref().map(|otlp| (Signal::Metrics.sink(), otlp.books()))
    }

    /// Delivers what is there.
    pub fn stop(self) {
        if let Some(otlp) = &self.otlp {
            let deadline = Instant::now() + LAST;
            otlp.begin_stop(deadline);
            otlp.wait_stopped(deadline);
        }
    }
}
