//! What a log line says of its origin: that of a call made by its writer at that moment.

use super::evidence::Found;
use super::settle::Asked;
use super::state::{About, Call, Causality, MAX_GUARDS, MAX_LINES};
use super::{CallRef, Gap, Method, Origin, Settlement, SpanRef};
use crate::event::{Ns, Task};

/// The origin of something written, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// For good.
    Known(Option<Origin>),
    /// Evidence may still come: ask again.
    Open(CallRef),
    /// Evidence might have come, but too many lines of the process wait for theirs already.
    TooMany,
    /// It may be the work of a request that nobody sees.
    LeftOut,
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
        let room = self.processes.peek(&task.tgid).is_none_or(|p| p.lines < MAX_LINES);
        match self.ask_about(task, node, ts, About::Line) {
            // Not kept: lines are many, and calls that wait for evidence need the room.
            Asked::Settled(None, Some(Gap::LeftOut)) => Written::LeftOut,
            Asked::Settled(origin, _) => Written::Known(evidence(origin)),
            Asked::Open(..) if !room => Written::TooMany,
            Asked::Open(c, newest) => {
                let call = self.keep(Call::Open(Box::new(c)));
                self.wait(call, newest, ts);
                Written::Open(call)
            }
        }
    }

    /// The requests that a line still without an origin is most likely one of, as far as the evidence goes by now.
    pub fn candidates(&mut self, written: Written, ts: Ns) -> [Option<SpanRef>; 2] {
        let mut at = match written {
            Written::Known(origin) => return [origin.map(|o| o.span), None],
            Written::TooMany | Written::LeftOut => return [None; 2],
            Written::Open(call) => call,
        };
        // Of a thread that was created for a request, its creation's.
        for _ in 0..=MAX_GUARDS {
            let c = match self.calls.peek(&at) {
                Some(Call::Open(c)) => c,
                Some(Call::Settled(origin, _)) => return [origin.map(|o| o.span), None],
                None => return [None; 2],
            };
            let found = c.node.map(|node| self.tree.find(node, ts, &self.requests).found);
            if let Some(Found::Work(submission)) = found {
                at = submission;
                continue;
            }
            let by_context = match found {
                Some(Found::Claim(s) | Found::Bound(s) | Found::After(s) | Found::Handed(s)) => Some(s),
                _ => None,
            };
            match (&c.clone, by_context, c.serving) {
                (Some(clone), None, None) => at = clone.origin,
                (_, by_context, serving) => return [by_context, serving],
            }
        }
        [None; 2]
    }

    /// Asks again.
    pub fn ask_again(&mut self, written: Written, now: Ns) -> Written {
        let Written::Open(call) = written else { return written };
        match self.origin(call, now) {
            Settlement::Open => written,
            Settlement::Settled(origin) => {
                let unseen = self.gap(call) == Some(Gap::LeftOut);
                self.calls.remove(&call);
                if unseen { Written::LeftOut } else { Written::Known(evidence(origin)) }
            }
        }
    }
}
