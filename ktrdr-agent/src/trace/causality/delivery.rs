//! Messages that a session's own task takes from a queue: which of them a task works for that it creates.
//!
//! A server of the Model Context Protocol serves a session, not a request: one task takes messages from a queue and
//! creates a task for each. No context leads from the request that brought a message to that task. (The Python
//! library's first generation; the second hands the sender's context on.) What is left is order: messages of a session come one
//! by one, and a context that copies once for each of them, and never without one, is the session's. That is no proof, so
//! the edge is marked as inferred.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::SpanRef;
use super::evidence::Found;
use super::state::{Causality, Lru, lru};
use super::tree::NodeId;
use crate::event::{MS, Ns};

/// Contexts watched in one process: each session has about four.
const MAX_LOOPS: usize = 256;
/// Messages of one process that are open at once; beyond, order is not looked at.
const MAX_OPEN: usize = 256;
/// Methods a loop is known to create tasks for.
const MAX_METHODS: usize = 16;
/// Notifications remembered for loops that are not known yet, and for how long what is copied may be for one.
const MAX_NOTIFIED: usize = 16;
const NOTIFIED_NS: Ns = 100 * MS;
/// Deliveries one by one after which the next is believed, and after which several at once are.
const PROVEN: u32 = 1;
const PROVEN_IN_ORDER: u32 = 2;

/// A message that a server read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The request that brought it.
    pub span: SpanRef,
    /// Its session; 0 for the only one of a process.
    pub session: u64,
    /// Its method, hashed.
    pub method: u64,
    /// Nothing answers it: whether anybody takes it is not seen.
    pub notification: bool,
    /// When it was read.
    pub ts: Ns,
}

/// State of one process.
#[derive(Debug)]
pub(super) struct Deliveries {
    open: VecDeque<Delivered>,
    notified: VecDeque<Delivered>,
    loops: Lru<NodeId, Loop>,
    /// Its one session has no name.
    nameless: bool,
}

impl Default for Deliveries {
    fn default() -> Self {
        let (open, notified) = Default::default();
        Self { open, notified, loops: lru(MAX_LOOPS), nameless: false }
    }
}

/// A context that may be a session's.
#[derive(Debug, Default)]
struct Loop {
    session: u64,
    /// Read, and not taken yet as far as copies tell.
    pending: VecDeque<Delivered>,
    /// Notifications likewise.
    notified: u32,
    /// It creates nothing for notifications.
    deaf: bool,
    /// When it last copied for one, or for the first time.
    noted: Ns,
    /// The last one taken, copies made since, and whether no other waited.
    last: Option<(SpanRef, u32, bool)>,
    /// It was answered, and a session creates a message's task before that answers: all copies for it were made.
    over: bool,
    /// Copies it makes for one message: a task's context and those of its callbacks. 0 = not known.
    each: u32,
    /// Not always as many.
    irregular: bool,
    /// Copies that are still to be made for the last one.
    left: u32,
    /// Messages taken one by one, and their methods.
    taken: u32,
    methods: SmallVec<[u64; 8]>,
    /// It copies for reasons of its own.
    spoiled: bool,
}

/// What a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// Nothing to do with messages.
    Elsewhere,
    /// Made for this message.
    To(SpanRef),
    /// Made for some message: what its parent was copied for is none of its business.
    Unknown,
}

impl Loop {
    /// Another message comes. If what was done for the last one is done, it is known how many copies that took.
    fn learn(&mut self) {
        let Some((_, copies, true)) = self.last.filter(|_| self.over) else { return };
        self.irregular |= self.each != 0 && self.each != copies;
        self.each = copies;
        self.left = 0;
    }

    /// It copies.
    fn copied(&mut self, open: &VecDeque<Delivered>, ts: Ns) -> Handed {
        if let Some((_, copies, _)) = &mut self.last {
            *copies += 1;
        }
        if self.left > 0 {
            self.left -= 1;
            return Handed::Unknown;
        }
        let waiting = self.pending.len();
        let Some(next) = self.pending.pop_front() else { return self.copied_for_none(open, ts) };
        // Otherwise it may be one more for the last one.
        let settled = self.over || self.last.is_none() || (self.each > 0 && !self.irregular);
        let alone = waiting == 1 && self.notified == 0 && settled;
        let known = self.methods.contains(&next.method);
        let in_order = self.notified == 0
            && self.taken >= PROVEN_IN_ORDER
            && self.each > 0
            && !self.irregular
            && known
            && self.pending.iter().all(|m| self.methods.contains(&m.method));
        let believed = if alone { self.taken >= PROVEN } else { in_order };
        (self.last, self.over) = (Some((next.span, 1, alone)), false);
        self.left = if self.irregular { 0 } else { self.each.saturating_sub(1) };
        if alone {
            self.taken = self.taken.saturating_add(1);
            if !known && self.methods.len() < MAX_METHODS {
                self.methods.push(next.method);
            }
        }
        if believed && !self.spoiled { Handed::To(next.span) } else { Handed::Unknown }
    }

