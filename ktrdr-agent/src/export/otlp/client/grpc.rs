//! OTLP/gRPC: the request is already encoded, so the codec hands bytes through.

use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use tonic::client::Grpc as GrpcClient;
use tonic::codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataValue, MetadataKey, MetadataMap};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::response::{Accepted, Response};
use super::{MAX_ANSWER, Refusal, USER_AGENT, chain, tls};
use crate::export::otlp::options::{OtlpOptions, Signal, StartError};
use crate::export::otlp::retry::{self, Next};
use crate::mask;

/// A channel to the receiver; it reconnects by itself.
pub struct Grpc {
    channel: Channel,
    metadata: MetadataMap,
    method: &'static str,
    timeout: std::time::Duration,
}

impl Grpc {
    /// Connects with the first request.
    pub fn new(options: &OtlpOptions, signal: Signal) -> Result<Self, StartError> {
        Ok(Self {
            channel: channel(options)?,
            metadata: metadata(&options.headers)?,
            method: signal.grpc_method(),
            timeout: options.timeout,
        })
    }

    /// One call of `Export`.
    pub async fn send(&mut self, body: Bytes, gzip: bool) -> Result<Accepted, Refusal> {
        let call = self.call(body, gzip);
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into()),
            Ok(Err(status)) => Err(refusal(&status)),
            Err(_) => {
                let why = format!("no answer within {:?}", self.timeout);
                Err(Refusal::new(why, Next::Unreachable))
            }
        }
    }

    async fn call(&self, body: Bytes, gzip: bool) -> Result<Response, Status> {
        let mut client = GrpcClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        if gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client.ready().await.map_err(|e| Status::from_error(Box::new(e)))?;
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        let path = PathAndQuery::from_static(self.method);
        client.unary(request, path, Raw).await.map(tonic::Response::into_inner)
    }
}

/// A status that tonic made itself, because the connection failed, carries the transport's error as its source; the
/// receiver's own has none.
fn refusal(status: &Status) -> Refusal {
    if let Some(source) = std::error::Error::source(status) {
        return Refusal::new(chain(source), Next::Unreachable);
    }
    if status.code() == Code::Unimplemented {
        return Refusal::Compression;
    }
    let next = retry::grpc(status.code(), retry::retry_info(status.details()));
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    Refusal::new(format!("{:?}: {message}", status.code()), next)
}

/// A channel that connects with the first request. To be called inside a runtime.
pub fn channel(options: &OtlpOptions) -> Result<Channel, StartError> {
    let bad_url = |e: &(dyn std::error::Error + 'static)| StartError::Endpoint {
        url: mask::url(&options.url),
        why: chain(e),
    };
    let mut endpoint = Endpoint::from_shared(options.url.clone())
        .and_then(|e| e.user_agent(USER_AGENT))
        .map_err(|e| bad_url(&e))?
        .connect_timeout(options.timeout)
        // A receiver whose host vanished without a word is noticed within 30 s.
        .http2_keep_alive_interval(std::time::Duration::from_secs(20))
        .keep_alive_timeout(std::time::Duration::from_secs(10));
    match endpoint.uri().scheme_str() {
        Some("https") => {
            endpoint = endpoint.tls_config(tls_config(options)?).map_err(|e| bad_url(&e))?;
        }
        Some("http") => {}
        _ => {
            let why = "it must begin with http:// or https://".into();
            return Err(StartError::Endpoint { url: mask::url(&options.url), why });
        }
    }
    Ok(endpoint.connect_lazy())
}

fn tls_config(options: &OtlpOptions) -> Result<ClientTlsConfig, StartError> {
    let pem = tls::read(&options.tls)?;
    // Without a word about roots, tonic trusts nobody.
    let mut config = match pem.roots {
        Some(roots) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    if let Some((certificate, key)) = pem.client {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    Ok(config)
}

/// Names that end in `-bin` carry binary values (gRPC over HTTP/2).
pub fn metadata(headers: &[(String, String)]) -> Result<MetadataMap, StartError> {
    let mut map = MetadataMap::with_capacity(headers.len());
    for (name, value) in headers {
        let error = |why: &str| StartError::Header { name: name.clone(), why: why.into() };
        if name.ends_with("-bin") {
            let key =
                MetadataKey::from_bytes(name.as_bytes()).map_err(|_| error("it is not a valid name"))?;
            map.append_bin(key, BinaryMetadataValue::from_bytes(value.as_bytes()));
        } else {
            let key =
                AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| error("it is not a valid name"))?;
            let value = AsciiMetadataValue::try_from(value.as_str())
                .map_err(|_| error("its value holds characters other than printable ASCII"))?;
            map.append(key, value);
        }
    }
    Ok(map)
}

/// Bytes out, a response in.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Response;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Raw
    }
    fn decoder(&mut self) -> Self {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.len());
        dst.put(item);
        Ok(())
    }
    /// One message per call: yield it as soon as it is there.
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(8 * 1024, 32 * 1024)
    }
}

impl Decoder for Raw {
    type Item = Response;
    type Error = Status;
    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        let bytes = src.copy_to_bytes(src.remaining());
        // As over HTTP: an answer that cannot be read does not undo "accepted".
        Ok(Some(Response::decode(bytes).unwrap_or_default()))
    }
}
