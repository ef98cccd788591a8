//! The tree of copied contexts, with generations: an address that is copied to again is a new node.

mod greenlets;
#[cfg(test)]
mod tests;

use ktrdr_ebpf_common::THREADS_OWN_CONTEXT;
use smallvec::SmallVec;

use super::evidence::{Answered, Claim, Evidence, Found};
use super::state::{Lru, MAX_WAITING, Request, lru};
use super::{CallRef, SpanRef};
use crate::event::{ConnId, Ns};

/// Nodes kept, host-wide, least recently used go first. A request of FastAPI with three calls makes about 30 copies, and something is
/// done under ten of them, so this holds the trees of the last 6,000 requests, and always those in use. Some 25 MB.
const MAX_NODES: usize = 65_536;
/// Ancestors followed: nested tasks, each inside the one before. Deeper ones have no origin.
const MAX_DEPTH: usize = 64;
/// Ancestors at which a call without evidence waits for a response: a gather inside a task inside the request's.
/// Others settle when the requests in flight with them are over.
const MAX_WATCHED: usize = 8;
/// Responses remembered per context: one task that serves a whole connection writes many, only the last matter.
const MAX_CLAIMS: usize = 4;
/// The same of a connection's own task, and of one that may be that, but is older than the sight of contexts: where addresses may
/// be stale, a call is decided when all requests are over that were in flight with it, and the task may have served as many
/// meanwhile. 1 KiB for each connection that is kept alive.
const MAX_SERVING_CLAIMS: usize = 16;
/// Copies remembered of a context until it answers: what one request starts that goes on. Of others the claims tell, while there are.
const MAX_COPIES: usize = 16;

/// A node. Numbers grow and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(u64);

impl NodeId {
    /// Before all of them.
    pub const NONE: Self = Self(0);
}

/// Where a context is: its process, its address, and for a thread's own context the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub epoch: u32,
    pub addr: u64,
    pub thread: Option<u32>,
}

