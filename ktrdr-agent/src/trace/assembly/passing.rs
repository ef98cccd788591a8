//! Calls that repeat what a request said.
//!
//! **Request id**, inferred: the call carries the id (`X-Request-ID`) of exactly one request that its process has in flight.
//!
//! **Same request**, inferred: a reverse proxy serves many requests at once on one thread and has no contexts, but what it
//! sends says what it was asked: the same method, query and user agent, and the same path but for its first segment. Not
//! asked where tasks can be followed. The request is
//! 1. the one whose head the calling thread received last, with nothing received there until it connected or sent; or
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
}

impl Head {
    /// Of a connect that failed.
    pub fn connect(at: Moment) -> Self {
        Self { gist: None, connect: Some(at), begin: at }
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
    passed_on: bool,
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
    habits: Box<[u64]>,
}

impl Default for Passing {
    fn default() -> Self {
        let processes = LruCache::with_hasher(MAX_PROCESSES, foldhash::fast::FixedState::default());
        Self { processes, habits: vec![0; HABITS].into() }
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
        p.requests.push_back(Known { span, gist, passed_on: false });
    }

    /// A process makes a call: the request that it passes on, if it does.
    pub fn sent(&mut self, tgid: u32, head: &Head, nodes: &Nodes) -> Option<Origin> {
        let in_flight = |span: SpanRef, ts: Ns| {
            nodes.get(span).is_some_and(|n| n.start <= ts && n.end.is_none_or(|end| end >= ts))
        };
        let Some(gist) = head.gist else {
            let passes = self.processes.peek(&tgid).is_some_and(|p| p.passes);
            let connect = head.connect.filter(|_| passes)?;
            let after = connect.after.filter(|after| in_flight(*after, connect.ts));
            return after.map(same_request);
        };
        if gist.id.is_none() && gist.said.is_none() {
            return None;
        }
        let habit = habit(tgid, &gist);
        let place = &mut self.habits[habit as usize % HABITS];
        let Some(p) = self.processes.get_mut(&tgid) else {
            *place = habit;
            return None;
        };
        let named = p.requests.iter().filter(|k| k.gist.shares_id(&gist) && in_flight(k.span, head.begin.ts));
        if let Some(Some(span)) = single(named.map(|k| k.span)) {
            return Some(Origin { span, method: Method::RequestId });
        }
        let moments = || head.connect.into_iter().chain([head.begin]);
        let at = |known: &Known, ts| known.gist.repeats(&gist) && in_flight(known.span, ts);
        let mut just_read = moments().filter_map(|moment| {
            let read = |k: &Known| Some(k.span) == moment.after && at(k, moment.ts);
            p.requests.iter().rposition(read)
        });
        let after = just_read.next();
        p.passes |= after.is_some();
        let one = after.or_else(|| {
            let all = |ts| p.requests.iter().enumerate().filter(move |(_, k)| at(k, ts));
            let Some(ts) = moments().map(|m| m.ts).find(|ts| all(*ts).next().is_some()) else {
                // A proxy's request may have come before the agent did.
                if !p.passes {
                    *place = habit;
                }
                return None;
            };
            if !p.passes && *place == habit {
                return None;
            }
            let number = |(at, _)| at;
            let new = all(ts).filter(|(_, k)| !k.passed_on);
            single(new.map(number)).unwrap_or_else(|| single(all(ts).map(number)).flatten())
        })?;
        let known = p.requests.get_mut(one)?;
        known.passed_on = true;
        Some(same_request(known.span))
    }

    /// Records were lost: which requests are in flight is not known any more.
    pub fn lost(&mut self) {
        self.processes.iter_mut().for_each(|(_, p)| p.requests.clear());
    }
}

/// The only one: `None` if there are none at all, `Some(None)` if there are several.
fn single<T>(mut all: impl Iterator<Item = T>) -> Option<Option<T>> {
    let first = all.next()?;
    Some(all.next().is_none().then_some(first))
}

fn same_request(span: SpanRef) -> Origin {
    Origin { span, method: Method::SameRequest }
}

/// A call of a process, as one number; never 0.
fn habit(tgid: u32, gist: &Gist) -> u64 {
    (gist.said.unwrap_or_default() ^ gist.path.rotate_left(1) ^ u64::from(tgid)).max(1)
}
