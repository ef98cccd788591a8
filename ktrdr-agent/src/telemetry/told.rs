//! An exporter of the SDK that says when its receiver goes away and when it is back: once each, however often it is tried.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// The exporter `E`, and whether its receiver is there.
pub struct Told<E> {
    exporter: E,
    url: String,
    what: &'static str,
    away: Mutex<Option<Away>>,
}

/// Since when the receiver is away, and what was lost by that.
#[derive(Clone, Copy, Debug)]
struct Away {
    since: Instant,
    lost: usize,
}

impl<E> Told<E> {
    /// `what` is in its batches, which go to `url`.
    pub fn new(exporter: E, url: &str, what: &'static str) -> Self {
        Self { exporter, url: url.to_owned(), what, away: Mutex::new(None) }
    }

    fn tell(&self, items: usize, result: &OTelSdkResult) {
        if let Some(line) = self.line(items, result, Instant::now()) {
            match result {
                Ok(()) => tracing::info!("{line}"),
                Err(_) => tracing::warn!("{line}"),
            }
        }
    }

    fn line(&self, items: usize, result: &OTelSdkResult, now: Instant) -> Option<String> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let (url, what) = (&self.url, self.what);
        match (result, *away) {
            (Ok(()), None) => None,
            (Ok(()), Some(Away { since, lost })) => {
                *away = None;
                let seconds = now.saturating_duration_since(since).as_secs_f64();
                Some(format!(
                    "the receiver at {url} takes the agent's own {what} again, after {seconds:.1} s; {lost} were lost"
                ))
            }
            (Err(_), Some(before)) => {
                *away = Some(Away { lost: before.lost + items, ..before });
                None
            }
            (Err(error), None) => {
                *away = Some(Away { since: now, lost: items });
                Some(format!(
                    "the agent's own {what} do not reach the receiver at {url} (self_telemetry.endpoint) and are lost: {}",
                    why(error)
                ))
            }
        }
    }
}

/// The SDK's words without those that say only that something failed.
fn why(error: &OTelSdkError) -> String {
    match error {
        OTelSdkError::InternalFailure(reason) => reason.clone(),
        other => other.to_string(),
    }
}

impl<E> fmt::Debug for Told<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("url", &self.url).field("what", &self.what).finish()
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let items = batch.len();
        let result = self.exporter.export(batch).await;
        self.tell(items, &result);
        result
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Told<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count();
        let result = self.exporter.export(batch).await;
        self.tell(items, &result);
        result
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_when_it_goes_and_one_when_it_is_back() {
        let told = Told::new((), "http://c:4317", "spans");
        let start = Instant::now();
        let refused = || Err(OTelSdkError::InternalFailure("connection refused".into()));
        assert_eq!(told.line(3, &Ok(()), start), None, "working from the start is no news");
        let line = told.line(3, &refused(), start).unwrap();
        assert!(line.contains("http://c:4317") && line.ends_with("lost: connection refused"), "{line}");
        assert_eq!(told.line(4, &refused(), start), None);
        let back = told.line(1, &Ok(()), start + Duration::from_millis(2500)).unwrap();
        assert!(back.ends_with("after 2.5 s; 7 were lost"), "{back}");
        assert_eq!(told.line(1, &Ok(()), start), None);
    }
}
