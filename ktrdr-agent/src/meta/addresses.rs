//! Which addresses are this host's, and in which network namespace: what refuses at one of them is seen from here.
//!
//! Read when it is about to matter: before a connect is told that failed, and when a namespace listens that nobody told yet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ktrdr_ebpf_common::{ConnectErrorBody, EventHeader, StateBody, kind};
use zerocopy::FromBytes as _;

use super::{container, namespaces, procfs::ProcFs};
use crate::event::shell::{Addresses, NamespaceMeta, ShellEvent};
use crate::event::{Ns, canonical, tcp};

/// Bytes of one `net/fib_trie` or `net/if_inet6` that are read: 40,000 routes. A router with more has addresses that are not found.
const MAX_TABLE: u64 = 4 << 20;
/// Addresses told of all namespaces: 1,000 containers with four each.
const MAX_ADDRESSES: usize = 4_096;
/// Between two looks, of record time: each asks all processes for their namespace, and may follow on every failed connect.
const EVERY_NS: Ns = 1_000_000_000;
/// And so many times as long as the last one took: at most 2 % of a processor, on hosts with many processes.
const EVERY_TIMES: u32 = 50;

/// What was told last.
#[derive(Debug, Default)]
pub struct Told {
    addresses: Addresses,
    /// When all may be looked at again, and when they may for a reason.
    next: Ns,
    soon: Ns,
}

impl Told {
    /// All there are, for the first time.
    pub fn begin(&mut self, proc: &ProcFs) -> ShellEvent {
        self.addresses = snapshot(proc);
        ShellEvent::Addresses(self.addresses.clone())
    }

    /// What has to be told before this record, if anything changed.
    pub fn before(&mut self, header: &EventHeader, body: &[u8], proc: &ProcFs) -> Option<ShellEvent> {
        let Matters { netns, all } = matters(header.kind, body)?;
        let known = self.place_of(netns);
        // A listener tells nothing of namespaces that are known.
        if (all == All::IfUnknown && known.is_err() || all == All::Yes) && header.ts >= self.next {
            return self.look(header.ts, proc);
        }
        // Between two looks a new one is asked for its own: who connects from it may be gone by the next.
        let place = known.err()?;
        if namespaces::of(proc, header.tgid) != Some(netns) {
            return None;
        }
        let mut now = self.addresses.clone();
        let told: usize = now.namespaces.iter().map(|n| n.addresses.len()).sum();
        let (namespace, whole) =
            one(proc, netns, header.tgid, hosts(proc), MAX_ADDRESSES.saturating_sub(told));
        // Whose addresses these were may be gone, as a container that is made anew.
        let taken =
            now.namespaces.iter().any(|n| n.addresses.iter().any(|a| namespace.addresses.contains(a)));
        if taken && header.ts >= self.soon {
            return self.look(header.ts, proc);
        }
        now.namespaces.insert(place, namespace);
        now.partial |= !whole;
        self.tell(now)
    }

    /// Looks at all of them.
    fn look(&mut self, ts: Ns, proc: &ProcFs) -> Option<ShellEvent> {
        let began = Instant::now();
        let now = snapshot(proc);
        let pause = Ns::try_from((began.elapsed() * EVERY_TIMES).as_nanos()).unwrap_or(Ns::MAX);
        self.soon = ts.saturating_add(pause);
        self.next = ts.saturating_add(pause.max(EVERY_NS));
        self.tell(now)
    }

    fn tell(&mut self, now: Addresses) -> Option<ShellEvent> {
        if now == self.addresses {
            return None;
        }
        self.addresses = now;
        Some(ShellEvent::Addresses(self.addresses.clone()))
    }

    /// Where a namespace is among those told, or belongs.
    fn place_of(&self, netns: u32) -> Result<usize, usize> {
        self.addresses.namespaces.binary_search_by_key(&netns, |n| n.netns)
    }
}

/// A record that is told with addresses.
struct Matters {
    /// The namespace that it happened in.
    netns: u32,
    all: All,
}

/// Whether it takes the addresses of all namespaces as they are now.
#[derive(PartialEq, Eq)]
enum All {
    Yes,
    /// Only if that of the record is not known.
    IfUnknown,
    No,
}

/// What addresses it takes to tell of this.
fn matters(kind: u16, body: &[u8]) -> Option<Matters> {
    match kind {
        kind::STATE => {
            let (s, _) = StateBody::read_from_prefix(body).ok()?;
            let all = match (s.old, s.new) {
                // By the kernel, or because the client gave up.
                (tcp::SYN_SENT, tcp::CLOSE) if elsewhere(canonical(s.tuple.remote_addr)) => All::Yes,
                (_, tcp::SYN_SENT) if elsewhere(canonical(s.tuple.remote_addr)) => All::No,
                (_, tcp::LISTEN) => All::IfUnknown,
                _ => return None,
            };
            Some(Matters { netns: s.tuple.netns, all })
        }
        kind::CONNECT_ERROR => {
            let (c, _) = ConnectErrorBody::read_from_prefix(body).ok()?;
            elsewhere(canonical(c.remote_addr)).then_some(Matters { netns: c.netns, all: All::Yes })
        }
        _ => None,
    }
}

