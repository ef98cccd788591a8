//! The stream engine: transfers and state changes of sockets in, calls out. Knows no protocol and no trace.

pub mod conn;
pub mod half;
pub mod pairing;
pub mod sequence;

use std::collections::BTreeSet;

use hashlink::LruCache;

use crate::event::{ConnId, Data, Ns, State, Task, Tuple, tcp};
use crate::protocol::Role;
use crate::trace::causality::SpanRef;
use conn::{Conn, ConnSettings, Connected, Effects, Work};
use half::Reports;
use pairing::Paired;

/// Connections followed at once; the least recently used is given up and counted. 64 Ki sockets at about 600 bytes
/// each bound the table at 40 MB, and equal the kernel's policy table.
pub const MAX_CONNS: usize = ktrdr_ebpf_common::limits::MAX_POLICIES as usize;

/// Room kept for what one input leads to: a transfer begins and ends a message or two, only an ending connection more.
const MAX_SPARE: usize = 64;

/// Numbers for spans, which grow and are never reused.
#[derive(Debug, Default)]
pub struct Numbers(u64);

impl Numbers {
    /// The next one.
    pub fn take(&mut self) -> SpanRef {
        self.0 += 1;
        SpanRef(self.0)
    }
}

/// What the engine counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounts {
    /// Bytes seen of connections that are gone: parsed, skipped, lost.
    pub bytes: half::ByteCounts,
    /// Bytes that moved on followed connections.
    pub moved: u64,
    /// Connections given up because too many were open.
    pub conns_evicted: u64,
    /// Responses that belong to no known request.
    pub unpaired_responses: u64,
    /// Requests given up because too many were open on one connection.
    pub requests_given_up: u64,
}

/// All followed connections.
pub struct Engine {
    conns: LruCache<ConnId, Box<Conn>, foldhash::fast::FixedState>,
    /// Connections with transfers that wait for an earlier one.
    holding: BTreeSet<ConnId>,
    settings: ConnSettings,
    max_conns: usize,
    numbers: Numbers,
    /// Room for what the next input leads to: every record needs some.
    spare: Vec<Paired>,
    /// Likewise, while it is worked on.
    reports: Reports,
    /// Counters.
    pub counts: EngineCounts,
}

/// What an input did to one connection.
pub struct Outcome<'a> {
    /// The connection.
    pub conn: &'a mut Conn,
    /// What happened to it.
    pub effects: Effects,
}

impl Engine {
    /// An engine without connections that follows at most `max_conns` (1 to 64 Ki) at once.
    pub fn new(settings: ConnSettings, max_conns: usize) -> Self {
        let max_conns = max_conns.clamp(1, MAX_CONNS);
        Self {
            conns: LruCache::with_hasher(max_conns, foldhash::fast::FixedState::default()),
            holding: BTreeSet::new(),
            settings,
            max_conns,
            numbers: Numbers::default(),
            spare: Vec::new(),
            reports: Reports::new(),
            counts: EngineCounts::default(),
        }
    }

    /// A number for a span that is not a call of the engine's (a failed connect).
    pub fn next_span(&mut self) -> SpanRef {
        self.numbers.take()
    }

    /// Takes back the room of [`Effects::paired`].
    pub fn reuse(&mut self, mut paired: Vec<Paired>) {
        paired.clear();
        paired.shrink_to(MAX_SPARE);
        self.spare = paired;
    }

    /// Connections followed.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether none is followed.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// The connection, if it is followed.
    pub fn get(&self, id: ConnId) -> Option<&Conn> {
        self.conns.peek(&id).map(|c| &**c)
    }

