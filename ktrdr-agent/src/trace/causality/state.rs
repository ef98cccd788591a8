//! The state: processes, threads, requests and calls, each bounded.

use std::collections::{BTreeMap, VecDeque};

use foldhash::fast::FixedState;
use hashlink::LruCache;

use super::alone::Idle;
use super::delivery::Deliveries;
use super::given::{Given, Untold};
use super::greenlets::{Reading, Readings, Switches};
use super::partial::Sight;
use super::pool::{Items, Work};
use super::serving::{Served, Serving};
use super::standing::Standing;
use super::style::Style;
use super::tree::{NodeId, Tree};
use super::{CallRef, CausalityStats, Gap, Origin, SpanRef};
use crate::event::{ConnId, Ns, Task};

/// Hash maps that behave the same in every run.
pub(super) type Lru<K, V> = LruCache<K, V, FixedState>;

pub(super) fn lru<K: std::hash::Hash + Eq, V>(cap: usize) -> Lru<K, V> {
    LruCache::with_hasher(cap, FixedState::with_seed(0))
}

/// Processes followed at once. More than a host of KTRDR's size runs with sockets; the least recent is forgotten
/// and its next calls are unlinked.
const MAX_PROCESSES: usize = 4_096;
/// Threads followed at once, host-wide: as many as the kernel programs know (`limits::MAX_PY_THREADS`).
const MAX_THREADS: usize = 65_536;
/// Requests remembered, open or done: at 1,000 requests/s a task may go on for a minute after its response.
pub(super) const MAX_REQUESTS: usize = 65_536;
/// Connections of which the task is known that serves their requests: as many as are kept alive.
const MAX_SERVED: usize = 16_384;
/// Calls remembered: as long as requests, three calls each at the rates of KTRDR.
const MAX_CALLS: usize = 131_072;
/// How long a call may wait for evidence. Longer than any response KTRDR's clients wait for (30 s timeouts).
pub(super) const SETTLE_NS: Ns = 30_000_000_000;
/// Calls that may wait for the response of one request: a gather of more than this settles at the deadline.
pub(super) const MAX_WAITING: usize = 1_024;
/// Requests in flight in one process that are followed; beyond, the oldest is given up (its calls: by deadline).
pub(super) const MAX_IN_FLIGHT: usize = 8_192;
/// Lines of one process that may wait for evidence: a quarter of what may wait there, so that calls always have room. What
/// is known of a line's writer when it writes costs none of it.
pub(super) const MAX_LINES: usize = MAX_HORIZON / 4;
/// Calls of one process that may wait for the requests in flight with them; beyond, the oldest settles as it is.
pub(super) const MAX_HORIZON: usize = 16_384;
/// Open calls host-wide that wait for a deadline; beyond, the oldest settles as it is.
pub(super) const MAX_OPEN: usize = MAX_CALLS;
/// Creations followed from the request to the task that calls: thread in process in thread.
pub(super) const MAX_GUARDS: usize = 4;
/// Parents of first copies that are learnt per process: one per listening server, or one per connection.
pub(super) const MAX_STYLES: usize = 1_024;

/// Bounded state of all observed processes.
#[derive(Debug)]
pub struct Causality {
    pub(super) processes: Lru<u32, Process>,
    pub(super) threads: Lru<u32, Thread>,
    pub(super) requests: Lru<SpanRef, Request>,
    pub(super) calls: Lru<CallRef, Call>,
    pub(super) tree: Tree,
    pub(super) items: Items,
    pub(super) given: Given,
    pub(super) readings: Readings,
    pub(super) served: Lru<ConnId, Served>,
    pub(super) sight: Sight,
    /// Why contexts were given up last.
    pub(super) forgot: Gap,
    /// Open calls in the order of their deadlines.
    pub(super) deadlines: VecDeque<(Ns, CallRef)>,
    /// Since when all records were seen.
    pub(super) watched: Option<Ns>,
    /// When processes created since then were.
    pub(super) born: Lru<u32, Ns>,
    /// The latest time that was told.
    pub(super) clock: Ns,
    pub(super) next_call: u64,
    pub(super) next_epoch: u32,
    pub(super) stats: CausalityStats,
}

impl Default for Causality {
    fn default() -> Self {
        Self {
            processes: lru(MAX_PROCESSES),
            threads: lru(MAX_THREADS),
            requests: lru(MAX_REQUESTS),
            calls: lru(MAX_CALLS),
            tree: Tree::default(),
            items: Items::default(),
            given: Given::default(),
            readings: Readings::default(),
            served: lru(MAX_SERVED),
            sight: Sight::default(),
            forgot: Gap::RecordsLost,
            deadlines: VecDeque::new(),
            watched: None,
            born: lru(MAX_PROCESSES),
            clock: 0,
            next_call: 0,
            next_epoch: 0,
            stats: CausalityStats::default(),
        }
    }
}

