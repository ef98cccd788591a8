//! Where each signal goes, once all that was said about it is put together.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use super::{
    Bad,
    said::{Otlp as Said, Signal as SaidSignal},
    values::{Compression, Protocol, Secret},
};

/// Sending to an OpenTelemetry receiver. A signal that is `None` is not sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// Spans.
    pub traces: Option<Target>,
    /// Metrics.
    pub metrics: Option<Target>,
    /// Log records.
    pub logs: Option<Target>,
    /// Items waiting to be sent; beyond, new ones are dropped and counted.
    pub queue_size: usize,
    /// Most items in one request.
    pub batch_size: usize,
    /// Longest time an item waits for its batch to fill.
    pub batch_delay: Duration,
}

/// Everything a sender needs for one signal.
#[derive(Clone, PartialEq)]
pub struct Target {
    /// gRPC: scheme, host and port. HTTP: the whole URL that is posted to.
    pub url: String,
    /// Transport and encoding.
    pub protocol: Protocol,
    /// Headers or gRPC metadata, names in lower case, sorted.
    pub headers: Vec<(String, String)>,
    /// Compression of requests.
    pub compression: Compression,
    /// Time for one request.
    pub timeout: Duration,
    /// Certificates and keys of a TLS connection (an `https` URL).
    pub tls: Tls,
}

/// Files (PEM) of a TLS connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates to trust in place of the system's.
    pub certificate: Option<PathBuf>,
    /// The client's own certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Otlp {
    /// Puts together what was said; refuses a URL that no sender could use.
    pub(super) fn resolve(said: &Said) -> Result<Self, Bad> {
        if said.queue_size == 0 || said.batch_size == 0 {
            let key = if said.queue_size == 0 { "queue_size" } else { "batch_size" };
            return Err(Bad::new(format!("otlp.{key}"), "must be at least 1"));
        }
        let target = |name: &str, signal: &SaidSignal| target(said, name, signal);
        Ok(Self {
            traces: target("traces", &said.traces)?,
            metrics: target("metrics", &said.metrics)?,
            logs: target("logs", &said.logs)?,
            queue_size: said.queue_size,
            batch_size: said.batch_size,
            batch_delay: said.batch_delay.0,
        })
    }
}

/// Without the values of headers, which may be tokens.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, protocol, headers, compression, timeout, tls } = self;
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Target")
            .field("url", url)
            .field("protocol", protocol)
            .field("headers", &names)
            .field("compression", compression)
            .field("timeout", timeout)
            .field("tls", tls)
            .finish()
    }
}

fn target(all: &Said, name: &str, own: &SaidSignal) -> Result<Option<Target>, Bad> {
    let (endpoint, key, whole) = match own.endpoint.as_deref() {
        Some(url) if !url.is_empty() => (url, format!("otlp.{name}.endpoint"), true),
        _ => (all.endpoint.as_str(), "otlp.endpoint".to_owned(), false),
    };
    if !own.enabled || endpoint.is_empty() {
        return Ok(None);
    }
    let protocol = own.protocol.unwrap_or(all.protocol);
    let insecure = own.insecure.unwrap_or(all.insecure);
    let url = url(endpoint, protocol, insecure, (!whole).then_some(name)).map_err(|m| Bad::new(key, m))?;
    let path = |own: &Option<String>, all: &String| {
        let text = own.as_ref().unwrap_or(all);
        (!text.is_empty()).then(|| PathBuf::from(text))
    };
    let certificate = path(&own.client_certificate, &all.client_certificate);
    let client = match (certificate, path(&own.client_key, &all.client_key)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(Bad::new("otlp.client_certificate", "it needs otlp.client_key beside it"));
        }
        (None, Some(_)) => {
            return Err(Bad::new("otlp.client_key", "it needs otlp.client_certificate beside it"));
        }
    };
    Ok(Some(Target {
        url,
        protocol,
        headers: headers(own.headers.as_ref().unwrap_or(&all.headers)),
        compression: own.compression.unwrap_or(all.compression),
        timeout: own.timeout.unwrap_or(all.timeout).0,
        tls: Tls { certificate: path(&own.certificate, &all.certificate), client },
    }))
}

