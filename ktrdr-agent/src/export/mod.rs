//! Finished spans leave the agent here. The only part that knows OTLP.
//!
//! Every sink has its own bounded queue and thread: a terminal that is scrolled back does not hold up the receiver,
//! an absent receiver not the terminal, and neither the engine.

pub mod console;
mod drops;
#[cfg(test)]
pub mod fixture;
pub mod otlp;
pub mod prometheus;
pub mod queue;
pub mod sampling;
pub mod time;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::trace::logs::LogRecord;
use crate::trace::model::Span;
pub use console::{ConsoleOptions, ConsoleSink};
pub use otlp::{OtlpOptions, OtlpSink, StartError};
pub use queue::Books;

/// A span as the sinks share it.
pub type Item = Arc<Span>;
/// A log record as the sinks share it.
pub type LogItem = Arc<LogRecord>;

/// Something that takes finished spans. Nothing here may wait for whatever is behind it, except
/// [`SpanSink::wait_stopped`], and that for a bounded time.
pub trait SpanSink: Send {
    /// Name in logs and metrics.
    fn name(&self) -> &'static str;
    /// Takes a span, or drops and counts it.
    fn submit(&self, span: &Item);
    /// Takes a log record, or drops and counts it. A sink for spans alone leaves it.
    fn submit_log(&self, _record: &LogItem) {}
    /// Waits up to `patience` until a span would not be dropped for lack of room.
    fn wait_for_room(&self, patience: Duration);
    /// Whether it takes nothing any more, because what it wrote to is gone.
    fn gone(&self) -> bool {
        false
    }
    /// What became of the spans so far.
    fn books(&self) -> Books;
    /// No more spans will come: deliver what is there, by `deadline` at the latest.
    fn begin_stop(&self, deadline: Instant);
    /// Waits for that.
    fn wait_stopped(&self, deadline: Instant);
}

/// All sinks.
#[derive(Default)]
pub struct Exporters {
    sinks: Vec<Box<dyn SpanSink>>,
}

/// What to start.
#[derive(Debug, Default)]
pub struct ExportOptions {
    /// Spans to consoles and files.
    pub console: Vec<ConsoleOptions>,
    /// Spans to a receiver.
    pub otlp: Option<OtlpOptions>,
    /// Which of these spans; `None` = all.
    pub sampling: Option<sampling::Rules>,
    /// Log records to a receiver.
    pub otlp_logs: Option<OtlpOptions>,
}

impl Exporters {
    /// Starts what is asked for. An absent receiver is no error; an unusable option is.
    pub fn start(options: ExportOptions) -> Result<Self, StartError> {
        let mut exporters = Self::default();
        for console in options.console {
            exporters.add(Box::new(ConsoleSink::start(console)?));
        }
        if let Some(otlp) = options.otlp {
            let sink = OtlpSink::<Item>::start(otlp)?;
            exporters.add(match options.sampling {
                None => Box::new(sink),
                Some(rules) => Box::new(sampling::Sampled::new(sink, rules)),
            });
        }
        if let Some(otlp) = options.otlp_logs {
            exporters.add(Box::new(OtlpSink::<LogItem>::start(otlp)?));
        }
        Ok(exporters)
    }

    /// Adds a sink.
    pub fn add(&mut self, sink: Box<dyn SpanSink>) {
        self.sinks.push(sink);
    }

    /// Gives a span to every sink. Never waits.
    pub fn submit(&self, span: impl Into<Item>) {
        if self.sinks.is_empty() {
            return;
        }
        let span = span.into();
        self.sinks.iter().for_each(|sink| sink.submit(&span));
    }

    /// Gives a log record to every sink. Never waits.
    pub fn submit_log(&self, record: LogRecord) {
        let record = Arc::new(record);
        self.sinks.iter().for_each(|sink| sink.submit_log(&record));
    }

    /// As [`Exporters::submit_waiting`].
    pub fn submit_log_waiting(&self, record: LogRecord) {
        self.wait_for_room();
        self.submit_log(record);
    }

    /// Gives a span to every sink, after waiting for room where there is none: for a replay, which is faster than
    /// any sink. A sink that makes no room for some seconds is not waited for again until it does.
    pub fn submit_waiting(&self, span: impl Into<Item>) {
        self.wait_for_room();
        self.submit(span);
    }

    fn wait_for_room(&self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.sinks.iter().for_each(|sink| sink.wait_for_room(PATIENCE));
    }

    /// Whether there were sinks and none is left (`ktrdr-agent run | head`): there is nothing to run for then.
    pub fn gone(&self) -> bool {
        !self.sinks.is_empty() && self.sinks.iter().all(|sink| sink.gone())
    }

    /// What became of the spans, by sink.
    pub fn books(&self) -> Vec<(&'static str, Books)> {
        self.sinks.iter().map(|sink| (sink.name(), sink.books())).collect()
    }

    /// Delivers what is there and stops, within `limit`; all sinks at the same time. Returns the final books.
    pub fn flush_and_stop(self, limit: Duration) -> Vec<(&'static str, Books)> {
        let deadline = Instant::now() + limit;
        self.sinks.iter().for_each(|sink| sink.begin_stop(deadline));
        self.sinks.iter().for_each(|sink| sink.wait_stopped(deadline));
        self.books()
    }
}
