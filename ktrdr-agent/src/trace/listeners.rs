//! Who listens where, and who did: the evidence behind a refused connect.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::addresses::{self, Addresses, Place};
use super::departed::{Departed, Departures};
use crate::event::shell::NamespaceMeta;
use crate::event::{Ns, shell};

/// Ports remembered per agent, over all network namespaces; hosts with more listening ports than this are rare and
/// lose only the evidence of the lowest-numbered ones.
const MAX_PORTS: usize = 16 * 1024;
/// Listeners remembered per port (addresses, and ones that are gone).
const MAX_PER_PORT: usize = 16;

/// A listening socket, now or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Bound address.
    pub addr: IpAddr,
    /// A process that holds it, 0 = unknown.
    pub tgid: u32,
    /// When it began to listen; `None` = before it was looked at.
    pub since: Option<Ns>,
    /// When it stopped listening.
    pub until: Option<Ns>,
}

/// What is known about an address that refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Something listens there: it refuses for another reason (a full backlog, a firewall).
    Listening(Listener),
    /// Something listens there that did not when it was tried.
    NotYet(Listener),
    /// The port is open on other addresses only.
    OtherAddress(Vec<Listener>),
    /// Nobody listens; this one did last.
    Gone(Listener),
    /// Nobody listens, and nobody was seen to; in another network namespace of this host this one does.
    Beside(u32, Listener),
    /// Nobody listens, and nobody was seen to, but this one, when the address was another namespace's; and whether what
    /// has it now is seen from here.
    Departed(Departed, bool),
    /// Nobody listens, and nobody was seen to.
    Nothing,
    /// The target is not on this host: no evidence can be had here.
    Remote,
    /// Several network namespaces of this host have that address: which of them was asked is not known.
    Several,
    /// Whose the address is was not told.
    Unknown,
}

/// The evidence, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub evidence: Evidence,
    /// The network namespace, if it is not the caller's.
    pub there: Option<u32>,
}

/// All listeners by (network namespace, port).
#[derive(Debug, Default)]
pub struct Listeners {
    ports: BTreeMap<(u32, u16), Vec<Listener>>,
    addresses: Addresses,
    departures: Departures,
}

impl Listeners {
    /// Which addresses are this host's, all of them.
    pub fn addresses(&mut self, told: shell::Addresses) {
        for namespace in self.addresses.told(told) {
            self.gone(&namespace);
        }
        self.ports.retain(|_, list| !list.is_empty());
    }

    /// A namespace is gone: who listened there did not listen in the one that may have its number now.
    fn gone(&mut self, namespace: &NamespaceMeta) {
        let all = (namespace.netns, 0)..=(namespace.netns, u16::MAX);
        for ((_, port), list) in self.ports.range_mut(all) {
            for listener in list.extract_if(.., |l| l.until.is_some()) {
                let place = format!("{}, which is gone", addresses::name(Some(namespace)));
                let departed = Departed { listener, place };
                for ip in addresses::single(namespace).filter(|ip| covers(departed.listener.addr, *ip)) {
                    self.departures.left(SocketAddr::new(ip, *port), departed.clone());
                }
            }
        }
    }

    /// A socket listens: since then, if its beginning was seen.
    pub fn up(&mut self, netns: u32, addr: SocketAddr, tgid: u32, since: Option<Ns>) {
        if self.ports.len() >= MAX_PORTS && !self.ports.contains_key(&(netns, addr.port())) {
            self.ports.pop_first();
        }
        let list = self.ports.entry((netns, addr.port())).or_default();
        // Found again by who looks at all sockets.
        let known = list.iter().find(|l| l.addr == addr.ip() && l.tgid == tgid && l.until.is_none());
        let since = since.or_else(|| known.and_then(|l| l.since));
        list.retain(|l| l.addr != addr.ip() || (l.until.is_none() && l.tgid != tgid && l.tgid != 0));
        if list.len() >= MAX_PER_PORT {
            list.remove(0);
        }
        list.push(Listener { addr: addr.ip(), tgid, since, until: None });
    }

