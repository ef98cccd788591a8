//! A service under a seccomp filter that lacks the system call by which the kernel learns that a function returned: it lives,
//! and is observed as others are.

use std::process::Command;

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{python, python_program, root, run};
use ktrdr_tests::servers::listening;
use ktrdr_tests::span::{Span, brief};
use ktrdr_tests::wait;

/// `uretprobe` on x86_64; elsewhere no call at all.
const URETPROBE: &str = "335";
/// Requests at a time, and how many; each makes two calls.
const LOAD: [usize; 2] = [10, 60];

#[test]
fn a_python_service_confined_by_seccomp_lives_and_its_calls_have_their_parents() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    let [port_text, upstream_text] = [port, upstream].map(|port| port.to_string());
    let programs = root().join("tests/causality");
    let mut backend = Command::new(python());
    backend.arg(programs.join("backend.py")).arg(&upstream_text);
    let _backend = listening(backend, upstream, dir.path());
    let agent = Options::ports(&[port, upstream]).start();
    let mut service = python_program("refusing.py");
    service.arg(URETPROBE).arg(python()).arg(programs.join("app.py"));
    service.args(["fastapi", "asyncio", &port_text, &upstream_text, "alone"]);
    let mut service = listening(service, port, dir.path());
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.id())).unwrap();
    assert!(status.contains("\nSeccomp:\t2\n"), "it is confined: {status}");
    let followed = format!("python causality: exact (pid {},", service.id());
    wait::until("it is followed", || agent.log().contains(&followed).then_some(()));

    let [in_flight, total] = LOAD.map(|n| n.to_string());
    let mut load = Command::new(python());
    run(load.arg(programs.join("load.py")).args([&port_text, "async", &in_flight, &total]));
    let to_backend = |s: &&Span| s.is_client() && s.int("server.port") == Some(upstream.into());
    agent.wait_for("all calls", |spans| spans.iter().filter(to_backend).count() == 2 * LOAD[1]);
    assert_eq!(service.ended(), None, "{}", service.log());
    let finished = agent.stop();
    assert_eq!(service.ended(), None, "{}", service.log());

    let spans = &finished.spans;
    for call in spans.iter().filter(to_backend) {
        let parent = spans.iter().find(|s| call.parent_span_id.as_deref() == Some(&s.span_id));
        let of = call.path().and_then(|path| path.strip_prefix("/x")?.rsplit_once('/')).map(|(of, _)| of);
        assert_eq!(parent.and_then(Span::path), of, "{}\n{}", call.brief(), brief(spans));
        assert_eq!(
            call.text("ktrdr.link.method"),
            Some("python-context"),
            "copies were seen: {}",
            call.brief()
        );
    }
}
