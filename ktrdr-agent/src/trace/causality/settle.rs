//! From evidence to origin: when a call settles, and on what.

use ktrdr_ebpf_common::THREADS_OWN_CONTEXT;

use super::evidence::{Evidence, Found};
use super::given::is_given;
use super::state::{
    About, Call, Causality, MAX_HORIZON, MAX_OPEN, MAX_WAITING, OpenCall, Process, SETTLE_NS,
};
use super::tree::NodeId;
use super::{CallRef, Gap, Method, Origin, Settlement, SpanRef};
use crate::event::{Ns, Task};

/// How long a call has waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Some evidence came.
    Now,
    /// All requests in flight at its time are over: no response can claim it any more.
    Horizon,
    /// Its time is over.
    Deadline,
}

/// The outcome of a look at the evidence.
pub(super) enum Verdict {
    /// Evidence may still come.
    Wait,
    Final(Option<Origin>),
    /// Final: the context should have told, and why it did not.
    Missing(Gap),
}

use Verdict::{Final, Missing, Wait};

/// What is known of something when a task does it.
pub(super) enum Asked {
    /// All that ever will be.
    Settled(Option<Origin>, Option<Gap>),
    /// Evidence may still come: to be [kept](Causality::keep), and to [wait](Causality::wait), with the newest request in flight.
    Open(OpenCall, Option<u64>),
}

/// A request that nobody saw come may be the origin.
fn unasked(phase: Phase) -> Verdict {
    if phase < Phase::Deadline { Wait } else { Missing(Gap::RequestUnseen) }
}

fn origin(span: SpanRef, method: Method) -> Verdict {
    Final(Some(Origin { span, method }))
}

impl Causality {
    pub(super) fn open_call(&mut self, task: Task, node: Option<NodeId>, ts: Ns) -> CallRef {
        self.open(task, node, ts, About::Call)
    }

    pub(super) fn open_creation(&mut self, task: Task, node: Option<NodeId>, ts: Ns) -> CallRef {
        self.open(task, node, ts, About::Creation)
    }

    fn open(&mut self, task: Task, node: Option<NodeId>, ts: Ns, about: About) -> CallRef {
        match self.ask_about(task, node, ts, about) {
            Asked::Settled(origin, gap) => self.keep(Call::Settled(origin, gap)),
            Asked::Open(c, newest) => {
                let call = self.keep(Call::Open(Box::new(c)));
                self.wait(call, newest, ts);
                call
            }
        }
    }

    /// Looks at the evidence there is now.
    pub(super) fn ask_about(&mut self, task: Task, node: Option<NodeId>, ts: Ns, about: About) -> Asked {
        let clone = self.valid_clone(task);
        let serving = self.threads.peek(&task.tid).filter(|t| t.tgid == task.tgid).and_then(|t| t.serving);
        let (epoch, contexts, newest, single) = match self.processes.peek(&task.tgid) {
            None => (0, 0, None, None),
            Some(p) => {
                let newest = p.in_flight.last_key_value().map(|(n, s)| (*n, *s));
                (p.epoch, p.contexts, newest, newest.filter(|_| p.in_flight.len() == 1).map(|(_, s)| s))
            }
        };
        let vouched = |read| self.processes.peek(&task.tgid).is_some_and(|p| p.idle.vouches(read, ts));
        let single = single.filter(|s| self.requests.peek(s).is_some_and(|r| r.alone && vouched(r.read)));
        let idle = newest.is_none();
        let c =
            OpenCall { task, epoch, contexts, ts, node, serving, single, idle, clone, behind: false, about };
        let phase = if newest.is_none() { Phase::Horizon } else { Phase::Now };
        match self.look(&c, phase) {
            Some((origin, gap)) => Asked::Settled(origin, gap),
            None => Asked::Open(c, newest.map(|(n, _)| n)),
        }
    }

    /// Remembers a call.
    pub(super) fn keep(&mut self, call: Call) -> CallRef {
        self.next_call += 1;
        let number = CallRef(self.next_call);
        if self.calls.len() == self.calls.capacity()
            && let Some((_, Call::Open(c))) = self.calls.remove_lru()
        {
            self.stats.evicted += 1;
            self.waits_no_more(&c);
        }
        if let Call::Open(c) = &call
            && c.about == About::Line
            && let Some(p) = self.processes.get_mut(&c.task.tgid)
        {
            p.lines += 1;
        }
        self.calls.insert(number, call);
        number
    }

    /// An open call is settled, or given up.
    pub(super) fn waits_no_more(&mut self, c: &OpenCall) {
        if c.about == About::Line
            && let Some(p) = self.processes.get_mut(&c.task.tgid).filter(|p| p.epoch == c.epoch)
        {
            p.lines = p.lines.saturating_sub(1);
        }
    }

