//! In-process causality: which request was being served by the task or thread that made a call.
//!
//! Fed by the engine in stream order. Never guesses: a call without evidence has no origin, and evidence that
//! contradicts itself is counted and gives none. The rules, strongest first (details in the modules):
//!
//! 1. **Context tree** ([`tree`], [`python`]): a context copied while a request is pending on the thread belongs to
//!    that request, every other copy inherits. The response is written under the context of the task that
//!    served the request; it confirms (or refutes) what the tree said, and settles calls the tree knows nothing of.
//!    What a loop sends later was written by whoever gave it to the loop ([`given`]).
//! 2. **Pools** ([`pool`]): a thread of a Python pool works for whoever submitted what it took last.
//! 3. **Thread** ([`thread`]): request read, call made and response written on one thread that served nothing
//!    else meanwhile, in a runtime whose threads are known to serve requests one by one.
//! 4. **Clone**: the thread or process was created while its creator served exactly that request, and its creator
//!    has read no other request since (a pool's thread may work for the next one).
//! 5. **Single in flight** ([`alone`]): inferred, and only where nothing better can exist and the process was seen to
//!    make no such calls by itself.
//!
//! What of that counts while requests are in flight that nobody sees is in [`partial`].

mod alone;
mod delivery;
mod evidence;
mod given;
mod greenlets;
mod older;
mod partial;
mod pool;
mod python;
mod requests;
mod serving;
mod settle;
mod standing;
mod state;
mod style;
#[cfg(test)]
mod tests;
mod thread;
mod tree;
mod written;

use crate::event::{ConnId, Fork, Ns, PyCopy, Task};
use alone::Idle;
pub use delivery::Delivered;
pub use state::Causality;
use state::{Clone as Cloned, Pending};
pub use written::Written;

/// A span that the assembler knows (open or recently ended). Numbers grow and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanRef(pub u64);

/// A call whose origin was asked for. Numbers grow and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallRef(pub u64);

/// Where a request was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedOn {
    /// Its connection.
    pub conn: ConnId,
    /// When that was opened, if it was seen.
    pub opened: Option<Ns>,
}

/// How an edge was found; `ktrdr.link.method` on the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// `traceparent` on the wire.
    TraceContext,
    /// Both ends of one connection, by addresses and sequence position.
    Connection,
    /// A relay passed the same bytes on, at the same place of the connection it made for the one it accepted.
    Relay,
    /// The tree of copied Python contexts.
    PythonContext,
    /// The context of the greenlet that answered a connection's first request: whose it was before is learnt, not seen.
    PythonGreenlet,
    /// The thread served one request at a time.
    Thread,
    /// A pool's thread runs what was submitted for the request.
    PythonExecutor,
    /// The thread was created while serving the request.
    Clone,
    /// The same operation id in the call and in the answer to the request of its process that created it.
    OperationId,
    /// The same request id (`X-Request-ID`) in the call and in the only request in flight in its process that has it.
    RequestId,
    /// The request in flight in that process that the call repeats, as a reverse proxy does.
    SameRequest,
    /// The only one that names the symbol which the call names, among what that process has in hand.
    SameSymbol,
    /// The order in which a session's task took messages and created tasks for them.
    MessageOrder,
    /// The only request in flight in that process.
    SingleInFlight,
    /// The process is a command, or was started by one.
    Process,
}

impl Method {
    /// Value of `ktrdr.link.method`.
    pub const fn name(self) -> &'static str {
        match self {
            Method::TraceContext => "traceparent",
            Method::Connection => "connection",
            Method::Relay => "relay",
            Method::PythonContext => "python-context",
            Method::PythonGreenlet => "python-greenlet",
            Method::Thread => "thread",
            Method::PythonExecutor => "python-executor",
            Method::Clone => "clone",
            Method::OperationId => "operation-id",
            Method::RequestId => "request-id",
            Method::SameRequest => "same-request",
            Method::SameSymbol => "same-symbol",
            Method::MessageOrder => "message-order",
            Method::SingleInFlight => "single-in-flight",
            Method::Process => "process",
        }
    }

    /// Whether the evidence proves the edge; otherwise it is inferred and said so.
    pub const fn exact(self) -> bool {
        !matches!(
            self,
            Method::PythonGreenlet
                | Method::OperationId
                | Method::RequestId
                | Method::SameRequest
                | Method::SameSymbol
                | Method::MessageOrder
                | Method::SingleInFlight
        )
    }
}

/// The origin of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The request that was being served.
    pub span: SpanRef,
    /// How that is known.
    pub method: Method,
}

/// Why a call has no origin although a task's context was current; `ktrdr.link.missing` on the span. Not said where the
/// context is known to serve no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gap {
    /// Nobody saw where the context came from: it is older than our sight, or was made empty.
    ContextUnseen,
    /// Records were lost after the call: copies may be among them.
    RecordsLost,
    /// Another context may have taken its address unseen.
    ContextStale,
    /// Copies and responses say different things.
    Contradiction,
    /// What a copy said was not confirmed by a response in time.
    Unconfirmed,
    /// The request is no longer remembered.
    Forgotten,
    /// Some connections are left out: the request may be one that nobody sees, or evidence needs all of them.
    LeftOut,
    /// It may be the work of a request that was read before the agent came, and is under way.
    RequestUnseen,
}

