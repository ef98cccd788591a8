//! One request to the receiver, over either transport.

mod grpc;
mod http;
mod response;
mod tls;

use bytes::Bytes;

use super::options::{Compression, OtlpOptions, Protocol, Signal, StartError};
use super::retry::{Failure, Next};
pub use grpc::{channel, metadata};
pub use response::Accepted;

/// A client of one receiver, for one signal.
pub struct Client {
    transport: Transport,
    compression: Compression,
}

enum Transport {
    Grpc(grpc::Grpc),
    Http(http::Http),
}

/// Why a transport did not deliver.
pub(super) enum Refusal {
    /// The receiver does not take compressed requests.
    Compression,
    /// Anything else.
    Failure(Failure),
}

impl Refusal {
    fn new(why: impl Into<String>, next: Next) -> Self {
        Refusal::Failure(Failure { why: why.into(), next })
    }
}

impl Client {
    /// Checks the options; connects with the first request. To be called inside a runtime.
    pub fn new(options: &OtlpOptions, signal: Signal) -> Result<Self, StartError> {
        let transport = match options.protocol {
            Protocol::Grpc => Transport::Grpc(grpc::Grpc::new(options, signal)?),
            Protocol::HttpProtobuf => Transport::Http(http::Http::new(options, "application/x-protobuf")?),
            Protocol::HttpJson => Transport::Http(http::Http::new(options, "application/json")?),
        };
        Ok(Self { transport, compression: options.compression })
    }

    /// Sends an encoded request. A receiver that refuses gzip gets it plain, from then on.
    pub async fn send(&mut self, body: Bytes) -> Result<Accepted, Failure> {
        let gzip = self.compression == Compression::Gzip;
        match self.attempt(body.clone(), gzip).await {
            Ok(accepted) => Ok(accepted),
            Err(Refusal::Failure(failure)) => Err(failure),
            Err(Refusal::Compression) => {
                let plain = self.attempt(body, false).await;
                if plain.is_ok() {
                    tracing::info!("the OTLP receiver does not accept gzip: sending without compression");
                    self.compression = Compression::None;
                }
                plain.map_err(|refusal| match refusal {
                    Refusal::Failure(failure) => failure,
                    Refusal::Compression => Failure {
                        why: "the receiver does not offer this OTLP service, or not at this path".into(),
                        next: Next::Refused,
                    },
                })
            }
        }
    }

    async fn attempt(&mut self, body: Bytes, gzip: bool) -> Result<Accepted, Refusal> {
        match &mut self.transport {
            Transport::Grpc(grpc) => grpc.send(body, gzip).await,
            Transport::Http(http) => http.send(body, gzip).await,
        }
    }
}

/// Name under which the agent appears in a receiver's access log.
const USER_AGENT: &str = concat!("ktrdr-agent/", env!("CARGO_PKG_VERSION"));

/// Longest answer that is read: a partial success with its message takes less than a kilobyte.
const MAX_ANSWER: usize = 64 * 1024;

/// An error with its causes, each said once: transports wrap "connection refused" in three layers.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return "connection refused".into();
        }
        let text = error.to_string();
        if !text.is_empty() && !texts.iter().any(|t| t.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}
