//! Takes batches, encodes, delivers, keeps the books.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tracing::Instrument as _;
use tracing::field::Empty;

use super::client::{Accepted, Client};
use super::health::Health;
use super::options::{OtlpOptions, Protocol, Signal};
use super::retry::{Backoff, Failure, Next, PATIENCE};
use crate::export::drops::Drops;
use crate::export::queue::{Books, Queue};
use crate::mask;
use crate::telemetry::step;

/// Largest request that is sent, before compression. gRPC servers take 4 MiB unless told otherwise; a batch of
/// ordinary spans is below 2 MiB.
const MAX_REQUEST: usize = 3 * 1024 * 1024;

/// What can be done about a full queue.
const REMEDY: &str = "the receiver is away or slower than they come (otlp.queue_size says how many may wait)";

/// What one signal's exporter sends.
pub trait Payload: Clone + Send + Sync + 'static {
    /// The signal.
    const SIGNAL: Signal;
    /// One request with these items. An item's size is bounded by who makes it.
    fn encode(items: &[Self], protocol: Protocol) -> Bytes;
}

/// The exporter's only task.
pub struct Worker<T> {
    queue: Arc<Queue<T>>,
    client: Client,
    protocol: Protocol,
    linger: Duration,
    health: Health,
    drops: Drops,
    rng: SmallRng,
    stop: watch::Receiver<Option<Instant>>,
}

impl<T: Payload> Worker<T> {
    /// `stop` carries the deadline once the agent ends.
    pub fn new(
        queue: Arc<Queue<T>>,
        client: Client,
        options: OtlpOptions,
        stop: watch::Receiver<Option<Instant>>,
    ) -> Self {
        Self {
            queue,
            client,
            protocol: options.protocol,
            linger: options.batch_delay,
            health: Health::new(&mask::url(&options.url), options.protocol, T::SIGNAL),
            drops: Drops::default(),
            rng: SmallRng::from_os_rng(),
            stop,
        }
    }

    /// Runs until the queue is closed and empty, or the stop's deadline has passed; what is left then is given up
    /// and counted.
    pub async fn run(mut self) {
        let (queue, stop) = (self.queue.clone(), self.stop.clone());
        tokio::select! {
            () = self.deliver_all() => {}
            () = past_deadline(stop) => {}
        }
        queue.abandon();
    }

    async fn deliver_all(&mut self) {
        loop {
            let batch = self.queue.next_batch(self.linger).await;
            if batch.is_empty() {
                return;
            }
            // Depth-first, so that the halves of a batch leave in order.
            let mut parts: Vec<&[T]> = vec![&batch];
            while let Some(part) = parts.pop() {
                let body = T::encode(part, self.protocol);
                if body.len() > MAX_REQUEST && part.len() > 1 {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                    continue;
                }
                if !self.deliver(body, part.len() as u64).await {
                    return;
                }
            }
        }
    }

    /// Delivers one request of `count` items. False: the agent stops and the receiver is not there.
    async fn deliver(&mut self, body: Bytes, count: u64) -> bool {
        let mut backoff = Backoff::default();
        let mut answered_since = None;
        loop {
            let stopping = self.stop.borrow_and_update().is_some();
            let failure = match self.attempt(body.clone(), count).await {
                Ok(accepted) => {
                    let rejected = accepted.rejected.min(count);
                    self.queue.settle(count - rejected, rejected);
                    if !accepted.message.is_empty() || rejected > 0 {
                        tracing::warn!(rejected, "the OTLP receiver says: {}", accepted.message);
                    }
                    let now = Instant::now();
                    self.look(&self.queue.books(), now);
                    self.health.accepted(now).into_iter().for_each(|line| line.log());
                    return true;
                }
                Err(failure) => failure,
            };
            let now = Instant::now();
            let books = self.queue.books();
            self.look(&books, now);
            self.health.failed(&failure, books.waiting, now).into_iter().for_each(|line| line.log());
            let asked = match failure.next {
                Next::Refused => None,
                Next::Unreachable => Some(None),
                Next::Later(asked) => {
                    let since = *answered_since.get_or_insert(now);
                    (now.duration_since(since) < PATIENCE).then_some(asked)
                }
            };
            let Some(asked) = asked else {
                self.give_up(&failure, count);
                return true;
            };
            // Once stopping, everything has had its attempt: the deadline is not to be spent on an absent receiver.
            if stopping {
                return false;
            }
            let pause = backoff.pause(asked, &mut self.rng);
            // A stop ends the pause, for one last attempt.
            let _ = tokio::time::timeout(pause, self.stop.changed()).await;
            self.queue.retried();
        }
    }

    /// One request, and the agent's own span of it.
    async fn attempt(&mut self, body: Bytes, count: u64) -> Result<Accepted, Failure> {
        // OpenTelemetry knows signed numbers only: of others tracing's bridge makes text.
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let span = step!(
            "export",
            otel.kind = "client",
            ktrdr.agent.sink = T::SIGNAL.sink(),
            ktrdr.agent.items = signed(count),
            ktrdr.agent.bytes = signed(body.len() as u64),
            otel.status_code = Empty,
            otel.status_description = Empty,
        );
        let answer = self.client.send(body).instrument(span.clone()).await;
        if let Err(failure) = &answer {
            span.record("otel.status_code", "ERROR").record("otel.status_description", &failure.why);
        }
        answer
    }

    fn look(&mut self, books: &Books, now: Instant) {
        self.drops.look(T::SIGNAL.sink(), T::SIGNAL.what(), books, REMEDY, now);
    }

    fn give_up(&self, failure: &Failure, count: u64) {
        tracing::debug!(count, why = %failure.why, "{} refused by the OTLP receiver", T::SIGNAL.what());
        self.queue.settle(0, count);
    }
}

/// Returns at the stop's deadline; never, while there is none.
async fn past_deadline(mut stop: watch::Receiver<Option<Instant>>) {
    let deadline = match stop.wait_for(Option::is_some).await {
        Ok(deadline) => *deadline,
        // The owner is gone without a word: then the thread need not stay either.
        Err(_) => return,
    };
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}