impl Gap {
    /// Value of `ktrdr.link.missing`.
    pub const fn name(self) -> &'static str {
        match self {
            Gap::ContextUnseen => "context-unseen",
            Gap::RecordsLost => "records-lost",
            Gap::ContextStale => "context-stale",
            Gap::Contradiction => "contradiction",
            Gap::Unconfirmed => "unconfirmed",
            Gap::Forgotten => "forgotten",
            Gap::LeftOut => "left-out",
            Gap::RequestUnseen => "request-unseen",
        }
    }
}

/// What is known of a call's origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Evidence may still come (bounded in time): ask again.
    Open,
    /// Final.
    Settled(Option<Origin>),
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CausalityStats {
    /// Calls with an origin that is proven.
    pub exact: u64,
    /// Calls with an inferred origin.
    pub inferred: u64,
    /// Calls without one.
    pub unlinked: u64,
    /// Responses under a context that agreed with the tree.
    pub agreed: u64,
    /// Responses under a context that the tree gives to another open request: neither is believed.
    pub disagreed: u64,
    /// Calls settled by the deadline instead of by evidence.
    pub timed_out: u64,
    /// Calls forgotten before they were asked for, or settled early, because a bound was reached.
    pub evicted: u64,
}

/// So many requests that other ones were in flight with, and that were answered by the thread that read them, show that
/// requests do not move between threads. Where they do, under Go's scheduler, half of them stay by chance.
const STAYED: u32 = 16;

