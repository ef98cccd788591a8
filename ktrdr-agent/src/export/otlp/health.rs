//! What is said about the receiver: one line when it goes away, one when it is back. An absent receiver is tried
//! again and again; a line per attempt would bury what matters.

use std::time::Instant;

use super::options::{Protocol, Signal};
use super::retry::{Failure, Next};

/// The receiver as it was last seen.
#[derive(Debug)]
pub struct Health {
    url: String,
    protocol: Protocol,
    what: &'static str,
    state: State,
}

#[derive(Debug, PartialEq)]
enum State {
    Unknown,
    Up,
    Down { since: Instant, next: Next },
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Something to look at.
    Error(String),
    /// Good news.
    Info(String),
}

impl Line {
    /// Writes it.
    pub fn log(self) {
        match self {
            Line::Error(text) => tracing::error!("{text}"),
            Line::Info(text) => tracing::info!("{text}"),
        }
    }
}

impl Health {
    /// Nothing known yet.
    pub fn new(url: &str, protocol: Protocol, signal: Signal) -> Self {
        Self { url: url.to_owned(), protocol, what: signal.what(), state: State::Unknown }
    }

    /// A request was accepted.
    pub fn accepted(&mut self, now: Instant) -> Option<Line> {
        let before = std::mem::replace(&mut self.state, State::Up);
        let State::Down { since, .. } = before else { return None };
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        Some(Line::Info(format!(
            "the OTLP receiver at {} accepts {} again, after {seconds:.1} s",
            self.url, self.what
        )))
    }

    /// A request was not accepted; `waiting` items are kept for it.
    pub fn failed(&mut self, failure: &Failure, waiting: u64, now: Instant) -> Option<Line> {
        let since = match self.state {
            State::Down { since, next } if same(next, failure.next) => {
                self.state = State::Down { since, next: failure.next };
                return None;
            }
            State::Down { since, .. } => since,
            State::Unknown | State::Up => now,
        };
        self.state = State::Down { since, next: failure.next };
        let (url, what) = (&self.url, self.what);
        let why = &failure.why;
        Some(Line::Error(match failure.next {
            Next::Unreachable => format!(
                "cannot reach the OTLP receiver at {url}: {why}. Check that a receiver runs there and that \
                 otlp.endpoint (or OTEL_EXPORTER_OTLP_ENDPOINT) and otlp.protocol name it{}. What is to be sent ({what}) \
                 waits in memory ({waiting} now); the agent keeps trying.",
                self.hint()
            ),
            Next::Later(_) => format!(
                "the OTLP receiver at {url} cannot take {what} now ({why}). They wait in memory ({waiting} now); \
                 the agent keeps trying."
            ),
            Next::Refused => format!(
                "the OTLP receiver at {url} refuses {what} ({why}). They are lost and counted; check the \
                 receiver's log{} and otlp.headers (or OTEL_EXPORTER_OTLP_HEADERS) if it wants credentials.",
                self.hint()
            ),
        }))
    }

    /// The commonest mistakes: the port of one transport with the other, and an endpoint without its scheme.
    fn hint(&self) -> &'static str {
        let authority = self.url.split("://").nth(1).unwrap_or("").split('/').next().unwrap_or("");
        match (self.protocol, authority.rsplit(':').next()) {
            (Protocol::Grpc, Some("4318")) => {
                " (port 4318 is usually OTLP over HTTP: use protocol http/protobuf, or port 4317)"
            }
            (Protocol::HttpProtobuf | Protocol::HttpJson, Some("4317")) => {
                " (port 4317 is usually OTLP over gRPC: use protocol grpc, or port 4318)"
            }
            _ if self.url.starts_with("https://localhost") || self.url.starts_with("https://127.") => {
                " (it was asked for TLS; without a scheme that is the rule: a receiver without TLS is http://…)"
            }
            _ => "",
        }
    }
}

fn same(a: Next, b: Next) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_line_per_change() {
        let mut health = Health::new("http://c:4318", Protocol::Grpc, Signal::Traces);
        let start = Instant::now();
        assert_eq!(health.accepted(start), None, "working from the start is no news");
        let gone = Failure { why: "connection refused".into(), next: Next::Unreachable };
        let Some(Line::Error(text)) = health.failed(&gone, 12, start) else { panic!() };
        for part in
            ["http://c:4318", "connection refused", "otlp.endpoint", "12 now", "use protocol http/protobuf"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(health.failed(&gone, 13, start), None);
        let busy = |s| Failure { why: "HTTP 503".into(), next: Next::Later(Some(Duration::from_secs(s))) };
        assert!(health.failed(&busy(1), 13, start).is_some(), "another reason is news");
        assert_eq!(health.failed(&busy(2), 13, start), None, "another delay is not");
        let Some(Line::Info(text)) = health.accepted(start + Duration::from_millis(2500)) else { panic!() };
        assert!(text.ends_with("after 2.5 s"), "{text}");
        assert_eq!(health.accepted(start), None);
    }

    #[test]
    fn a_local_receiver_that_was_asked_for_tls_is_asked_about() {
        let gone = Failure { why: "connection refused".into(), next: Next::Unreachable };
        let line = |url: &str| {
            let mut health = Health::new(url, Protocol::Grpc, Signal::Traces);
            let Some(Line::Error(text)) = health.failed(&gone, 0, Instant::now()) else { panic!() };
            text
        };
        assert!(line("https://localhost:4317").contains("a receiver without TLS is http://"));
        assert!(!line("https://collector:4317").contains("TLS"));
    }
}
