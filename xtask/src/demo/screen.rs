//! The agent's tree on its way to our terminal, so that we know what has been shown already.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::ChildStdout;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::wait;

/// The console holds a trace back for a moment, for spans that come late.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Screen {
    shown: Arc<Mutex<String>>,
}

impl Screen {
    /// Copies every line to our own output until the agent closes its end.
    pub fn relay(output: ChildStdout) -> Self {
        let shown = Arc::new(Mutex::new(String::new()));
        let ours = Arc::clone(&shown);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut stdout = std::io::stdout().lock();
                if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
                    return;
                }
                *ours.lock().unwrap_or_else(PoisonError::into_inner) += &(line + "\n");
            }
        });
        Self { shown }
    }

    /// Returns once `text` was shown, or after some time without.
    pub fn wait_for(&self, text: &str) {
        let seen = || self.shown.lock().unwrap_or_else(PoisonError::into_inner).contains(text).then_some(());
        wait::until(PATIENCE, seen);
    }
}

/// The agent's output is a pipe to us, so it is told what we know of the terminal behind.
pub fn environment() -> [(&'static str, &'static str); 1] {
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    [("KTRDR_AGENT_CONSOLE__COLOUR", if coloured { "always" } else { "never" })]
}
