//! Connects that fail, and the ones that only look like it.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use ktrdr_tests::agent::{Agent, Options, can_observe};
use ktrdr_tests::namespace::Namespace;
use ktrdr_tests::net::{free_port, listens};
use ktrdr_tests::process::{Process, output, python, python_program, run};
use ktrdr_tests::span::{Span, brief};

fn observed(ports: &[u16], hook: &str) -> Agent {
    Options::ports(ports).args(&["--hook", hook]).start()
}

fn with_both_hooks(test: impl Fn(&str)) {
    if can_observe() {
        test("socket");
        test("syscall");
    }
}

/// Lets a small Python program fail; it prints what it saw.
fn attempt(how: &str, arguments: &[&str]) -> String {
    run(python_program("connect.py").arg(how).args(arguments))
}

fn refused(spans: &[Span], port: u16) -> &Span {
    let found: Vec<&Span> = spans.iter().filter(|s| s.int("server.port") == Some(port.into())).collect();
    assert_eq!(found.len(), 1, "spans of port {port} in\n{}", brief(spans));
    let span = found[0];
    assert_eq!((span.kind.as_str(), span.status.as_str()), ("client", "error"), "{}", span.brief());
    span
}

#[test]
fn every_kind_of_client_that_is_refused_gets_one_span() {
    with_both_hooks(|hook| {
        let cases: Vec<(&str, &str, u16)> = [
            ("blocking", "127.0.0.1"),
            ("blocking", "::1"),
            ("nonblocking", "127.0.0.1"),
            ("nonblocking", "::1"),
            ("asyncio", "127.0.0.1"),
            ("httpx", "127.0.0.1"),
            ("httpx-async", "127.0.0.1"),
            ("requests", "127.0.0.1"),
            ("aiohttp", "127.0.0.1"),
        ]
        .map(|(how, host)| (how, host, free_port()))
        .to_vec();
        let curl = free_port();
        let mut ports: Vec<u16> = cases.iter().map(|c| c.2).collect();
        ports.push(curl);
        let agent = observed(&ports, hook);
        for (how, host, port) in &cases {
            let said = attempt(how, &[host, &port.to_string()]);
            assert_eq!(said.trim(), "refused", "{how}");
        }
        let status = output(Command::new("curl").args(["-s", &format!("http://127.0.0.1:{curl}/")])).status;
        assert_eq!(status.code(), Some(7));
        agent.wait_for_spans(ports.len());
        let finished = agent.stop();
        assert_eq!(finished.spans.len(), ports.len(), "{}", brief(&finished.spans));
        for (how, host, port) in &cases {
            let span = refused(&finished.spans, *port);
            assert_eq!(span.text("error.type"), Some("connection_refused"), "{how}: {}", span.brief());
            assert_eq!(span.text("server.address"), Some(*host), "{how}: {}", span.brief());
            assert_eq!(span.int("ktrdr.connect.attempt"), Some(1), "{how}: {}", span.brief());
            assert_eq!(span.text("ktrdr.listener.state"), Some("nothing_listening"), "{how}");
            let end = format!("connection refused, nothing is listening on port {port}");
            assert!(span.status_message.ends_with(&end), "{how}: {}", span.brief());
            let command = span.resource["process.command_args"].to_string();
            assert!(command.contains("connect.py"), "{how}: {command}");
        }
        refused(&finished.spans, curl);
    });
}

#[test]
fn happy_eyeballs_is_no_error_and_both_refused_is_one() {
    with_both_hooks(|hook| {
        let (good, bad) = (free_port(), free_port());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, good)).unwrap();
        let agent = observed(&[good, bad], hook);
        // `both.test` is ::1 and 127.0.0.1, tried in this order.
        let server = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for _ in 0..3 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .unwrap();
            }
        });
        let names = ["both.test", &good.to_string()];
        for how in ["httpx", "httpx-async", "requests"] {
            assert_eq!(attempt(how, &names).trim(), "200", "{how}");
        }
        server.join().unwrap();
        assert_eq!(attempt("requests", &["both.test", &bad.to_string()]).trim(), "refused");
        agent.wait_for_spans(3 * 2 + 1);
        let finished = agent.stop();
        assert_eq!(finished.spans.len(), 7, "{}", brief(&finished.spans));
        let errors: Vec<&Span> = finished.spans.iter().filter(|s| s.status == "error").collect();
        assert_eq!(errors.len(), 1, "{}", brief(&finished.spans));
        assert_eq!(errors[0].int("server.port"), Some(bad.into()));
        let earlier = errors[0].events.iter().filter(|e| e.name == "connect.address_failed").count();
        assert_eq!(earlier, 1, "the other address is an event: {:?}", errors[0].events);
        assert_eq!(finished.stats.unwrap().connects_recovered, 3);
    });
}