    /// It copies, and no message waits.
    fn copied_for_none(&mut self, open: &VecDeque<Delivered>, ts: Ns) -> Handed {
        if self.notified > 0 {
            self.notified -= 1;
            self.noted = ts;
            self.taken += u32::from(self.notified == 0 && self.last.is_none());
            self.left = if self.irregular { 0 } else { self.each.saturating_sub(1) };
            self.last = None;
            return Handed::Unknown;
        }
        if ts.saturating_sub(self.noted) < NOTIFIED_NS || open.iter().any(|m| m.session == self.session) {
            return Handed::Unknown;
        }
        self.spoiled = true;
        Handed::Elsewhere
    }

    /// A message was answered, or its request is over.
    fn answered(&mut self, span: SpanRef) {
        self.over |= self.last.is_some_and(|(last, ..)| last == span);
        if let Some(at) = self.pending.iter().position(|m| m.span == span) {
            // It was served without a copy, so copies are not one for each.
            let m = self.pending.remove(at);
            self.methods.retain(|known| m.is_none_or(|m| m.method != *known));
            (self.taken, self.left) = (0, 0);
        }
        if self.pending.is_empty() && self.notified > 0 {
            // Nothing was created for it in all that time.
            self.notified = 0;
            self.deaf = true;
        }
    }
}

impl Causality {
    /// A server read a message.
    pub fn message(&mut self, tgid: u32, m: Delivered) {
        if self.sight.void(m.ts) {
            return;
        }
        let d = self.process(tgid).deliveries.get_or_insert_default();
        d.nameless |= m.session == 0;
        for (_, l) in d.loops.iter_mut().filter(|(_, l)| l.session == m.session) {
            l.learn();
            if !m.notification {
                l.pending.push_back(m);
            } else if !l.deaf {
                l.notified += 1;
            }
        }
        if m.notification {
            d.notified.push_back(m);
            if d.notified.len() > MAX_NOTIFIED {
                d.notified.pop_front();
            }
        } else {
            d.open.push_back(m);
        }
        if d.open.len() > MAX_OPEN {
            d.open.clear();
            d.loops.clear();
        }
    }

    /// The answer to this request began a session, which its contexts go on to serve.
    pub fn session(&mut self, span: SpanRef, session: u64) {
        if let Some(r) = self.requests.get_mut(&span) {
            r.session = Some(session);
            let tgid = r.tgid;
            self.process(tgid).sessions = true;
        }
    }

    /// The request that brought a message is over.
    pub(super) fn message_over(&mut self, tgid: u32, span: SpanRef) {
        let Some(d) = self.processes.get_mut(&tgid).and_then(|p| p.deliveries.as_mut()) else { return };
        let Some(at) = d.open.iter().position(|m| m.span == span) else { return };
        d.open.remove(at);
        for (_, l) in d.loops.iter_mut() {
            l.answered(span);
        }
    }

    /// What a copy of `parent` is made for.
    pub(super) fn handed(&mut self, tgid: u32, parent: NodeId, ts: Ns) -> Handed {
        if self.sight.void(ts) {
            return self.handed_partly(tgid, parent, ts);
        }
        let Some(p) = self.processes.peek(&tgid).filter(|p| p.deliveries.is_some()) else {
            return Handed::Elsewhere;
        };
        let known = p.deliveries.as_ref().is_some_and(|d| d.loops.peek(&parent).is_some());
        let session = if known { None } else { self.session_of(parent, ts) };
        if !known && session.is_none() {
            return Handed::Elsewhere;
        }
        // Task contexts made for an open message work for it: they are no session's.
        let made = self.tree.get(parent).and_then(|n| n.made).unwrap_or_default();
        let Some(d) = self.processes.get_mut(&tgid).and_then(|p| p.deliveries.as_mut()) else {
            return Handed::Elsewhere;
        };
        let Deliveries { open, notified, loops, nameless } = &mut **d;
        if let Some(session) = session {
            if session == 0 && !*nameless {
                return Handed::Elsewhere;
            }
            let of = || open.iter().filter(|m| m.session == session);
            if of().any(|m| m.ts <= made) {
                return Handed::Elsewhere;
            }
            let pending = of().copied().collect();
            let recent = |m: &&Delivered| m.session == session && ts.saturating_sub(m.ts) < NOTIFIED_NS;
            let notified = u32::from(notified.iter().any(|m| recent(&m)));
            // What it copied before is not known, so its first copy alone says nothing against it.
            loops.insert(parent, Loop { session, pending, notified, noted: ts, ..Loop::default() });
        }
        loops.get_mut(&parent).map_or(Handed::Elsewhere, |l| l.copied(open, ts))
    }

