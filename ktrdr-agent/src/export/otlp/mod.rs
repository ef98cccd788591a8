//! OTLP: spans, metrics and log records to an OpenTelemetry receiver, over gRPC or HTTP.
//!
//! Per signal, one thread with its own small runtime takes batches from a bounded queue, encodes them and delivers them in
//! order. A receiver that is away is waited for; what the queue cannot hold meanwhile is dropped and counted. The
//! caller never waits.

pub mod client;
pub mod convert;
pub mod encode;
pub mod health;
pub mod logs;
pub mod metrics;
pub mod options;
pub mod retry;
mod wire;
pub mod worker;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use crate::privileges::{self, Reach};

use super::queue::{Books, Queue};
use super::{Item, SpanSink};
pub use options::{Compression, OtlpOptions, Protocol, Signal, StartError, TlsFiles};
pub use worker::Payload;

/// A running exporter of one signal.
pub struct OtlpSink<T> {
    queue: Arc<Queue<T>>,
    stop: watch::Sender<Option<Instant>>,
    ended: mpsc::Receiver<()>,
}

impl<T: Payload> OtlpSink<T> {
    /// Checks the options, reads the certificates and starts the thread. The receiver need not be there yet.
    pub fn start(options: OtlpOptions) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| StartError::Thread(e.to_string()))?;
        let queue = Arc::new(Queue::new(options.queue_size, options.batch_size));
        let client = {
            let _context = runtime.enter();
            client::Client::new(&options, T::SIGNAL)?
        };
        let (stop, stopped) = watch::channel(None);
        let (end, ended) = mpsc::sync_channel(1);
        let worker = worker::Worker::new(queue.clone(), client, options, stopped);
        std::thread::Builder::new()
            .name(T::SIGNAL.sink().into())
            .spawn(move || {
                privileges::worker(Reach::Receiver);
                runtime.block_on(worker.run());
                // A name look-up that hangs must not hold up the end of the process.
                runtime.shutdown_background();
                let _ = end.send(());
            })
            .map_err(|e| StartError::Thread(e.to_string()))?;
        Ok(Self { queue, stop, ended })
    }

    /// Takes an item, or drops and counts it.
    pub fn take(&self, item: T) {
        self.queue.submit(item);
    }

    /// Waits up to `patience` until an item would not be dropped for lack of room.
    pub fn wait_for_room(&self, patience: Duration) {
        self.queue.wait_for_room(patience);
    }

    /// What became of the items so far.
    pub fn books(&self) -> Books {
        self.queue.books()
    }

    /// No more items will come: deliver what is there, by `deadline` at the latest.
    pub fn begin_stop(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
        self.queue.close();
    }

    /// Waits for that.
    pub fn wait_stopped(&self, deadline: Instant) {
        // The worker gives up by itself at the deadline: the margin is for its last steps.
        let margin = Duration::from_millis(50);
        let left = deadline.saturating_duration_since(Instant::now()) + margin;
        if self.ended.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            self.queue.abandon();
        }
    }
}

impl Payload for Item {
    const SIGNAL: Signal = Signal::Traces;
    fn encode(spans: &[Item], protocol: Protocol) -> Bytes {
        match protocol {
            Protocol::Grpc | Protocol::HttpProtobuf => encode::spans(spans),
            // The messages hold no map with other than string keys, so this cannot fail; an empty request at worst.
            Protocol::HttpJson => serde_json::to_vec(&convert::request(spans)).unwrap_or_default().into(),
        }
    }
}

impl SpanSink for OtlpSink<Item> {
    fn name(&self) -> &'static str {
        Signal::Traces.sink()
    }
    fn submit(&self, span: &Item) {
        self.take(span.clone());
    }
    fn wait_for_room(&self, patience: Duration) {
        self.queue.wait_for_room(patience);
    }
    fn books(&self) -> Books {
        self.books()
    }
    fn begin_stop(&self, deadline: Instant) {
        self.begin_stop(deadline);
    }
    fn wait_stopped(&self, deadline: Instant) {
        self.wait_stopped(deadline);
    }
}
