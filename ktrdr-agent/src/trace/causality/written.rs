//! What a log line says of its origin: that of a call made by its writer at that moment.

use super::state::{Call, Causality};
use super::{CallRef, Method, Origin, Settlement};
use crate::event::{Ns, Task};

/// The origin of something written, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// For good.
    Known(Option<Origin>),
    /// Evidence may still come: ask again.
    Open(CallRef),
}

/// That a request is the only one in flight proves nothing of a line: services write on their own account, too.
fn evidence(origin: Option<Origin>) -> Option<Origin> {
    origin.filter(|o| o.method != Method::SingleInFlight)
}

impl Causality {
    /// A task wrote a line.
    pub fn written(&mut self, task: Task, ts: Ns) -> Written {
        self.expire(ts);
        let node = self.node_of(task, ts);
        // Like the creation of a task, it is no call and not counted as one.
        let call = self.open_creation(task, node, ts);
        match self.calls.peek(&call) {
            Some(Call::Open(_)) => Written::Open(call),
            Some(Call::Settled(origin)) => {
                let origin = *origin;
                // Lines are many, and calls that wait for evidence need the room.
                self.calls.remove(&call);
                Written::Known(evidence(origin))
            }
            None => Written::Known(None),
        }
    }

    /// Asks again.
    pub fn ask_again(&mut self, written: Written, now: Ns) -> Written {
        let Written::Open(call) = written else { return written };
        match self.origin(call, now) {
            Settlement::Open => written,
            Settlement::Settled(origin) => {
                self.calls.remove(&call);
                Written::Known(evidence(origin))
            }
        }
    }
}