impl Causality {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The task received bytes on some TCP socket (before [`Self::request_read`], if they complete a request's head).
    pub fn received(&mut self, task: Task, conn: ConnId, ts: Ns) {
        self.expire(ts);
        self.received_on(task, conn, ts);
        self.thread(task.tgid, task.tid).pending = None;
    }

    /// A server read the head of a request; `span` is its SERVER span.
    pub fn request_read(&mut self, task: Task, asked: AskedOn, span: SpanRef, ts: Ns) {
        let node = self.node_of(task, ts);
        let unshared = node.is_some_and(|n| self.tree.read(n, asked.conn, ts));
        self.begin_request(task, node, asked, span, ts);
        let t = self.note_read_context(task);
        // A second head in the same bytes (pipelining): which of them a copy is made for is not known.
        t.pending = match t.pending {
            None => Some(Pending { span: Some(span), read: node, unshared, parent: None, closed: false }),
            Some(p) => Some(Pending { closed: true, ..p }),
        };
        self.greenlet_reads(task, asked.conn, span, ts);
    }

    /// The first bytes of the response to that request were written.
    pub fn response_written(&mut self, task: Task, span: SpanRef, ts: Ns) {
        let node = self.node_of(task, ts);
        self.note_context(task);
        self.note_answer(task, span);
        let tells = self.tells(task, span, node, ts);
        let node = node.filter(|_| tells);
        let ts = self.wrote(task, ts);
        self.respond(task, node, span, ts);
    }

    /// The first bytes of a response were written to a request that nobody saw come.
    pub fn unasked(&mut self, task: Task, ts: Ns) {
        let node = self.node_of(task, ts);
        self.answered_unasked(task, node, ts);
    }

    /// The call served is over (response complete, or broken off).
    pub fn request_done(&mut self, span: SpanRef, ts: Ns) {
        self.end_request(span, ts);
    }

    /// A client began a call (first byte of the request written, or connect).
    pub fn call(&mut self, task: Task, ts: Ns) -> CallRef {
        self.expire(ts);
        let node = self.node_of(task, ts);
        self.note_context(task);
        let ts = self.wrote(task, ts);
        self.open_call(task, node, ts)
    }

    /// What a program was started for: that of a call which it would have made first of all.
    pub fn program(&mut self, tgid: u32, ts: Ns) -> CallRef {
        self.expire(ts);
        let task = Task { tgid, tid: tgid, py_context: 0 };
        let node = self.working(tgid, tgid);
        self.open_call(task, node, ts)
    }

    /// The request whose head the task's thread received last: nothing else came in there since. Says nothing where
    /// requests move between threads (Go, tokio): whatever was read there, the thread may work for another by now. That
    /// they do not move has to be seen first, unless there is one thread only. Nor while connections are left out: of what
    /// came in there nobody is told.
    pub fn just_read(&self, task: Task, ts: Ns) -> Option<SpanRef> {
        if self.sight.void(ts) {
            return None;
        }
        let stays = |p: &&state::Process| !p.migrates && (p.single || p.stayed >= STAYED);
        self.processes.peek(&task.tgid).filter(stays)?;
        let thread = self.threads.peek(&task.tid).filter(|t| t.tgid == task.tgid)?;
        thread.pending.filter(|p| !p.closed).and_then(|p| p.span)
    }

    /// How many threads a process has, as was seen when it was looked at.
    pub fn threads(&mut self, tgid: u32, threads: u32) {
        if threads == 1 || self.processes.peek(&tgid).is_some() {
            self.process(tgid).single = threads == 1;
        }
    }

    /// Whether the contexts of the process's tasks are followed: what they do not tell is not for guessing.
    pub fn follows_contexts(&self, tgid: u32) -> bool {
        self.processes.peek(&tgid).is_some_and(|p| p.python == Some(true))
    }

    /// The origin of a call, as far as it is known at `now`.
    pub fn origin(&mut self, call: CallRef, now: Ns) -> Settlement {
        self.expire(now);
        self.ask(call)
    }

    /// Why a call that is settled has no origin, where its context should have told.
    pub fn gap(&self, call: CallRef) -> Option<Gap> {
        match self.calls.peek(&call) {
            Some(state::Call::Settled(None, gap)) => *gap,
            _ => None,
        }
    }

    /// The call has its place in a trace, so it will not be asked for again: what waits for evidence, and for those that
    /// wait in turn, needs the room.
    pub fn placed(&mut self, call: CallRef) {
        if matches!(self.calls.peek(&call), Some(state::Call::Settled(..))) {
            self.calls.remove(&call);
        }
    }

    /// A Python context was copied by this thread at `ts`, and that was told at `now`.
    pub fn py_copy(&mut self, tgid: u32, tid: u32, copy: PyCopy, ts: Ns, now: Ns) {
        self.copied(tgid, tid, copy, ts, now);
    }

    /// The task submitted this item of work to a pool of Python threads.
    pub fn py_submit(&mut self, task: Task, item: u64, ts: Ns) {
        self.submitted(task, item, ts);
    }

    /// The thread, which is of such a pool, took the item: until it takes the next one it works for whoever submitted it.
    pub fn py_take(&mut self, tgid: u32, tid: u32, item: u64, ts: Ns) {
        self.taken(tgid, tid, item, ts);
    }

    /// The task wrote something for a connection that its loop will send later, in transfers that bear this number. With
    /// `behind` there is something under it already.
    pub fn py_write(&mut self, task: Task, number: u64, behind: bool, ts: Ns) {
        self.gave(task, number, behind, ts);
    }

    /// A task was created by this task.
    pub fn fork(&mut self, task: Task, fork: Fork, ts: Ns) {
        let creator = Task { py_context: fork.py_context, ..task };
        let node = self.node_of(creator, ts);
        // The origin of the new task is found like that of a call made at its creation.
        let clone = self.clone_guards(task, ts).map(|guards| Cloned {
            origin: self.open_creation(creator, node, ts),
            at: ts,
            guards,
        });
        if !fork.thread {
            self.forget_process(fork.child_tgid);
            self.created(fork.child_tgid, ts);
            self.inherit(task.tgid, fork.child_tgid);
        }
        if let Some(p) = self.processes.get_mut(&task.tgid).filter(|_| fork.thread) {
            p.single = false;
        }
        self.threads.remove(&fork.child_tid);
        // Most tasks of a host are created outside any request: they leave no trace here.
        if clone.is_some() {
            self.thread(fork.child_tgid, fork.child_tid).clone = clone;
        }
    }

    /// The process executed a program: its threads and contexts are gone, the origin it was created with is not.
    pub fn exec(&mut self, tgid: u32, ts: Ns) {
        let clone = self.threads.remove(&tgid).filter(|t| t.tgid == tgid).and_then(|t| t.clone);
        self.forget_process(tgid);
        self.created(tgid, ts);
        if clone.is_some() {
            self.thread(tgid, tgid).clone = clone;
        }
    }

    /// A process ended.
    pub fn exit(&mut self, tgid: u32) {
        self.forget_process(tgid);
    }

    /// The shell said whether this process's contexts are followed, from `ts` on.
    pub fn python(&mut self, tgid: u32, exact: bool, ts: Ns) {
        let whole = self.sight.whole;
        let p = self.process(tgid);
        // What was copied before may not have been seen. A forked child is followed like its parent.
        if exact && p.python != Some(true) {
            p.since = ts;
            // Until now its tasks' own calls could not be told from calls without a context.
            p.idle = Idle::watched(p.in_flight.is_empty().then_some(ts.max(whole)));
        }
        p.python = Some(exact);
    }

    /// Records were lost, copies of contexts may be among them: what the tree says of any address may be stale.
    pub fn lost(&mut self, ts: Ns) {
        self.watched = Some(ts);
        self.forget_contexts(ts, Gap::RecordsLost);
    }

    /// Forgets what is out of bounds at `now`.
    pub fn expire(&mut self, now: Ns) {
        self.clock = self.clock.max(now);
        self.watched.get_or_insert(now);
        self.settle_overdue(now);
    }

    /// What was counted so far.
    pub fn stats(&self) -> CausalityStats {
        self.stats
    }
}
