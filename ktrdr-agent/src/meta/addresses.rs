//! Which addresses are this host's, and in which network namespace: what refuses at one of them is seen from here.
//!
//! Read when it is about to matter: before a connect is told that failed, and when a namespace listens that nobody told yet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

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
    next: Ns,
}

impl Told {
    /// All there are, for the first time.
    pub fn begin(&mut self, proc: &ProcFs) -> ShellEvent {
        self.addresses = snapshot(proc);
        ShellEvent::Addresses(self.addresses.clone())
    }

    /// What has to be told before this record, if anything changed.
    pub fn before(&mut self, header: &EventHeader, body: &[u8], proc: &ProcFs) -> Option<ShellEvent> {
        if header.ts < self.next || !self.matters(header.kind, body) {
            return None;
        }
        let began = Instant::now();
        let now = snapshot(proc);
        self.next = header.ts.saturating_add(pause(began.elapsed()));
        if now == self.addresses {
            return None;
        }
        self.addresses = now;
        Some(ShellEvent::Addresses(self.addresses.clone()))
    }

    /// Whether it takes the addresses of now to tell of this.
    fn matters(&self, kind: u16, body: &[u8]) -> bool {
        match kind {
            kind::STATE => {
                let Ok((s, _)) = StateBody::read_from_prefix(body) else { return false };
                // By the kernel, or because the client gave up.
                let failed = (s.old, s.new) == (tcp::SYN_SENT, tcp::CLOSE);
                match failed {
                    true => elsewhere(canonical(s.tuple.remote_addr)),
                    false => s.new == tcp::LISTEN && !self.knows(s.tuple.netns),
                }
            }
            kind::CONNECT_ERROR => {
                let Ok((c, _)) = ConnectErrorBody::read_from_prefix(body) else { return false };
                elsewhere(canonical(c.remote_addr))
            }
            _ => false,
        }
    }

    fn knows(&self, netns: u32) -> bool {
        self.addresses.namespaces.iter().any(|n| n.netns == netns)
    }
}

fn pause(took: Duration) -> Ns {
    let took = Ns::try_from((took * EVERY_TIMES).as_nanos()).unwrap_or(Ns::MAX);
    took.max(EVERY_NS)
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
    for (netns, pid) in namespaces::all(proc, &pids) {
        let read = |table| proc.read(pid, table, MAX_TABLE).unwrap_or_default();
        let (v4, v6) = (read("net/fib_trie"), read("net/if_inet6"));
        let mut addresses = trie(&String::from_utf8_lossy(&v4));
        addresses.extend(String::from_utf8_lossy(&v6).lines().filter_map(inet6));
        addresses.retain(|(ip, _)| tells(*ip));
        addresses.sort_unstable();
        addresses.dedup();
        found.partial |= addresses.len() > room || [v4.len(), v6.len()].contains(&(MAX_TABLE as usize));
        addresses.truncate(room);
        room -= addresses.len();
        let host = host == Some(netns);
        let container = if host { None } else { contained(proc, pid) };
        found.namespaces.push(NamespaceMeta { netns, host, container, addresses });
    }
    found
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
