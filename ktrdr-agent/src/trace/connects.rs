//! Connects: the ones under way, the ones that failed, and which failure is a failure of the call.
//!
//! Clients try the addresses of a name one after the other (RFC 8305): `[::1]` refused and `127.0.0.1` fine is no
//! error of the call, and both refused is one failure. A failure therefore waits a moment for another address.

use std::net::SocketAddr;

use hashlink::LruCache;

use super::causality::{CallRef, SpanRef};
use crate::event::{ConnId, MS, Ns, Task};

/// Connects under way, and recent failures per [`Whose`]: a process that opens more at once, or fails to
/// more targets within a minute, loses retry numbers, not spans.
const MAX_PENDING: usize = 16 * 1024;
/// RFC 8305 §5: the next address is tried at the latest after 250 ms ("Connection Attempt Delay"). IPv6 is tried
/// first, as a rule, so its failure is the one that waits this long.
pub const FALLBACK_NS: Ns = 300 * MS;
/// After a failure on an IPv4 address the next one follows at once or not at all.
const NEXT_NS: Ns = 40 * MS;
/// A retry follows its failure within a minute or is a new attempt; KTRDR retries within seconds.
const RETRY_NS: Ns = 60_000 * MS;
/// A client that closes a connecting socket earlier than this took another way (a race of addresses, a cancelled
/// task); later, it gave up waiting. httpx gives up after 5 s by default, KTRDR after 30 s.
const GAVE_UP_NS: Ns = 900 * MS;

/// A connect under way.
#[derive(Clone, Copy, Debug)]
pub struct Connecting {
    /// Who connects.
    pub task: Task,
    /// Its origin.
    pub call: CallRef,
    /// The request whose head its thread had received last.
    pub after: Option<SpanRef>,
    /// When the SYN left.
    pub start: Ns,
    /// Where to.
    pub remote: SocketAddr,
    /// Network namespace.
    pub netns: u32,
}

/// Why a connect failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The kernel said so.
    Errno(u16),
    /// The client closed the socket before there was an answer.
    GaveUp,
}

/// A failed connect.
#[derive(Clone, Debug)]
pub struct Failed {
    /// How it was going.
    pub connect: Connecting,
    /// When it failed.
    pub end: Ns,
    /// Why.
    pub failure: Failure,
    /// 1 for the first attempt of this work at this target, 2 for the first retry, …
    pub attempt: u32,
    /// Other addresses tried before for the same call.
    pub earlier: Vec<(Ns, SocketAddr, Failure)>,
}

/// Whose attempts at a target are those of one call: of its process, of the task, and since the same request. One that fails for another
/// request, or in another task, is no retry. Of a task that goes on while its thread reads other requests fewer may be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Whose {
    tgid: u32,
    context: u64,
    after: Option<SpanRef>,
    remote: SocketAddr,
}

impl Whose {
    fn of(c: &Connecting) -> Self {
        Self { tgid: c.task.tgid, context: c.task.py_context, after: c.after, remote: c.remote }
    }
}

/// State of all connects.
pub struct Connects {
    pending: LruCache<ConnId, Connecting, foldhash::fast::FixedState>,
    attempts: LruCache<Whose, (u32, Ns), foldhash::fast::FixedState>,
    held: Vec<(Ns, Failed)>,
    /// How long the failure of a first address waits, see [`FALLBACK_NS`].
    fallback: Ns,
    /// Failures that another address made good.
    pub recovered: u64,
    /// Connecting sockets that were closed early.
    pub abandoned: u64,
}

impl Default for Connects {
    fn default() -> Self {
        Self {
            pending: LruCache::with_hasher(MAX_PENDING, foldhash::fast::FixedState::default()),
            attempts: LruCache::with_hasher(MAX_PENDING, foldhash::fast::FixedState::default()),
            held: Vec::new(),
            fallback: FALLBACK_NS,
            recovered: 0,
            abandoned: 0,
        }
    }
}

impl Connects {
    /// As the default, with another wait for the next address.
    pub fn with_fallback(fallback: Ns) -> Self {
        Self { fallback, ..Self::default() }
    }

