//! A small HTTP server on a thread of its own.

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::ALLOW;
use hyper::{HeaderMap, Method, Request, StatusCode, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::reply::{self, Reply};
use crate::privileges::{self, Reach};

/// Connections at once: a Prometheus or two, a Grafana, a person with a browser. Others wait in the kernel's queue.
const CONNECTIONS: usize = 8;
/// A connection lives no longer, busy or not.
const LIFETIME: Duration = Duration::from_secs(60);
/// A client that does not complete its head is not waited for.
const HEAD: Duration = Duration::from_secs(5);
/// Longest head that is read.
const MAX_HEAD: usize = 16 * 1024;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Address.
    pub listen: SocketAddr,
    /// What is served there, for messages and the thread's name.
    pub what: &'static str,
    /// Setting that names the address.
    pub setting: &'static str,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} at {listen}: {why}; choose another address with {setting}")]
pub struct WebError {
    what: &'static str,
    listen: SocketAddr,
    setting: &'static str,
    why: std::io::Error,
}

/// A question: always GET or HEAD, so there is no body.
pub struct Asked {
    /// Path of the target.
    pub path: String,
    /// Query of the target, without the question mark.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
}

/// What answers.
pub trait Site: Send + Sync + 'static {
    /// Answers. Runs on the server's one thread: whatever takes long makes others wait, which bounds the work at once.
    fn answer(&self, asked: Asked) -> impl Future<Output = Reply> + Send;
}

/// A running server. It ends with the process.
pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// Listens from now on.
    pub fn start(options: &ServerOptions, site: impl Site) -> Result<Self, WebError> {
        let ServerOptions { listen, what, setting } = *options;
        let error = |why| WebError { what, listen, setting, why };
        let listener = TcpListener::bind(listen).map_err(error)?;
        listener.set_nonblocking(true).map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(error)?;
        let site = Arc::new(site);
        std::thread::Builder::new()
            .name(what.into())
            .spawn(move || {
                privileges::worker(Reach::Nothing);
                runtime.block_on(serve(what, listener, site));
            })
            .map_err(error)?;
        Ok(Self { address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(what: &'static str, listener: TcpListener, site: Arc<impl Site>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => return tracing::error!("{what}: nothing is served: {e}"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::debug!("{what}: a client was not accepted: {e}");
                // Out of descriptors, most likely: let others go on.
                wait_a_moment().await;
                continue;
            }
        };
        let site = site.clone();
        tokio::spawn(async move {
            let answer = |request| {
                let site = site.clone();
                async move { Ok::<_, Infallible>(answer(request, &*site).await) }
            };
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(MAX_HEAD)
                // An idle connection would hold a place that others wait for.
                .keep_alive(false)
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

async fn answer(request: Request<Incoming>, site: &impl Site) -> Reply {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = reply::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        reply::set(&mut refused, ALLOW, "GET, HEAD");
        return refused;
    }
    let (head, _) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    site.answer(Asked { path, query, headers: head.headers }).await
}
