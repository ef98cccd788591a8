//! What counts as evidence while some connections are left out: requests are in flight that nobody sees.
//!
//! Evidence that rests on having seen all requests of a process is void then: that a thread served one, that a task was created
//! for one, that one is the only one in flight, that a message is the next one of its session. So is, of what contexts say:
//!
//! - That a response was written under a context (a claim). A context that answers for several, as a queue's worker does or a
//!   loop that writes what tasks queued, is known by the responses of all of them.
//! - Whatever waits until all requests in flight are over, because an address may be another context's by now.
//! - That responses can tell nothing, and nothing speaks against a copy.
//!
//! What remains is a copy that gave a context to a request, in a process whose copies have been right before or once the response
//! confirms it: copies are told of all requests, and so are receives on a thread that has contexts. A receive on a connection
//! that is left out may bring a request: the copy that follows is its own, which nobody else's work may be taken for. A
//! context that is nobody's, as far as is seen, may be that of a request that nobody sees.
//!
//! Requests that were read unseen go on when nothing is left out any more. So all this holds for a while longer, and what was
//! known of contexts and threads begins anew, as after records were lost.

use super::delivery::Handed;
use super::evidence::Found;
use super::settle::{Phase, Verdict};
use super::state::{Causality, OpenCall, Pending, SETTLE_NS};
use super::tree::NodeId;
use super::{Gap, SpanRef};
use crate::event::{ConnId, Ns, Task};

/// What of the requests is seen.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// Not all of them.
    partial: bool,
    /// From then on all that are in flight were seen.
    pub whole: Ns,
}

impl Sight {
    /// Whether there ever were any that nobody saw.
    fn ever(&self) -> bool {
        self.partial || self.whole > 0
    }

    /// Whether requests may be in flight at `ts` that nobody saw.
    pub fn void(&self, ts: Ns) -> bool {
        self.partial || ts < self.whole
    }
}

impl Causality {
    /// Some connections are left out from now on; or none any more. Returns from when on all requests in flight are seen, if
    /// it is so.
    pub fn partial(&mut self, partial: bool, ts: Ns) -> Option<Ns> {
        if partial == self.sight.partial {
            return None;
        }
        self.sight.partial = partial;
        for (_, p) in self.processes.iter_mut() {
            p.deliveries = None;
        }
        if partial {
            return None;
        }
        // As long as a call waits for evidence, for the same reason: no client waits longer for what was asked unseen.
        self.sight.whole = ts.saturating_add(SETTLE_NS);
        self.watched = Some(self.sight.whole);
        self.forget_contexts(ts, Gap::LeftOut);
        for (_, p) in self.processes.iter_mut() {
            // Two of the requests that seemed to be served thread by thread may have been two of many on either.
            (p.sync_proofs, p.stayed) = (0, 0);
        }
        Some(self.sight.whole)
    }

    /// Whether requests may be in flight at `ts` that nobody saw.
    pub fn is_partial(&self, ts: Ns) -> bool {
        self.sight.void(ts)
    }

    /// A process listens where connections may be left out: it may serve, even if nobody sees it.
    pub fn serves(&mut self, tgid: u32) {
        self.process(tgid).serves = true;
    }

    /// The task received bytes of what may be a request, on a connection that is left out (after [`Self::received`]).
    pub fn unseen_request(&mut self, task: Task, conn: ConnId, ts: Ns) {
        let node = self.node_of(task, ts);
        let unshared = node.is_some_and(|n| self.tree.read(n, conn, ts));
        self.first_read(task.tgid);
        self.process(task.tgid).serves = true;
        self.asked_next(conn, ts);
        let t = self.note_read_context(task);
        t.pending = Some(Pending { span: None, read: node, unshared, parent: None, closed: false });
    }

    /// A request goes on, but nobody looks at its connection any more.
    pub fn request_left(&mut self, span: SpanRef, ts: Ns) {
        if let Some(r) = self.requests.get_mut(&span) {
            r.left = true;
            let (tgid, answered) = (r.tgid, r.responded.is_some());
            if !answered && let Some(p) = self.processes.get_mut(&tgid) {
                p.left = Some(ts);
            }
        }
        self.end_request(span, ts);
    }

    /// Whether a call made at `since` may be the work of a request that nobody sees: if there are any, and its process serves,
    /// or was started by one that does.
    pub(super) fn may_be_unseen(&self, c: &OpenCall, since: Ns) -> bool {
        self.sight.void(since)
            && (c.clone.is_some() || self.processes.peek(&c.task.tgid).is_some_and(|p| p.serves))
    }

    /// Whether a request that was in flight with the call was left, and so does not say whether it is its own.
    pub(super) fn left_with(&self, c: &OpenCall) -> bool {
        self.processes.peek(&c.task.tgid).is_some_and(|p| p.left.is_some_and(|left| c.ts <= left))
    }

    /// The same of what threads tell: all requests must have been seen since theirs was read, or since they were created.
    pub(super) fn threads_may_be_unseen(&self, c: &OpenCall) -> bool {
        let read = |span: Option<SpanRef>| Some(self.requests.peek(&span?)?.read);
        let times = || [read(c.serving), read(c.single), c.clone.as_ref().map(|clone| clone.at)];
        self.sight.ever() && self.may_be_unseen(c, times().into_iter().flatten().fold(c.ts, Ns::min))
    }

    /// What a call's context tells while requests are in flight that nobody sees.
    pub(super) fn judge_partly(&mut self, c: &OpenCall, found: Found, mixed: bool, phase: Phase) -> Verdict {
        match found {
            Found::Conflict => Verdict::Missing(Gap::Contradiction),
            // Since before: while some are left out, nothing is handed to anybody.
            Found::Handed(span) => self.judge_handed(span),
            Found::Bound(span) if !mixed => self.judge_bound(c, span, mixed, phase),
            Found::Bound(_)
            | Found::Claim(_)
            | Found::After(_)
            | Found::Unseen
            | Found::Next
            | Found::Work(_)
            | Found::Nothing => Verdict::Missing(Gap::LeftOut),
        }
    }

    /// Whether work under a context may still be that of the request it was given to, which has answered: so it is where no
    /// request was ever seen to be answered under another one's.
    pub(super) fn keeps_to_its_own(&self, c: &OpenCall) -> bool {
        !self.sight.void(c.ts) || self.processes.peek(&c.task.tgid).is_some_and(|p| !p.strays)
    }

    /// What a copy of `parent` is made for, where messages of sessions come that nobody sees: their order says nothing, but
    /// what a session's own context was copied for is not what it copies for.
    pub(super) fn handed_partly(&mut self, tgid: u32, parent: NodeId, ts: Ns) -> Handed {
        let sessions = self.processes.peek(&tgid).is_some_and(|p| p.sessions);
        match sessions && self.session_of(parent, ts).is_some_and(|session| session != 0) {
            true => Handed::Unknown,
            false => Handed::Elsewhere,
        }
    }
}
