//! OTLP: spans to an OpenTelemetry receiver, over gRPC or HTTP.
//!
//! One thread with its own small runtime takes batches from a bounded queue, encodes them and delivers them in
//! order. A receiver that is away is waited for; what the queue cannot hold meanwhile is dropped and counted. The
//! caller never waits.

pub mod client;
pub mod convert;
pub mod encode;
pub mod health;
pub mod options;
pub mod retry;
mod wire;
pub mod worker;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::queue::{Books, Queue};
use super::{Item, SpanSink};
pub use options::{Compression, OtlpOptions, Protocol, StartError, TlsFiles};

/// A running exporter of spans.
pub struct OtlpSink {
    queue: Arc<Queue<Item>>,
    stop: watch::Sender<Option<Instant>>,
    ended: mpsc::Receiver<()>,
}

impl OtlpSink {
    /// Checks the options, reads the certificates and starts the thread. The receiver need not be there yet.
    pub fn start(options: OtlpOptions) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| StartError::Thread(e.to_string()))?;
        let queue = Arc::new(Queue::new(options.queue_size, options.batch_size));
        let client = {
            let _context = runtime.enter();
            client::Client::new(&options)?
        };
        let (stop, stopped) = watch::channel(None);
        let (end, ended) = mpsc::sync_channel(1);
        let worker = worker::Worker::new(queue.clone(), client, options, stopped);
        std::thread::Builder::new()
            .name("otlp".into())
            .spawn(move || {
                runtime.block_on(worker.run());
                // A name look-up that hangs must not hold up the end of the process.
                runtime.shutdown_background();
                let _ = end.send(());
            })
            .map_err(|e| StartError::Thread(e.to_string()))?;
        Ok(Self { queue, stop, ended })
    }
}

impl SpanSink for OtlpSink {
    fn name(&self) -> &'static str {
        "otlp"
    }
    fn submit(&self, span: &Item) {
        self.queue.submit(span.clone());
    }
    fn wait_for_room(&self, patience: Duration) {
        self.queue.wait_for_room(patience);
    }
    fn books(&self) -> Books {
        self.queue.books()
    }
    fn begin_stop(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
        self.queue.close();
    }
    fn wait_stopped(&self, deadline: Instant) {
        // The worker gives up by itself at the deadline: the margin is for its last steps.
        let margin = Duration::from_millis(50);
        let left = deadline.saturating_duration_since(Instant::now()) + margin;
        if self.ended.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            self.queue.abandon();
        }
    }
}
