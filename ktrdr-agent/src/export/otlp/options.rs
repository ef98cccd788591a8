//! Where spans go, and how: everything resolved, as the settings left it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::mask;

/// What is sent. A receiver has a service of its own for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// Name of the sink in logs and books.
    pub const fn sink(self) -> &'static str {
        match self {
            Signal::Traces => "otlp",
            Signal::Metrics => "otlp_metrics",
            Signal::Logs => "otlp_logs",
        }
    }

    /// What a receiver gets, for a sentence.
    pub const fn what(self) -> &'static str {
        match self {
            Signal::Traces => "spans",
            Signal::Metrics => "metrics",
            Signal::Logs => "log records",
        }
    }

    /// The gRPC method (`opentelemetry/proto/collector/{trace,metrics,logs}/v1/*_service.proto`).
    pub const fn grpc_method(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// Options of one signal's exporter.
#[derive(Clone, PartialEq)]
pub struct OtlpOptions {
    /// gRPC: scheme, host and port. HTTP: the whole URL that is posted to.
    pub url: String,
    /// Transport and encoding.
    pub protocol: Protocol,
    /// Headers or gRPC metadata; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Compression of requests.
    pub compression: Compression,
    /// Time for one request, the connection included.
    pub timeout: Duration,
    /// Certificates and keys of a TLS connection (an `https` URL).
    pub tls: TlsFiles,
    /// Items waiting to be sent; beyond, new ones are dropped and counted.
    pub queue_size: usize,
    /// Most items in one request.
    pub batch_size: usize,
    /// Longest time an item waits for its batch to fill.
    pub batch_delay: Duration,
}

/// Transport and encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP with protobuf bodies.
    HttpProtobuf,
    /// OTLP over HTTP with JSON bodies.
    HttpJson,
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// gzip.
    Gzip,
}

/// Files (PEM) of a TLS connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates to trust in place of the system's.
    pub certificate: Option<PathBuf>,
    /// The client's own certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl OtlpOptions {
    /// Defaults for a receiver at `url`: no compression, 10 s per request (the specification's value), batches
    /// that leave after 150 ms (a lone call is to be seen within 200 ms).
    pub fn new(url: impl Into<String>, protocol: Protocol) -> Self {
        Self {
            url: url.into(),
            protocol,
            headers: Vec::new(),
            compression: Compression::None,
            timeout: Duration::from_secs(10),
            tls: TlsFiles::default(),
            // About 2 kB a span: 32 MB at worst, which is 16 s of 1,000 spans/s while a receiver restarts.
            queue_size: 16_384,
            batch_size: 2_048,
            batch_delay: Duration::from_millis(150),
        }
    }
}

/// Header values are credentials more often than not: they are never printed.
impl fmt::Debug for OtlpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| (name, "…")).collect();
        f.debug_struct("OtlpOptions")
            .field("url", &mask::url(&self.url))
            .field("protocol", &self.protocol)
            .field("headers", &headers)
            .field("compression", &self.compression)
            .field("timeout", &self.timeout)
            .field("tls", &self.tls)
            .field("queue_size", &self.queue_size)
            .field("batch_size", &self.batch_size)
            .field("batch_delay", &self.batch_delay)
            .finish()
    }
}

/// Why an exporter cannot start. The receiver's absence is not among the reasons.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint is not a URL that this transport can use.
    #[error("the OTLP endpoint `{url}` cannot be used: {why}")]
    Endpoint {
        /// As given, without its secrets.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// A header cannot be sent.
    #[error("the OTLP header `{name}` cannot be sent: {why}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong; never the value.
        why: String,
    },
    /// A certificate or key file.
    #[error("cannot use {what} {}: {why}", path.display())]
    Tls {
        /// Which file it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file to write spans to.
    #[error("cannot write spans to {}: {why}", path.display())]
    Output {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The operating system gave no thread.
    #[error("cannot start an exporter's thread: {0}")]
    Thread(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_not_printed() {
        let mut options = OtlpOptions::new("http://c:4317", Protocol::Grpc);
        options.headers.push(("authorization".into(), "Bearer s3cret".into()));
        let text = format!("{options:?}");
        assert!(text.contains("authorization") && !text.contains("s3cret"), "{text}");
    }
}
