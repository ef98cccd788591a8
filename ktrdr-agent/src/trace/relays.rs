//! Processes that pass bytes on from one connection to another (docker-proxy, socat, TCP load balancers): which request
//! on the connection they made is which request on the one they accepted.
//!
//! The evidence is the two connections themselves. A relay changes nothing, so a request has the same bytes at the same
//! place of both streams; it connects after it accepted, and for each connection it accepted it makes one. Of two
//! requests that fit (the same health check on two new connections) none is believed; once one request has told which
//! two connections belong together, the others on them need no more than their place.
//!
//! A relay that reads and writes has spans of its own on both connections. One that splices (docker-proxy does) is not
//! seen to move anything; then the client's span and the server's, each at its own end, are joined across it.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use hashlink::LruCache;
use smallvec::SmallVec;

use super::causality::SpanRef;
use crate::event::{MS, Ns, Tuple};
use crate::protocol::Role;

type Lru<K, V> = LruCache<K, V, foldhash::fast::FixedState>;

/// Connections remembered, accepted and made: those of the hosts' relays, and all others that look the same until
/// their requests are seen. About 200 bytes each.
const MAX_CONNS: usize = 32 * 1024;
/// Requests that a relay may have passed on, host-wide: as long as half a second at 30,000 requests/s.
const MAX_REQUESTS: usize = 16 * 1024;
/// Requests of the same bytes at the same place that are told apart; with more, none is. A health check every second
/// on a new connection needs two.
const MAX_ALIKE: usize = 32;
/// How long a request on a connection that is closed is remembered: longer than the other end's span waits for its place.
const CLOSED_NS: Ns = 1_000 * MS;
/// Server's spans that wait for their place meanwhile.
const MAX_WAITING: usize = 4 * 1024;

/// A connection, the same from both its ends. Plain numbers: each request on a connection opened under our eyes is looked
/// up by these, and compared with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Addresses of client and server, those of IPv4 mapped.
    ips: [[u8; 16]; 2],
    /// Their ports.
    ports: [u16; 2],
    /// Network namespace, where each has the same addresses (loopback); else 0.
    netns: u32,
}

impl Hash for Ends {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [client, server] = self.ports.map(u64::from);
        self.ips.iter().for_each(|ip| state.write_u128(u128::from_ne_bytes(*ip)));
        state.write_u64(client << 48 | server << 32 | u64::from(self.netns));
    }
}

impl Ends {
    /// Of the socket that is this end.
    pub fn of(tuple: &Tuple, role: Role) -> Self {
        let (client, server) = match role {
            Role::Client => (tuple.local, tuple.remote),
            Role::Server => (tuple.remote, tuple.local),
        };
        Self::between(client, server, if server.ip().is_loopback() { tuple.netns } else { 0 })
    }

    fn between(client: SocketAddr, server: SocketAddr, netns: u32) -> Self {
        let ip = |a: SocketAddr| match a.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self { ips: [client, server].map(ip), ports: [client, server].map(|a| a.port()), netns }
    }
}

/// A request's place: where in its stream, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct At {
    /// Bytes of the stream before it.
    pub offset: u32,
    /// Hash of its head.
    pub digest: u64,
}

/// A request as one end of its connection sees it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its connection.
    pub ends: Ends,
    /// Its place.
    pub at: At,
    /// Its span.
    pub span: SpanRef,
    /// When.
    pub ts: Ns,
}

#[derive(Clone, Copy, Debug)]
struct Accepted {
    tgid: u32,
    at: Ns,
    closed: Option<Ns>,
    /// The connection that its bytes go on to.
    onward: Option<Ends>,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    tgid: u32,
    at: Ns,
    /// The connection that its bytes come from.
    from: Option<Ends>,
}

/// What is known of a connection. Both where both its ends are on this host.
#[derive(Debug, Default)]
struct Known {
    accepted: Option<Accepted>,
    made: Option<Made>,
}

/// Processes that accepted a connection: one of so many bits is set for each. Of those without theirs none did, so they are no
/// relays; the others may be.
#[derive(Debug, Default)]
struct Acceptors([u64; 16]);

impl Acceptors {
    fn place(tgid: u32) -> (usize, u64) {
        ((tgid / u64::BITS) as usize % 16, 1 << (tgid % u64::BITS))
    }