    /// A SYN left.
    pub fn started(&mut self, conn: ConnId, connecting: Connecting) {
        self.pending.insert(conn, connecting);
    }

    /// The connection stands. Failures at other addresses of the same call are forgiven.
    pub fn succeeded(&mut self, conn: ConnId) -> Option<Connecting> {
        let c = self.pending.remove(&conn)?;
        let before = self.held.len();
        self.held.retain(|(_, f)| !same_call(&f.connect, &c));
        self.recovered += (before - self.held.len()) as u64;
        self.attempts.remove(&Whose::of(&c));
        Some(c)
    }

    /// The socket closed before it was connected. `error`: `sk_err`.
    pub fn failed(&mut self, conn: ConnId, error: u16, now: Ns) {
        let Some(connect) = self.pending.remove(&conn) else { return };
        let failure = match error {
            0 if now.saturating_sub(connect.start) < GAVE_UP_NS => {
                self.abandoned += 1;
                return;
            }
            0 => Failure::GaveUp,
            e => Failure::Errno(e),
        };
        self.settle(connect, failure, now);
    }

    /// A connect failed without a SYN. Ignored if the same failure was seen as a state change already.
    pub fn failed_at_once(&mut self, connect: Connecting, error: u16, now: Ns) {
        let key = Whose::of(&connect);
        // A blocking connect reports the failure of its own socket once more when it returns.
        let seen = self.attempts.peek(&key).is_some_and(|(_, at)| now.saturating_sub(*at) < 50 * MS);
        if !seen {
            self.settle(connect, Failure::Errno(error), now);
        }
    }

    fn settle(&mut self, connect: Connecting, failure: Failure, now: Ns) {
        let key = Whose::of(&connect);
        let attempt = match self.attempts.get(&key) {
            Some((n, at)) if now.saturating_sub(*at) < RETRY_NS => n + 1,
            _ => 1,
        };
        self.attempts.insert(key, (attempt, now));
        let mut earlier = Vec::new();
        self.held.retain(|(_, f)| {
            let same = same_call(&f.connect, &connect);
            if same {
                earlier.extend_from_slice(&f.earlier);
                earlier.push((f.end, f.connect.remote, f.failure));
            }
            !same
        });
        let alone = earlier.is_empty() && connect.remote.is_ipv6();
        let due = now.saturating_add(if alone { self.fallback } else { NEXT_NS.min(self.fallback) });
        self.held.push((due, Failed { connect, end: now, failure, attempt, earlier }));
    }

    /// Failures that no other address made up for within their time.
    pub fn expire(&mut self, now: Ns) -> Vec<Failed> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let (due, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|(at, _)| *at <= now);
        self.held = held;
        due.into_iter().map(|(_, f)| f).collect()
    }
}

/// Whether two connects are attempts of one call at the IPv6 and the IPv4 address of one name. Two IPv4 targets are
/// two calls, for all that can be seen here.
fn same_call(a: &Connecting, b: &Connecting) -> bool {
    a.task.tid == b.task.tid
        && a.remote.port() == b.remote.port()
        && a.remote.is_ipv4() != b.remote.is_ipv4()
        && a.netns == b.netns
}

