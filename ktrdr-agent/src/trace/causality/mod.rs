//! In-process causality: which request was being served by the task or thread that made a call.
//!
//! Fed by the engine in stream order. Never guesses: a call without evidence has no origin.

use crate::event::{ConnId, Fork, Ns, PyCopy, Task};

/// A span that the assembler knows (open or recently ended). Numbers grow and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanRef(pub u64);

/// A call whose origin was asked for. Numbers grow and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallRef(pub u64);

/// How an edge was found; `ktrdr.link.method` on the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// `traceparent` on the wire.
    TraceContext,
    /// Both ends of one connection, by addresses and sequence position.
    Connection,
    /// The tree of copied Python contexts.
    PythonContext,
    /// The thread served one request at a time.
    Thread,
    /// The thread was created while serving the request.
    Clone,
    /// The only request in flight in that process.
    SingleInFlight,
}

impl Method {
    /// Value of `ktrdr.link.method`.
    pub const fn name(self) -> &'static str {
        match self {
            Method::TraceContext => "traceparent",
            Method::Connection => "connection",
            Method::PythonContext => "python-context",
            Method::Thread => "thread",
            Method::Clone => "clone",
            Method::SingleInFlight => "single-in-flight",
        }
    }

    /// Whether the evidence proves the edge; otherwise it is inferred and said so.
    pub const fn exact(self) -> bool {
        !matches!(self, Method::SingleInFlight)
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

/// What is known of a call's origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Evidence may still come (bounded in time): ask again.
    Open,
    /// Final.
    Settled(Option<Origin>),
}

/// Bounded state of all observed processes.
#[derive(Debug, Default)]
pub struct Causality {
    calls: u64,
}

impl Causality {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// The task received bytes on some TCP socket (before [`Self::request_read`], if they complete a request's head).
    pub fn received(&mut self, _task: Task, _conn: ConnId, _ts: Ns) {}
    /// A server read the head of a request; `span` is its SERVER span.
    pub fn request_read(&mut self, _task: Task, _conn: ConnId, _span: SpanRef, _ts: Ns) {}
    /// The first bytes of the response to that request were written.
    pub fn response_written(&mut self, _task: Task, _span: SpanRef, _ts: Ns) {}
    /// The call served is over (response complete, or broken off).
    pub fn request_done(&mut self, _span: SpanRef, _ts: Ns) {}
    /// A client began a call (first byte of the request written, or connect).
    pub fn call(&mut self, _task: Task, _ts: Ns) -> CallRef {
        self.calls += 1;
        CallRef(self.calls)
    }
    /// The origin of a call, as far as it is known at `now`.
    pub fn origin(&mut self, _call: CallRef, _now: Ns) -> Settlement {
        Settlement::Settled(None)
    }
    /// A Python context was copied by this thread.
    pub fn py_copy(&mut self, _tgid: u32, _tid: u32, _copy: PyCopy, _ts: Ns) {}
    /// A task was created by this task.
    pub fn fork(&mut self, _task: Task, _fork: Fork, _ts: Ns) {}
    /// The process executed a program: its threads and contexts are gone, the origin it was created with is not.
    pub fn exec(&mut self, _tgid: u32) {}
    /// A process ended.
    pub fn exit(&mut self, _tgid: u32) {}
    /// The shell said whether this process's contexts are followed.
    pub fn python(&mut self, _tgid: u32, _exact: bool) {}
    /// Forgets what is out of bounds at `now`.
    pub fn expire(&mut self, _now: Ns) {}
}