    /// A socket stopped listening. Closed by a process, or by its end (then `tgid` may be anyone's).
    pub fn down(&mut self, netns: u32, addr: SocketAddr, tgid: u32, ts: Ns) {
        let Some(list) = self.ports.get_mut(&(netns, addr.port())) else { return };
        let open = |l: &&mut Listener| l.addr == addr.ip() && l.until.is_none();
        let exact = list.iter_mut().filter(open).find(|l| l.tgid == tgid).map(|l| l.until = Some(ts));
        if exact.is_none()
            && let Some(l) = list.iter_mut().find(|l| l.addr == addr.ip() && l.until.is_none())
        {
            l.until = Some(ts);
        }
    }

    /// The process that listens on this port in this namespace, on any address.
    pub fn owner(&self, netns: u32, port: u16) -> Option<u32> {
        self.ports
            .get(&(netns, port))?
            .iter()
            .rev()
            .find(|l| l.until.is_none() && l.tgid != 0)
            .map(|l| l.tgid)
    }

    /// The process that listens, or did last.
    pub fn last_owner(&self, netns: u32, port: u16) -> Option<u32> {
        self.owner(netns, port).or_else(|| {
            let list = self.ports.get(&(netns, port))?;
            list.iter().filter(|l| l.tgid != 0).max_by_key(|l| l.until).map(|l| l.tgid)
        })
    }

    /// The process that listens at `target`, or did last, for who calls from this namespace.
    pub fn last_owner_at(&self, netns: u32, target: SocketAddr) -> Option<u32> {
        match self.addresses.place(netns, target.ip()) {
            Place::Here => self.last_owner(netns, target.port()),
            Place::Unknown if self.addresses.untold() => self.last_owner(netns, target.port()),
            Place::There(there) => self.last_owner(there, target.port()),
            Place::Several | Place::Elsewhere | Place::Unknown => None,
        }
    }

    /// Whether anything listens on this port of this namespace on any address.
    pub fn any(&self, netns: u32, port: u16) -> bool {
        self.ports.get(&(netns, port)).is_some_and(|l| l.iter().any(|l| l.until.is_none()))
    }

    /// Whether this process is known to listen at `target`, by address or on all of them (`target` may be another host's
    /// then). 0 is nobody.
    pub fn accepts(&self, netns: u32, target: SocketAddr, tgid: u32) -> bool {
        let list = self.ports.get(&(netns, target.port())).map_or(&[][..], Vec::as_slice);
        tgid != 0 && list.iter().any(|l| l.tgid == tgid && l.until.is_none() && covers(l.addr, target.ip()))
    }

    /// What is known about a target that refused who called from `netns`, when it was tried at `asked`.
    pub fn evidence(&self, netns: u32, target: SocketAddr, asked: Ns) -> Found {
        let here = |evidence| Found { evidence, there: None };
        let mut found = match self.addresses.place(netns, target.ip()) {
            Place::Here => here(self.at(netns, target, asked)),
            Place::There(there) => Found { evidence: self.at(there, target, asked), there: Some(there) },
            Place::Several => here(Evidence::Several),
            Place::Elsewhere => here(Evidence::Remote),
            // As it was recorded when nobody told of addresses.
            Place::Unknown if self.addresses.untold() => {
                here(self.of(netns, target, asked).unwrap_or(Evidence::Unknown))
            }
            Place::Unknown => here(Evidence::Unknown),
        };
        let seen = match found.evidence {
            Evidence::Nothing | Evidence::Beside(..) => Some(true),
            Evidence::Remote | Evidence::Unknown => Some(false),
            _ => None,
        };
        if let (Some(seen), Some(departed)) = (seen, self.departures.last(target)) {
            found.evidence = Evidence::Departed(departed.clone(), seen);
        }
        found
    }

    /// What is known of a target in this namespace.
    fn at(&self, netns: u32, target: SocketAddr, asked: Ns) -> Evidence {
        let beside = || {
            let (there, listener) = self.beside(netns, target.port())?;
            Some(Evidence::Beside(there, listener))
        };
        self.of(netns, target, asked).or_else(beside).unwrap_or(Evidence::Nothing)
    }