impl Place {
    /// From an address as records carry it.
    pub fn new(epoch: u32, addr: u64, tid: u32) -> Self {
        Self { epoch, addr, thread: (addr & THREADS_OWN_CONTEXT != 0).then_some(tid) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Node {
    /// The context it was copied from, while it says something about the origin.
    pub parent: Option<NodeId>,
    /// When it was copied; `None`: not seen (it is older than the agent, or no copy at all).
    pub made: Option<Ns>,
    pub bound: Option<SpanRef>,
    /// By the order of messages.
    handed: bool,
    /// It was copied for a request that nobody sees.
    unseen: bool,
    pub claims: SmallVec<[Claim; 1]>,
    /// Requests of several connections claim it.
    several: bool,
    /// When it last answered a request that nobody saw come.
    unasked: Option<Ns>,
    /// Connection whose requests its task serves.
    serving: Option<ConnId>,
    /// What was copied from it since it last answered.
    copies: SmallVec<[NodeId; 2]>,
    /// The request that a connection's task served when it had this one copied.
    of: Option<SpanRef>,
    /// Connection whose requests are read under it.
    reader: Option<ConnId>,
    /// See [`Tree::doubt`].
    doubt: bool,
    /// A thread's own context: not a task's.
    own: bool,
    /// A greenlet's own.
    greenlet: bool,
    /// Calls were made under it that no response claims.
    stray: bool,
    /// While the thread runs what was submitted to its pool then.
    submission: Option<CallRef>,
    /// Requests of several connections are read under it.
    shared: bool,
    /// Connections of greenlets that had its address before.
    left: SmallVec<[ConnId; 1]>,
    /// When a request was last read under it.
    read: Option<Ns>,
    /// The last response written under it: its connection, and when.
    answered: Option<(ConnId, Ns)>,
    /// How many were.
    answers: usize,
    /// It answered on two connections at a time: a loop writes under it what tasks queued.
    writer: bool,
    /// It is no more: another one was copied to where it was.
    over: bool,
    /// Something was done under it.
    touched: bool,
    /// Calls under it or its descendants that a response under it may settle.
    waiting: Vec<CallRef>,
}

#[derive(Debug)]
pub(super) struct Tree {
    current: Lru<Place, NodeId>,
    nodes: Lru<NodeId, Node>,
    next: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self { current: lru(MAX_NODES), nodes: lru(MAX_NODES), next: 0 }
    }
}

impl Tree {
    fn insert(&mut self, place: Place, node: Node) -> NodeId {
        self.next += 1;
        let id = NodeId(self.next);
        self.nodes.insert(id, Node { own: place.thread.is_some(), ..node });
        if let Some(before) = self.current.insert(place, id) {
            self.replaced(before);
        }
        id
    }

    /// Another one was copied to where it was. Most were a callback's or a timer's that did nothing we saw: nobody will ask about
    /// those, and they leave their room to others.
    fn replaced(&mut self, id: NodeId) {
        let Some(n) = self.nodes.peek_mut(&id) else { return };
        n.over = true;
        if !n.touched {
            self.nodes.remove(&id);
        }
    }

    /// The context now at this address, under which something is done.
    fn touch(&mut self, place: Place) -> Option<(NodeId, &Node)> {
        let id = *self.current.get(&place)?;
        let n = self.nodes.get_mut(&id)?;
        n.touched = true;
        Some((id, n))
    }

    /// A thread's own context while it runs what was submitted to its pool.
    pub fn work(&mut self, submission: CallRef, ts: Ns) -> NodeId {
        self.next += 1;
        let id = NodeId(self.next);
        let node = Node { made: Some(ts), own: true, submission: Some(submission), ..Node::default() };
        self.nodes.insert(id, node);
        id
    }

    /// The context now at this address, made known if it is not.
    pub fn node(&mut self, place: Place) -> NodeId {
        match self.touch(place).filter(|(_, n)| !n.greenlet) {
            Some((id, _)) => id,
            // A thread's own context is no copy of anything.
            None => {
                let made = place.thread.map(|_| 0);
                self.insert(place, Node { made, touched: true, ..Node::default() })
            }
        }
    }

    /// A copy: a new node, whatever was at its address before.
    pub fn copy(&mut self, place: Place, parent: NodeId, ts: Ns) -> NodeId {
        let child = self.insert(place, Node { parent: Some(parent), made: Some(ts), ..Node::default() });
        if let Some(n) = self.nodes.get_mut(&parent)
            && n.copies.len() < MAX_COPIES
        {
            n.copies.push(child);
        }
        child
    }

    /// A copy of an unknown context.
    pub fn unknown_copy(&mut self, place: Place) {
        self.insert(place, Node::default());
    }

    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.peek(&id)
    }

    pub fn bind(&mut self, id: NodeId, span: SpanRef) {
        if let Some(n) = self.nodes.get_mut(&id) {
            n.bound = Some(span);
        }
    }

    /// It was created for a message: this one, or one that is not known. What it was copied from is not its origin.
    pub fn hand(&mut self, id: NodeId, span: Option<SpanRef>) {
        if let Some(n) = self.nodes.get_mut(&id) {
            (n.bound, n.handed, n.parent) = (span, span.is_some(), None);
        }
    }

    /// It was copied for a request that nobody sees.
    pub fn unseen(&mut self, id: NodeId) {
        if let Some(n) = self.nodes.get_mut(&id) {
            (n.bound, n.parent, n.unseen) = (None, None, true);
        }
    }

    /// A request of `conn` was read under it: it serves a connection and no longer what it was copied for.
    /// Whether this is the only connection whose requests were read under it.
    pub fn read(&mut self, id: NodeId, conn: ConnId, ts: Ns) -> bool {
        let Some(n) = self.nodes.get_mut(&id) else { return false };
        (n.bound, n.parent, n.unseen) = (None, None, false);
        n.made.get_or_insert(0);
        match n.reader.replace(conn).filter(|c| *c != conn) {
            Some(before) if n.greenlet => n.another_reads(before, conn),
            before => n.shared |= before.is_some(),
        }
        n.read = Some(ts);
        n.goes_on(ts);
        !n.shared
    }

    /// A request was read that this context's task will serve.
    pub fn goes_on(&mut self, id: NodeId, ts: Ns) {
        if let Some(n) = self.nodes.get_mut(&id) {
            n.goes_on(ts);
        }
    }

    /// Requests of several connections are read under it.
    pub fn shared(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|n| n.shared)
    }

