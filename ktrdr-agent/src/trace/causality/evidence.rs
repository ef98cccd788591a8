//! What is known of a context.

use super::{CallRef, SpanRef};
use crate::event::{ConnId, Ns};

/// A response written under a context: what ran there from the read to the response served that request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub span: SpanRef,
    pub from: Ns,
    pub to: Ns,
    /// Two requests claim it.
    pub void: bool,
    /// Others may that nobody sees.
    pub unseen: bool,
    /// Where it was asked.
    pub conn: ConnId,
    /// It was read before contexts were followed.
    pub older: bool,
    /// When the next request was read that the same task serves.
    pub next: Option<Ns>,
}

/// What the tree says of a context at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A response claims that time.
    Claim(SpanRef),
    /// Two do.
    Conflict,
    /// A copy bound it (or an ancestor) to this request.
    Bound(SpanRef),
    /// It was created for the message that this request brought, as far as order tells.
    Handed(SpanRef),
    /// It runs what was submitted to a pool, or descends from that: whose the submission is tells.
    Work(CallRef),
    /// It works for a request that nobody sees, or may.
    Unseen,
    /// The last claim lies before that time: the work may go on after the response.
    After(SpanRef),
    /// Its task serves its connection's next request by then, whose response has not told so.
    Next,
    /// Nothing.
    Nothing,
}

/// Who wrote a response, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// As far as is known, the task that served the request.
    ByTask,
    /// The loop, as turns out now.
    FirstSeenByLoop,
    /// The loop.
    ByLoop,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub found: Found,
    /// It was inherited by a copy that may be of another context, or from a greenlet's.
    pub doubt: bool,
    /// The nearest request that a copy was bound to and that was answered elsewhere, on the way there.
    pub refuted: Option<SpanRef>,
}
