//! OpenTelemetry's SDK, set up to send the agent's own log records and spans.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{LogExporter, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::sync::oneshot;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;

use super::masked::Masked;
use super::told::Told;
use crate::export::otlp::{OtlpOptions, StartError, client};
use crate::mask::{self, Mask};
use crate::privileges::{self, Reach};

/// What the last records and spans may take to arrive; the rest of the agent has stopped by then, and all together
/// takes less than a second.
const LAST: Duration = Duration::from_millis(60);

/// The tracer of steps, once somebody is told of them.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

pub(super) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// What to send, and where to.
#[derive(Debug)]
pub struct SenderOptions {
    /// The receiver. The SDK has queues and batches of its own.
    pub otlp: OtlpOptions,
    /// What is known of the host, for the Resource.
    pub host: Vec<(String, String)>,
    /// What is secret.
    pub mask: Arc<Mask>,
}

/// A running SDK. Its threads hold no capability, and may connect and nothing else.
pub struct Sender {
    spans: SdkTracerProvider,
    logs: SdkLoggerProvider,
    /// Dropped, it ends the thread that drives the connections.
    _connections: oneshot::Sender<()>,
}

impl Sender {
    /// Checks the options and starts the threads. The receiver need not be there yet.
    ///
    /// # Errors
    /// Options that cannot be used.
    pub fn start(options: SenderOptions) -> Result<Self, StartError> {
        let (built, result) = mpsc::sync_channel(1);
        let (connections, ended) = oneshot::channel();
        let body = move || {
            // First of all: the threads that the SDK starts from here inherit it.
            privileges::worker(Reach::Receiver);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(e) => return drop(built.send(Err(StartError::Thread(e.to_string())))),
            };
            let providers = {
                let _context = runtime.enter();
                providers(&options)
            };
            if built.send(providers).is_ok() {
                // Both of its ends say the same.
                let _ = runtime.block_on(ended);
            }
            runtime.shutdown_background();
        };
        std::thread::Builder::new()
            .name("own_telemetry".into())
            .spawn(body)
            .map_err(|e| StartError::Thread(e.to_string()))?;
        let gone = |_| StartError::Thread("it ended at once".to_owned());
        let (spans, logs) = result.recv().map_err(gone)??;
        // One process has one; a second would find the first's and go on with that.
        let _ = TRACER.set(spans.tracer(SCOPE));
        Ok(Self { spans, logs, _connections: connections })
    }

    /// Makes spans.
    pub(super) fn steps(&self) -> SdkTracer {
        self.spans.tracer(SCOPE)
    }

    /// Takes log records.
    pub(super) fn logs(&self) -> &SdkLoggerProvider {
        &self.logs
    }

    /// Delivers what there is, for a moment, and stops.
    pub fn stop(self) {
        // A receiver that is away has been spoken of.
        let _ = self.logs.shutdown_with_timeout(LAST);
        let _ = self.spans.shutdown_with_timeout(LAST);
    }
}

/// Name of the instrumentation scope.
const SCOPE: &str = "ktrdr-agent";

/// Has a request carry these headers and no others. The SDK adds those of `OTEL_EXPORTER_OTLP_HEADERS`, which may be a
/// token for another receiver.
#[derive(Clone)]
struct Only(MetadataMap);

impl Interceptor for Only {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        *request.metadata_mut() = self.0.clone();
        Ok(request)
    }
}

fn providers(options: &SenderOptions) -> Result<(SdkTracerProvider, SdkLoggerProvider), StartError> {
    let SenderOptions { otlp, host, mask } = options;
    let metadata = client::metadata(&otlp.headers)?;
    let channel = client::channel(otlp)?;
    let unusable =
        |e: &dyn std::error::Error| StartError::Endpoint { url: mask::url(&otlp.url), why: e.to_string() };
    let spans = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel.clone())
        .with_interceptor(Only(metadata.clone()))
        .with_timeout(otlp.timeout)
        .build()
        .map_err(|e| unusable(&e))?;
    let logs = LogExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_interceptor(Only(metadata))
        .with_timeout(otlp.timeout)
        .build()
        .map_err(|e| unusable(&e))?;
    let resource = resource(host);
    let spans = SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_batch_exporter(Told::new(spans, &mask::url(&otlp.url), "spans"))
        .build();
    let logs = SdkLoggerProvider::builder()
        .with_resource(resource)
        .with_log_processor(Masked(mask.clone()))
        .with_batch_exporter(Told::new(logs, &mask::url(&otlp.url), "log records"))
        .build();
    Ok((spans, logs))
}

/// The agent is one service, and each run of it an instance.
fn resource(host: &[(String, String)]) -> Resource {
    let host = host.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_service_name("ktrdr-agent")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance(rand::random())))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
        .with_attributes(host)
        .build()
}

/// A random UUID (RFC 9562, version 4), as semantic conventions recommend for `service.instance.id`.
fn instance(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_uuid_of_version_4() {
        assert_eq!(instance(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(instance(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
