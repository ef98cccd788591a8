//! Whose an address is: of the caller's own network namespace, of another one on this host, or of another host.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::event::shell::{Addresses as Told, NamespaceMeta};

/// Where what has an address is, seen from a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the same namespace.
    Here,
    /// In this other one.
    There(u32),
    /// In one of several: rootless containers may all have the same.
    Several,
    /// On another host.
    Elsewhere,
    /// Not told.
    Unknown,
}

/// The addresses of this host.
#[derive(Debug, Default)]
pub struct Addresses {
    namespaces: BTreeMap<u32, NamespaceMeta>,
    /// There may be others.
    partial: bool,
}

impl Addresses {
    /// All there are; what was told before does not hold. Returns the namespaces that are gone: another one may have such a
    /// number by now, as that of another container shows.
    pub fn told(&mut self, told: Told) -> Vec<NamespaceMeta> {
        let now = told.namespaces.into_iter().map(|n| (n.netns, n)).collect();
        let before = std::mem::replace(&mut self.namespaces, now);
        self.partial = told.partial;
        let same =
            |n: &NamespaceMeta| self.namespaces.get(&n.netns).is_some_and(|now| now.container == n.container);
        before.into_values().filter(|n| !same(n)).collect()
    }

    /// Nobody told anything yet: an older agent's recording.
    pub fn untold(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Where an address is for who calls from `netns`.
    pub fn place(&self, netns: u32, ip: IpAddr) -> Place {
        if ip.is_loopback() || ip.is_unspecified() {
            return Place::Here;
        }
        let has =
            |n: &NamespaceMeta| n.addresses.iter().any(|(network, prefix)| within(ip, *network, *prefix));
        let Some(own) = self.namespaces.get(&netns) else { return Place::Unknown };
        if has(own) {
            return Place::Here;
        }
        let mut others = self.namespaces.values().filter(|n| has(n)).map(|n| n.netns);
        match (others.next(), others.next()) {
            (Some(one), None) => Place::There(one),
            (Some(_), Some(_)) => Place::Several,
            (None, _) if self.partial || unicast_link_local(ip) => Place::Unknown,
            (None, _) => Place::Elsewhere,
        }
    }

    /// All namespaces but this one, and whether each is the host's.
    pub fn others(&self, netns: u32) -> impl Iterator<Item = (u32, bool)> {
        self.namespaces.values().filter(move |n| n.netns != netns).map(|n| (n.netns, n.host))
    }

    /// Words for a namespace, to follow "listening on a port".
    pub fn name(&self, netns: u32) -> String {
        name(self.namespaces.get(&netns))
    }
}

/// The same for one that is known, or is not.
pub fn name(namespace: Option<&NamespaceMeta>) -> String {
    /// As much of a container's id as its runtime shows.
    const SHOWN: usize = 12;
    match namespace {
        Some(NamespaceMeta { host: true, .. }) => "on the host".into(),
        Some(NamespaceMeta { container: Some(id), .. }) => {
            format!("in container {}", id.get(..SHOWN).unwrap_or(id))
        }
        _ => "in another network namespace of this host".into(),
    }
}

/// Its single addresses: a network that is all local may be another's, too.
pub fn single(namespace: &NamespaceMeta) -> impl Iterator<Item = IpAddr> {
    let alone = |(ip, prefix): &(IpAddr, u8)| *prefix == if ip.is_ipv4() { 32 } else { 128 };
    namespace.addresses.iter().filter(move |address| alone(address)).map(|(ip, _)| *ip)
}

/// These are told of no namespace, since all have the same.
fn unicast_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn within(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let same = |a: u128, b: u128, bits: u32| {
        (a ^ b).checked_shr(bits.saturating_sub(prefix.into())).unwrap_or(0) == 0
    };
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn namespace(netns: u32, host: bool, container: Option<&str>, addresses: &[&str]) -> NamespaceMeta {
        let address = |text: &&str| {
            let (network, prefix) = text.split_once('/').unwrap();
            (ip(network), prefix.parse().unwrap())
        };
        NamespaceMeta {
            netns,
            host,
            container: container.map(str::to_owned),
            addresses: addresses.iter().map(address).collect(),
        }
    }

    #[test]
    fn an_address_is_here_there_or_elsewhere() {
        let mut a = Addresses::default();
        assert_eq!(a.place(1, ip("10.0.0.1")), Place::Unknown, "nobody told yet");
        assert_eq!(a.place(1, ip("127.0.0.7")), Place::Here);
        a.told(Told {
            partial: false,
            namespaces: vec![
                namespace(1, true, None, &["10.0.0.1/32", "172.17.0.1/32", "fd00::1/128"]),
                namespace(2, false, Some("3f2a9b7c1d2e4455"), &["172.17.0.2/32", "10.0.2.100/32"]),
                namespace(3, false, None, &["10.0.2.100/32", "10.200.0.0/16"]),
            ],
        });
        assert_eq!(a.place(1, ip("10.0.0.1")), Place::Here);
        assert_eq!(a.place(2, ip("172.17.0.1")), Place::There(1));
        assert_eq!(a.place(1, ip("172.17.0.2")), Place::There(2));
        assert_eq!(a.place(1, ip("10.200.7.7")), Place::There(3));
        assert_eq!(a.place(1, ip("10.0.2.100")), Place::Several);
        assert_eq!(a.place(2, ip("10.0.2.100")), Place::Here);
        assert_eq!(a.place(2, ip("192.168.1.7")), Place::Elsewhere);
        assert_eq!(a.place(2, ip("fd00::1")), Place::There(1));
        assert_eq!(a.place(2, ip("fe80::1")), Place::Unknown);
        assert_eq!(a.place(9, ip("10.0.0.1")), Place::Unknown, "a namespace nobody knows may have it, too");
        assert_eq!(a.name(1), "on the host");
        assert_eq!(a.name(2), "in container 3f2a9b7c1d2e");
        assert_eq!(a.name(3), "in another network namespace of this host");
    }

    #[test]
    fn a_namespace_of_another_container_is_another() {
        let mut a = Addresses::default();
        let told = |containers: [Option<&str>; 2]| {
            let namespace =
                |(n, container): (usize, &Option<&str>)| namespace(n as u32, false, *container, &[]);
            Told { partial: false, namespaces: containers.iter().enumerate().map(namespace).collect() }
        };
        let gone = |gone: Vec<NamespaceMeta>| gone.iter().map(|n| n.netns).collect::<Vec<_>>();
        assert!(a.told(told([Some("a"), None])).is_empty());
        assert!(a.told(told([Some("a"), None])).is_empty());
        assert_eq!(gone(a.told(told([Some("b"), None]))), [0]);
        assert_eq!(gone(a.told(Told::default())), [0, 1]);
    }

    #[test]
    fn what_is_not_all_proves_no_other_host() {
        let mut a = Addresses::default();
        a.told(Told { partial: true, namespaces: vec![namespace(1, true, None, &[])] });
        assert_eq!(a.place(1, ip("10.0.0.1")), Place::Unknown);
    }

    #[test]
    fn prefixes_are_compared_from_none_to_all_bits() {
        assert!(within(ip("1.2.3.4"), ip("0.0.0.0"), 0) && within(ip("::1"), ip("ff::"), 0));
        assert!(within(ip("1.2.3.4"), ip("1.2.3.4"), 32) && !within(ip("1.2.3.4"), ip("1.2.3.5"), 32));
        assert!(within(ip("1.2.3.4"), ip("1.2.3.5"), 31) && !within(ip("1.2.3.4"), ip("::1"), 0));
    }
}