    /// Registers an open call with everything that may settle it.
    pub(super) fn wait(&mut self, call: CallRef, newest: Option<u64>, ts: Ns) {
        let Some(Call::Open(c)) = self.calls.peek(&call) else { return };
        let (node, serving, single, tgid) = (c.node, c.serving, c.single, c.task.tgid);
        let candidate = match node.map(|n| self.tree.find(n, ts, &self.requests).found) {
            Some(Found::Bound(s) | Found::After(s) | Found::Claim(s)) => Some(s),
            _ => None,
        };
        let mut spans = [candidate, serving, single.filter(|s| Some(*s) != serving)];
        if candidate == serving || candidate == single {
            spans[0] = None;
        }
        for span in spans.into_iter().flatten() {
            if let Some(r) = self.requests.get_mut(&span).filter(|r| r.waiting.len() < MAX_WAITING) {
                r.waiting.push(call);
            }
        }
        if let Some(node) = node {
            self.tree.watch(node, call);
        }
        match newest {
            Some(newest) => self.wait_behind(tgid, newest, call),
            None => _ = self.waits_on_unasked(tgid, call),
        }
        self.deadlines.push_back((ts.saturating_add(SETTLE_NS), call));
        if self.deadlines.len() > MAX_OPEN
            && let Some((_, call)) = self.deadlines.pop_front()
        {
            self.evict(call);
        }
    }

    /// Lets the call settle when all requests up to this one are over.
    pub(super) fn wait_behind(&mut self, tgid: u32, newest: u64, call: CallRef) {
        let p = self.process(tgid);
        p.horizon.push_back((newest, call));
        if p.horizon.len() > MAX_HORIZON
            && let Some((_, call)) = p.horizon.pop_front()
        {
            self.evict(call);
        }
    }

    fn evict(&mut self, call: CallRef) {
        if matches!(self.calls.peek(&call), Some(Call::Open(_))) {
            self.stats.evicted += 1;
            self.resolve(call, Phase::Deadline);
        }
    }

