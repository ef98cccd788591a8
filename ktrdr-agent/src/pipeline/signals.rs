//! SIGINT and SIGTERM: the first one asks for an orderly end, a later one ends at once, should that hang.
//!
//! One request to stop may come as two signals: `timeout` sends each to its child and to the group that it is in. So those
//! of the first moments are one.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;

use crate::privileges::{self, Reach};

/// Signals within that time are one: more than two of `timeout` lie apart, and half of what an orderly end may take.
const ONE: Duration = Duration::from_millis(500);
/// As programs end that a signal ends.
const INTERRUPTED: i32 = 128 + SIGINT;

/// Whether the agent is to stop.
pub(super) struct Signals {
    stop: Arc<AtomicBool>,
}

impl Signals {
    pub fn listen() -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut told, tells) = UnixStream::pair().context("signal handlers")?;
        for signal in [SIGINT, SIGTERM] {
            low_level::pipe::register(signal, tells.try_clone().context("signal handlers")?)
                .context("signal handlers")?;
        }
        let asked = stop.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                privileges::worker(Reach::Nothing);
                let ended = watch(&mut told, ONE, || asked.store(true, Ordering::Relaxed));
                match ended {
                    Ok(()) => low_level::exit(INTERRUPTED),
                    Err(error) => tracing::error!("signals are not heard any more: {error}"),
                }
            })
            .context("cannot start the thread that hears signals")?;
        Ok(Self { stop })
    }

    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Says when the first signal came; returns when another one has, and that more than `one` later.
fn watch(told: &mut UnixStream, one: Duration, first: impl FnOnce()) -> io::Result<()> {
    told.read_exact(&mut [0])?;
    first();
    let until = Instant::now() + one;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // A time of nothing would be for ever.
        told.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match told.read(&mut [0; 16]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        }
    }
    told.set_read_timeout(None)?;
    told.read_exact(&mut [0])
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn two_at_once_are_one_and_a_later_one_is_another() {
        let (mut told, mut tells) = UnixStream::pair().unwrap();
        let (says, said) = mpsc::channel();
        tells.write_all(&[0, 0]).unwrap();
        let watching = std::thread::spawn(move || {
            let first = says.clone();
            let ended = watch(&mut told, Duration::from_millis(20), || first.send("first").unwrap());
            says.send("another").unwrap();
            ended
        });
        assert_eq!(said.recv(), Ok("first"));
        // However long that takes: the second one of the two is none of its own.
        assert_eq!(said.recv_timeout(Duration::from_millis(100)), Err(mpsc::RecvTimeoutError::Timeout));
        tells.write_all(&[0]).unwrap();
        assert_eq!(said.recv(), Ok("another"));
        assert!(watching.join().unwrap().is_ok());
    }
}