    pub fn reader(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|n| n.reader.is_some())
    }

    /// A thread's own: what runs under it is known by the thread only.
    pub fn own(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|n| n.own)
    }

    /// It is known to be no more.
    pub fn over(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|n| n.over)
    }

    /// No copy to this address was seen, and no read under it.
    pub fn unknown(&self, id: NodeId) -> bool {
        self.get(id).is_none_or(|n| n.made.is_none())
    }

    /// A copy gave it, or one that it descends from, to a request.
    pub fn inherits(&self, id: NodeId) -> bool {
        let mut at = Some(id);
        for _ in 0..MAX_WATCHED {
            let Some(n) = at.and_then(|id| self.get(id)) else { return false };
            if n.bound.is_some() {
                return true;
            }
            at = n.parent;
        }
        false
    }

    /// A thread's own context, or copied from one: who created the thread may tell what runs there.
    pub fn under_own(&self, id: NodeId) -> bool {
        let mut at = Some(id);
        for _ in 0..MAX_WATCHED {
            let Some(n) = at.and_then(|id| self.get(id)) else { return false };
            if n.own {
                return true;
            }
            at = n.parent;
        }
        false
    }

    /// It was copied between the opening of this connection and the read of a request there, and has answered on no other: as
    /// far as is known, a task that serves the connection.
    pub fn serves(&self, id: NodeId, conn: ConnId, opened: Ns, read: Ns) -> bool {
        let made = |n: &Node| n.made.is_some_and(|made| opened <= made && made < read);
        self.get(id).is_some_and(|n| made(n) && !n.several && n.claims.iter().all(|c| c.conn == conn))
    }

    /// Its task serves the requests of this connection, one after the other.
    pub fn serve(&mut self, id: NodeId, conn: ConnId) {
        if let Some(n) = self.nodes.get_mut(&id) {
            n.serving = Some(conn);
        }
    }

    /// Its task serves another connection than this.
    pub fn serves_another(&self, id: NodeId, conn: ConnId) -> bool {
        self.get(id).and_then(|n| n.serving).is_some_and(|served| served != conn)
    }

    /// A response on `conn` was written under it at `ts`, to a request read at `read`.
    pub fn answered(&mut self, id: NodeId, conn: ConnId, read: Ns, ts: Ns) -> Answered {
        let Some(n) = self.nodes.get_mut(&id) else { return Answered::ByTask };
        if n.writer {
            return Answered::ByLoop;
        }
        let before = n.answered.replace((conn, ts));
        n.answers = n.answers.saturating_add(1);
        if before.is_none_or(|(other, last)| other == conn || last < read) {
            return Answered::ByTask;
        }
        n.writer = true;
        Answered::FirstSeenByLoop
    }

    /// It may yet turn out to be a loop's: nobody saw it being made, and few responses were written under it, so that what
    /// all of them seemed to say could be taken back.
    pub fn may_be_a_loops(&self, id: NodeId) -> bool {
        let few = |n: &Node| !n.writer && (1..=MAX_CLAIMS).contains(&n.answers);
        self.unknown(id) && self.get(id).is_some_and(few)
    }

    /// Takes back what responses under it seemed to say; the requests that they answered.
    pub fn disclaim(&mut self, id: NodeId) -> SmallVec<[SpanRef; 1]> {
        let Some(n) = self.nodes.get_mut(&id) else { return SmallVec::new() };
        (n.writer, n.serving) = (true, None);
        std::mem::take(&mut n.claims).into_iter().map(|c| c.span).collect()
    }

    /// Responses under it seemed to say something.
    pub fn claims(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|n| !n.claims.is_empty())
    }

    /// The node made last.
    pub fn newest(&self) -> NodeId {
        NodeId(self.next)
    }

    pub fn claim(&mut self, id: NodeId, claim: Claim) {
        let Some(n) = self.nodes.get_mut(&id) else { return };
        let mut claim = claim;
        for c in &mut n.claims {
            n.several |= c.conn != claim.conn;
            // Two requests served at the same time under one context: neither is known to be the origin.
            if c.to > claim.from && c.from < claim.to {
                c.void = true;
                claim.void = true;
            }
        }
        let before = n.claims.last().copied();
        while n.claims.len() >= n.most_claims() {
            n.claims.remove(0);
        }
        n.claims.push(claim);
        let copies = std::mem::take(&mut n.copies);
        if n.serves_one() {
            for copy in copies {
                self.made_for(copy, before, claim);
            }
        }
    }

    /// It was copied by a connection's task for the one of these requests that was served then: there are only the last few
    /// left to ask when it goes on for long.
    fn made_for(&mut self, id: NodeId, before: Option<Claim>, last: Claim) {
        let Some((n, made)) = self.nodes.get_mut(&id).and_then(|n| n.made.map(|made| (n, made))) else {
            return;
        };
        let next = |before: &Claim| before.next.unwrap_or(last.from).min(last.from);
        let then = before.filter(|before| made <= before.to || made < next(before)).unwrap_or(last);
        if then.from <= made && !then.void && !then.unseen && !then.older {
            n.of = Some(then.span);
            // A copy by it was taken for that of a request just read.
            n.bound = n.bound.filter(|bound| *bound == then.span);
        }
    }

    /// It answered a request that nobody saw come: what ran there since another one was read may have been for that.
    pub fn unasked(&mut self, id: NodeId, ts: Ns) {
        if let Some(n) = self.nodes.get_mut(&id) {
            n.unasked = n.unasked.max(Some(ts));
        }
    }

    /// Lets a response under this context or its ancestors settle the call.
    pub fn watch(&mut self, id: NodeId, call: CallRef) {
        let mut id = Some(id);
        for _ in 0..MAX_WATCHED {
            let Some(n) = id.and_then(|id| self.nodes.get_mut(&id)) else { return };
            if n.waiting.len() < MAX_WAITING {
                n.waiting.push(call);
            }
            id = n.parent;
        }
    }

    /// The calls that a response under this context may settle.
    pub fn take_waiting(&mut self, id: NodeId) -> Vec<CallRef> {
        self.nodes.get_mut(&id).map(|n| std::mem::take(&mut n.waiting)).unwrap_or_default()
    }

    /// The copy may be of another context than the one known at that address; no more when it answers that one's request.
    pub fn doubt(&mut self, id: NodeId, doubt: bool) {
        if let Some(n) = self.nodes.get_mut(&id) {
            n.doubt = doubt;
        }
    }

    /// The nearest evidence for what ran under this context at `ts`. A copy bound to a request that was served
    /// elsewhere says nothing.
    pub fn find(&mut self, id: NodeId, ts: Ns, requests: &Lru<SpanRef, Request>) -> Evidence {
        let (mut id, mut ts) = (id, ts);
        let mut doubt = false;
        let mut found = Found::Nothing;
        let mut refuted = None;
        for _ in 0..MAX_DEPTH {
            let Some(n) = self.nodes.get(&id) else { break };
            // Never seen to be made: its address may have been another's.
            doubt |= n.greenlet;
            found = n.evidence(ts, requests);
            if found != Found::Nothing {
                break;
            }
            refuted = refuted.or(n.bound);
            let (of, more) = (n.of, n.doubt);
            let (Some(parent), Some(made)) = (n.parent, n.made) else { break };
            if let Some(span) = of.filter(|_| self.get(parent).is_some_and(Node::serves_one)) {
                found = Found::Claim(span);
                break;
            }
            doubt |= more;
            (id, ts) = (parent, made);
        }
        Evidence { found, doubt, refuted }
    }
}

