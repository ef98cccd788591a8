//! JSON-RPC on pipes: processes that are asked on standard input and answer on standard output (MCP's stdio transport),
//! and who asks them.
//!
//! ```text
//!  client ── writes a line (a watched pipe) ──►  server reads it (standard input)   ─► SERVER span begins
//!            └─ parked until the server is known ─┘ same bytes, same pipe or child      CLIENT span begins
//!                                                server writes the answer (stdout)   ─► both end
//! ```
//!
//! What the client reads is not looked at: an answer in a pipe is its reader's the moment it is written. A filter in
//! between (`tee log | server`) looks like a server until it writes what it read: see [`relays`].

pub mod lines;
mod relays;

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashlink::LruCache;
use xxhash_rust::xxh3::xxh3_64;

use crate::event::{ConnId, FileId, FileKind, MS, Ns, Task, Write};
use crate::protocol::jsonrpc::describe::Asked;
use crate::trace::causality::{CallRef, SpanRef};
use crate::trace::ids::ExchangeId;
use lines::{Line, Lines};
use relays::{Input, Relays};

/// Servers and clients' pipes remembered; a host of KTRDR's size has a handful.
const MAX_SERVERS: usize = 1024;
/// Requests open on one server, the oldest is given up and counted: clients of language models have one to ten.
const MAX_OPEN: usize = 256;
/// Requests that wait for the other end to show itself, and for how long: the two records are microseconds apart.
const MAX_PARKED: usize = 256;
const PARK_NS: Ns = 200 * MS;
/// Lines and spans remembered of a process that has answered nothing so far, as it may be a filter. One that does not write
/// line by line reads 64 KiB first, which are 500 short messages.
const MAX_UNPROVEN: usize = 1024;
/// Lines that are no JSON-RPC after which a process is taken for something else.
const MAX_STRIKES: u32 = 3;

/// A request under way.
#[derive(Debug)]
pub struct Open {
    /// Tells its answer; `None`: a notification.
    pub key: Option<u64>,
    /// What is asked.
    pub asked: Asked,
    /// Its identity.
    pub exchange: ExchangeId,
    /// Its SERVER span: number, who read it, when.
    pub server: (SpanRef, Task, Ns),
    /// Its CLIENT span, once the client's end is known: number, and who wrote it.
    pub client: Option<(SpanRef, Parked)>,
    /// Hash of its line.
    hash: u64,
}

/// A request that a client wrote, before its server read it.
#[derive(Clone, Copy, Debug)]
pub struct Parked {
    /// Who wrote it.
    pub task: Task,
    /// When.
    pub ts: Ns,
    /// Whose work it is.
    pub call: CallRef,
    /// To what.
    pub file: FileId,
    /// Hash of its line.
    pub hash: u64,
}

/// What a process read before it answered anything. If it writes one of these lines, it passes them on.
#[derive(Debug, Default)]
struct Unproven {
    heard: VecDeque<u64>,
    spans: VecDeque<SpanRef>,
}

#[derive(Debug, Default)]
struct Server {
    input: Lines,
    output: Lines,
    /// What it reads.
    from: Input,
    open: VecDeque<Open>,
    strikes: u32,
    spoke: bool,
    /// Until it answers.
    unproven: Option<Box<Unproven>>,
    /// Who writes to it, once known.
    client: Option<(u32, FileId)>,
}

/// What was begun for a process that turns out to pass on what it reads.
#[derive(Debug, Default)]
pub struct Dismissed {
    /// Its spans, those of its clients' ends among them.
    pub spans: Vec<SpanRef>,
    /// What clients wrote, for whoever reads it behind the filter.
    pub written: Vec<Parked>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StdioCounts {
    /// Bytes of captured reads.
    pub bytes: u64,
    /// Requests and notifications that servers read.
    pub requests: u64,
    /// Of them, those whose client was seen writing them.
    pub joined: u64,
    /// Answers to requests that were not seen, or were given up.
    pub unpaired: u64,
    /// Requests given up because too many were open.
    pub given_up: u64,
    /// Processes that pass on what they read, and are asked nothing.
    pub relays: u64,
}

/// All conversations.
pub struct Stdio {
    servers: LruCache<u32, Server, FixedState>,
    clients: LruCache<(u32, FileId), Lines, FixedState>,
    parked: VecDeque<Parked>,
    relays: Relays,
    /// Counters.
    pub counts: StdioCounts,
}

/// The conversation of a process, where a connection is asked for. Cookies of sockets are small numbers, addresses of
/// sockets have all upper bits set.
pub fn conn(tgid: u32) -> ConnId {
    ConnId(1 << 63 | u64::from(tgid))
}

/// What tells a line from others.
pub fn hash(line: &[u8]) -> u64 {
    xxh3_64(line)
}

impl Stdio {
    /// None known.
    pub fn new() -> Self {
        let state = || FixedState::with_seed(0);
        Self {
            servers: LruCache::with_hasher(MAX_SERVERS, state()),
            clients: LruCache::with_hasher(MAX_SERVERS, state()),
            parked: VecDeque::new(),
            relays: Relays::default(),
            counts: StdioCounts::default(),
        }
    }

