//! Calls that repeat what a request said.
//!
//! **Request id**, inferred: the call carries the id (`X-Request-ID`) of exactly one request that its process has in flight.
//!
//! **Same request**, inferred: a reverse proxy serves many requests at once on one thread and has no contexts, but what it
//! sends says what it was asked: the same method, query and user agent, and the same path but for its first segment. Not
//! asked where tasks can be followed. The request is
//! 1. the one whose head the calling thread received last, with nothing received there until it connected or sent, if that
//!    thread has done as much for all such requests that it had read before (it may read what came in on several connections,
//!    and then work); or
//! 2. the only such request in flight that was not passed on yet; or, where all were,
//! 3. the only such request in flight.
//!
//! A process that was never seen to do 1 and that made such a call while it had no such request does so by itself: a
//! poller's call proves nothing. A connect that fails says nothing; it is believed by 1 alone, and only of a process that
//! was seen to pass on requests.
//!
//! Both are asked only for calls without better evidence.

use std::collections::VecDeque;

use hashlink::LruCache;

use super::node::Nodes;
use crate::event::Ns;
use crate::protocol::Gist;
use crate::trace::causality::{Method, Origin, SpanRef};

/// Processes whose requests are remembered; the one without requests for longest is forgotten.
const MAX_PROCESSES: usize = 1024;
/// Requests remembered per process, 48 bytes each: a proxy passes a request on within microseconds of its head, so among
/// the last few, however many are in flight.
const MAX_REQUESTS: usize = 256;
/// Calls that processes were seen to make by themselves: places for their hashes, of which a newer one takes an older one's.
const HABITS: usize = 4096;

/// What of a new span tells who passes on what.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// What it says; `None` for a connect that failed.
    pub gist: Option<Gist>,
    /// For calls: the connect, if the connection was made for this one, or perhaps for another that was in flight then.
    pub connect: Option<Moment>,
    /// The first byte.
    pub begin: Moment,
    /// For requests: the thread that read it.
    pub thread: u32,
}

impl Head {
    /// Of a connect that failed.
    pub fn connect(at: Moment) -> Self {
        Self { gist: None, connect: Some(at), begin: at, thread: 0 }
    }
}

/// A moment at which a call may have begun.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When.
    pub ts: Ns,
    /// The request whose head the thread had received last.
    pub after: Option<SpanRef>,
}

struct Known {
    span: SpanRef,
    gist: Gist,
    thread: u32,
    /// A call was made that repeats it.
    passed_on: bool,
    /// The thread went on to connect right after it had read it.
    connected: bool,
}

#[derive(Default)]
struct Process {
    requests: VecDeque<Known>,
    /// It was seen to repeat a request right after it had read it.
    passes: bool,
}

/// The requests of all processes, as far as they may be passed on.
pub struct Passing {
    processes: LruCache<u32, Process, foldhash::fast::FixedState>,
    habits: Habits,
}

impl Default for Passing {
    fn default() -> Self {
        let processes = LruCache::with_hasher(MAX_PROCESSES, foldhash::fast::FixedState::default());
        Self { processes, habits: Habits(vec![0; HABITS].into()) }
    }
}

impl Passing {
    /// A process read a request.
    pub fn served(&mut self, tgid: u32, span: SpanRef, head: &Head) {
        let Some(gist) = head.gist.filter(|g| g.id.is_some() || g.said.is_some()) else { return };
        let p = self.processes.entry(tgid).or_insert_with(Process::default);
        if p.requests.len() >= MAX_REQUESTS {
            p.requests.pop_front();
        }
        let thread = head.thread;
        p.requests.push_back(Known { span, gist, thread, passed_on: false, connected: false });
    }

    /// A process makes a call: the request that it passes on, if it does.
    pub fn sent(&mut self, tgid: u32, head: &Head, nodes: &Nodes) -> Option<Origin> {
        let Some(gist) = head.gist else { return self.connected(tgid, head, nodes) };
        if gist.id.is_none() && gist.said.is_none() {
            return None;
        }
        let call = Call { head, gist, nodes };
        let Some(p) = self.processes.get_mut(&tgid) else {
            self.habits.note(tgid, &gist);
            return None;
        };
        if let Some(span) = p.named(&call) {
            return Some(Origin { span, method: Method::RequestId });
        }
        let one = if let Some(one) = p.just_read(&call) {
            p.passes = true;
            one
        } else {
            match p.moment(&call) {
                // By itself; unless it is a proxy, whose request may have come before the agent did.
                None => {
                    if !p.passes {
                        self.habits.note(tgid, &gist);
                    }
                    return None;
                }
                Some(_) if !p.passes && self.habits.has(tgid, &gist) => return None,
                Some(ts) => p.only(&call, ts)?,
            }
        };
        let known = p.requests.get_mut(one)?;
        known.passed_on = true;
        Some(same_request(known.span))
    }

