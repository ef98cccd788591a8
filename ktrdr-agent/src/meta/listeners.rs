//! The TCP listeners that exist when the agent starts, in every network namespace that a process lives in.

use std::collections::{BTreeMap, BTreeSet};

use super::{namespaces, procfs::ProcFs};
use crate::event::shell::ListenerMeta;

/// Bytes of one `net/tcp` that are read (150 per socket): 16 MiB hold 110,000 sockets.
const MAX_TABLE: u64 = 16 << 20;
/// File descriptors looked at in all: about 0.5 s. Beyond, a listener's owner stays unknown.
const MAX_FDS: usize = 500_000;
/// `TCP_LISTEN` as `net/tcp` writes it.
const LISTEN: &str = "0A";

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    netns: u32,
    port: u16,
    addr: [u8; 16],
    inode: u64,
}

/// Finds all listeners, one entry per process that holds the socket, the parent before the child it was handed to;
/// one entry with process 0 where no holder was found. `skipped` = not all file descriptors could be looked at.
pub fn snapshot(proc: &ProcFs) -> Snapshot {
    let pids = proc.pids().unwrap_or_default();
    let mut listeners = BTreeSet::new();
    for (netns, pid) in namespaces::all(proc, &pids) {
        for table in ["net/tcp", "net/tcp6"] {
            // IPv6 may be off; a process that ends here hides its namespace, which then had nobody to observe.
            let text = proc.read(pid, table, MAX_TABLE).unwrap_or_default();
            listeners.extend(String::from_utf8_lossy(&text).lines().filter_map(|l| parse(l, netns)));
        }
    }
    let wanted = listeners.iter().map(|l| l.inode).collect();
    let (holders, skipped) = holders(proc, &pids, &wanted);
    let mut found = Vec::new();
    for l in &listeners {
        let meta = |tgid| ListenerMeta { netns: l.netns, addr: l.addr, port: l.port, tgid };
        match holders.get(&l.inode) {
            Some(pids) => found.extend(pids.iter().map(|pid| meta(*pid))),
            None => found.push(meta(0)),
        }
    }
    Snapshot { listeners: found, skipped }
}

/// What [`snapshot`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Listeners by network namespace and port.
    pub listeners: Vec<ListenerMeta>,
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
fn parse(line: &str, netns: u32) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (addr, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Listener { netns, port: u16::from_str_radix(port, 16).ok()?, addr: address(addr)?, inode })
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
                   garbage\n";
        let tcp6 = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 80 1 0\n";
        fake.process(10, 1, &["python"])
            .link("ns/net", "net:[100]")
            .file("net/tcp", format!("{HEAD}{tcp}"))
            .link("fd/3", "socket:[77]")
            .link("fd/4", "socket:[77]")
            .link("fd/5", "/dev/null");
        fake.process(11, 10, &["python"]).link("ns/net", "net:[100]").link("fd/9", "socket:[77]");
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
