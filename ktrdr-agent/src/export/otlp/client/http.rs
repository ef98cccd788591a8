//! OTLP/HTTP.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Identity, StatusCode, Url, redirect};

use super::response::{Accepted, accepted, error_text};
use super::{MAX_ANSWER, Refusal, USER_AGENT, chain, tls};
use crate::export::otlp::options::{OtlpOptions, StartError};
use crate::export::otlp::retry::{self, Next};
use crate::mask;

/// A client with one kept-alive connection.
pub struct Http {
    client: reqwest::Client,
    url: Url,
    timeout: Duration,
}

impl Http {
    /// Connects with the first request. `content_type` is the encoding's.
    pub fn new(options: &OtlpOptions, content_type: &'static str) -> Result<Self, StartError> {
        let bad_url = |why: String| StartError::Endpoint { url: mask::url(&options.url), why };
        let url: Url = options.url.parse().map_err(|e| bad_url(format!("{e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad_url("it must begin with http:// or https://".into()));
        }
        let mut headers = header_map(&options.headers)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .timeout(options.timeout)
            .connect_timeout(options.timeout)
            // A redirected POST loses its body in most clients and proxies: better to say where it points.
            .redirect(redirect::Policy::none())
            .pool_max_idle_per_host(1);
        if url.scheme() == "https" {
            builder = with_tls(builder, options)?;
        }
        let client = builder.build().map_err(|e| bad_url(chain(&e)))?;
        Ok(Self { client, url, timeout: options.timeout })
    }

    /// One POST.
    pub async fn send(&mut self, body: Bytes, gzip: bool) -> Result<Accepted, Refusal> {
        let mut request = self.client.post(self.url.clone());
        request = if gzip {
            request.header(CONTENT_ENCODING, HeaderValue::from_static("gzip")).body(gzipped(&body))
        } else {
            request.body(body)
        };
        let mut response = request.send().await.map_err(|e| self.transport(&e))?;
        let header =
            |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let (status, content_type, retry_after) =
            (response.status(), header(CONTENT_TYPE), header(RETRY_AFTER));
        let mut answer = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            answer.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - answer.len())]);
            if answer.len() == MAX_ANSWER {
                break;
            }
        }
        if status.is_success() {
            return Ok(accepted(&content_type, &answer));
        }
        if gzip && status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            return Err(Refusal::Compression);
        }
        let next = retry::http(status.as_u16(), retry::retry_after(&retry_after));
        let text = error_text(&content_type, &answer);
        let colon = if text.is_empty() { "" } else { ": " };
        Err(Refusal::new(format!("HTTP {status}{colon}{text}"), next))
    }

    fn transport(&self, error: &reqwest::Error) -> Refusal {
        if error.is_builder() {
            return Refusal::new(chain(error), Next::Refused);
        }
        if error.is_timeout() {
            return Refusal::new(format!("no answer within {:?}", self.timeout), Next::Unreachable);
        }
        // The URL is in the log line already.
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), chain);
        Refusal::new(why, Next::Unreachable)
    }
}

/// Level 1: spans shrink to a tenth with it, and the higher levels cost several times the time for a few percent.
fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Level::fast());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

fn with_tls(
    mut builder: reqwest::ClientBuilder,
    options: &OtlpOptions,
) -> Result<reqwest::ClientBuilder, StartError> {
    let pem = tls::read(&options.tls)?;
    if let (Some(roots), Some(path)) = (pem.roots, &options.tls.certificate) {
        let error = |e: reqwest::Error| StartError::Tls {
            what: "the CA certificate",
            path: path.clone(),
            why: chain(&e),
        };
        builder = builder.tls_built_in_root_certs(false);
        for root in Certificate::from_pem_bundle(&roots).map_err(error)? {
            builder = builder.add_root_certificate(root);
        }
    }
    if let (Some((mut chain_and_key, key)), Some((path, _))) = (pem.client, &options.tls.client) {
        chain_and_key.push(b'\n');
        chain_and_key.extend_from_slice(&key);
        let identity = Identity::from_pem(&chain_and_key).map_err(|e| StartError::Tls {
            what: "the client certificate",
            path: path.clone(),
            why: chain(&e),
        })?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, StartError> {
    let mut map = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers {
        let error = |why: &str| StartError::Header { name: name.clone(), why: why.into() };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| error("it is not a valid name"))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_| error("its value holds control characters"))?;
        value.set_sensitive(true);
        map.append(key, value);
    }
    Ok(map)
}
