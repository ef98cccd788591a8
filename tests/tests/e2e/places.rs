//! Refused by another network namespace of this host, as containers are by each other and by their host; and by another host.

use std::path::Path;
use std::process::Command;

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::namespace::Namespace;
use ktrdr_tests::net::{free_port, listens_beside};
use ktrdr_tests::process::{Process, program, python, python_program, run};
use ktrdr_tests::span::{Span, brief};
use ktrdr_tests::wait;

fn inside(ns: Option<&Namespace>, command: Command) -> Command {
    match ns {
        Some(ns) => ns.enter(&command),
        None => command,
    }
}

/// A client of this namespace, or of the test's own, which is refused.
fn refused(ns: Option<&Namespace>, host: &str, port: u16) {
    let mut client = python_program("connect.py");
    client.args(["blocking", host, &port.to_string()]);
    run(&mut inside(ns, client));
}

fn server(ns: Option<&Namespace>, address: &str, port: u16, dir: &Path) -> Process {
    let mut command = Command::new(python());
    command.arg(program("threaded_server.py")).args([&port.to_string(), address]);
    let mut server = Process::start(inside(ns, command), dir);
    let pid = server.id();
    server.wait_until("it listens", || listens_beside(pid, port));
    server
}

#[test]
fn a_refusal_is_explained_across_network_namespaces() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (container, other_host) = (Namespace::linked("container", 1), Namespace::linked("host", 2));
    let [nobody, loopback, ended, everywhere] = [(); 4].map(|()| free_port());
    let agent = Options::ports(&[nobody, loopback, ended, everywhere]).start();

    refused(Some(&container), container.outside(), nobody);
    let on_loopback = server(None, "127.0.0.1", loopback, dir.path());
    refused(Some(&container), container.outside(), loopback);
    refused(Some(&container), "127.0.0.1", loopback);
    let was = server(Some(&container), "0.0.0.0", ended, dir.path());
    let was_pid = was.id();
    drop(was);
    // Somebody else is there still, or nobody would know of the namespace.
    let _other = server(Some(&container), "127.0.0.1", free_port(), dir.path());
    refused(None, container.inside(), ended);
    // In this namespace no process runs, so it might be on another host.
    let here = server(None, "0.0.0.0", everywhere, dir.path());
    refused(None, other_host.inside(), everywhere);

    agent.wait_for_spans(5);
    let spans = agent.stop().spans;
    let (own, spans): (Vec<Span>, Vec<Span>) =
        spans.into_iter().partition(|s| s.text("server.address") == Some("127.0.0.1"));
    assert_eq!(own.len(), 1, "{}", brief(&own));
    assert_eq!(own[0].text("ktrdr.listener.state"), Some("other_namespace_only"), "{}", own[0].brief());
    let on_the_host = format!("nothing is listening on port {loopback}; pid {} `", on_loopback.id());
    assert!(own[0].status_message.contains(&on_the_host), "{}", own[0].status_message);
    assert!(own[0].status_message.ends_with("listens on it on the host"), "{}", own[0].status_message);
    let of = |port: u16| -> &Span {
        let found: Vec<&Span> = spans.iter().filter(|s| s.int("server.port") == Some(port.into())).collect();
        assert_eq!(found.len(), 1, "{}", brief(&spans));
        assert_eq!(found[0].text("error.type"), Some("connection_refused"));
        found[0]
    };
    let told = |port: u16, state: &str, place: Option<&str>, text: &str| {
        let s = of(port);
        assert_eq!(s.text("ktrdr.listener.state"), Some(state), "{}", s.brief());
        assert_eq!(s.text("ktrdr.listener.place"), place, "{}", s.brief());
        assert!(s.status_message.contains(text), "{}", s.status_message);
    };
    told(nobody, "nothing_listening", Some("on the host"), &format!("port {nobody} on the host"));
    told(
        loopback,
        "other_address_only",
        Some("on the host"),
        &format!(
            "nothing is listening on {}:{loopback}; the port is open on the host on other addresses only: \
             127.0.0.1:{loopback} (pid {} `",
            container.outside(),
            on_loopback.id()
        ),
    );
    let there = "in another network namespace of this host";
    told(
        ended,
        "listener_gone",
        Some(there),
        &format!("nothing is listening on port {ended} {there} (pid {was_pid} `"),
    );
    told(everywhere, "remote_host", None, "another host; its listeners are not visible from here");
    let remote = of(everywhere);
    assert_eq!(remote.text("peer.service"), None, "{} is this host's: {}", here.id(), remote.brief());
}