    pub(super) fn settle_overdue(&mut self, now: Ns) {
        while self.deadlines.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, call)) = self.deadlines.pop_front() else { return };
            if matches!(self.calls.peek(&call), Some(Call::Open(_))) {
                self.stats.timed_out += 1;
                self.resolve(call, Phase::Deadline);
            }
        }
    }

    pub(super) fn ask(&mut self, call: CallRef) -> Settlement {
        self.resolve(call, Phase::Now);
        match self.calls.get(&call) {
            Some(Call::Open(_)) => Settlement::Open,
            Some(Call::Settled(origin, _)) => Settlement::Settled(*origin),
            None => Settlement::Settled(None),
        }
    }

    /// Looks at the evidence for a call again. Whether it is settled (or forgotten).
    pub(super) fn resolve(&mut self, call: CallRef, phase: Phase) -> bool {
        let Some(Call::Open(c)) = self.calls.peek(&call) else { return true };
        let c = OpenCall::clone(c);
        // At its deadline what it waited for is over at last, or not.
        let over = phase == Phase::Deadline && self.waited_for_unasked(&c);
        let at_last = if over { self.look(&c, Phase::Horizon) } else { None };
        let Some((origin, gap)) = at_last.or_else(|| self.look(&c, phase)) else { return false };
        self.waits_no_more(&c);
        if let Some(state) = self.calls.get_mut(&call) {
            *state = Call::Settled(origin, gap);
        }
        true
    }

    /// Looks at the evidence, and counts what came of it. `None`: more may come.
    fn look(&mut self, c: &OpenCall, phase: Phase) -> Option<(Option<Origin>, Option<Gap>)> {
        let (origin, gap) = match self.judge(c, phase) {
            Wait if phase == Phase::Deadline => (None, c.node.map(|_| Gap::Unconfirmed)),
            Wait => return None,
            Final(origin) => (origin, None),
            Missing(gap) => (None, Some(gap)),
        };
        // Whatever else is missing: it may be a request that nobody sees, and then nothing weaker is to be asked.
        let gap = gap.map(|gap| if self.may_be_unseen(c, c.ts) { Gap::LeftOut } else { gap });
        if c.about == About::Call {
            if origin.is_none() && c.idle && !self.sight.void(c.ts) && self.nothing_else_tells(c) {
                // 0: nothing was known of the process until now.
                let p = self.process(c.task.tgid);
                if (c.epoch == 0 || c.epoch == p.epoch) && c.ts >= p.since {
                    p.idle.called();
                }
            }
            match origin {
                Some(o) if o.method.exact() => self.stats.exact += 1,
                Some(_) => self.stats.inferred += 1,
                None => self.stats.unlinked += 1,
            }
        }
        Some((origin, gap))
    }

    fn judge(&mut self, c: &OpenCall, phase: Phase) -> Verdict {
        let (mut may_claim, mut submitted) = (false, false);
        if let Some(node) = c.node {
            let Evidence { found, doubt, refuted } = self.tree.find(node, c.ts, &self.requests);
            if self.processes.peek(&c.task.tgid).is_some_and(|p| p.contexts != c.contexts) {
                return Missing(self.forgot);
            }
            let mixed = |p: &Process| p.mixed || p.epoch != c.epoch || p.serving.may_be_one();
            let mixed = doubt || self.processes.peek(&c.task.tgid).is_none_or(mixed);
            // The thread's own context has no address that another one may have taken.
            let stale = mixed && !self.tree.own(node);
            submitted = matches!(found, Found::Work(_));
            if let Some(verdict) = self.judge_work(found, stale, phase) {
                return verdict;
            }
            if self.may_be_unseen(c, c.ts) {
                return self.judge_partly(c, found, mixed, phase);
            }
            // Whose it is may be said by the response to a request that nobody saw come.
            let others = phase >= Phase::Horizon && self.may_work_unasked(c.task.tgid);
            match found {
                Found::Claim(span) if self.reader_answered(span) => {
                    return origin(span, Method::PythonContext);
                }
                Found::Claim(_) | Found::Bound(_) | Found::After(_) if mixed && others => {
                    return unasked(phase);
                }
                Found::Claim(span) | Found::After(span) if others && self.older(span) => {
                    return unasked(phase);
                }
                Found::Claim(span) | Found::After(span) if self.sent_by_the_loop(c, span) => {
                    return Missing(Gap::ContextUnseen);
                }
                // A request in flight with the call is still to say whether it is its own.
                Found::Claim(_) | Found::Bound(_) | Found::After(_) if mixed && phase == Phase::Deadline => {
                    return Missing(Gap::ContextStale);
                }
                Found::Claim(_) | Found::Bound(_) | Found::After(_)
                    if mixed && phase == Phase::Horizon && self.left_with(c) =>
                {
                    return Missing(Gap::LeftOut);
                }
                // By elimination, which takes that all of them say it.
                Found::Claim(span) | Found::Bound(span) | Found::After(span)
                    if mixed && phase == Phase::Horizon && self.untold(c, span) =>
                {
                    return Missing(Gap::ContextStale);
                }
                Found::Conflict => return Missing(Gap::Contradiction),
                Found::Claim(span) if phase == Phase::Horizon && !self.kept_its_context(span) => {
                    return Missing(Gap::ContextUnseen);
                }
                Found::Claim(span) | Found::After(span) if self.older(span) => {
                    let after = matches!(found, Found::After(_));
                    return self.judge_older(c, span, mixed && after, phase);
                }
                Found::Handed(span) => return self.judge_handed(span),
                Found::Unseen => return Missing(Gap::LeftOut),
                Found::Claim(_) if mixed && phase < Phase::Horizon => return Wait,
                Found::Claim(span) => return origin(span, self.by_context(span)),
                Found::Bound(span) => return self.judge_bound(c, span, mixed, phase),
                Found::After(span) => return self.judge_after(c, span, mixed, phase),
                Found::Next if phase < Phase::Horizon => return Wait,
                Found::Next => return Missing(Gap::Unconfirmed),
                // Its request's response may yet turn out to have been written by the loop.
                Found::Nothing | Found::Work(_)
                    if phase < Phase::Deadline && refuted.is_some_and(|s| self.may_be_taken_back(s)) =>
                {
                    return Wait;
                }
                // Copied from what serves no request: nothing but a response under it (or an ancestor) could tell
                // more, and the thread least of all.
                Found::Nothing | Found::Work(_) if !self.thread_may_tell(c, node) => {
                    return match refuted {
                        _ if phase < Phase::Horizon => Wait,
                        Some(_) => Missing(Gap::Contradiction),
                        None => Final(None),
                    };
                }
                Found::Nothing | Found::Work(_) => may_claim = !self.tree.own(node),
            }
        }
        if self.threads_may_be_unseen(c) {
            return Missing(Gap::LeftOut);
        }
        if let Some(span) = c.serving {
            match self.thread_served(c, span) {
                Some(true) => return origin(span, Method::Thread),
                None if phase < Phase::Deadline => return Wait,
                _ => {}
            }
        }
        if let Some(clone) = &c.clone {
            match self.calls.peek(&clone.origin) {
                Some(Call::Settled(Some(o), _)) => {
                    let method = if o.method.exact() { Method::Clone } else { o.method };
                    return origin(o.span, method);
                }
                Some(Call::Open(_)) if phase < Phase::Deadline => return Wait,
                _ => {}
            }
        }
        if may_claim && phase < Phase::Horizon {
            return Wait;
        }
        if let Some(node) = c.node.filter(|_| may_claim) {
            self.tree.stray(node);
        }
        let calls = self.processes.peek(&c.task.tgid).is_none_or(|p| p.idle.calls());
        // Whoever submitted what a pool's thread runs is known, and was not found to serve a request.
        match c.single.filter(|_| !calls && !submitted && self.nothing_else_tells(c)) {
            Some(span) => origin(span, Method::SingleInFlight),
            None if self.unseen(c) => Missing(Gap::ContextUnseen),
            None => Final(None),
        }
    }

    /// Whether the call may be that of a request whose response did not say under which context it was served, rather than
    /// that of `span`, where addresses may be stale.
    fn untold(&self, c: &OpenCall, span: SpanRef) -> bool {
        let read = self.requests.peek(&span).map(|r| r.read);
        self.processes.peek(&c.task.tgid).is_some_and(|p| p.may_be_untold(c.ts, read, true, true))
    }

    pub(super) fn judge_handed(&mut self, span: SpanRef) -> Verdict {
        match self.requests.get(&span).is_some() {
            true => origin(span, Method::MessageOrder),
            false => Missing(Gap::Forgotten),
        }
    }

    /// Whether a call without evidence is one that the only request in flight might explain. A task's context of
    /// which nothing is known is not known to be any request's, and on a loop's thread each task has one.
    fn nothing_else_tells(&self, c: &OpenCall) -> bool {
        let task = c.node.is_some_and(|n| !self.tree.own(n));
        let tasks = self.threads.peek(&c.task.tid).is_some_and(|t| t.many_contexts)
            || self.processes.peek(&c.task.tgid).is_some_and(|p| p.greenlets);
        // Somebody's whom the thread's loop sent it for.
        let given = c.node.is_none() && is_given(c.task);
        !task && !tasks && !given
    }

    /// Whether the call was made under a task's context of which nobody saw where it came from.
    fn unseen(&self, c: &OpenCall) -> bool {
        let own = c.task.py_context & THREADS_OWN_CONTEXT != 0 && !self.of_greenlet(c.task);
        let tasks = c.task.py_context != 0 && !own;
        tasks && c.node.is_none_or(|n| self.tree.unknown(n))
    }

    /// Whether the thread can say more of a context that serves no request: one that reads requests, is unknown, is
    /// the thread's own, or belongs to a pool's new thread with an event loop of its own, whose creator is known.
    fn thread_may_tell(&self, c: &OpenCall, node: NodeId) -> bool {
        let tree = &self.tree;
        tree.reader(node)
            || tree.unknown(node)
            || tree.own(node)
            || (c.clone.is_some() && tree.under_own(node))
    }

    /// A copy gave the context to `span`: believed at once where such copies have been right before, otherwise
    /// once the response confirms it.
    pub(super) fn judge_bound(&mut self, c: &OpenCall, span: SpanRef, mixed: bool, phase: Phase) -> Verdict {
        let trusted = self.trusted(span);
        let unplaced = self.processes.peek(&c.task.tgid).map_or(0, |p| p.unplaced);
        // Touched, so that what still works for it keeps it known.
        let Some(r) = self.requests.get(&span) else { return Missing(Gap::Forgotten) };
        let during = r.responded.is_none_or(|responded| c.ts <= responded);
        let (over, left) = (r.responded.is_some() || r.done, r.left);
        let proven = r.confirmed || (trusted && !mixed);
        match (proven, during) {
            (true, false) if !self.keeps_to_its_own(c) => Missing(Gap::LeftOut),
            // Another context may have taken the address of one that is gone.
            (true, true) if mixed && phase < Phase::Horizon => Wait,
            (true, true) => origin(span, Method::PythonContext),
            // Work after the response, unless a request that still has no place turns out to run there.
            (true, false) if (mixed || unplaced > 0) && phase < Phase::Horizon => Wait,
            (true, false) if mixed || (unplaced > 0 && phase == Phase::Deadline) => {
                Missing(Gap::ContextStale)
            }
            (true, false) => origin(span, Method::PythonContext),
            (false, _) if left => Missing(Gap::LeftOut),
            (false, _) if over && (!mixed || phase >= Phase::Horizon) => Missing(Gap::Unconfirmed),
            (false, _) => Wait,
        }
    }

    /// The context served `span` before: its work goes on after the response, or another request uses it now.
    fn judge_after(&mut self, c: &OpenCall, span: SpanRef, mixed: bool, phase: Phase) -> Verdict {
        let unplaced = self.processes.peek(&c.task.tgid).map_or(0, |p| p.unplaced);
        if (mixed || unplaced > 0) && phase < Phase::Horizon {
            return Wait;
        }
        let undecided = mixed || (unplaced > 0 && phase == Phase::Deadline);
        if undecided {
            return Missing(Gap::ContextStale);
        }
        if self.requests.get(&span).is_none() {
            return Missing(Gap::Forgotten);
        }
        origin(span, Method::PythonContext)
    }
}