    fn note(&mut self, tgid: u32) {
        let (word, bit) = Self::place(tgid);
        self.0[word] |= bit;
    }

    fn may_have(&self, tgid: u32) -> bool {
        let (word, bit) = Self::place(tgid);
        self.0[word] & bit != 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Inbound {
    ends: Ends,
    /// The relay's own span, or else the client's.
    span: SpanRef,
    /// The process that read it, where it is the relay's own.
    own: Option<u32>,
}

/// All of them.
pub struct Relays {
    conns: Lru<Ends, Known>,
    acceptors: Acceptors,
    inbound: Lru<At, SmallVec<[Inbound; 1]>>,
    /// Requests that a process read, until they have their place.
    waiting: Lru<SpanRef, (Seen, Option<SpanRef>)>,
    /// Records were lost until then.
    lost: Ns,
    /// Some connections are left out.
    partial: bool,
    /// Some were until then.
    unseen: Ns,
}

impl Default for Relays {
    fn default() -> Self {
        let hasher = foldhash::fast::FixedState::default;
        Self {
            conns: Lru::with_hasher(MAX_CONNS, hasher()),
            acceptors: Acceptors::default(),
            inbound: Lru::with_hasher(MAX_REQUESTS, hasher()),
            waiting: Lru::with_hasher(MAX_WAITING, hasher()),
            lost: 0,
            partial: false,
            unseen: 0,
        }
    }
}

impl Relays {
    /// A connection was accepted by a listener of this process (0: of nobody known).
    pub fn accepted(&mut self, ends: Ends, tgid: u32, at: Ns) {
        self.acceptors.note(tgid);
        self.known(ends).accepted = Some(Accepted { tgid, at, closed: None, onward: None });
    }

    /// This process made a connection.
    pub fn made(&mut self, ends: Ends, tgid: u32, at: Ns) {
        self.known(ends).made = Some(Made { tgid, at, from: None });
    }

    fn known(&mut self, ends: Ends) -> &mut Known {
        self.conns.entry(ends).or_insert_with(Known::default)
    }

    /// The accepted end of a connection is closed.
    pub fn closed(&mut self, ends: Ends, ts: Ns) {
        if let Some(a) = self.conns.get_mut(&ends).and_then(|c| c.accepted.as_mut()) {
            a.closed.get_or_insert(ts);
        }
    }

    /// Records were lost: of requests alike one may be missing, which would make the other seem the only one.
    pub fn lost(&mut self, ts: Ns) {
        self.lost = ts;
    }

    /// Some connections are left out from now on; or none any more, from `whole` on. Of requests alike one may be on those, so
    /// only connections do belong together that are known to.
    pub fn partial(&mut self, partial: bool, whole: Option<Ns>) {
        self.partial = partial;
        self.unseen = whole.unwrap_or(self.unseen);
    }

    /// Whether a server's span without a client may come across a relay, but nothing could tell as long as connections are
    /// left out.
    pub fn may_be_across(&self, server: SpanRef) -> bool {
        self.partial && self.waiting.peek(&server).is_some()
    }

    /// The accepting end read a request. `tgid`: who did, which a forking listener alone does not tell.
    pub fn served(&mut self, seen: Seen, tgid: u32) {
        let Some(conn) = self.conns.get_mut(&seen.ends) else { return };
        if conn.made.is_some() {
            self.waiting.insert(seen.span, (seen, None));
        }
        let Some(a) = &mut conn.accepted else { return };
        a.tgid = tgid;
        self.acceptors.note(tgid);
        self.arrived(seen, Some(tgid));
    }

    /// The connecting end sent a request. Returns the one of the same process that it passes on.
    pub fn sent(&mut self, seen: Seen) -> Option<SpanRef> {
        let conn = self.conns.get(&seen.ends)?;
        let made = conn.made;
        if conn.accepted.is_some() {
            self.arrived(seen, None);
        }
        self.source(&seen, made?, true)
    }

    /// The client's span that a server's span without a client comes from, across a relay that is not seen to move
    /// anything. Asked when both are known, until the server's span has its place.
    pub fn across(&mut self, server: SpanRef) -> Option<SpanRef> {
        let (seen, known) = *self.waiting.peek(&server)?;
        let client = match known {
            Some(client) => client,
            None => {
                let made = self.conns.get(&seen.ends)?.made?;
                self.source(&seen, made, false)?
            }
        };
        self.waiting.insert(server, (seen, Some(client)));
        Some(client)
    }

    /// The server's span has its place.
    pub fn placed(&mut self, server: SpanRef) {
        self.waiting.remove(&server);
    }

    fn arrived(&mut self, seen: Seen, own: Option<u32>) {
        let Seen { ends, at, span, ts } = seen;
        let alike = self.inbound.entry(at).or_insert_with(SmallVec::new);
        // The newest first: the other end of the same request was mostly seen just before.
        match alike.iter_mut().rev().find(|i| i.ends == ends) {
            Some(known) if own.is_some() || known.own.is_none() => *known = Inbound { ends, span, own },
            Some(_) => {}
            None => {
                if alike.len() >= MAX_ALIKE {
                    // Looked for only now that the room is needed: connections in step with each other, as a load
                    // test's are, bring as many requests that are alike as there are of them.
                    let over = |a: &Accepted| a.closed.is_some_and(|c| c.saturating_add(CLOSED_NS) < ts);
                    let conns = &self.conns;
                    let open = |i: &mut Inbound| Some(!over(conns.peek(&i.ends)?.accepted.as_ref()?));
                    alike.retain(|i| open(i) == Some(true));
                }
                if alike.len() > MAX_ALIKE {
                    alike.remove(0);
                }
                alike.push(Inbound { ends, span, own });
            }
        }
    }

    /// The request that this one, on a connection that a relay `made`, is passed on from. `own`: the relay's own span
    /// of it is asked for, by its span of the other; otherwise the client's, by the server's.
    fn source(&mut self, seen: &Seen, made: Made, own: bool) -> Option<SpanRef> {
        if made.at <= self.lost || !self.acceptors.may_have(made.tgid) {
            return None;
        }
        let alike = self.inbound.get(&seen.at)?;
        // Most that are alike are another process's, which needs no look at its connection.
        let may = |i: &Inbound| if own { i.own == Some(made.tgid) } else { i.own.is_none() };
        let mut fitting = alike.iter().filter(|i| may(i)).filter(|i| {
            self.conns.peek(&i.ends).and_then(|c| c.accepted.as_ref()).is_some_and(|a| {
                let paired = made.from == Some(i.ends) && a.onward == Some(seen.ends);
                let unpaired = made.from.is_none() && a.onward.is_none();
                a.tgid == made.tgid
                    && a.tgid != 0
                    && self.lost < a.at
                    && a.at <= made.at
                    && a.closed.is_none_or(|closed| closed >= seen.ts)
                    && (paired || (unpaired && !self.partial && self.unseen < a.at))
            })
        });
        let one = *fitting.next()?;
        let full = alike.len() > MAX_ALIKE && made.from.is_none();
        if fitting.next().is_some() || full {
            return None;
        }
        if let Some(a) = self.conns.get_mut(&one.ends).and_then(|c| c.accepted.as_mut()) {
            a.onward = Some(seen.ends);
        }
        if let Some(m) = self.conns.get_mut(&seen.ends).and_then(|c| c.made.as_mut()) {
            m.from = Some(one.ends);
        }
        Some(one.span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: u16, server: u16) -> Ends {
        let addr = |port| ([127, 0, 0, 1], port).into();
        Ends::between(addr(client), addr(server), 1)
    }

    const RELAY: u32 = 7;

    fn source(r: &mut Relays, seen: &Seen, own: bool) -> Option<SpanRef> {
        let made = r.known(seen.ends).made?;
        r.source(seen, made, own)
    }

    fn seen(ends: Ends, offset: u32, digest: u64, span: u64, ts: Ns) -> Seen {
        Seen { ends, at: At { offset, digest }, span: SpanRef(span), ts }
    }

    /// Two connections through the relay: 1 → 80 goes on as 11 → 8080, 2 → 80 as 12 → 8080.
    fn two() -> Relays {
        let mut r = Relays::default();
        r.accepted(ends(1, 80), RELAY, 10);
        r.accepted(ends(2, 80), RELAY, 11);
        r.made(ends(11, 8080), RELAY, 20);
        r.made(ends(12, 8080), RELAY, 21);
        r
    }

    #[test]
    fn a_request_goes_on_with_the_same_bytes_at_the_same_place() {
        let mut r = two();
        r.served(seen(ends(1, 80), 0, 5, 1, 12), RELAY);
        r.served(seen(ends(2, 80), 0, 6, 2, 13), RELAY);
        assert_eq!(source(&mut r, &seen(ends(12, 8080), 0, 6, 4, 31), true), Some(SpanRef(2)));
        assert_eq!(source(&mut r, &seen(ends(11, 8080), 0, 5, 3, 30), true), Some(SpanRef(1)));
        assert_eq!(source(&mut r, &seen(ends(11, 8080), 1, 5, 5, 32), true), None, "another place");
    }

    #[test]
    fn of_two_alike_none_is_believed_until_another_request_told_the_connections_apart() {
        let mut r = two();
        r.served(seen(ends(1, 80), 0, 5, 1, 12), RELAY);
        r.served(seen(ends(2, 80), 0, 5, 2, 13), RELAY);
        assert_eq!(source(&mut r, &seen(ends(11, 8080), 0, 5, 3, 30), true), None);
        r.served(seen(ends(1, 80), 100, 9, 4, 40), RELAY);
        assert_eq!(source(&mut r, &seen(ends(11, 8080), 100, 9, 5, 41), true), Some(SpanRef(4)));
        r.served(seen(ends(1, 80), 200, 5, 6, 50), RELAY);
        r.served(seen(ends(2, 80), 200, 5, 7, 51), RELAY);
        assert_eq!(source(&mut r, &seen(ends(11, 8080), 200, 5, 8, 52), true), Some(SpanRef(6)));
        assert_eq!(
            source(&mut r, &seen(ends(12, 8080), 200, 5, 9, 53), true),
            Some(SpanRef(7)),
            "the other is left"
        );
    }

    #[test]
    fn a_relay_that_splices_is_crossed_from_the_clients_end_to_the_servers() {
        let mut r = two();
        assert_eq!(r.sent(seen(ends(1, 80), 0, 5, 1, 12)), None);
        assert_eq!(r.sent(seen(ends(3, 80), 0, 5, 2, 12)), None, "of no relay");
        r.served(seen(ends(11, 8080), 0, 5, 3, 30), 9);
        r.served(seen(ends(12, 8080), 0, 6, 4, 30), 9);
        assert_eq!(r.across(SpanRef(3)), Some(SpanRef(1)));
        assert_eq!(r.across(SpanRef(4)), None);
        r.closed(ends(1, 80), 40);
        assert_eq!(r.across(SpanRef(3)), Some(SpanRef(1)), "as before");
        r.placed(SpanRef(3));
        assert_eq!(r.across(SpanRef(3)), None);
    }

    #[test]
    fn a_health_check_on_a_new_connection_each_time_is_told_from_the_ones_before() {
        let mut r = Relays::default();
        for n in 0..100_u16 {
            let now = Ns::from(n) * 100 * MS;
            let (from, to) = (ends(1_000 + n, 80), ends(2_000 + n, 8080));
            r.accepted(from, RELAY, now + 1);
            r.made(to, RELAY, now + 2);
            r.served(seen(from, 0, 5, u64::from(n), now + 3), RELAY);
            assert_eq!(r.sent(seen(to, 0, 5, 999, now + 4)), Some(SpanRef(n.into())), "{n}");
            r.closed(from, now + 5);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_joined() {
        let (from, to) = (ends(1, 80), ends(11, 8080));
        let joined = |change: fn(&mut Relays)| {
            let mut r = Relays::default();
            r.accepted(from, RELAY, 10);
            r.made(to, RELAY, 20);
            change(&mut r);
            r.served(seen(from, 0, 5, 1, 12), RELAY);
            source(&mut r, &seen(to, 0, 5, 2, 30), true)
        };
        assert_eq!(joined(|_| {}), Some(SpanRef(1)));
        assert_eq!(joined(|r| r.made(ends(11, 8080), 8, 20)), None, "another process");
        assert_eq!(joined(|r| r.made(ends(11, 8080), RELAY, 9)), None, "connected before it accepted");
        assert_eq!(joined(|r| r.closed(ends(1, 80), 29)), None, "closed before");
        assert_eq!(joined(|r| r.lost(15)), None, "another one alike may have been lost");
        assert_eq!(joined(|r| r.lost(9)), Some(SpanRef(1)));
    }
}