    /// Whether a process is asked on standard input.
    pub fn serves(&self, tgid: u32) -> bool {
        self.servers.peek(&tgid).is_some_and(|s| s.spoke)
    }

    /// Whether a process passes on what it reads there.
    pub fn passes_on(&self, tgid: u32) -> bool {
        self.relays.is(tgid)
    }

    /// A process read from standard input. Whether it is new here.
    pub fn read(&mut self, tgid: u32, w: &Write<'_>, each: &mut dyn FnMut(Line<'_>)) -> bool {
        let new = !self.servers.contains_key(&tgid);
        let unproven = || Server { unproven: Some(Box::default()), ..Server::default() };
        let server = self.servers.entry(tgid).or_insert_with(unproven);
        server.from = Input { file: w.id, pipe: w.kind == FileKind::Pipe };
        server.input.take(w, each);
        new
    }

    /// A process that [`serves`](Self::serves) wrote to standard output.
    pub fn wrote(&mut self, tgid: u32, w: &Write<'_>, each: &mut dyn FnMut(Line<'_>)) {
        if let Some(server) = self.servers.get_mut(&tgid) {
            server.output.take(w, each);
        }
    }

    /// A process wrote to a pipe or Unix socket that is watched for this.
    pub fn asked(&mut self, tgid: u32, w: &Write<'_>, each: &mut dyn FnMut(Line<'_>)) {
        self.clients.entry((tgid, w.id)).or_insert_with(Lines::default).take(w, each);
    }

    /// A process read a line that is, or is not, JSON-RPC. Whether the process is something else, as it turns out.
    pub fn spoke(&mut self, tgid: u32, line: u64, understood: bool) -> bool {
        let Some(server) = self.servers.get_mut(&tgid) else { return false };
        if let Some(unproven) = &mut server.unproven {
            keep(&mut unproven.heard, line);
        }
        server.spoke |= understood;
        server.strikes = if understood { 0 } else { server.strikes + 1 };
        let other = server.strikes >= MAX_STRIKES;
        if other && server.open.is_empty() {
            self.servers.remove(&tgid);
            return true;
        }
        false
    }

    /// A process wrote a line to `output`, its standard output. What was begun for it if that shows that it is a filter: it
    /// has answered nothing so far, and read that very line.
    pub fn repeated(&mut self, tgid: u32, line: u64, output: FileId) -> Option<Dismissed> {
        let unproven = self.servers.get(&tgid)?.unproven.as_ref()?;
        if !unproven.heard.contains(&line) {
            return None;
        }
        let server = self.servers.remove(&tgid)?;
        self.counts.relays += 1;
        self.relays.found(tgid, server.from, output);
        let spans = server.unproven.map(|u| u.spans.into()).unwrap_or_default();
        let written = server.open.into_iter().filter_map(|open| Some(open.client?.1)).collect();
        Some(Dismissed { spans, written })
    }

    /// A server read a request. Returns one that is given up for it.
    pub fn open(
        &mut self,
        tgid: u32,
        key: Option<u64>,
        line: u64,
        asked: Asked,
        exchange: ExchangeId,
        server: (SpanRef, Task, Ns),
    ) -> Option<Open> {
        self.counts.requests += 1;
        let s = self.servers.get_mut(&tgid)?;
        if let Some(unproven) = &mut s.unproven {
            keep(&mut unproven.spans, server.0);
        }
        s.open.push_back(Open { key, asked, exchange, server, client: None, hash: line });
        if s.open.len() <= MAX_OPEN {
            return None;
        }
        self.counts.given_up += 1;
        s.open.pop_front()
    }

    /// Whether this client is, or may be, the one at the other end of the server's pipe.
    fn is_client(relays: &Relays, server: &Server, tgid: u32, file: FileId, ancestors: &[u32]) -> bool {
        let source = relays.source(server.from);
        match server.client {
            Some(client) => client == (tgid, file),
            None if source.pipe => file == source.file,
            // The two ends of a pair of sockets are two files: who started the program has the other.
            None => ancestors.contains(&tgid),
        }
    }

    /// What the client of `tgid` wrote and the server has just read. `ancestors`: the server's.
    pub fn client_of(&mut self, tgid: u32, line: u64, now: Ns, ancestors: &[u32]) -> Option<Parked> {
        while self.parked.front().is_some_and(|p| p.ts.saturating_add(PARK_NS) < now) {
            self.parked.pop_front();
        }
        let server = self.servers.get_mut(&tgid)?;
        let relays = &self.relays;
        let is_client = |p: &Parked| Self::is_client(relays, server, p.task.tgid, p.file, ancestors);
        let fits = |p: &Parked| p.hash == line && is_client(p);
        let at = self.parked.iter().position(fits)?;
        let parked = self.parked.remove(at)?;
        server.client = Some((parked.task.tgid, parked.file));
        Some(parked)
    }

    /// The server that read this line already, if there is one: two processors' records may come in either order.
    pub fn server_of(
        &mut self,
        written: &Parked,
        now: Ns,
        ancestors: &dyn Fn(u32) -> Vec<u32>,
    ) -> Option<&mut Open> {
        let waits = |o: &Open| {
            o.client.is_none() && o.hash == written.hash && now.saturating_sub(o.server.2) < PARK_NS
        };
        let (client, file) = (written.task.tgid, written.file);
        let tgid = self.servers.iter().find_map(|(tgid, s)| {
            let fits = Self::is_client(&self.relays, s, client, file, &ancestors(*tgid));
            (fits && s.open.iter().any(waits)).then_some(*tgid)
        })?;
        let server = self.servers.get_mut(&tgid)?;
        server.client = Some((client, file));
        server.open.iter_mut().find(|o| waits(o))
    }

    /// The client of this request is known.
    pub fn joined(&mut self, tgid: u32, exchange: ExchangeId, client: (SpanRef, Parked)) {
        self.counts.joined += 1;
        let Some(server) = self.servers.get_mut(&tgid) else { return };
        if let Some(unproven) = &mut server.unproven {
            keep(&mut unproven.spans, client.0);
        }
        if let Some(open) = server.open.iter_mut().find(|o| o.exchange == exchange) {
            open.client = Some(client);
        }
    }

    /// A client wrote a request that no server has read yet.
    pub fn park(&mut self, written: Parked) {
        self.parked.push_back(written);
        if self.parked.len() > MAX_PARKED {
            self.parked.pop_front();
        }
    }

    /// A process wrote an answer. The request that it answers, which makes the process a server for good.
    pub fn answered(&mut self, tgid: u32, key: u64) -> Option<Open> {
        let open = self.close(tgid, key)?;
        if let Some(server) = self.servers.get_mut(&tgid) {
            server.unproven = None;
        }
        Some(open)
    }

    /// The request that is over: answered or cancelled.
    pub fn close(&mut self, tgid: u32, key: u64) -> Option<Open> {
        let found = self.servers.get_mut(&tgid).and_then(|s| {
            let at = s.open.iter().position(|o| o.key == Some(key))?;
            s.open.remove(at)
        });
        self.counts.unpaired += u64::from(found.is_none());
        found
    }

    /// The notifications read so far: nothing answers them.
    pub fn notified(&mut self, tgid: u32) -> Option<Open> {
        let s = self.servers.get_mut(&tgid)?;
        let at = s.open.iter().position(|o| o.key.is_none())?;
        s.open.remove(at)
    }

    /// A process became another program, which may do something else with what it reads.
    pub fn executed(&mut self, tgid: u32) {
        self.relays.forget(tgid);
    }

    /// A process ended; what it had open ends with it.
    pub fn ended(&mut self, tgid: u32) -> Vec<Open> {
        self.relays.forget(tgid);
        self.servers.remove(&tgid).map(|s| s.open.into()).unwrap_or_default()
    }

    /// All servers.
    pub fn all(&self) -> Vec<u32> {
        self.servers.iter().map(|(tgid, _)| *tgid).collect()
    }
}

/// Adds to what is remembered of a process that is not known to be a server.
fn keep<T>(all: &mut VecDeque<T>, new: T) {
    if all.len() >= MAX_UNPROVEN {
        all.pop_front();
    }
    all.push_back(new);
}

impl Default for Stdio {
    fn default() -> Self {
        Self::new()
    }
}
