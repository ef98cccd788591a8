//! The site that Prometheus scrapes. Who asks for metrics waits for the agent's loop, which alone can tell them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::ACCEPT;
use tokio::sync::oneshot;

use super::text::{Format, render};
use crate::metrics::Snapshot;
use crate::web::{Asked, Reply, Server, ServerOptions, Site, WebError, Who, reply};

/// Who may wait at once: as many as there can be connections.
const WAITING: usize = 8;
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

/// A client that waits for the metrics.
type Waiting = oneshot::Sender<Arc<Snapshot>>;

/// The endpoint as the agent's loop sees it.
pub struct Endpoint {
    waiting: mpsc::Receiver<Waiting>,
    turned: Arc<AtomicU64>,
    begin: Instant,
    server: Server,
}

/// The endpoint as its clients see it.
struct Metrics {
    ask: mpsc::SyncSender<Waiting>,
    who: Who,
    turned: Arc<AtomicU64>,
    begin: Instant,
}

impl Endpoint {
    /// Listens from now on; ready as soon as the loop turns.
    pub fn start(options: EndpointOptions) -> Result<Self, WebError> {
        let EndpointOptions { listen, token } = options;
        let (ask, waiting) = mpsc::sync_channel(WAITING);
        let (turned, begin) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let site = Metrics { ask, who: Who::new(token, "metrics.token"), turned: turned.clone(), begin };
        let options = ServerOptions { listen, what: "metrics", setting: "metrics.listen (--metrics-listen)" };
        Ok(Self { waiting, turned, begin, server: Server::start(&options, site)? })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
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

impl Site for Metrics {
    async fn answer(&self, asked: Asked) -> Reply {
        let turned = self.turned.load(Ordering::Relaxed);
        let hangs = turned > 0 && since(self.begin).saturating_sub(turned) > STALLED.as_millis() as u64;
        match asked.path.as_str() {
            "/healthz" | "/readyz" if hangs => unavailable("the agent's loop hangs\n"),
            "/healthz" => reply::text(StatusCode::OK, "ok\n"),
            "/readyz" if turned == 0 => unavailable("not observing yet\n"),
            "/readyz" => reply::text(StatusCode::OK, "observing\n"),
            "/metrics" => self.metrics(&asked).await,
            "/" => reply::text(StatusCode::OK, "ktrdr-agent: /metrics /healthz /readyz\n"),
            _ => reply::text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
        }
    }
}

impl Metrics {
    async fn metrics(&self, asked: &Asked) -> Reply {
        if let Some(refused) = self.who.refuse_without_token(&asked.headers) {
            return refused;
        }
        let (sender, receiver) = oneshot::channel();
        if self.ask.try_send(sender).is_err() {
            return unavailable("too many ask at once\n");
        }
        let Ok(Ok(snapshot)) = tokio::time::timeout(ANSWER, receiver).await else {
            return unavailable("the agent is not observing, or overloaded\n");
        };
        let accept = asked.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let format = Format::negotiate(accept);
        reply::body(StatusCode::OK, format.content_type(), render(&snapshot, format))
    }
}

fn unavailable(text: &'static str) -> Reply {
    reply::text(StatusCode::SERVICE_UNAVAILABLE, text)
}
