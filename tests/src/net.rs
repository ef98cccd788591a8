//! Ports for the tests.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Mutex;

/// Handed out already, so that tests side by side do not get the same.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Below the range of ports that the kernel gives to connecting sockets (32768 and up), so that no client takes a
/// port that a test wants to be silent.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port nothing listens on, on any address, and no other test uses.
pub fn free_port() -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(|e| e.into_inner());
    // Test processes side by side begin at different places.
    let begin = u16::try_from(std::process::id() * 97 % u32::from(RANGE.end - RANGE.start)).unwrap_or(0);
    let port = RANGE
        .map(|p| RANGE.start + (p - RANGE.start + begin) % (RANGE.end - RANGE.start))
        .find(|p| !taken.contains(p) && is_free(*p))
        .expect("a free port");
    taken.insert(port);
    port
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok()
}

/// Whether something in this network namespace listens on the port. Asks the kernel, not the port: a connect would
/// be seen by the agent.
pub fn listens(port: u16) -> bool {
    listens_beside(std::process::id(), port)
}

/// The same in the network namespace of a process.
pub fn listens_beside(pid: u32, port: u16) -> bool {
    ["tcp", "tcp6"].map(|table| format!("/proc/{pid}/net/{table}")).iter().any(|table| {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local =
                fields.next().and_then(|a| a.rsplit_once(':')).map(|(_, p)| u16::from_str_radix(p, 16));
            // TCP_LISTEN
            local == Some(Ok(port)) && fields.nth(1) == Some("0A")
        })
    })
}