#[test]
fn attempts_are_numbered_and_evidence_is_given() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (gone, elsewhere) = (free_port(), free_port());
    let other = TcpListener::bind((Ipv6Addr::LOCALHOST, elsewhere)).unwrap();
    let agent = observed(&[gone, elsewhere], "auto");
    // A service that listens, and then exits with a status.
    let mut service = Process::start(
        {
            let mut command = python_program("connect.py");
            command.args(["listen", "127.0.0.1", &gone.to_string()]);
            command
        },
        dir.path(),
    );
    service.wait_until("it listens", || listens(gone));
    let service_pid = service.id();
    service.signal(libc::SIGUSR1);
    let status = service.wait(ktrdr_tests::wait::DEADLINE).unwrap();
    assert_eq!((status.code(), status.signal()), (Some(3), None));
    assert_eq!(attempt("thrice", &["127.0.0.1", &gone.to_string()]).trim(), "refused");
    assert_eq!(attempt("blocking", &["127.0.0.1", &elsewhere.to_string()]).trim(), "refused");
    agent.wait_for_spans(4);
    let finished = agent.stop();
    drop(other);
    let of = |port: u16| -> Vec<&Span> {
        finished.spans.iter().filter(|s| s.int("server.port") == Some(port.into())).collect()
    };
    let tried = of(gone);
    let numbers: Vec<_> = tried.iter().map(|s| s.int("ktrdr.connect.attempt").unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    // The program without its directory.
    let python = python().file_name().unwrap().to_string_lossy().into_owned();
    for span in &tried {
        let message = &span.status_message;
        let listened = format!("(pid {service_pid} `{python} ");
        assert!(message.contains(&listened), "{message}");
        assert!(
            message.contains(" listened until ") && message.contains("exited with status 3)"),
            "{message}"
        );
        assert_eq!(span.text("ktrdr.listener.state"), Some("listener_gone"));
        assert_eq!(span.int("ktrdr.listener.pid"), Some(service_pid.into()));
    }
    assert!(tried[2].status_message.ends_with("(attempt 3)"), "{}", tried[2].status_message);
    let [other] = of(elsewhere)[..] else { panic!("{}", brief(&finished.spans)) };
    let message = &other.status_message;
    let sentence = format!(
        "nothing is listening on 127.0.0.1:{elsewhere}; the port is open on other addresses only: [::1]:{elsewhere}"
    );
    assert!(message.contains(&sentence), "{message}");
    assert_eq!(other.text("ktrdr.listener.state"), Some("other_address_only"));
}

/// A network namespace with ways that lead nowhere.
fn nowhere() -> Namespace {
    let namespace = Namespace::new("nowhere");
    for arguments in [
        // What goes there comes back as somebody else's, and is dropped without a word.
        "address add 10.99.0.1/32 dev lo",
        "route add 10.99.0.0/24 dev lo src 10.99.0.1",
        "route add unreachable 10.98.0.0/24",
        "route add prohibit 10.97.0.0/24",
    ] {
        run(namespace.command("ip").args(arguments.split(' ')));
    }
    namespace
}

#[test]
fn ways_that_lead_nowhere_are_told_apart() {
    with_both_hooks(|hook| {
        let namespace = nowhere();
        let port = free_port();
        let agent = observed(&[port], hook);
        let cases = [
            ("10.96.0.1", "network_unreachable", "ENETUNREACH"),
            ("10.98.0.1", "host_unreachable", "EHOSTUNREACH"),
            ("10.97.0.1", "permission_denied", "EACCES"),
            ("10.99.0.7", "connection_timeout", "timeout"),
        ];
        for (host, _, errno) in cases {
            let mut client = python_program("connect.py");
            client.args(["errno", host, &port.to_string()]);
            assert_eq!(run(&mut namespace.enter(&client)).trim(), errno, "{host}");
        }
        agent.wait_for_spans(cases.len());
        let finished = agent.stop();
        assert_eq!(finished.spans.len(), cases.len(), "{}", brief(&finished.spans));
        for (span, (host, kind, _)) in finished.spans.iter().zip(cases) {
            assert_eq!(span.text("server.address"), Some(host), "{}", brief(&finished.spans));
            assert_eq!(span.text("error.type"), Some(kind), "{}", span.brief());
            assert_eq!(span.status, "error");
        }
        let message = &finished.spans[3].status_message;
        assert!(
            message.contains("no answer to the connection request, the client gave up after"),
            "{message}"
        );
        assert!(finished.spans[3].duration_ms >= 1150.0, "{}", finished.spans[3].brief());
    });
}