/// One process, from exec (or first sight) to exit.
#[derive(Debug)]
pub(super) struct Process {
    /// Tells a reused process id, and contexts of the program before an exec.
    pub epoch: u32,
    /// Tells contexts before a loss of records from those after.
    pub contexts: u32,
    /// `Some(exact)` for a Python process.
    pub python: Option<bool>,
    /// Its threads may switch between greenlets, also where no context shows it.
    pub greenlets: bool,
    /// When all copies began to be seen.
    pub since: Ns,
    /// Requests read so far; the number of the next.
    pub reads: u64,
    /// Requests in flight by number.
    pub in_flight: BTreeMap<u64, SpanRef>,
    /// What it did while none was.
    pub idle: Idle,
    /// Connections that may hold others.
    pub standing: Standing,
    /// It listens, or reads requests.
    pub serves: bool,
    /// A response was written under another context than one that a copy gave to its request.
    pub strays: bool,
    /// Answers began sessions.
    pub sessions: bool,
    /// Requests in flight that the context tree has no place for yet.
    pub unplaced: usize,
    /// Task contexts that are no copies were seen: addresses of the tree may be stale, so that the tree alone
    /// proves nothing and a call waits for all requests in flight with it.
    pub mixed: bool,
    /// What its loop sends later is told of when it is written, so that responses do say under which context they were.
    pub gives: bool,
    /// When a response was sent last of which that was not told.
    pub sent: Option<Ns>,
    /// When a request was left last that was under way: what it does and says from then on is not seen.
    pub left: Option<Ns>,
    /// Responses that did not tell under which context they were.
    pub untold: Untold,
    /// Copies by the very context current at the read are proven to belong to the request (asyncio).
    pub direct: Style,
    /// The same for copies by another context, which the loop entered after the read (uvloop): by that context.
    pub via: Lru<NodeId, Style>,
    /// Tasks that serve their connections.
    pub serving: Serving,
    /// The newest context when the first request was read, where that was seen.
    pub first_read: Option<NodeId>,
    /// A request's response came from another thread than its read, so threads do not stand for requests.
    pub migrates: bool,
    /// It has one thread.
    pub single: bool,
    /// Requests answered by the thread that read them, with others in flight.
    pub stayed: u32,
    /// A thread of it served two requests at once: it has an event loop.
    pub loops: bool,
    /// Requests served from read to response by one thread while another thread served another.
    pub sync_proofs: u32,
    /// Lines it wrote that wait for evidence.
    pub lines: usize,
    /// Messages of sessions, and who takes them.
    pub deliveries: Option<Box<Deliveries>>,
    /// Open calls that wait until all requests in flight at their time are over, with the last of those.
    pub horizon: VecDeque<(u64, CallRef)>,
}

/// One thread.
#[derive(Debug, Default)]
pub(super) struct Thread {
    pub tgid: u32,
    pub pending: Option<Pending>,
    /// The request read last, until it is done.
    pub serving: Option<SpanRef>,
    /// A request was read while another of this thread was open: an event loop.
    pub is_loop: bool,
    /// Context current at request reads, if any (0 = none, or the thread's own).
    pub read_context: Option<u64>,
    /// Transfers happened under other contexts than that of the reads: tasks share this thread.
    pub many_contexts: bool,
    /// The context that a response was last written under on it, and whether there was another one, none of them its loop's.
    pub answered_under: Option<NodeId>,
    pub several_answer: bool,
    /// Created while its creator served a request.
    pub clone: Option<Clone>,
    /// It is of a pool, and took this last.
    pub work: Option<Work>,
    /// Whether greenlets share it.
    pub switches: Switches,
}

/// Evidence of creation.
#[derive(Clone, Debug)]
pub(super) struct Clone {
    /// Stands for the creation: its origin is that of a call made then.
    pub origin: CallRef,
    /// When.
    pub at: Ns,
    /// (process, epoch, requests read at creation): no more may have been read there since.
    pub guards: Vec<(u32, u32, u64)>,
}

/// A request read on a thread, as long as no other receive happened there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// `None`: one that nobody sees.
    pub span: Option<SpanRef>,
    /// Context current at the read.
    pub read: Option<NodeId>,
    /// That context was current at reads of this connection only.
    pub unshared: bool,
    /// Context of the first copy since.
    pub parent: Option<NodeId>,
    /// Another context copied after that, so the handler of the read has returned.
    pub closed: bool,
}

/// A request served.
#[derive(Debug)]
pub(super) struct Request {
    pub tgid: u32,
    pub epoch: u32,
    pub number: u64,
    pub tid: u32,
    pub conn: ConnId,
    /// When that was opened, if it was seen.
    pub opened: Option<Ns>,
    pub read: Ns,
    /// Context current at the read.
    pub node: Option<NodeId>,
    pub responded: Option<Ns>,
    pub done: bool,
    /// It goes on, but its connection is left out.
    pub left: bool,
    /// A context was bound to it by a copy (and how), or by its response.
    pub placed: bool,
    pub via: Option<Via>,
    /// The response came from a context the tree gives to it.
    pub confirmed: bool,
    /// The response came from elsewhere than the copies bound to it said.
    pub refuted: bool,
    /// The context of the response, where that seems to be a task's.
    pub answered_under: Option<NodeId>,
    /// The response was sent by a loop, which was seen to be given it.
    pub given: bool,
    /// What is known of the greenlet that serves it.
    pub reading: Reading,
    /// The response came from the thread that read it, which served nothing else meanwhile.
    pub one_thread: bool,
    /// Another request was open on its thread at some time.
    pub overlapped: bool,
    /// No other request was in flight in the process since the read.
    pub alone: bool,
    /// The session that it began.
    pub session: Option<u64>,
    pub waiting: Vec<CallRef>,
}