    /// The session that a context may serve.
    pub(super) fn session_of(&mut self, node: NodeId, ts: Ns) -> Option<u64> {
        if self.tree.own(node) {
            return None;
        }
        match self.tree.find(node, ts, &self.requests).found {
            Found::Nothing => Some(0),
            Found::Bound(s) | Found::After(s) | Found::Claim(s) => {
                self.requests.peek(&s).filter(|r| r.responded.is_some()).and_then(|r| r.session)
            }
            Found::Conflict | Found::Handed(_) | Found::Unseen | Found::Next | Found::Work(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: u64 = 1;
    const LIST: u64 = 2;

    /// A session's task that makes `each` copies for a message.
    struct Session {
        l: Loop,
        open: VecDeque<Delivered>,
        each: usize,
        now: Ns,
    }

    impl Session {
        fn new(each: usize) -> Self {
            Self { l: Loop::default(), open: VecDeque::new(), each, now: 10_000 * MS }
        }

        fn read(&mut self, span: u64, method: u64) {
            self.now += MS;
            let span = SpanRef(span);
            let m = Delivered { span, session: 0, method, notification: false, ts: self.now };
            self.l.learn();
            self.l.pending.push_back(m);
            self.open.push_back(m);
        }

        /// The task takes the next message: what its first copy is said to be for.
        fn take(&mut self) -> Handed {
            let first = self.l.copied(&self.open, self.now);
            for _ in 1..self.each {
                assert_eq!(self.l.copied(&self.open, self.now), Handed::Unknown);
            }
            first
        }

        /// From its being read to its answer, with nothing in between.
        fn serve(&mut self, span: u64, method: u64) -> Handed {
            self.read(span, method);
            let first = self.take();
            self.answer(span);
            first
        }

        fn answer(&mut self, span: u64) {
            self.now += 500 * MS;
            self.open.retain(|m| m.span != SpanRef(span));
            self.l.answered(SpanRef(span));
        }
    }

    #[test]
    fn one_by_one_and_then_several_at_once() {
        for each in 1..4 {
            let mut s = Session::new(each);
            for (span, method, known) in [(1, LIST, false), (2, CALL, true), (3, CALL, true)] {
                let handed = s.serve(span, method);
                assert_eq!(handed, if known { Handed::To(SpanRef(span)) } else { Handed::Unknown });
            }
            (4..9).for_each(|span| s.read(span, CALL));
            (4..9).for_each(|span| assert_eq!(s.take(), Handed::To(SpanRef(span)), "{each} copies"));
            // A method that it never took: which of the two the copy is for is not known.
            s.read(10, 99);
            s.read(11, CALL);
            assert_eq!(s.take(), Handed::Unknown);
        }
    }

    /// Under load the next message is read before all copies for the one before it were made.
    #[test]
    fn a_message_that_comes_in_between_takes_no_copy_of_the_one_before() {
        let mut s = Session::new(2);
        for span in 1..4 {
            s.serve(span, CALL);
        }
        for span in 4..9 {
            s.read(span, CALL);
            assert_eq!(s.l.copied(&s.open, s.now), Handed::To(SpanRef(span)));
            s.read(span + 100, CALL);
            assert_eq!(s.l.copied(&s.open, s.now), Handed::Unknown);
            assert_eq!(s.take(), Handed::To(SpanRef(span + 100)));
        }
    }

    /// The same before it is known how many there are: nobody is told whose they are, as long as no answer says that the
    /// copies before it were all.
    #[test]
    fn nor_while_it_is_not_known_how_many_there_are() {
        for irregular in [false, true] {
            let mut s = Session::new(1);
            s.serve(1, CALL);
            s.serve(2, CALL);
            if irregular {
                s.each = 3;
                s.read(3, CALL);
                s.l.copied(&s.open, s.now);
                s.l.copied(&s.open, s.now);
                s.answer(3);
                s.serve(4, CALL);
                s.read(5, CALL);
                assert!(s.l.irregular);
            } else {
                s.l.each = 0;
                s.l.last = None;
                s.read(5, CALL);
            }
            s.l.copied(&s.open, s.now);
            for span in 6..20 {
                s.read(span, CALL);
                // Of the message before, as far as anybody knows.
                assert_eq!(s.l.copied(&s.open, s.now), Handed::Unknown, "{irregular}");
            }
        }
    }

    #[test]
    fn who_copies_without_a_message_is_no_session() {
        let mut s = Session::new(1);
        s.serve(1, CALL);
        assert_eq!(s.l.copied(&s.open, s.now), Handed::Elsewhere);
        s.read(2, CALL);
        assert_eq!(s.take(), Handed::Unknown);
    }

    #[test]
    fn a_message_answered_without_a_copy_shakes_the_belief() {
        let mut s = Session::new(1);
        for span in 1..4 {
            s.serve(span, CALL);
        }
        s.read(4, CALL);
        s.answer(4);
        s.read(5, CALL);
        s.read(6, CALL);
        assert_eq!((s.take(), s.take()), (Handed::Unknown, Handed::Unknown));
    }
}
