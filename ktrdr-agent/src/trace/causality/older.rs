//! Requests that were read before the contexts of their process were followed: the agent came under load, or records were lost.
//!
//! Nobody saw what their tasks' contexts were copied from. But since contexts are followed all copies are seen. So a context under
//! which a response is written, and to whose address nothing was copied since, has been there all the time, and what ran under it
//! meanwhile was done by whoever wrote that response. This gives an edge if whoever wrote it did so for this request alone:
//!
//! - Not the loop, which writes what tasks gave it: on its thread responses were written under another task's context, too.
//! - Not a queue's worker, which works for several: it answered on no other connection, and no request that nobody saw come
//!   since this one was read; and the requests that were in flight with the call are all over, so that each of them would have said
//!   so. That goes for those that nobody saw come, too ([`super::standing`]).
//!
//! What may be wrong all the same: a worker that works for a request that nobody saw come, and that takes longer than a call waits,
//! or whose client gave it up; or that records were lost of; or of which the loop that sent the response did not tell who answered,
//! if the worker ends right after.
//!
//! Where contexts are also made unseen, addresses prove less, and so what was done after the response stays without an edge.

use super::evidence::{Claim, Found};
use super::settle::{Phase, Verdict};
use super::state::{Causality, OpenCall};
use super::tree::NodeId;
use super::{CallRef, Gap, Origin, SpanRef};
use crate::event::Ns;

impl Causality {
    /// Whether the request was read before contexts were followed, or is forgotten.
    pub(super) fn older(&self, span: SpanRef) -> bool {
        let followed = |tgid: &u32| self.processes.peek(tgid).map(|p| p.since);
        self.requests.peek(&span).is_none_or(|r| followed(&r.tgid).is_none_or(|since| r.read < since))
    }

    /// The response to such a request was written under `node`. Whether it claims the context.
    pub(super) fn answered_older(&mut self, span: SpanRef, node: NodeId, given: bool, ts: Ns) -> bool {
        let Some((tgid, conn, read)) = self.requests.peek(&span).map(|r| (r.tgid, r.conn, r.read)) else {
            return false;
        };
        let server = self.processes.peek(&tgid).is_none_or(|p| !p.mixed && p.via.contains_key(&node));
        if server || self.tree.own(node) || self.tree.shared(node) {
            return false;
        }
        let greenlet = self.tree.greenlet(node);
        if !given && !greenlet && self.written_by_the_loop(span, node, false, ts) {
            return false;
        }
        match self.tree.find(node, ts, &self.requests).found {
            Found::Nothing | Found::Claim(_) | Found::After(_) | Found::Conflict => {}
            Found::Bound(_) | Found::Handed(_) | Found::Work(_) | Found::Next | Found::Unseen => {
                return false;
            }
        }
        if greenlet {
            self.greenlet_answers(span, node, ts);
        }
        self.answers_itself(span, node);
        if let Some(r) = self.requests.get_mut(&span) {
            r.answered_under = Some(node);
        }
        let unseen = self.sight.void(read);
        self.tree.claim(
            node,
            Claim { span, conn, from: read, to: ts, void: false, unseen, older: true, next: None },
        );
        true
    }

    /// A response was written under this context, as it seems by a task.
    pub(super) fn answers_itself(&mut self, span: SpanRef, node: NodeId) {
        let Some((tgid, tid)) = self.requests.peek(&span).map(|r| (r.tgid, r.tid)) else { return };
        let t = self.thread(tgid, tid);
        t.several_answer |= t.answered_under.replace(node).is_some_and(|before| before != node);
    }

    /// A response was written by the loop of this thread, as earlier ones were that seemed to be a task's.
    pub(super) fn answers_for_all(&mut self, span: SpanRef) {
        let Some((tgid, tid)) = self.requests.peek(&span).map(|r| (r.tgid, r.tid)) else { return };
        let t = self.thread(tgid, tid);
        (t.answered_under, t.several_answer) = (None, false);
    }

    /// A call under a context that such a request claims.
    pub(super) fn judge_older(&mut self, c: &OpenCall, span: SpanRef, stale: bool, phase: Phase) -> Verdict {
        // Touched, so that what still works for it keeps it known.
        let Some(r) = self.requests.get(&span) else { return Verdict::Missing(Gap::Forgotten) };
        let (tid, number, wrote, read) = (r.tid, r.number, r.answered_under, r.read);
        let Some(p) = self.processes.peek(&c.task.tgid) else { return Verdict::Missing(Gap::Forgotten) };
        if phase < Phase::Horizon {
            return Verdict::Wait;
        }
        let several = self.threads.peek(&tid).is_some_and(|t| t.tgid == c.task.tgid && t.several_answer);
        let proven = p.mixed || p.direct.proven() || p.via.iter().any(|(_, style)| style.proven());
        if several && proven && phase == Phase::Horizon {
            if self.left_with(c) {
                return Verdict::Missing(Gap::LeftOut);
            }
            // A request whose response does not tell may have been in flight with the call.
            let untold = stale || p.may_be_untold(c.ts, Some(read), p.mixed, false);
            // So may one that nobody saw come. But a worker would have worked for both, and is not over with one of them.
            let over = !p.mixed && wrote.is_some_and(|node| self.tree.over(node));
            if !untold && !over && p.may_be_untold(c.ts, Some(read), p.mixed, true) {
                return Verdict::Wait;
            }
            return match untold {
                true => Verdict::Missing(Gap::ContextUnseen),
                false => Verdict::Final(Some(Origin { span, method: self.by_context(span) })),
            };
        }
        // Those in flight now may show how this process answers.
        let others = p.in_flight.last_key_value().is_some_and(|(n, _)| *n > number);
        if others && phase == Phase::Horizon { Verdict::Wait } else { Verdict::Missing(Gap::ContextUnseen) }
    }

    /// A call is still open though all requests are over that were in flight with it: it waits for those in flight now.
    pub(super) fn waits_on(&mut self, tgid: u32, call: CallRef) {
        if self.waits_on_unasked(tgid, call) {
            return;
        }
        let newest = self.processes.peek(&tgid).and_then(|p| p.in_flight.last_key_value()).map(|(n, _)| *n);
        if let Some(newest) = newest {
            self.wait_behind(tgid, newest, call);
        }
    }
}