/// HTTP/2 and gRPC want lower-case names.
fn headers(said: &BTreeMap<String, Secret>) -> Vec<(String, String)> {
    let value = |secret: &Secret| secret.reveal().unwrap_or_default().to_owned();
    let lower: BTreeMap<String, String> =
        said.iter().map(|(k, v)| (k.to_ascii_lowercase(), value(v))).collect();
    lower.into_iter().collect()
}

/// The URL to send to. `signal` is given when the endpoint is the base of all signals.
fn url(endpoint: &str, protocol: Protocol, insecure: bool, signal: Option<&str>) -> Result<String, String> {
    let with_scheme = match endpoint.split_once("://") {
        Some(("http" | "https", _)) => endpoint.to_owned(),
        Some((scheme, _)) => return Err(format!("`{scheme}://` is not supported: use http:// or https://")),
        // Only gRPC endpoints may come without a scheme (OTLP exporter specification), and are TLS then unless `insecure`
        // says otherwise. Who writes `localhost:4317` hardly ever means that, and would wait for spans: it has to be said.
        None if protocol == Protocol::Grpc && insecure => format!("http://{endpoint}"),
        None => {
            return Err(format!(
                "`{endpoint}` lacks its scheme: write http://{endpoint}, or https://{endpoint} for TLS"
            ));
        }
    };
    let parsed: reqwest::Url = with_scheme.parse().map_err(|e| format!("`{endpoint}` is not a URL: {e}"))?;
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(format!("`{endpoint}` names no host"));
    }
    Ok(match (protocol, signal) {
        (Protocol::Grpc, _) | (_, None) => with_scheme,
        (_, Some(signal)) => format!("{}/v1/{signal}", with_scheme.trim_end_matches('/')),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_of_a_target_has_no_tokens() {
        let said = BTreeMap::from([("Authorization".to_owned(), Secret::from("Bearer s3cret"))]);
        let all = Said { endpoint: "http://c:4317".into(), headers: said, ..Said::default() };
        let target = Otlp::resolve(&all).unwrap().traces.unwrap();
        assert_eq!(target.headers, [("authorization".to_owned(), "Bearer s3cret".to_owned())]);
        for shown in [format!("{target:?}"), format!("{all:?}").to_lowercase()] {
            assert!(shown.contains("authorization") && !shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn urls_follow_the_exporter_specification() {
        use Protocol::{Grpc, HttpProtobuf as Http};
        let lacks = "`c:4317` lacks its scheme: write http://c:4317, or https://c:4317 for TLS";
        for (endpoint, protocol, insecure, signal, want) in [
            ("http://c:4317", Grpc, false, Some("traces"), Ok("http://c:4317")),
            ("c:4317", Grpc, false, Some("traces"), Err(lacks)),
            ("c:4317", Grpc, true, Some("traces"), Ok("http://c:4317")),
            ("http://c:4318", Http, false, Some("traces"), Ok("http://c:4318/v1/traces")),
            ("http://c:4318/base/", Http, false, Some("logs"), Ok("http://c:4318/base/v1/logs")),
            ("http://c:4318/mine", Http, false, None, Ok("http://c:4318/mine")),
            ("c:4317", Http, true, Some("traces"), Err(lacks)),
            ("ftp://c", Grpc, false, None, Err("`ftp://` is not supported: use http:// or https://")),
        ] {
            let got = url(endpoint, protocol, insecure, signal);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{endpoint}");
        }
        assert!(url("http://", Grpc, false, None).is_err());
        assert!(url("http://a b:1", Grpc, false, None).is_err());
    }
}