impl Node {
    fn most_claims(&self) -> usize {
        let one = self.serving.is_some() || (self.made.is_none() && !self.several);
        match (self.greenlet, one) {
            (true, _) => greenlets::MAX_GREENLET_CLAIMS,
            (false, true) => MAX_SERVING_CLAIMS,
            (false, false) => MAX_CLAIMS,
        }
    }

    /// Its task serves one connection.
    fn serves_one(&self) -> bool {
        self.serving.is_some() && !self.several
    }

    fn goes_on(&mut self, ts: Ns) {
        if let Some(last) = self.claims.last_mut() {
            last.next.get_or_insert(ts);
        }
    }

    fn evidence(&self, ts: Ns, requests: &Lru<SpanRef, Request>) -> Found {
        let claim = |c: &Claim, found: fn(SpanRef) -> Found| match c {
            // One that serves several may have served others before contexts were followed.
            Claim { older: true, .. } if self.several => Found::Nothing,
            Claim { from, .. } if self.unasked.is_some_and(|ts| *from <= ts) => Found::Nothing,
            Claim { void: true, .. } => Found::Conflict,
            Claim { unseen: true, .. } => Found::Unseen,
            Claim { span, .. } => found(*span),
        };
        if let Some(c) = self.claims.iter().rev().find(|c| c.from <= ts && ts <= c.to) {
            return claim(c, Found::Claim);
        }
        if let Some(span) = self.bound.filter(|_| self.handed) {
            return Found::Handed(span);
        }
        if let Some(submission) = self.submission {
            return Found::Work(submission);
        }
        if let Some(span) = self.bound.filter(|s| !requests.peek(s).is_some_and(|r| r.refuted)) {
            return Found::Bound(span);
        }
        match self.claims.iter().rev().find(|c| c.to < ts) {
            _ if self.unseen => Found::Unseen,
            Some(c) if c.next.is_some_and(|next| next <= ts) => match self.reader {
                None => Found::Next,
                Some(_) => Found::Nothing,
            },
            Some(c) => claim(c, Found::After),
            None => Found::Nothing,
        }
    }
}
