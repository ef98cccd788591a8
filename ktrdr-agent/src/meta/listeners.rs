//! The TCP listeners that exist when the agent starts, and the connections that were accepted from them, in every network
//! namespace that a process lives in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::{namespaces, procfs::ProcFs};
use crate::event::canonical;
use crate::event::shell::{Accepted, ListenerMeta};

/// Bytes of one `net/tcp` that are read (150 per socket): 16 MiB hold 110,000 sockets.
const MAX_TABLE: u64 = 16 << 20;
/// File descriptors looked at in all: about 0.5 s. Beyond, a listener's owner stays unknown.
const MAX_FDS: usize = 500_000;
/// Accepted connections that are told of in all, and at most in one fact: those of a host under load, and a record of 25 kB.
/// Of more it is told that they are there.
const MAX_ACCEPTED: usize = 16_384;
const MAX_PEERS: usize = 1_024;
/// As `net/tcp` writes `TCP_LISTEN`, `TCP_ESTABLISHED`, and `TCP_CLOSE_WAIT`, where a client awaits its answer, too.
const LISTEN: &str = "0A";
const ESTABLISHED: &str = "01";
const CLOSE_WAIT: &str = "08";

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    netns: u32,
    port: u16,
    addr: [u8; 16],
    inode: u64,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    netns: u32,
    local: SocketAddr,
    remote: SocketAddr,
    inode: u64,
}

/// A line of `net/tcp`.
enum Socket {
    Listener(Listener),
    Connection(Connection),
}

/// Finds all listeners, one entry per process that holds the socket, the parent before the child it was handed to;
/// one entry with process 0 where no holder was found. `skipped` = not all file descriptors could be looked at.
pub fn snapshot(proc: &ProcFs) -> Snapshot {
    let pids = proc.pids().unwrap_or_default();
    let mut listeners = BTreeSet::new();
    let mut connections = Vec::new();
    for (netns, pid) in namespaces::all(proc, &pids) {
        for table in ["net/tcp", "net/tcp6"] {
            // IPv6 may be off; a process that ends here hides its namespace, which then had nobody to observe.
            let text = proc.read(pid, table, MAX_TABLE).unwrap_or_default();
            for socket in String::from_utf8_lossy(&text).lines().filter_map(|l| parse(l, netns)) {
                match socket {
                    Socket::Listener(l) => _ = listeners.insert(l),
                    Socket::Connection(c) => connections.push(c),
                }
            }
        }
    }
    let ports: BTreeSet<(u32, u16)> = listeners.iter().map(|l| (l.netns, l.port)).collect();
    connections.retain(|c| ports.contains(&(c.netns, c.local.port())));
    let wanted = listeners.iter().map(|l| l.inode).chain(connections.iter().map(|c| c.inode)).collect();
    let (holders, skipped) = holders(proc, &pids, &wanted);
    let mut found = Vec::new();
    for l in &listeners {
        let meta = |tgid| ListenerMeta { netns: l.netns, addr: l.addr, port: l.port, tgid };
        match holders.get(&l.inode) {
            Some(pids) => found.extend(pids.iter().map(|pid| meta(*pid))),
            None => found.push(meta(0)),
        }
    }
    Snapshot { listeners: found, accepted: accepted(&connections, &holders), skipped }
}

/// The connections by who holds them. Those that nobody has accepted yet have no inode; of others whose holder is not found
/// nothing is told, as nothing is of what such a process does.
fn accepted(connections: &[Connection], holders: &BTreeMap<u64, Vec<u32>>) -> Vec<Accepted> {
    let mut by_end: BTreeMap<(u32, u32, SocketAddr), Vec<SocketAddr>> = BTreeMap::new();
    for c in connections.iter().filter(|c| c.inode != 0) {
        for pid in holders.get(&c.inode).into_iter().flatten() {
            by_end.entry((*pid, c.netns, c.local)).or_default().push(c.remote);
        }
    }
    let mut room = MAX_ACCEPTED;
    let mut told = Vec::new();
    for ((tgid, netns, local), peers) in by_end {
        let (some, rest) = peers.split_at(peers.len().min(room));
        room -= some.len();
        let meta = |peers: &[SocketAddr]| Accepted { tgid, netns, local, peers: peers.to_vec(), more: false };
        told.extend(some.chunks(MAX_PEERS).map(meta));
        if !rest.is_empty() {
            told.push(Accepted { more: true, ..meta(&[]) });
        }
    }
    told
}

/// What [`snapshot`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Listeners by network namespace and port.
    pub listeners: Vec<ListenerMeta>,
    /// Connections that were accepted, by process and local end.
    pub accepted: Vec<Accepted>,
    /// The bound on file descriptors was reached.
    pub skipped: bool,
}

/// Processes by the socket inodes they hold.
fn holders(proc: &ProcFs, pids: &[u32], wanted: &BTreeSet<u64>) -> (BTreeMap<u64, Vec<u32>>, bool) {
    let mut held: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let mut budget = MAX_FDS;
    for pid in pids {
        let Ok(entries) = std::fs::read_dir(proc.of(*pid, "fd")) else { continue };
        for entry in entries.flatten() {
            if budget == 0 {
                return (held, true);
            }
            budget -= 1;
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            let inode =
                target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|i| wanted.contains(i)) {
                let pids = held.entry(inode).or_default();
                // The same socket under several descriptors.
                if pids.last() != Some(pid) {
                    pids.push(*pid);
                }
            }
        }
    }
    (held, false)
}