impl Request {
    /// A context may lead to it.
    pub fn under_contexts(&self) -> bool {
        self.node.is_some() || self.via.is_some() || self.answered_under.is_some()
    }
}

/// How a copy was bound to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// By the context current at the read.
    Direct,
    /// By another context.
    Other(NodeId),
}

/// A call.
#[derive(Debug)]
pub(super) enum Call {
    /// Apart, since most that are remembered are settled.
    Open(Box<OpenCall>),
    Settled(Option<Origin>, Option<Gap>),
}

/// What was known when an open call was made.
#[derive(Clone, Debug)]
pub(super) struct OpenCall {
    pub task: Task,
    pub epoch: u32,
    pub contexts: u32,
    pub ts: Ns,
    pub node: Option<NodeId>,
    /// The request its thread was serving.
    pub serving: Option<SpanRef>,
    /// The only request in flight, in a process that hardly calls by itself.
    pub single: Option<SpanRef>,
    /// No request was in flight.
    pub idle: bool,
    pub clone: Option<Clone>,
    /// Of the requests that were in flight, only such may be left that nobody saw come.
    pub behind: bool,
    /// What was asked about.
    pub about: About,
}

/// What an origin is asked for. Only calls are counted as such, and say that a process works by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Call,
    /// A task.
    Creation,
    /// Something written.
    Line,
}

impl Causality {
    pub(super) fn process(&mut self, tgid: u32) -> &mut Process {
        let Self { next_epoch: next, watched, born, processes, .. } = self;
        processes.entry(tgid).or_insert_with(|| {
            let watched = (*watched).max(born.peek(&tgid).copied());
            *next = next.wrapping_add(1);
            Process {
                epoch: *next,
                contexts: *next,
                python: None,
                greenlets: false,
                since: 0,
                reads: 0,
                in_flight: BTreeMap::new(),
                idle: Idle::watched(watched),
                standing: Standing::default(),
                serves: false,
                strays: false,
                sessions: false,
                unplaced: 0,
                mixed: false,
                gives: false,
                sent: None,
                left: None,
                untold: Untold::default(),
                direct: Style::default(),
                via: lru(MAX_STYLES),
                serving: Serving::default(),
                first_read: None,
                migrates: false,
                single: false,
                stayed: 0,
                loops: false,
                sync_proofs: 0,
                lines: 0,
                deliveries: None,
                horizon: VecDeque::new(),
            }
        })
    }

    /// A thread id that comes back in another process is another thread.
    pub(super) fn thread(&mut self, tgid: u32, tid: u32) -> &mut Thread {
        let t = self.threads.entry(tid).or_insert_with(|| Thread { tgid, ..Thread::default() });
        if t.tgid != tgid {
            *t = Thread { tgid, ..Thread::default() };
        }
        t
    }

    /// The process runs this program since `ts`.
    pub(super) fn created(&mut self, tgid: u32, ts: Ns) {
        // Whoever is forgotten must not seem to have been watched from before it was there.
        if self.born.len() == self.born.capacity()
            && let Some((_, forgotten)) = self.born.remove_lru()
        {
            self.watched = self.watched.max(Some(forgotten));
        }
        self.born.insert(tgid, ts);
    }

    pub(super) fn forget_process(&mut self, tgid: u32) {
        self.born.remove(&tgid);
        // Its open calls settle by deadline or when asked: their epoch is gone. Its threads are told apart by
        // the next creation of the same id.
        self.processes.remove(&tgid);
        if self.threads.peek(&tgid).is_some_and(|t| t.tgid == tgid) {
            self.threads.remove(&tgid);
        }
    }

    /// Gives all contexts of all processes up: those seen from here on are others.
    pub(super) fn forget_contexts(&mut self, ts: Ns, why: Gap) {
        self.forgot = why;
        let next = &mut self.next_epoch;
        // In the order of use, which is the same in every run.
        for (_, p) in self.processes.iter_mut() {
            *next = next.wrapping_add(1);
            p.contexts = *next;
            p.since = ts;
            p.idle.unseen();
        }
        for (_, t) in self.threads.iter_mut() {
            (t.pending, t.work, t.switches) = (None, None, Switches::default());
        }
    }

    /// A forked child runs the same interpreter, and accepts where its parent listens.
    pub(super) fn inherit(&mut self, parent: u32, child: u32) {
        let Some((python, greenlets, serves)) =
            self.processes.peek(&parent).map(|p| (p.python, p.greenlets, p.serves))
        else {
            return;
        };
        if python.is_some() || serves {
            let child = self.process(child);
            (child.python, child.greenlets, child.serves) = (python, greenlets, serves);
        }
    }
}
