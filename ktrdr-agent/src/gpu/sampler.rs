//! Asks a source for readings: seldom while nobody uses a GPU, often while an observed process does, and again and
//! again, at growing intervals, while there is nothing to be asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::time::{Duration, Instant};

use super::{Inventory, Source, Trouble};
use crate::event::Ns;
use crate::event::gpu::{GpuCondition, GpuSample, GpuStatus};
use crate::event::shell::ShellEvent;
use crate::meta::host::boot_now_ns;
use crate::privileges;

/// Samples that wait for the reader: at ten a second it may be away for six seconds. Beyond, they are counted.
const QUEUE: usize = 64;
/// The first pause before a source that failed is opened again; it doubles up to the settings' longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Name of the sampling thread, as tools show it.
pub const THREAD: &str = "gpu-sampler";

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between samples while no observed process uses a GPU.
    pub idle: Duration,
    /// Between samples while one does.
    pub busy: Duration,
    /// Longest pause between tries to open a source that failed.
    pub retry: Duration,
}

/// A thread that samples, and what it says.
pub struct Sampler {
    told: Receiver<(Ns, ShellEvent)>,
    busy: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    /// The thread ends when this does. It is not waited for: a call into a driver may never return.
    _stop: Sender<()>,
}

impl Sampler {
    /// Starts the thread; `source` is made on it.
    pub fn start(
        pace: Pace,
        source: impl FnOnce() -> Box<dyn Source> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (tell, told) = sync_channel(QUEUE);
        let (stop, stopped) = channel();
        let (busy, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut run = Run {
            pace,
            stopped,
            tell,
            told: None,
            busy: busy.clone(),
            dropped: dropped.clone(),
            retry: FIRST_RETRY,
        };
        std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            privileges::driver();
            run.run(source().as_mut());
        })?;
        Ok(Self { told, busy, dropped, _stop: stop })
    }

    /// What was said since the last call, with its time.
    pub fn poll(&self) -> impl Iterator<Item = (Ns, ShellEvent)> {
        self.told.try_iter()
    }

    /// Waits for the next word; `None` if there is none in time.
    pub fn wait_for(&self, timeout: Duration) -> Option<(Ns, ShellEvent)> {
        self.told.recv_timeout(timeout).ok()
    }

    /// Whether an observed process uses a GPU.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Samples dropped because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The thread's side.
struct Run {
    pace: Pace,
    stopped: Receiver<()>,
    tell: SyncSender<(Ns, ShellEvent)>,
    /// The last status that was told.
    told: Option<GpuStatus>,
    busy: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    /// The next pause after a failure.
    retry: Duration,
}

impl Run {
    fn run(&mut self, source: &mut dyn Source) {
        loop {
            let opened = source.open();
            let open = opened.is_ok();
            self.status(source, opened);
            let over = if open { self.sample(source) } else { self.pause() };
            if over {
                return;
            }
        }
    }

    /// Samples until the source fails, or has to be opened again; true if it was told to stop.
    fn sample(&mut self, source: &mut dyn Source) -> bool {
        // A device that is missing is looked for again, although the others can be read.
        let mut again = self.incomplete().then(|| Instant::now() + self.back_off());
        loop {
            let begin = Instant::now();
            if again.is_some_and(|at| begin >= at) {
                return false;
            }
            let period = if self.busy.load(Ordering::Relaxed) { self.pace.busy } else { self.pace.idle };
            match source.read() {
                Ok(readings) => {
                    // Stamped when all was read: what is said of a moment was so before it.
                    let ts = boot_now_ns();
                    if let Some(inventory) = readings.inventory {
                        self.status(source, Ok(inventory));
                        if self.incomplete() && again.is_none() {
                            again = Some(Instant::now() + self.back_off());
                        }
                    }
                    if again.is_none() {
                        self.retry = FIRST_RETRY;
                    }
                    let period_ms = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
                    let sample = GpuSample { period_ms, devices: readings.devices };
                    if !self.say(ts, ShellEvent::GpuSample(sample)) {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(trouble) => {
                    self.status(source, Err(trouble));
                    return self.pause();
                }
            }
            if !self.wait(period.saturating_sub(begin.elapsed())) {
                return true;
            }
        }
    }

    fn incomplete(&self) -> bool {
        self.told.as_ref().is_some_and(|s| s.devices.iter().any(|d| !d.trouble.is_empty()))
    }

    /// Waits before the source is opened again; true if it is time to stop.
    fn pause(&mut self) -> bool {
        let time = self.back_off();
        !self.wait(time)
    }

    /// The pause to make now; the next one is longer.
    fn back_off(&mut self) -> Duration {
        let now = self.retry.min(self.pace.retry);
        self.retry = now.saturating_mul(2).min(self.pace.retry);
        now
    }

    /// Tells how things are, if that is news.
    fn status(&mut self, source: &dyn Source, found: Result<Inventory, Trouble>) {
        let (condition, detail, inventory) = match found {
            Ok(inventory) => (GpuCondition::Ok, String::new(), inventory),
            Err(t) => (t.condition, t.detail, Inventory::default()),
        };
        let Inventory { driver, devices } = inventory;
        let status = GpuStatus { source: source.kind(), condition, detail, driver, devices };
        // News that finds no room is told the next time.
        if self.told.as_ref() != Some(&status) && self.say(boot_now_ns(), ShellEvent::Gpu(status.clone())) {
            self.told = Some(status);
        }
    }

    fn say(&self, ts: Ns, event: ShellEvent) -> bool {
        self.tell.try_send((ts, event)).is_ok()
    }

    /// Waits; false if it is time to stop.
    fn wait(&self, time: Duration) -> bool {
        match self.stopped.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => true,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => false,
        }
    }
}

/// Opens and reads a source once, for `check`; a driver that does not answer in time is a failure.
pub fn look(
    timeout: Duration,
    source: impl FnOnce() -> Box<dyn Source> + Send + 'static,
) -> Result<Inventory, Trouble> {
    let failed = |detail: &str| Trouble { condition: GpuCondition::Failed, detail: detail.to_owned() };
    let (tell, told) = channel();
    let look = move || {
        privileges::driver();
        let mut source = source();
        let found = source.open();
        // Nobody waits any more if it took too long.
        let _ = tell.send(found);
    };
    std::thread::Builder::new().name(THREAD.into()).spawn(look).map_err(|e| failed(&e.to_string()))?;
    match told.recv_timeout(timeout) {
        Ok(found) => found,
        Err(_) => Err(failed("no answer from the driver")),
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if matches!(self.stopped.try_recv(), Err(TryRecvError::Empty)) {
            tracing::debug!("the GPU sampler ended before it was told to");
        }
    }
}
