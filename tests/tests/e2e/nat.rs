//! Address translation between client and server: neither end sees the other's address, both see the same sequence
//! numbers. In a network namespace of its own, by nftables.

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::namespace::Namespace;
use ktrdr_tests::net::{free_port, listens_beside};
use ktrdr_tests::process::{Process, program, python, python_program, run};
use ktrdr_tests::span::brief;

#[test]
fn calls_are_joined_across_address_translation() {
    if !can_observe() {
        return;
    }
    let ns = Namespace::new("nat");
    for addr in ["10.77.0.1/32", "10.77.0.2/32", "10.77.0.5/32", "10.77.0.9/32"] {
        run(ns.command("ip").args(["addr", "add", addr, "dev", "lo"]));
    }
    let (public, port) = (free_port(), free_port());
    // Both addresses and both ports change, as for a published port of a container and a masqueraded client.
    ns.rules(&format!(
        "table ip ktrdr {{\n\
         chain out {{ type nat hook output priority -100; ip daddr 10.77.0.9 tcp dport {public} dnat to 10.77.0.1:{port}; }}\n\
         chain post {{ type nat hook postrouting priority 100; ip daddr 10.77.0.1 meta l4proto tcp snat to 10.77.0.5:40000-50000; }}\n\
         }}\n"
    ));
    let dir = tempfile::tempdir().unwrap();
    let mut server = ns.command(&python().to_string_lossy());
    server.arg(program("threaded_server.py")).arg(port.to_string()).arg("10.77.0.1");
    let agent = Options::ports(&[public, port]).start();
    let mut server = Process::start(server, dir.path());
    let pid = server.id();
    server.wait_until("it listens", || listens_beside(pid, port));
    let base = format!("http://10.77.0.9:{public}");
    let client = python_program("clients.py");
    let mut inside = ns.command(&client.get_program().to_string_lossy());
    inside.args(client.get_args()).args([&base, "httpx,requests"]);
    let said = run(&mut inside);
    let calls = ktrdr_tests::truth::Truth::parse_all(&said).len();
    assert!(calls > 10);
    agent.wait_for_spans(calls * 2);
    let finished = agent.stop();
    let servers: Vec<_> = finished.spans.iter().filter(|s| s.is_server()).collect();
    assert_eq!(servers.len(), calls, "{}", brief(&finished.spans));
    for server in servers {
        let client = finished.spans.iter().find(|s| Some(&s.span_id) == server.parent_span_id.as_ref());
        let client = client
            .unwrap_or_else(|| panic!("{} has no client in\n{}", server.brief(), brief(&finished.spans)));
        assert_eq!(client.path(), server.path());
        assert_eq!(client.text("server.address"), Some("10.77.0.9"));
        assert_eq!(client.text("ktrdr.exchange.positions"), server.text("ktrdr.exchange.positions"));
    }
}