/// As when a container is made anew: another namespace with the same address, in which nobody listens yet.
#[test]
fn who_listened_in_a_namespace_that_is_gone_is_named() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, other) = (free_port(), free_port());
    let agent = Options::ports(&[port, other]).start();
    let before = Namespace::linked("before", 4);
    let address = before.inside().to_owned();
    let was = server(Some(&before), "0.0.0.0", port, dir.path());
    let pid = was.id();
    // While it lives, so that the agent has seen whose the address is.
    refused(None, &address, other);
    agent.wait_for_spans(1);
    drop((was, before));
    let anew = Namespace::linked("anew", 4);
    assert_eq!(anew.inside(), address);
    let _other = server(Some(&anew), "127.0.0.1", free_port(), dir.path());
    // The agent looks at addresses once a second at most, and takes what it knows until then.
    let gone =
        |s: &Span| s.text("ktrdr.listener.place").is_some_and(|place| place.ends_with("which is gone"));
    let span = wait::until("the agent sees that it is gone", || {
        let before = agent.spans().len();
        refused(None, &address, port);
        agent.wait_for_spans(before + 1).into_iter().find(gone)
    });

    let place = "in another network namespace of this host";
    let text = &span.status_message;
    assert_eq!(span.text("ktrdr.listener.state"), Some("listener_gone"), "{text}");
    assert!(text.contains(&format!("nothing is listening on port {port} {place} (pid {pid} `")), "{text}");
    assert!(text.contains(&format!("ago {place}, which is gone, and ")), "{text}");
    for span in agent.stop().spans.iter().filter(|s| s.int("server.port") == Some(port.into())) {
        assert_eq!(span.text("ktrdr.listener.state"), Some("listener_gone"), "{}", span.brief());
    }
}

#[test]
fn who_listens_behind_a_firewall_that_drops_is_named() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let container = Namespace::linked("dropped", 3);
    let port = free_port();
    container.rules(&answers(port, "drop"));
    let agent = Options::ports(&[port]).start();
    let server = server(Some(&container), "0.0.0.0", port, dir.path());
    let mut client = python_program("connect.py");
    client.args(["errno", container.inside(), &port.to_string()]);
    run(&mut client);
    agent.wait_for_spans(1);
    let spans = agent.stop().spans;
    let [dropped] = &spans[..] else { panic!("{}", brief(&spans)) };
    assert_eq!(dropped.text("error.type"), Some("connection_timeout"), "{}", dropped.brief());
    let text = &dropped.status_message;
    assert!(text.contains(&format!(", although pid {} `", server.id())), "{text}");
    assert!(
        text.contains("in another network namespace of this host (full backlog, or a firewall drops)"),
        "{text}"
    );
}

/// What nftables does with connections to a port: a rule's end.
fn answers(port: u16, verdict: &str) -> String {
    format!(
        "table ip ktrdr {{\n\
         chain in {{ type filter hook input priority 0; tcp dport {port} {verdict}; }}\n\
         }}\n"
    )
}

/// As firewalld rejects: "no route to host" for whoever is in the way of its rules.
#[test]
fn who_listens_behind_a_firewall_that_rejects_is_named() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let container = Namespace::linked("rejected", 5);
    let port = free_port();
    container.rules(&answers(port, "reject with icmp type admin-prohibited"));
    let agent = Options::ports(&[port]).start();
    let server = server(Some(&container), "0.0.0.0", port, dir.path());
    refused(None, container.inside(), port);
    agent.wait_for_spans(1);
    let spans = agent.stop().spans;
    let [rejected] = &spans[..] else { panic!("{}", brief(&spans)) };
    assert_eq!(rejected.text("error.type"), Some("host_unreachable"), "{}", rejected.brief());
    let text = &rejected.status_message;
    let although = format!(": host unreachable, although pid {} `", server.id());
    assert!(text.contains(&although), "{text}");
    assert!(text.ends_with("in another network namespace of this host (a firewall rejects)"), "{text}");
}
