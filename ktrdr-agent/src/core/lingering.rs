//! Sockets that are closed for the kernel, but perhaps not for their reader.
//!
//! A socket that sent its FIN first is closed as soon as the other FIN arrives (TIME-WAIT is another object's
//! business), although the process may only have ended its own direction and still read the answer.

use std::collections::VecDeque;

use crate::event::{ConnId, MS, Ns, State, tcp};

/// How long an open call waits for the reader: it is awake already, as its bytes came before the FIN.
const LINGER_NS: Ns = 500 * MS;
/// Such sockets at once: half-closing clients are rare, and so are calls given up within half a second.
const MAX_LINGERING: usize = 4096;

/// Closed sockets with an open call, oldest first: when, which.
#[derive(Debug, Default)]
pub(super) struct Lingering(VecDeque<(Ns, ConnId)>);

impl Lingering {
    /// Whether the process may still read from a socket that this closed.
    pub fn concerns(s: &State) -> bool {
        s.error == 0 && matches!(s.old, tcp::FIN_WAIT1 | tcp::FIN_WAIT2 | tcp::CLOSING)
    }

    /// Keeps a socket; returns the oldest if there are too many.
    pub fn add(&mut self, ts: Ns, conn: ConnId) -> Option<(Ns, ConnId)> {
        self.0.push_back((ts, conn));
        if self.0.len() > MAX_LINGERING { self.0.pop_front() } else { None }
    }

    /// The next socket that has waited long enough at `now`.
    pub fn due(&mut self, now: Ns) -> Option<(Ns, ConnId)> {
        self.0.pop_front_if(|(ts, _)| ts.saturating_add(LINGER_NS) <= now)
    }
}