    /// All connections, the least recently used first.
    pub fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.conns.iter().map(|(_, conn)| &**conn)
    }

    /// The connection, followed from now on if it was not. A second connection under the same identity (its closing
    /// was lost) replaces the first. `None` when the addresses are not known.
    fn conn(&mut self, id: ConnId, tuple: Option<Tuple>, now: Ns) -> Option<&mut Box<Conn>> {
        if let Some(t) = tuple {
            let other = self.conns.peek(&id).is_some_and(|c| c.tuple != t);
            if other || !self.conns.contains_key(&id) {
                if let Some(old) = self.conns.remove(&id) {
                    self.retire(&old);
                } else if self.conns.len() >= self.max_conns
                    && let Some((_, old)) = self.conns.remove_lru()
                {
                    self.counts.conns_evicted += 1;
                    self.retire(&old);
                }
                self.conns.insert(id, Box::new(Conn::new(id, t, now)));
            }
        }
        self.conns.get_mut(&id)
    }

    fn retire(&mut self, conn: &Conn) {
        for half in conn.bytes() {
            self.counts.bytes.parsed += half.parsed;
            self.counts.bytes.skipped += half.skipped;
            self.counts.bytes.lost += half.lost;
            self.counts.bytes.gaps += half.gaps;
        }
        self.counts.bytes.lost += conn.in_hand();
        self.counts.unpaired_responses += conn.pairing.unpaired_responses;
        self.counts.requests_given_up += conn.pairing.given_up;
        self.holding.remove(&conn.id);
    }

    /// A connection stands: it was connected or accepted. `connect`: when the SYN left, and what its thread had read then.
    pub fn established(&mut self, ts: Ns, s: &State, owner: u32, connect: Option<(Ns, Option<SpanRef>)>) {
        let role = if s.old == tcp::SYN_SENT { Role::Client } else { Role::Server };
        let Some(conn) = self.conn(s.conn, Some(s.tuple), ts) else { return };
        conn.opens(ts, role, s.write_seq, s.copied_seq);
        conn.owner = owner;
        conn.connected = connect.map(|(start, after)| Connected { start, end: ts, after });
    }

    /// A call took the news of the connection's opening.
    pub fn connect_told(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.peek_mut(&id) {
            conn.connected = None;
        }
    }

    /// A transfer. `role` is asked for connections older than the agent.
    pub fn data(
        &mut self,
        ts: Ns,
        task: Task,
        d: &Data<'_>,
        role: &dyn Fn(&Tuple) -> Option<Role>,
    ) -> Option<Outcome<'_>> {
        let id = d.conn;
        let (holding, served) = {
            let conn = self.conn(id, d.tuple, ts)?;
            let another = conn.owner != task.tgid;
            if another {
                conn.owner = task.tgid;
            }
            if conn.role.is_none() {
                conn.role = role(&conn.tuple);
            }
            (conn.waits(), another && conn.role == Some(Role::Server))
        };
        self.counts.moved += u64::from(d.len);
        let conn = self.conns.get_mut(&id)?;
        let mut work = work(&self.settings, &mut self.numbers, &mut self.reports, &mut self.spare);
        conn.data(ts, task, d, &mut work);
        let effects = Effects { served, ..done(work) };
        match (holding, conn.waits()) {
            (false, true) => {
                self.holding.insert(id);
            }
            (true, false) => {
                self.holding.remove(&id);
            }
            _ => {}
        }
        Some(Outcome { conn, effects })
    }

    /// A connection is over. Its last words are in the outcome, which the caller must [`Self::forget`] afterwards.
    pub fn closed(&mut self, ts: Ns, id: ConnId, why: &'static str) -> Option<Outcome<'_>> {
        let conn = self.conns.get_mut(&id)?;
        let mut work = work(&self.settings, &mut self.numbers, &mut self.reports, &mut self.spare);
        conn.closed(ts, why, &mut work);
        let effects = done(work);
        Some(Outcome { conn, effects })
    }

    /// Nobody looks at a connection any more, though it goes on. As for [`Self::closed`], the caller must [`Self::forget`] it.
    pub fn left(&mut self, ts: Ns, id: ConnId, why: &'static str) -> Option<Outcome<'_>> {
        let conn = self.conns.get_mut(&id)?;
        let mut work = work(&self.settings, &mut self.numbers, &mut self.reports, &mut self.spare);
        conn.left(ts, why, &mut work);
        let effects = done(work);
        Some(Outcome { conn, effects })
    }

    /// Drops a connection.
    pub fn forget(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.remove(&id) {
            self.retire(&conn);
        }
    }

    /// Connections that wait for a transfer, to be [`Self::expire`]d.
    pub fn waiting(&self) -> Vec<ConnId> {
        self.holding.iter().copied().collect()
    }

    /// Gives up on transfers that one connection has waited for too long.
    pub fn expire(&mut self, now: Ns, id: ConnId) -> Option<Outcome<'_>> {
        let Some(conn) = self.conns.get_mut(&id) else {
            self.holding.remove(&id);
            return None;
        };
        let mut work = work(&self.settings, &mut self.numbers, &mut self.reports, &mut self.spare);
        conn.expire(now, &mut work);
        let effects = done(work);
        if !conn.waits() {
            self.holding.remove(&id);
        }
        Some(Outcome { conn, effects })
    }

    /// All connections, oldest use first, for the end of the stream.
    pub fn ids(&self) -> Vec<ConnId> {
        self.conns.iter().map(|(id, _)| *id).collect()
    }
}

/// What a connection works with.
fn work<'a>(
    settings: &'a ConnSettings,
    numbers: &'a mut Numbers,
    reports: &'a mut Reports,
    spare: &mut Vec<Paired>,
) -> Work<'a> {
    let effects = Effects { paired: std::mem::take(spare), ..Effects::default() };
    Work { settings, numbers, reports, effects }
}

/// What came of the work.
fn done(work: Work<'_>) -> Effects {
    work.reports.shrink_to(MAX_SPARE);
    work.effects
}
