//! A small HTTP server: few connections, little time, no body, and nothing without the token if there is one.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};

use super::text::{Format, render};
use crate::metrics::Snapshot;

/// Connections at once: a Prometheus or two and a person with curl. Others wait in the kernel's queue.
const CONNECTIONS: usize = 8;
/// A connection lives no longer, busy or not; Prometheus opens the next one by itself.
const LIFETIME: Duration = Duration::from_secs(60);
/// A client that does not complete its head is not waited for.
const HEAD: Duration = Duration::from_secs(5);
/// Longest head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// How long the agent's loop may take for a snapshot; it turns every 40 ms unless it is overloaded.
const ANSWER: Duration = Duration::from_secs(5);
/// A loop that did not turn for so long hangs.
const STALLED: Duration = Duration::from_secs(10);

/// Where to listen, and for whom.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Address.
    pub listen: SocketAddr,
    /// What a client must show (`Authorization: Bearer …`) to get metrics.
    pub token: Option<String>,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve metrics at {listen}: {source}; choose another address with metrics.listen (--metrics-listen)"
)]
pub struct EndpointError {
    listen: SocketAddr,
    source: std::io::Error,
}

/// A client that waits for the metrics.
type Waiting = oneshot::Sender<Arc<Snapshot>>;

/// The endpoint as the agent's loop sees it.
pub struct Endpoint {
    waiting: mpsc::Receiver<Waiting>,
    turned: Arc<AtomicU64>,
    begin: Instant,
    address: SocketAddr,
}

/// What the server's tasks share.
struct Shared {
    ask: mpsc::SyncSender<Waiting>,
    token: Option<String>,
    turned: Arc<AtomicU64>,
    begin: Instant,
}

impl Endpoint {
    /// Listens from now on; ready as soon as the loop turns.
    pub fn start(options: EndpointOptions) -> Result<Self, EndpointError> {
        let EndpointOptions { listen, token } = options;
        let error = |source| EndpointError { listen, source };
        let listener = TcpListener::bind(listen).map_err(error)?;
        listener.set_nonblocking(true).map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(error)?;
        let (ask, waiting) = mpsc::sync_channel(CONNECTIONS);
        let (turned, begin) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let shared = Arc::new(Shared { ask, token, turned: turned.clone(), begin });
        std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || runtime.block_on(serve(listener, shared)))
            .map_err(error)?;
        Ok(Self { waiting, turned, begin, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The loop turned. Those who wait for a snapshot now.
    pub fn turn(&self) -> Vec<Waiting> {
        self.turned.store(since(self.begin).max(1), Ordering::Relaxed);
        self.waiting.try_iter().collect()
    }
}

fn since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => return tracing::error!("metrics are not served: {e}"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::debug!("a client of the metrics endpoint was not accepted: {e}");
                // Out of descriptors, most likely: let others go on.
                wait_a_moment().await;
                continue;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let answer = |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(request, &shared).await) }
            };
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
            // A client that breaks off is no news.
            let _ = tokio::time::timeout(LIFETIME, connection).await;
            drop(place);
        });
    }
}

async fn wait_a_moment() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let turned = shared.turned.load(Ordering::Relaxed);
    let hangs = turned > 0 && since(shared.begin).saturating_sub(turned) > STALLED.as_millis() as u64;
    match request.uri().path() {
        "/healthz" if hangs => text(StatusCode::SERVICE_UNAVAILABLE, "the agent's loop hangs\n"),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if hangs => text(StatusCode::SERVICE_UNAVAILABLE, "the agent's loop hangs\n"),
        "/readyz" if turned == 0 => text(StatusCode::SERVICE_UNAVAILABLE, "not observing yet\n"),
        "/readyz" => text(StatusCode::OK, "observing\n"),
        "/metrics" => metrics(&request, shared).await,
        "/" => text(StatusCode::OK, "ktrdr-agent: /metrics /healthz /readyz\n"),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

async fn metrics(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    if let Some(token) = &shared.token
        && !header(AUTHORIZATION).strip_prefix("Bearer ").is_some_and(|given| same(given.trim(), token))
    {
        let mut response =
            text(StatusCode::UNAUTHORIZED, "metrics.token is wanted: Authorization: Bearer …\n");
        response.headers_mut().insert(WWW_AUTHENTICATE, hyper::header::HeaderValue::from_static("Bearer"));
        return response;
    }
    let (sender, receiver) = oneshot::channel();
    if shared.ask.try_send(sender).is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many ask at once\n");
    }
    let Ok(Ok(snapshot)) = tokio::time::timeout(ANSWER, receiver).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the agent is not observing, or overloaded\n");
    };
    let format = Format::negotiate(header(ACCEPT));
    let mut response = Response::new(Full::new(render(&snapshot, format).into()));
    let kind = hyper::header::HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Whether two texts are the same, in a time that tells nothing about where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}