    /// Who listens on the port in another namespace: on the host, or else in the only one where somebody does.
    fn beside(&self, netns: u32, port: u16) -> Option<(u32, Listener)> {
        let open = |there: u32| {
            let list = self.ports.get(&(there, port))?;
            list.iter().find(|l| l.until.is_none() && l.tgid != 0).map(|l| (there, l.clone()))
        };
        let mut others = self.addresses.others(netns).filter_map(|(there, host)| Some((host, open(there)?)));
        let first = others.next()?;
        match others.next() {
            None => Some(first.1),
            Some(second) => [first, second].into_iter().chain(others).find(|(host, _)| *host).map(|(_, l)| l),
        }
    }

    /// What is known of a port of this namespace.
    fn of(&self, netns: u32, target: SocketAddr, asked: Ns) -> Option<Evidence> {
        let list = self.ports.get(&(netns, target.port())).map_or(&[][..], Vec::as_slice);
        let open: Vec<_> = list.iter().filter(|l| l.until.is_none()).cloned().collect();
        let (before, after): (Vec<_>, Vec<_>) = open
            .iter()
            .filter(|l| covers(l.addr, target.ip()))
            .partition(|l| l.since.is_none_or(|since| since <= asked));
        if let Some(l) = before.first() {
            return Some(Evidence::Listening((*l).clone()));
        }
        if let Some(l) = after.first() {
            return Some(Evidence::NotYet((*l).clone()));
        }
        if !open.is_empty() {
            return Some(Evidence::OtherAddress(open));
        }
        list.iter().max_by_key(|l| l.until).map(|l| Evidence::Gone(l.clone()))
    }

    /// Words for where that is, if it is not where the caller is: "on the host".
    pub fn place(&self, found: &Found) -> Option<String> {
        found.there.map(|netns| self.addresses.name(netns))
    }

    /// Words for where the listener is, or was, of whom the evidence is.
    pub fn listeners_place(&self, found: &Found) -> Option<String> {
        match &found.evidence {
            Evidence::Beside(there, _) => Some(self.name(*there)),
            Evidence::Departed(departed, _) => Some(departed.place.clone()),
            _ => self.place(found),
        }
    }

    /// Words for a namespace.
    pub fn name(&self, netns: u32) -> String {
        self.addresses.name(netns)
    }
}

/// Whether a socket bound to `bound` accepts connections to `target`. An IPv6 wildcard takes IPv4 too unless
/// `IPV6_V6ONLY` is set, which is not visible here: it counts as covering.
fn covers(bound: IpAddr, target: IpAddr) -> bool {
    bound == target
        || match bound {
            IpAddr::V4(a) => a.is_unspecified() && target.is_ipv4(),
            IpAddr::V6(a) => a == Ipv6Addr::UNSPECIFIED,
        }
}

/// A time span for a sentence.
pub fn ago(ns: Ns) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0 => format!("{} ms", ns / 1_000_000),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    #[test]
    fn who_listened_in_a_namespace_that_is_gone_is_forgotten() {
        let mut listeners = Listeners::default();
        let told = |container: &str| shell::Addresses {
            namespaces: vec![shell::NamespaceMeta {
                netns: 2,
                container: Some(container.into()),
                ..shell::NamespaceMeta::default()
            }],
            partial: false,
        };
        let target = at("127.0.0.1:80");
        listeners.addresses(told("a"));
        listeners.up(2, target, 7, None);
        listeners.down(2, target, 7, 5);
        listeners.addresses(told("a"));
        assert!(matches!(listeners.evidence(2, target, 9).evidence, Evidence::Gone(_)));
        listeners.up(2, at("127.0.0.1:81"), 8, None);
        listeners.addresses(told("b"));
        assert_eq!(listeners.evidence(2, target, 9).evidence, Evidence::Nothing);
        assert_eq!(listeners.owner(2, 81), Some(8), "told of the new one already");
    }

    #[test]
    fn a_wildcard_listener_covers_the_target() {
        let mut listeners = Listeners::default();
        listeners.up(1, at("[::]:80"), 1, None);
        assert!(matches!(listeners.evidence(1, at("127.0.0.1:80"), 0).evidence, Evidence::Listening(_)));
        assert_eq!(listeners.owner(1, 80), Some(1));
        assert!(listeners.accepts(1, at("127.0.0.1:80"), 1) && !listeners.accepts(1, at("127.0.0.1:80"), 2));
        listeners.up(1, at("127.0.0.1:81"), 1, None);
        assert!(!listeners.accepts(1, at("10.0.0.1:81"), 1), "another host's");
    }
}
