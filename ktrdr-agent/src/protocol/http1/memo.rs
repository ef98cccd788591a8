//! Heads that were read before. Clients that poll, load tests and health checks send the same bytes again and again, and
//! what is made of them is the same each time: shared by all connections, because many live for one request only.
//!
//! A pure shortcut: with and without it the messages are the same (a test plays both).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::FixedState;
use hashlink::LruCache;
use memchr::memmem::Finder;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::attributes::PEER_PORT;
use super::body::{Asked, Framing};
use crate::protocol::{Request, Response, Role, Side};

/// Heads remembered, about 2 kB each with their attributes. KTRDR has a few hundred routes.
const MAX_HEADS: usize = 512;
/// Longest head remembered: KTRDR's have 143 to 278 bytes, browsers' 600.
const MAX_HEAD: usize = 1024;
/// Attributes that a span has besides those of its request, as a rule: what its response says, sizes, times, its place.
const ADDED: usize = 10;
/// To those of the response itself: the size of its body.
const ADDED_TO_ANSWER: usize = 1;
/// Places for the hashes of heads seen once, of which most (with a date, a trace context) never come again: only what
/// comes twice is worth remembering. A power of two.
const SEEN: usize = 1024;

/// All that the meaning of a head depends on besides its bytes; settings are the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub role: Role,
    pub server: SocketAddr,
    /// The peer's port is not: it is put in.
    pub peer: IpAddr,
}

/// What a request's head says.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    pub asked: Asked,
    pub framing: Framing,
    pub expects_continue: bool,
    pub request: Box<Request>,
}

/// What a response's head says.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub code: u16,
    /// Framing, should it answer neither `HEAD` nor `CONNECT`.
    pub framing: Framing,
    pub response: Box<Response>,
}

/// What a head says.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Asks(Asks),
    Answers(Answers),
}

struct Known {
    scope: Scope,
    head: Box<[u8]>,
    said: Said,
}

/// Heads by their hash; the bytes decide.
pub struct Memo {
    inner: Mutex<Inner>,
    end: Finder<'static>,
}

struct Inner {
    known: LruCache<u64, Known, FixedState>,
    seen: Box<[u64]>,
}

impl Default for Memo {
    fn default() -> Self {
        let known = LruCache::with_hasher(MAX_HEADS, FixedState::with_seed(0));
        Self { inner: Mutex::new(Inner { known, seen: vec![0; SEEN].into() }), end: Finder::new(b"\r\n\r\n") }
    }
}

impl Memo {
    /// Length of the head that `bytes` begin with, and what it says, if it was seen before in this scope.
    pub(super) fn get(&self, scope: &Scope, side: Side, bytes: &[u8]) -> Option<(usize, Said)> {
        let len = self.end.find(bytes.get(..bytes.len().min(MAX_HEAD))?)? + 4;
        let head = &bytes[..len];
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inner.known.get(&hash(scope, side, head))?;
        let same = known.scope == *scope && *known.head == *head && known.said.side() == side;
        same.then(|| (len, known.said.again()))
    }

    /// Remembers what a head says, if it comes again.
    pub(super) fn learn(&self, scope: &Scope, side: Side, head: &[u8], said: impl FnOnce() -> Said) {
        if head.len() > MAX_HEAD || !head.ends_with(b"\r\n\r\n") {
            return;
        }
        let hash = hash(scope, side, head);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let at = usize::try_from(hash).unwrap_or(usize::MAX) & (SEEN - 1);
        let Some(seen) = inner.seen.get_mut(at) else { return };
        if std::mem::replace(seen, hash) == hash {
            let mut said = said();
            said.share();
            inner.known.insert(hash, Known { scope: *scope, head: head.into(), said });
        }
    }
}

impl Said {
    /// A copy to be added to.
    fn again(&self) -> Self {
        match self {
            Said::Answers(a) => {
                let r = &a.response;
                let (status, attributes) = (r.status.clone(), r.attributes.with_room(ADDED_TO_ANSWER));
                let response = Response { key: r.key, attributes, status, want_body: r.want_body };
                Said::Answers(Answers { response: Box::new(response), ..*a })
            }
            Said::Asks(a) => {
                let r = &a.request;
                let request = Request {
                    key: r.key,
                    name: r.name.clone(),
                    attributes: r.attributes.with_room(ADDED),
                    connection: r.connection.clone(),
                    trace_context: r.trace_context,
                    one_way: r.one_way,
                    cancels: r.cancels,
                    want_body: r.want_body,
                    has_body: r.has_body,
                    gist: r.gist,
                };
                Said::Asks(Asks { request: Box::new(request), ..*a })
            }
        }
    }

    /// Has all copies hold the attributes in common.
    fn share(&mut self) {
        match self {
            Said::Asks(a) => a.request.attributes.share(PEER_PORT),
            Said::Answers(a) => a.response.attributes.share(""),
        }
    }

    fn side(&self) -> Side {
        match self {
            Said::Asks(_) => Side::Request,
            Said::Answers(_) => Side::Response,
        }
    }
}

/// Enough of the scope to keep the heads of services apart; the rest is compared.
fn hash(scope: &Scope, side: Side, head: &[u8]) -> u64 {
    let role = u64::from(scope.role == Role::Server) | u64::from(side == Side::Response) << 1;
    xxh3_64_with_seed(head, u64::from(scope.server.port()) << 2 | role)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::driver::{Driver, context};
    use crate::protocol::{ConnContext, Shared, http1::Http1};

    const EXCHANGES: &[(&str, &str)] = &[
        ("GET /a?token=1 HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        ),
        (
            "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n",
        ),
        ("DELETE /a HTTP/1.1\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        ("CONNECT db:5432 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 Connected\r\n\r\n"),
    ];

    fn play(context: &ConnContext) -> Driver {
        let mut driver = Driver::new(&Http1, context);
        for (request, response) in EXCHANGES {
            driver.feed(Side::Request, request.as_bytes());
            driver.feed(Side::Response, response.as_bytes());
        }
        driver
    }

    #[test]
    fn a_head_says_the_same_when_it_comes_again_and_on_another_connection() {
        for role in [Role::Client, Role::Server] {
            let shared = Arc::new(Shared::default());
            for port in 40_000..40_004 {
                let mut own = context(role);
                own.client.set_port(port);
                let with = ConnContext { shared: shared.clone(), ..own.clone() };
                own.shared = Arc::default();
                assert_eq!(play(&with).notes, play(&own).notes, "{role:?} {port}");
            }
            let known = shared.http1.inner.lock().unwrap().known.len();
            // All but the interim response; two have the same response.
            assert_eq!(known, 2 * EXCHANGES.len() - 1, "{role:?}");
        }
    }

    #[test]
    fn nothing_is_kept_of_what_comes_once_and_the_rest_is_bounded() {
        let shared = Arc::new(Shared::default());
        let context = ConnContext { shared: shared.clone(), ..context(Role::Server) };
        let ask = |n: usize| {
            Driver::new(&Http1, &context)
                .feed(Side::Request, format!("GET /{n} HTTP/1.1\r\n\r\n").as_bytes());
        };
        (0..MAX_HEADS / 4).for_each(ask);
        let known = || shared.http1.inner.lock().unwrap().known.len();
        assert_eq!(known(), 0);
        (0..2 * MAX_HEADS).for_each(|n| [n, n].into_iter().for_each(ask));
        assert_eq!(known(), MAX_HEADS);
    }
}