fn elsewhere(ip: IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified()
}

/// All addresses of all namespaces that a process lives in, but for those that every namespace has.
pub fn snapshot(proc: &ProcFs) -> Addresses {
    let pids = proc.pids().unwrap_or_default();
    let host = hosts(proc);
    let mut found = Addresses::default();
    let mut room = MAX_ADDRESSES;
    // In the order of their numbers.
    for (netns, pid) in namespaces::all(proc, &pids) {
        let (namespace, whole) = one(proc, netns, pid, host, room);
        room -= namespace.addresses.len();
        found.partial |= !whole;
        found.namespaces.push(namespace);
    }
    found
}

/// A namespace by a process in it, with so many addresses at most; and whether that is all of them.
fn one(proc: &ProcFs, netns: u32, pid: u32, host: Option<u32>, room: usize) -> (NamespaceMeta, bool) {
    let read = |table| proc.read(pid, table, MAX_TABLE).unwrap_or_default();
    let (v4, v6) = (read("net/fib_trie"), read("net/if_inet6"));
    let mut addresses = trie(&String::from_utf8_lossy(&v4));
    addresses.extend(String::from_utf8_lossy(&v6).lines().filter_map(inet6));
    addresses.retain(|(ip, _)| tells(*ip));
    addresses.sort_unstable();
    addresses.dedup();
    let whole = addresses.len() <= room && ![v4.len(), v6.len()].contains(&(MAX_TABLE as usize));
    addresses.truncate(room);
    let host = host == Some(netns);
    let container = if host { None } else { contained(proc, pid) };
    (NamespaceMeta { netns, host, container, addresses }, whole)
}

/// The host's own namespace: that of the first process, which may have privileges that forbid looking; then ours, if we are in no
/// container.
fn hosts(proc: &ProcFs) -> Option<u32> {
    let own = || Some(proc.own_pid()).filter(|own| contained(proc, *own).is_none());
    namespaces::of(proc, 1).or_else(|| namespaces::of(proc, own()?))
}

/// The container that a process is in.
fn contained(proc: &ProcFs, pid: u32) -> Option<String> {
    let cgroup = proc.read(pid, "cgroup", 4096).unwrap_or_default();
    container::from_cgroup(&String::from_utf8_lossy(&cgroup)).map(|c| c.id)
}

/// Whether no other namespace is bound to have the same.
fn tells(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    elsewhere(ip) && !link_local
}

/// The local addresses in `/proc/PID/net/fib_trie` (`net/ipv4/fib_trie.c`, `fib_trie_seq_show`): below a leaf, `|-- ADDRESS`,
/// its prefixes, of which the local ones say `host LOCAL`.
fn trie(text: &str) -> Vec<(IpAddr, u8)> {
    let mut found = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in text.lines() {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.trim_end().parse().ok();
        } else if let Some(prefix) = line.strip_prefix('/')
            && let Some((length, "host LOCAL")) = prefix.trim_end().split_once(' ')
            && let (Some(address), Ok(length @ 0..=32)) = (leaf, length.parse())
        {
            found.push((IpAddr::V4(address), length));
        }
    }
    found
}

