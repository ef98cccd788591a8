//! Words for a connect that was refused, or not answered: what is known of the place it went to.

use std::net::SocketAddr;

use super::departed::Departed;
use super::listeners::{Evidence, Found, Listener, Listeners, ago};
use super::processes::Processes;
use crate::event::{MS, Ns};

/// A connect that was tried at `asked` and refused by `now`.
pub struct Refusal<'a> {
    /// Who listens.
    pub listeners: &'a Listeners,
    /// Who they are.
    pub processes: &'a Processes,
    /// When it was tried.
    pub asked: Ns,
    /// When it had failed.
    pub now: Ns,
}

impl Refusal<'_> {
    /// The second half of a sentence about it.
    pub fn explain(&self, found: &Found, target: SocketAddr) -> String {
        let port = target.port();
        let place = self.listeners.place(found).map(|place| format!(" {place}")).unwrap_or_default();
        match &found.evidence {
            Evidence::Nothing => format!("nothing is listening on port {port}{place}"),
            Evidence::Beside(there, l) => {
                let (who, there) = (self.who(l.tgid), self.listeners.name(*there));
                format!("nothing is listening on port {port}{place}; {who} listens on it {there}")
            }
            Evidence::Remote => format!(
                "nothing accepts connections at {target} (another host; its listeners are not visible from here)"
            ),
            Evidence::Several => format!(
                "nothing accepts connections at {target} (an address of several network namespaces of this host)"
            ),
            Evidence::Unknown => {
                format!("nothing accepts connections at {target} (whose listeners are not visible from here)")
            }
            Evidence::Listening(l) => self.although(l, found, port, FULL),
            Evidence::NotYet(l) => {
                let later = l.since.unwrap_or(self.asked).saturating_sub(self.asked);
                let later =
                    if later < MS { "right after".to_owned() } else { format!("{} after", ago(later)) };
                let who = self.who(l.tgid);
                format!(
                    "nothing was listening on port {port}{place} yet ({who} began to listen {later} the attempt)"
                )
            }
            Evidence::OtherAddress(list) => {
                let one = |l: &Listener| format!("{} ({})", SocketAddr::new(l.addr, port), self.who(l.tgid));
                let all: Vec<String> = list.iter().map(one).collect();
                let all = all.join(", ");
                format!(
                    "nothing is listening on {target}; the port is open{place} on other addresses only: {all}"
                )
            }
            Evidence::Gone(l) => {
                format!("nothing is listening on port {port}{place} ({})", self.listened(l, ""))
            }
            Evidence::Departed(d, true) => {
                format!("nothing is listening on port {port}{place} ({})", self.departed(d))
            }
            Evidence::Departed(d, false) => {
                format!("nothing accepts connections at {target} ({})", self.departed(d))
            }
        }
    }

    /// Who listened, until when, and how that ended.
    fn listened(&self, l: &Listener, place: &str) -> String {
        let ago = l.until.map(|t| ago(self.now.saturating_sub(t))).unwrap_or_default();
        if l.tgid == 0 {
            return format!("a process listened until {ago} ago{place}");
        }
        let end = self.processes.get(l.tgid).and_then(|p| p.end);
        let end = end.map_or_else(|| " and still runs".to_owned(), |end| format!(" and {end}"));
        format!("{} listened until {ago} ago{place}{end}", self.who(l.tgid))
    }

    fn departed(&self, d: &Departed) -> String {
        self.listened(&d.listener, &format!(" {},", d.place))
    }

    /// The same about one that nobody answered, or that the way there is said to be none for (`unreachable`): of who does not
    /// listen a connect is refused, so that would explain nothing, but for who had the address.
    pub fn unanswered(&self, found: &Found, target: SocketAddr, unreachable: bool) -> Option<String> {
        match &found.evidence {
            Evidence::Listening(l) => {
                let why = if unreachable { REJECTED } else { DROPPED };
                Some(self.although(l, found, target.port(), why))
            }
            Evidence::Departed(d, _) => Some(self.departed(d)),
            _ => None,
        }
    }

    fn although(&self, l: &Listener, found: &Found, port: u16, why: &str) -> String {
        let place = self.listeners.place(found).map(|place| format!(" {place}")).unwrap_or_default();
        let why = self.behind(l, found).unwrap_or_else(|| why.into());
        format!("although {} listens on {}{place} ({why})", self.who(l.tgid), SocketAddr::new(l.addr, port))
    }

    fn who(&self, tgid: u32) -> String {
        match self.processes.get(tgid) {
            Some(p) => format!("pid {tgid} `{}`", p.command()),
            None => format!("pid {tgid}"),
        }
    }

    /// What refused behind a listener that forwards its port.
    fn behind(&self, l: &Listener, found: &Found) -> Option<String> {
        let to = forwards(l.tgid, self.processes)?;
        let netns =
            found.there.or_else(|| self.processes.get(l.tgid).map(|p| p.meta.netns)).unwrap_or_default();
        let behind = self.listeners.evidence(netns, to, self.asked);
        let what = match behind.evidence {
            // Looked behind once: two that forward to each other would be a ring.
            Evidence::Listening(_) => format!("something listens ({FULL})"),
            _ => self.explain(&behind, to),
        };
        Some(format!("which forwards to {to}, where {what}"))
    }
}