/// A line of `net/tcp` or `net/tcp6`: slot, local address, remote address, state, queues, timers, retransmits,
/// user, timeout, inode, …
fn parse(line: &str, netns: u32) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if ![LISTEN, ESTABLISHED, CLOSE_WAIT].contains(&state) {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (addr, port) = end(local)?;
    if state == LISTEN {
        return Some(Socket::Listener(Listener { netns, port, addr, inode }));
    }
    let of = |(addr, port)| SocketAddr::new(canonical(addr), port);
    Some(Socket::Connection(Connection { netns, local: of((addr, port)), remote: of(end(remote)?), inode }))
}

/// One end: address and port.
fn end(text: &str) -> Option<([u8; 16], u16)> {
    let (addr, port) = text.split_once(':')?;
    Some((address(addr)?, u16::from_str_radix(port, 16).ok()?))
}

/// Addresses are 32-bit words in network order printed as numbers of the host's order; IPv4 becomes v4-mapped.
fn address(hex: &str) -> Option<[u8; 16]> {
    let words: Vec<[u8; 4]> = hex
        .as_bytes()
        .chunks(8)
        .map(|w| Some(u32::from_str_radix(std::str::from_utf8(w).ok()?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<_>>()?;
    let v4_mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let bytes: Vec<u8> = match (hex.len(), &words[..]) {
        (8, [v4]) => [&v4_mapped[..], v4].concat(),
        (32, v6) => v6.concat(),
        _ => return None,
    };
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener};

    use super::{super::fake::FakeProc, *};

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn addr(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_of_every_namespace_find_their_holders() {
        let fake = FakeProc::new();
        let tcp = "   0: 0100007F:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 77 1 0 100 0\n\
                   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 78 1 0 100 0\n\
                   2: 0100007F:1389 0100007F:C000 01 00000000:00000000 00:00000000 00000000  1000        0 79 1 0 100 0\n\
                   3: 0100007F:C000 0100007F:1389 01 00000000:00000000 00:00000000 00000000  1000        0 81 1 0 100 0\n\
                   4: 0100007F:1389 0100007F:C001 01 00000000:00000000 00:00000000 00000000  1000        0 0 1 0 100 0\n\
                   garbage\n";
        let tcp6 = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 80 1 0\n";
        fake.process(10, 1, &["python"])
            .link("ns/net", "net:[100]")
            .file("net/tcp", format!("{HEAD}{tcp}"))
            .link("fd/3", "socket:[77]")
            .link("fd/4", "socket:[77]")
            .link("fd/5", "/dev/null");
        fake.process(11, 10, &["python"])
            .link("ns/net", "net:[100]")
            .link("fd/9", "socket:[77]")
            .link("fd/10", "socket:[79]")
            .link("fd/11", "socket:[81]");
        fake.process(20, 1, &["nginx"]).link("ns/net", "net:[200]").file("net/tcp6", format!("{HEAD}{tcp6}"));
        let found = snapshot(&fake.proc());
        let meta = |netns, a, port, tgid| ListenerMeta { netns, addr: addr(a), port, tgid };
        assert!(!found.skipped);
        assert_eq!(
            found.listeners,
            [
                meta(100, "::ffff:127.0.0.1", 5001, 10),
                meta(100, "::ffff:127.0.0.1", 5001, 11),
                meta(100, "::ffff:0.0.0.0", 8080, 0),
                meta(200, "::1", 80, 0),
            ]
        );
        // Not the client's end, and not one that waits to be accepted.
        let (local, peer) = ("127.0.0.1:5001".parse().unwrap(), "127.0.0.1:49152".parse().unwrap());
        let accepted = Accepted { tgid: 11, netns: 100, local, peers: vec![peer], more: false };
        assert_eq!(found.accepted, [accepted]);
    }

    #[test]
    fn of_too_many_connections_it_is_told_that_they_are_there() {
        let end = |port| SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port);
        let connections: Vec<Connection> = (0..=MAX_ACCEPTED as u64)
            .map(|n| Connection { netns: 1, local: end(80), remote: end(n as u16), inode: 1 + n })
            .collect();
        let holders = connections.iter().map(|c| (c.inode, vec![7])).collect();
        let told = accepted(&connections, &holders);
        assert!(told.iter().all(|a| a.peers.len() <= MAX_PEERS && a.tgid == 7));
        assert_eq!(told.iter().map(|a| a.peers.len()).sum::<usize>(), MAX_ACCEPTED);
        assert_eq!(told.iter().filter(|a| a.more).count(), 1);
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for bad in ["", "7F", "0100007G", "00000000000000000000000001", "0100007F0100007F"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_real_listener_of_this_process_is_found() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = snapshot(&ProcFs::new("/proc")).listeners;
        let mine: Vec<_> = found.iter().filter(|l| l.tgid == std::process::id() && l.port == port).collect();
        assert_eq!(mine.len(), 1);
        assert_eq!(mine[0].addr, addr("::ffff:127.0.0.1"));
    }
}
