//! What the agent says of itself: its log on standard error and, if it is asked to, the same log and the spans of its
//! slow steps to an OpenTelemetry receiver, through OpenTelemetry's own SDK (docs/self-telemetry.md).
//!
//! What it says of others goes through `export/` and never through here. While nobody is told, a step costs the load of
//! one number.

mod masked;
mod sender;
mod told;

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Tracer as _};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, prelude::*};

pub use sender::{Sender, SenderOptions};

/// Target of the steps' spans, and of what only the receiver is told. Standard error shows neither.
pub const STEPS: &str = "ktrdr_agent::steps";

/// The span of a step of the agent's own work.
macro_rules! step {
    ($name:literal $(, $($fields:tt)*)?) => {
        tracing::info_span!(target: $crate::telemetry::STEPS, $name $(, $($fields)*)?)
    };
}
pub(crate) use step;

/// A step that takes longer holds up the observing thread for an eighth of the time that a record may wait.
const SLOW: Duration = Duration::from_millis(5);

/// Does a step that is done many times a second and hardly ever slow: a span tells of it if it was.
pub fn if_slow<T>(name: &'static str, step: impl FnOnce() -> T) -> T {
    let Some(tracer) = sender::tracer() else { return step() };
    let (wall, begin) = (SystemTime::now(), Instant::now());
    let done = step();
    let took = begin.elapsed();
    if took >= SLOW {
        let thread = std::thread::current();
        let thread = KeyValue::new("thread.name", thread.name().unwrap_or_default().to_owned());
        let span = tracer.span_builder(name).with_start_time(wall).with_attributes([thread]);
        span.start(tracer).end_with_timestamp(wall + took);
    }
    done
}

/// Does what comes before the settings are known: what is said goes to standard error.
pub fn early<T>(work: impl FnOnce() -> T) -> T {
    let subscriber = tracing_subscriber::registry().with(standard_error());
    tracing::subscriber::with_default(subscriber, work)
}

/// From here on standard error is told, and the receiver if there is one.
pub fn start(sender: Option<&Sender>) {
    let steps = sender.map(|sender| {
        let is_step =
            filter_fn(|m| m.is_span() && m.target() == STEPS).with_max_level_hint(LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(sender.steps())
            .with_location(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(is_step)
    });
    let logs = sender.map(|sender| {
        // Not what libraries say, the SDK's own among them: it would have to send that again.
        let own = filter_fn(|m| m.is_event() && m.target().starts_with("ktrdr_agent"));
        OpenTelemetryTracingBridge::new(sender.logs()).with_filter(chosen().and(own))
    });
    tracing_subscriber::registry().with(standard_error()).with(steps).with(logs).init();
}

/// Says to the receiver alone how the run failed: `main` says it on standard error.
pub fn failed(error: &anyhow::Error) {
    tracing::error!(target: STEPS, "{error:#}");
}

/// `RUST_LOG` chooses; else warnings, and of the agent the start-up report. What the SDK says of a receiver that is away it
/// says again and again: [`told`] does so once.
fn chosen() -> EnvFilter {
    EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,ktrdr_agent=info,opentelemetry=off"))
}

fn standard_error<S>() -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // They are reported on standard error, and a reader that has gone (`2>&1 | head`) must not end the agent.
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_filter(chosen().and(filter_fn(|m| m.target() != STEPS)))
}