const FULL: &str = "full backlog, or a firewall rejects";
const DROPPED: &str = "full backlog, or a firewall drops";
/// As firewalld does with what no zone lets through: an ICMP message, and no reset.
const REJECTED: &str = "a firewall rejects";

/// Where Docker's proxy for a published port passes connections on to, as its command line says. The kernel forwards most of
/// them to the same address before they come to the proxy, so whoever is refused there was refused by the container.
fn forwards(tgid: u32, processes: &Processes) -> Option<SocketAddr> {
    let command = &processes.get(tgid)?.meta.command;
    let program = command.first()?.rsplit('/').next()?;
    let value = |name: &str| command.iter().skip_while(|a| *a != name).nth(1);
    let to = || {
        Some(SocketAddr::new(value("-container-ip")?.parse().ok()?, value("-container-port")?.parse().ok()?))
    };
    (program == "docker-proxy").then(to)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Exit;
    use crate::event::shell::{Addresses, NamespaceMeta, ProcessMeta};

    const S: Ns = 1_000_000_000;

    fn at(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    fn say(
        listeners: &Listeners,
        processes: &Processes,
        netns: u32,
        target: SocketAddr,
        asked: Ns,
        now: Ns,
    ) -> String {
        let refusal = Refusal { listeners, processes, asked, now };
        refusal.explain(&listeners.evidence(netns, target, asked), target)
    }

    fn process(tgid: u32, command: &str) -> ProcessMeta {
        ProcessMeta {
            tgid,
            command: command.split(' ').map(str::to_owned).collect(),
            ..ProcessMeta::default()
        }
    }

    fn namespace(netns: u32, container: Option<&str>, addresses: &[&str]) -> NamespaceMeta {
        NamespaceMeta {
            netns,
            host: container.is_none(),
            container: container.map(str::to_owned),
            addresses: addresses.iter().map(|a| (a.parse().unwrap(), 32)).collect(),
        }
    }

    /// A host (1) with a bridge, and what is on that.
    fn told(listeners: &mut Listeners, containers: &[NamespaceMeta]) {
        let host = namespace(1, None, &["192.168.1.5", "172.17.0.1"]);
        let namespaces = [&[host], containers].concat();
        listeners.addresses(Addresses { namespaces, partial: false });
    }

    /// The host with a container (2).
    fn host() -> (Listeners, Processes) {
        let mut listeners = Listeners::default();
        told(&mut listeners, &[namespace(2, Some("3f2a9b7c1d2e4455"), &["172.17.0.2"])]);
        (listeners, Processes::new())
    }

    #[test]
    fn from_a_container_the_hosts_listeners_are_seen() {
        let (mut l, mut p) = host();
        let target = at("172.17.0.1:5001");
        assert_eq!(say(&l, &p, 2, target, 0, 0), "nothing is listening on port 5001 on the host");
        p.learn(process(4711, "python main.py"));
        l.up(1, at("127.0.0.1:5001"), 4711, None);
        assert_eq!(
            say(&l, &p, 2, target, 0, 0),
            "nothing is listening on 172.17.0.1:5001; the port is open on the host on other addresses only: \
             127.0.0.1:5001 (pid 4711 `python main.py`)"
        );
    }

    #[test]
    fn who_listens_and_does_not_answer_is_named() {
        let (mut l, mut p) = host();
        p.learn(process(4711, "python main.py"));
        let target = at("172.17.0.1:5001");
        let say = |l: &Listeners, p: &Processes| {
            let refusal = Refusal { listeners: l, processes: p, asked: 0, now: 0 };
            refusal.unanswered(&l.evidence(2, target, 0), target, false)
        };
        assert_eq!(say(&l, &p), None);
        l.up(1, at("127.0.0.1:5001"), 4711, None);
        assert_eq!(say(&l, &p), None);
        l.up(1, at("0.0.0.0:5001"), 4711, None);
        let text = "although pid 4711 `python main.py` listens on 0.0.0.0:5001 on the host (full backlog, or a firewall drops)";
        assert_eq!(say(&l, &p).as_deref(), Some(text));
    }

    #[test]
    fn who_asks_for_localhost_in_the_wrong_place_is_told_where_it_listens() {
        let (mut l, mut p) = host();
        p.learn(process(4711, "python main.py"));
        p.learn(process(20, "uvicorn app:app"));
        l.up(1, at("127.0.0.1:5001"), 4711, None);
        l.up(2, at("0.0.0.0:8000"), 20, None);
        assert_eq!(
            say(&l, &p, 2, at("127.0.0.1:5001"), 0, 0),
            "nothing is listening on port 5001; pid 4711 `python main.py` listens on it on the host"
        );
        assert_eq!(
            say(&l, &p, 1, at("127.0.0.1:8000"), 0, 0),
            "nothing is listening on port 8000; pid 20 `uvicorn app:app` listens on it in container 3f2a9b7c1d2e"
        );
        assert_eq!(
            say(&l, &p, 2, at("172.17.0.1:8000"), 0, 0),
            "nothing is listening on port 8000 on the host; pid 20 `uvicorn app:app` listens on it in container \
             3f2a9b7c1d2e"
        );
    }

    #[test]
    fn of_several_that_listen_elsewhere_only_the_hosts_is_named() {
        let (mut l, p) = host();
        let namespace = |netns, host| NamespaceMeta { netns, host, ..NamespaceMeta::default() };
        let namespaces = [1, 2, 3, 4].map(|netns| namespace(netns, netns == 1)).to_vec();
        l.addresses(Addresses { namespaces, partial: false });
        l.up(2, at("0.0.0.0:80"), 20, None);
        l.up(3, at("0.0.0.0:80"), 30, None);
        let target = at("127.0.0.1:80");
        assert_eq!(say(&l, &p, 4, target, 0, 0), "nothing is listening on port 80");
        l.up(1, at("0.0.0.0:80"), 10, None);
        assert_eq!(
            say(&l, &p, 4, target, 0, 0),
            "nothing is listening on port 80; pid 10 listens on it on the host"
        );
    }

    #[test]
    fn and_a_containers_from_the_host_and_from_another_one() {
        let (mut l, mut p) = host();
        p.learn(process(20, "uvicorn app:app"));
        l.up(2, at("0.0.0.0:8000"), 20, None);
        l.down(2, at("0.0.0.0:8000"), 20, 5 * S);
        p.exit(20, 5 * S, &Exit { code: 3 << 8, ppid: 1, out_of_memory: false });
        assert_eq!(
            say(&l, &p, 1, at("172.17.0.2:8000"), 9 * S, 9 * S),
            "nothing is listening on port 8000 in container 3f2a9b7c1d2e (pid 20 `uvicorn app:app` listened until 4 s \
             ago and exited with status 3)"
        );
    }

    #[test]
    fn who_listened_in_a_container_that_is_gone_is_known_by_its_address() {
        let (mut l, mut p) = host();
        p.learn(process(20, "uvicorn app:app"));
        let bound = at("0.0.0.0:8000");
        l.up(2, bound, 20, None);
        l.down(2, bound, 20, 5 * S);
        p.exit(20, 5 * S, &Exit { code: 3 << 8, ppid: 1, out_of_memory: false });
        let target = at("172.17.0.2:8000");
        let who = "pid 20 `uvicorn app:app` listened until 4 s ago in container 3f2a9b7c1d2e, which is gone, and exited \
                   with status 3";
        // Nobody has the address.
        told(&mut l, &[]);
        assert_eq!(
            say(&l, &p, 1, target, 9 * S, 9 * S),
            format!("nothing accepts connections at {target} ({who})")
        );
        let refusal = Refusal { listeners: &l, processes: &p, asked: 9 * S, now: 9 * S };
        assert_eq!(refusal.unanswered(&l.evidence(1, target, 9 * S), target, true).as_deref(), Some(who));
        // Made anew, and not listening yet; with the same number, and with another.
        for netns in [2, 3] {
            told(&mut l, &[namespace(netns, Some("9e8d7c6b5a4f3322"), &["172.17.0.2"])]);
            assert_eq!(
                say(&l, &p, 1, target, 9 * S, 9 * S),
                format!("nothing is listening on port 8000 in container 9e8d7c6b5a4f ({who})")
            );
            let other = at("172.17.0.2:8001");
            assert_eq!(
                say(&l, &p, 1, other, 9 * S, 9 * S),
                "nothing is listening on port 8001 in container 9e8d7c6b5a4f"
            );
        }
        // What is there now is what counts.
        l.up(3, at("127.0.0.1:8000"), 21, None);
        assert!(say(&l, &p, 1, target, 9 * S, 9 * S).contains("on other addresses only: 127.0.0.1:8000"));
        l.down(3, at("127.0.0.1:8000"), 21, 8 * S);
        assert!(
            say(&l, &p, 1, target, 9 * S, 9 * S).ends_with("(pid 21 listened until 1 s ago and still runs)")
        );
        // Gone as well, but it was not to be reached at that address.
        told(&mut l, &[]);
        assert!(
            say(&l, &p, 1, target, 9 * S, 9 * S).contains("(pid 20 `uvicorn app:app` listened until 4 s ago")
        );
    }

    #[test]
    fn a_firewall_that_rejects_says_that_there_is_no_way() {
        let (mut l, p) = host();
        let target = at("172.17.0.2:8000");
        l.up(2, at("0.0.0.0:8000"), 20, None);
        let refusal = Refusal { listeners: &l, processes: &p, asked: 0, now: 0 };
        assert_eq!(
            refusal.unanswered(&l.evidence(1, target, 0), target, true).as_deref(),
            Some("although pid 20 listens on 0.0.0.0:8000 in container 3f2a9b7c1d2e (a firewall rejects)")
        );
    }

    #[test]
    fn this_hosts_listeners_say_nothing_of_another_host() {
        let (mut l, p) = host();
        l.up(1, at("0.0.0.0:5003"), 9, None);
        let remote = at("192.168.1.7:5003");
        assert_eq!(
            say(&l, &p, 1, remote, 0, 0),
            "nothing accepts connections at 192.168.1.7:5003 (another host; its listeners are not visible from here)"
        );
        assert_eq!((l.last_owner_at(1, remote), l.last_owner_at(1, at("192.168.1.5:5003"))), (None, Some(9)));
        assert_eq!(l.last_owner_at(2, at("172.17.0.1:5003")), Some(9));
    }

    #[test]
    fn a_published_port_is_looked_behind() {
        let (mut l, mut p) = host();
        p.learn(process(
            30,
            "/usr/bin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8000 -container-ip 172.17.0.2 -container-port 80",
        ));
        p.learn(process(40, "nginx"));
        l.up(1, at("0.0.0.0:8000"), 30, None);
        l.up(2, at("127.0.0.1:80"), 40, None);
        let text = say(&l, &p, 2, at("172.17.0.1:8000"), 0, 0);
        assert!(
            text.ends_with(
                "listens on 0.0.0.0:8000 on the host (which forwards to 172.17.0.2:80, where nothing is listening on \
                 172.17.0.2:80; the port is open in container 3f2a9b7c1d2e on other addresses only: 127.0.0.1:80 (pid \
                 40 `nginx`))"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_refusal_explains_itself() {
        let mut listeners = Listeners::default();
        let mut processes = Processes::new();
        let target = at("127.0.0.1:5001");
        let say = |l: &Listeners, p: &Processes, now| say(l, p, 1, target, now, now);
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
        assert_eq!(listeners.evidence(2, target, 0).evidence, Evidence::Nothing);
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
        let say = |asked| say(&listeners, &processes, 1, target, asked, 9 * S);
        let yet = "nothing was listening on port 5001 yet (pid 4711 `serve` began to listen ";
        assert_eq!(say(2 * S), format!("{yet}3 s after the attempt)"));
        assert_eq!(say(5 * S - 1), format!("{yet}right after the attempt)"));
        assert!(say(5 * S).starts_with("although "));
    }
}
