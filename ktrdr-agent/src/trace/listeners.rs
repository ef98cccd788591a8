//! Who listens where, and who did: the evidence behind a refused connect.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::processes::{End, Processes};
use crate::event::{MS, Ns};

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
    /// Nobody listens, and nobody was seen to.
    Nothing,
    /// The target is not on this host: no evidence can be had here.
    Remote,
}

/// All listeners by (network namespace, port).
#[derive(Debug, Default)]
pub struct Listeners {
    ports: BTreeMap<(u32, u16), Vec<Listener>>,
}

impl Listeners {
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

    /// What is known about a target that refused when it was tried at `asked`.
    pub fn evidence(&self, netns: u32, target: SocketAddr, asked: Ns) -> Evidence {
        let list = self.ports.get(&(netns, target.port())).map_or(&[][..], Vec::as_slice);
        let open: Vec<_> = list.iter().filter(|l| l.until.is_none()).cloned().collect();
        let (before, after): (Vec<_>, Vec<_>) = open
            .iter()
            .filter(|l| covers(l.addr, target.ip()))
            .partition(|l| l.since.is_none_or(|since| since <= asked));
        if let Some(l) = before.first() {
            return Evidence::Listening((*l).clone());
        }
        if let Some(l) = after.first() {
            return Evidence::NotYet((*l).clone());
        }
        if !open.is_empty() {
            return Evidence::OtherAddress(open);
        }
        if let Some(l) = list.iter().max_by_key(|l| l.until) {
            return Evidence::Gone(l.clone());
        }
        if target.ip().is_loopback() { Evidence::Nothing } else { Evidence::Remote }
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

/// The second half of the sentence about a connect that was tried at `asked` and refused by `now`.
pub fn explain(evidence: &Evidence, target: SocketAddr, asked: Ns, now: Ns, processes: &Processes) -> String {
    let who = |tgid: u32| match processes.get(tgid) {
        Some(p) => format!("pid {tgid} `{}`", p.command()),
        None => format!("pid {tgid}"),
    };
    let port = target.port();
    match evidence {
        Evidence::Nothing => format!("nothing is listening on port {port}"),
        Evidence::Remote => format!(
            "nothing accepts connections at {target} (another host; its listeners are not visible from here)"
        ),
        Evidence::Listening(l) => format!(
            "although {} listens on {} (full backlog, or a firewall rejects)",
            who(l.tgid),
            SocketAddr::new(l.addr, port)
        ),
        Evidence::NotYet(l) => {
            let later = l.since.unwrap_or(asked).saturating_sub(asked);
            let later = if later < MS { "right after".to_owned() } else { format!("{} after", ago(later)) };
            format!(
                "nothing was listening on port {port} yet ({} began to listen {later} the attempt)",
                who(l.tgid)
            )
        }
        Evidence::OtherAddress(list) => {
            let all: Vec<String> =
                list.iter().map(|l| format!("{} ({})", SocketAddr::new(l.addr, port), who(l.tgid))).collect();
            format!(
                "nothing is listening on {target}; the port is open on other addresses only: {}",
                all.join(", ")
            )
        }
        Evidence::Gone(l) => {
            let ago = l.until.map(|t| ago(now.saturating_sub(t))).unwrap_or_default();
            if l.tgid == 0 {
                return format!("nothing is listening on port {port} (a process listened until {ago} ago)");
            }
            let end = processes.get(l.tgid).and_then(|p| p.end);
            let end = match end {
                Some(end @ End { .. }) => format!(" and {end}"),
                None => " and still runs".to_owned(),
            };
            format!("nothing is listening on port {port} ({} listened until {ago} ago{end})", who(l.tgid))
        }
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
    use crate::event::Exit;
    use crate::event::shell::ProcessMeta;

    const S: Ns = 1_000_000_000;

    fn at(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    #[test]
    fn a_refusal_explains_itself() {
        let mut listeners = Listeners::default();
        let mut processes = Processes::new();
        let target = at("127.0.0.1:5001");
        let say =
            |l: &Listeners, p: &Processes, now| explain(&l.evidence(1, target, now), target, now, now, p);
        assert_eq!(say(&listeners, &processes, 0), "nothing is listening on port 5001");

        processes.learn(ProcessMeta {
            tgid: 4711,
            command: vec!["python".into(), "main.py".into()],
            ..ProcessMeta::default()
        });
        listeners.up(1, target, 4711, None);
        assert!(say(&listeners, &processes, 0).starts_with("although pid 4711 `python main.py` listens"));

        listeners.down(1, target, 4711, 5 * S);
        processes.exit(4711, 5 * S, &Exit { code: 1 << 8, ppid: 1, out_of_memory: false });
        assert_eq!(
            say(&listeners, &processes, 17 * S),
            "nothing is listening on port 5001 (pid 4711 `python main.py` listened until 12 s ago and exited with status 1)"
        );

        listeners.up(1, at("[::1]:5001"), 4711, None);
        assert!(say(&listeners, &processes, 17 * S).contains("other addresses only: [::1]:5001"));
        // Another namespace's listener is no evidence here.
        assert_eq!(listeners.evidence(2, target, 0), Evidence::Nothing);
    }

    #[test]
    fn who_came_too_late_is_no_reason_to_look_for_a_firewall() {
        let mut listeners = Listeners::default();
        let mut processes = Processes::new();
        processes.learn(ProcessMeta { tgid: 4711, command: vec!["serve".into()], ..ProcessMeta::default() });
        let target = at("127.0.0.1:5001");
        listeners.up(1, target, 4711, Some(5 * S));
        // Looked at again later, which does not say since when.
        listeners.up(1, target, 4711, None);
        let say = |asked| explain(&listeners.evidence(1, target, asked), target, asked, 9 * S, &processes);
        let yet = "nothing was listening on port 5001 yet (pid 4711 `serve` began to listen ";
        assert_eq!(say(2 * S), format!("{yet}3 s after the attempt)"));
        assert_eq!(say(5 * S - 1), format!("{yet}right after the attempt)"));
        assert!(say(5 * S).starts_with("although "));
    }

    #[test]
    fn a_wildcard_listener_covers_the_target() {
        let mut listeners = Listeners::default();
        listeners.up(1, at("[::]:80"), 1, None);
        assert!(matches!(listeners.evidence(1, at("127.0.0.1:80"), 0), Evidence::Listening(_)));
        assert_eq!(listeners.owner(1, 80), Some(1));
        assert!(listeners.accepts(1, at("127.0.0.1:80"), 1) && !listeners.accepts(1, at("127.0.0.1:80"), 2));
        listeners.up(1, at("127.0.0.1:81"), 1, None);
        assert!(!listeners.accepts(1, at("10.0.0.1:81"), 1), "another host's");
    }
}