/// A line of `/proc/PID/net/if_inet6`: address, and what is of no interest here.
fn inet6(line: &str) -> Option<(IpAddr, u8)> {
    let hex = line.split_ascii_whitespace().next().filter(|hex| hex.len() == 32)?;
    let bits = u128::from_str_radix(hex, 16).ok()?;
    Some((IpAddr::V6(Ipv6Addr::from_bits(bits)), 128))
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;
    use crate::meta::fake::FakeProc;

    const TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
     +-- 172.18.0.0/16 2 0 2
        +-- 172.18.0.0/30 2 0 2
           |-- 172.18.0.0
              /16 link UNICAST
           |-- 172.18.0.2
              /32 host LOCAL
        |-- 172.18.255.255
           /32 link BROADCAST
     |-- 10.9.0.0
        /16 host LOCAL
     |-- nonsense
        /32 host LOCAL
        /99 host LOCAL
";
    const INET6: &str = "\
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 04 40 00 82     eth0
zz
";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn host() -> FakeProc {
        let fake = FakeProc::new();
        let id = "3f2a9b7c1d2e".repeat(6)[..64].to_owned();
        fake.process(1, 0, &["init"]).link("ns/net", "net:[100]").file("net/fib_trie", "");
        fake.process(20, 1, &["python"])
            .link("ns/net", "net:[200]")
            .file("net/fib_trie", TRIE)
            .file("net/if_inet6", INET6)
            .file("cgroup", format!("0::/system.slice/docker-{id}.scope\n"));
        fake
    }

    #[test]
    fn each_namespace_tells_the_addresses_that_others_need_not_have() {
        let found = snapshot(&host().proc());
        assert!(!found.partial);
        let [host, container] = &found.namespaces[..] else { panic!("{found:?}") };
        assert!(host.host && host.container.is_none() && host.addresses.is_empty(), "{host:?}");
        assert!(
            !container.host && container.container.as_ref().is_some_and(|id| id.starts_with("3f2a9b7c1d2e"))
        );
        assert_eq!(container.addresses, [(ip("10.9.0.0"), 16), (ip("172.18.0.2"), 32), (ip("fd00::2"), 128)]);
    }

    #[test]
    fn this_hosts_own_are_found() {
        let found = snapshot(&ProcFs::new("/proc"));
        assert!(found.namespaces.iter().any(|n| n.host), "{found:?}");
    }

    fn state(old: u8, new: u8, error: u16, remote: &str, netns: u32) -> Vec<u8> {
        let mut body = StateBody::new_zeroed();
        (body.old, body.new, body.error, body.tuple.netns) = (old, new, error, netns);
        body.tuple.remote_addr = remote.parse::<Ipv6Addr>().unwrap().octets();
        body.as_bytes().to_vec()
    }

    #[test]
    fn they_are_read_again_when_it_matters_and_told_when_they_changed() {
        let fake = host();
        let mut told = Told::default();
        told.begin(&fake.proc());
        fake.process(30, 1, &["nginx"]).link("ns/net", "net:[300]").file("net/fib_trie", TRIE);
        let at = |ts, kind| EventHeader { ts, tgid: 1, tid: 1, len: 0, kind, flags: 0 };
        let refused = state(tcp::SYN_SENT, tcp::CLOSE, 111, "::ffff:172.18.0.2", 100);
        let mut before = |ts, body: &[u8]| told.before(&at(ts, kind::STATE), body, &fake.proc());
        for other in [
            state(tcp::SYN_SENT, tcp::CLOSE, 111, "::ffff:127.0.0.1", 100),
            state(tcp::ESTABLISHED, tcp::CLOSE, 104, "::ffff:172.18.0.2", 100),
            state(tcp::CLOSE, tcp::LISTEN, 0, "::", 200),
            vec![1, 2, 3],
        ] {
            assert_eq!(before(1, &other), None, "{other:?}");
        }
        let Some(ShellEvent::Addresses(a)) = before(1, &refused) else { panic!("not told") };
        assert_eq!(a.namespaces.len(), 3);
        fake.end(30);
        assert_eq!(before(2, &refused), None, "a moment ago");
        let connects = state(tcp::CLOSE, tcp::SYN_SENT, 0, "::ffff:172.18.0.2", 400);
        assert_eq!(before(2, &connects), None, "by a process of which nothing is known");
        fake.end(1);
        fake.process(1, 0, &["client"]).link("ns/net", "net:[400]").file("net/fib_trie", TRIE);
        let Some(ShellEvent::Addresses(a)) = before(2, &connects) else { panic!("not told of a new one") };
        assert_eq!(a.namespaces.iter().map(|n| n.netns).collect::<Vec<_>>(), [100, 200, 300, 400]);
        assert!(a.namespaces.iter().any(|n| n.netns == 400 && !n.addresses.is_empty()));
        assert_eq!(before(2, &connects), None, "known by now");
        // In the place of 300 and 400: with their addresses, under another number.
        fake.end(1);
        fake.process(1, 0, &["client"]).link("ns/net", "net:[500]").file("net/fib_trie", TRIE);
        let anew = state(tcp::CLOSE, tcp::SYN_SENT, 0, "::ffff:172.18.0.2", 500);
        let Some(ShellEvent::Addresses(a)) = before(1800 * EVERY_NS, &anew) else {
            panic!("not told of a new one")
        };
        assert_eq!(a.namespaces.iter().map(|n| n.netns).collect::<Vec<_>>(), [200, 500]);
        fake.end(1);
        fake.process(1, 0, &["init"]).link("ns/net", "net:[100]").file("net/fib_trie", "");
        let later = 3600 * EVERY_NS;
        let Some(ShellEvent::Addresses(a)) = before(later, &refused) else { panic!("not told") };
        assert_eq!(a.namespaces.len(), 2);
        assert_eq!(before(2 * later, &refused), None, "nothing changed");
        let listens = state(tcp::CLOSE, tcp::LISTEN, 0, "::", 300);
        fake.process(30, 1, &["nginx"]).link("ns/net", "net:[300]").file("net/fib_trie", TRIE);
        assert!(before(3 * later, &listens).is_some());
    }

    #[test]
    fn what_there_is_no_room_for_is_said_to_be_missing() {
        let fake = FakeProc::new();
        let many: String = (0..MAX_ADDRESSES + 1)
            .map(|n| format!("|-- 10.1.{}.{}\n/32 host LOCAL\n", n / 250, n % 250))
            .collect();
        fake.process(1, 0, &["init"]).link("ns/net", "net:[100]").file("net/fib_trie", many);
        let found = snapshot(&fake.proc());
        assert!(found.partial && found.namespaces[0].addresses.len() == MAX_ADDRESSES);
    }
}