    /// A thread of a process connects that has just read this request.
    pub fn connects(&mut self, tgid: u32, read: SpanRef) {
        let known =
            self.processes.get_mut(&tgid).and_then(|p| p.requests.iter_mut().rfind(|k| k.span == read));
        if let Some(known) = known {
            known.connected = true;
        }
    }

    /// A connect of a process failed.
    fn connected(&self, tgid: u32, head: &Head, nodes: &Nodes) -> Option<Origin> {
        let passes = self.processes.peek(&tgid).is_some_and(|p| p.passes);
        let connect = head.connect.filter(|_| passes)?;
        let after = connect.after.filter(|after| in_flight(nodes, *after, connect.ts))?;
        Some(same_request(after))
    }

    /// The process ended, or became another program: under its number will be one that may pass on nothing.
    pub fn ended(&mut self, tgid: u32) {
        self.processes.remove(&tgid);
    }

    /// Records were lost: which requests are in flight is not known any more.
    pub fn lost(&mut self) {
        self.processes.iter_mut().for_each(|(_, p)| p.requests.clear());
    }
}

/// A call that may repeat a request.
struct Call<'a> {
    head: &'a Head,
    gist: Gist,
    nodes: &'a Nodes,
}

impl Call<'_> {
    /// When it may have begun, the earlier first.
    fn moments(&self) -> impl Iterator<Item = Moment> + use<> {
        self.head.connect.into_iter().chain([self.head.begin])
    }

    /// Whether it says the same as a request that was in flight then.
    fn repeats(&self, known: &Known, ts: Ns) -> bool {
        known.gist.repeats(&self.gist) && in_flight(self.nodes, known.span, ts)
    }
}

/// Places in [`Process::requests`].
impl Process {
    /// The only request in flight with the id that the call carries.
    fn named(&self, call: &Call<'_>) -> Option<SpanRef> {
        let ts = call.head.begin.ts;
        let named = self
            .requests
            .iter()
            .filter(|k| k.gist.shares_id(&call.gist) && in_flight(call.nodes, k.span, ts));
        single(named.map(|k| k.span)).flatten()
    }

    /// The request that the calling thread had read last.
    fn just_read(&self, call: &Call<'_>) -> Option<usize> {
        call.moments().find_map(|moment| {
            let read = |k: &Known| Some(k.span) == moment.after && call.repeats(k, moment.ts);
            let at = self.requests.iter().rposition(read)?;
            let read = &self.requests[at];
            let waits = |k: &Known| {
                let untouched =
                    !k.passed_on && !k.connected && k.thread == read.thread && k.span != read.span;
                untouched && call.repeats(k, moment.ts)
            };
            (!self.requests.iter().any(waits)).then_some(at)
        })
    }

    /// The first moment at which there was such a request.
    fn moment(&self, call: &Call<'_>) -> Option<Ns> {
        let mut moments = call.moments().map(|m| m.ts);
        moments.find(|ts| self.requests.iter().any(|k| call.repeats(k, *ts)))
    }

    /// The only such request that was not passed on yet; or the only one.
    fn only(&self, call: &Call<'_>, ts: Ns) -> Option<usize> {
        let all = || self.requests.iter().enumerate().filter(|(_, k)| call.repeats(k, ts));
        let new = all().filter(|(_, k)| !k.passed_on);
        let number = |(at, _)| at;
        single(new.map(number)).unwrap_or_else(|| single(all().map(number)).flatten())
    }
}

/// Calls that processes were seen to make by themselves, by hash; never 0.
struct Habits(Box<[u64]>);

impl Habits {
    fn of(tgid: u32, gist: &Gist) -> u64 {
        (gist.said.unwrap_or_default() ^ gist.path.rotate_left(1) ^ u64::from(tgid)).max(1)
    }

    fn note(&mut self, tgid: u32, gist: &Gist) {
        let habit = Self::of(tgid, gist);
        self.0[habit as usize % HABITS] = habit;
    }

    fn has(&self, tgid: u32, gist: &Gist) -> bool {
        let habit = Self::of(tgid, gist);
        self.0[habit as usize % HABITS] == habit
    }
}

fn in_flight(nodes: &Nodes, span: SpanRef, ts: Ns) -> bool {
    nodes.get(span).is_some_and(|n| n.start <= ts && n.end.is_none_or(|end| end >= ts))
}

/// The only one: `None` if there are none at all, `Some(None)` if there are several.
fn single<T>(mut all: impl Iterator<Item = T>) -> Option<Option<T>> {
    let first = all.next()?;
    Some(all.next().is_none().then_some(first))
}

fn same_request(span: SpanRef) -> Origin {
    Origin { span, method: Method::SameRequest }
}