/// `error.type` and plain words for a failure (errno numbers: `include/uapi/asm-generic/errno.h`).
pub fn describe(failure: Failure) -> (&'static str, String) {
    let (kind, words) = match failure {
        Failure::GaveUp => ("connection_timeout", "no answer to the connection request, the client gave up"),
        Failure::Errno(e) => match e {
            111 => ("connection_refused", "connection refused"),
            110 => ("connection_timeout", "no answer to the connection request (timed out)"),
            113 => ("host_unreachable", "host unreachable"),
            101 => ("network_unreachable", "network unreachable"),
            104 => ("connection_reset", "connection reset"),
            103 => ("connection_aborted", "connection aborted"),
            99 => ("address_not_available", "no local address or port available for it"),
            1 | 13 => ("permission_denied", "not permitted (firewall or security policy)"),
            22 => ("invalid_argument", "invalid address"),
            97 => ("address_family_not_supported", "address family not supported"),
            _ => return ("connect_error", format!("connect failed with errno {e}")),
        },
    };
    (kind, words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connecting(remote: &str, start: Ns) -> Connecting {
        let task = Task { tgid: 7, tid: 7, py_context: 0 };
        Connecting { task, call: CallRef(1), after: None, start, remote: remote.parse().unwrap(), netns: 1 }
    }

    fn refuse(c: &mut Connects, id: u64, remote: &str, at: Ns) -> Vec<Failed> {
        c.started(ConnId(id), connecting(remote, at));
        c.failed(ConnId(id), 111, at + MS);
        c.expire(at + MS + NEXT_NS)
    }

    #[test]
    fn retries_are_numbered() {
        let mut c = Connects::default();
        assert_eq!(refuse(&mut c, 1, "127.0.0.1:5001", 0)[0].attempt, 1);
        assert_eq!(refuse(&mut c, 2, "127.0.0.1:5001", 1000 * MS)[0].attempt, 2);
        assert_eq!(refuse(&mut c, 3, "127.0.0.1:5002", 1000 * MS)[0].attempt, 1);
        assert_eq!(refuse(&mut c, 4, "127.0.0.1:5001", 1000 * MS + RETRY_NS + 2 * MS)[0].attempt, 1);
    }

    #[test]
    fn who_fails_for_another_request_or_in_another_task_does_not_retry() {
        let mut c = Connects::default();
        let mut attempt = |id: u64, after: u64, context: u64| {
            let mut connect = connecting("127.0.0.1:5001", id * 1000 * MS);
            connect.after = Some(SpanRef(after));
            connect.task.py_context = context;
            c.started(ConnId(id), connect);
            c.failed(ConnId(id), 111, id * 1000 * MS + MS);
            c.expire(id * 1000 * MS + MS + NEXT_NS)[0].attempt
        };
        assert_eq!([attempt(1, 1, 16), attempt(2, 1, 16), attempt(3, 1, 16)], [1, 2, 3]);
        assert_eq!([attempt(4, 2, 16), attempt(5, 2, 32), attempt(6, 2, 16)], [1, 1, 2]);
    }

    #[test]
    fn another_address_that_answers_forgives() {
        let mut c = Connects::default();
        assert!(refuse(&mut c, 1, "[::1]:80", 0).is_empty());
        c.started(ConnId(2), connecting("127.0.0.1:80", 2 * MS));
        assert!(c.succeeded(ConnId(2)).is_some());
        assert!(c.expire(Ns::MAX).is_empty());
        assert_eq!(c.recovered, 1);
    }

    #[test]
    fn two_addresses_that_refuse_are_one_failure_in_either_order() {
        for (first, second) in [("[::1]:80", "127.0.0.1:80"), ("127.0.0.1:80", "[::1]:80")] {
            let mut c = Connects::default();
            c.started(ConnId(1), connecting(first, 0));
            c.failed(ConnId(1), 111, MS);
            let failed = refuse(&mut c, 2, second, 2 * MS);
            assert_eq!((failed.len(), failed[0].earlier.len()), (1, 1));
            assert!(c.expire(Ns::MAX).is_empty());
        }
    }

    #[test]
    fn an_ipv6_failure_alone_comes_out_late() {
        let mut c = Connects::default();
        assert!(refuse(&mut c, 1, "[::1]:80", 0).is_empty());
        assert!(c.expire(FALLBACK_NS).is_empty());
        assert_eq!(c.expire(FALLBACK_NS + MS).len(), 1);
    }

    #[test]
    fn a_socket_closed_early_did_not_fail_and_one_closed_late_timed_out() {
        let mut c = Connects::default();
        c.started(ConnId(1), connecting("10.0.0.1:80", 0));
        c.failed(ConnId(1), 0, 10 * MS);
        c.started(ConnId(2), connecting("10.0.0.1:80", 0));
        c.failed(ConnId(2), 0, 5000 * MS);
        let failed = c.expire(Ns::MAX);
        assert_eq!(failed.len(), 1);
        assert_eq!(describe(failed[0].failure).0, "connection_timeout");
    }
}
