//! When metrics leave the agent, and where to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options;
use crate::core::Core;
use crate::export::otlp::metrics::SERIES_PER_REQUEST;
use crate::export::otlp::{OtlpOptions, OtlpSink, StartError};
use crate::meta::host as clock;
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
    interval: Duration,
    next: Instant,
}

impl Measures {
    /// Starts what the settings name.
    pub fn start(settings: &Settings, export: bool) -> Result<Self, StartError> {
        let target = settings.otlp.metrics.as_ref().filter(|_| export);
        let options = target.map(|target| OtlpOptions {
            queue_size: WAITING,
            batch_size: 1,
            batch_delay: Duration::ZERO,
            ..options::otlp_options(settings, target)
        });
        let interval = settings.metrics.interval;
        Ok(Self {
            otlp: options.map(OtlpSink::start).transpose()?,
            interval,
            next: Instant::now() + interval,
        })
    }

    /// Sends, if it is time.
    pub fn look(&mut self, core: &mut Core) {
        if self.otlp.is_none() || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + self.interval;
        self.last(core);
    }

    /// Sends what there is.
    pub fn last(&mut self, core: &mut Core) {
        if let Some(otlp) = &self.otlp
            && let Some(snapshot) = core.snapshot(clock::boot_now_ns())
        {
            send(otlp, snapshot);
        }
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

fn send(otlp: &OtlpSink<Slice>, snapshot: Snapshot) {
    Arc::new(snapshot).slices(SERIES_PER_REQUEST).for_each(|slice| otlp.take(slice));
}
