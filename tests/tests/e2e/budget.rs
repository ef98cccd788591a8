//! Staying within a budget: what is left out is told, what is shown is true and whole, and all is seen again afterwards.
//!
//! The budget of these agents is less than they take when nothing happens, on any machine: whatever is busy is thinned.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::causality::{self, backend, load};
use super::recordings::replay;
use ktrdr_tests::agent::{Agent, Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{output, run};
use ktrdr_tests::raw::Peer;
use ktrdr_tests::servers::{Server, listening};
use ktrdr_tests::span::{Span, brief};
use ktrdr_tests::wait;

const BUDGET: &str = "0.1%";
const BEGINS: &str = "the agent takes more than 0.1% of this host's";
const ENDS: &str = "all connections are observed";
/// Clients, each of which uses so many connections in turn.
const CLIENTS: usize = 4;
const CONNECTIONS: usize = 16;

/// Waits until all is observed again, however often it was not.
fn wait_until_whole(agent: &Agent) {
    wait::until(ENDS, || {
        let log = agent.log();
        log.rfind(ENDS).is_some_and(|end| log.rfind(BEGINS) < Some(end)).then_some(())
    });
}

fn wait_until_told(agent: &Agent, what: &str) {
    wait::until(what, || agent.log().contains(what).then_some(()));
}

/// Asks for `/c/CONNECTION/NUMBER` on connections in turn until told to stop; every answer is read to its end.
fn client(port: u16, first: usize, stop: &AtomicBool) {
    let connect = |_| Peer::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    let mut peers: Vec<Peer> = (0..CONNECTIONS).map(connect).collect();
    for number in 0.. {
        for (at, peer) in peers.iter_mut().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            peer.send(format!("GET /c/{}/{number} HTTP/1.1\r\nHost: t\r\n\r\n", first + at));
            peer.receive_until(b"\r\n\r\nok");
        }
    }
}

/// Does something while clients ask without end. They stop in order, whatever fails.
fn under_load(port: u16, act: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let stop = &stop;
            scope.spawn(move || client(port, n * CONNECTIONS, stop));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        stop.store(true, Ordering::Relaxed);
        done
    });
    if let Err(failed) = done {
        std::panic::resume_unwind(failed);
    }
}

/// Connection and number of a call of [`client`].
fn number(span: &Span) -> Option<(usize, usize)> {
    let (connection, number) = span.path()?.strip_prefix("/c/")?.split_once('/')?;
    Some((connection.parse().ok()?, number.parse().ok()?))
}

fn get(port: u16, path: &str) {
    let url = format!("http://127.0.0.1:{port}{path}");
    run(Command::new("curl").args(["-sf", "-o", "/dev/null", &url]));
}

fn on_port(spans: &[Span], port: u16) -> impl Iterator<Item = &Span> {
    spans.iter().filter(move |s| s.int("server.port") == Some(port.into()))
}

/// A sample of the page of metrics that has this name and this label.
fn metric(page: &str, name: &str, label: &str) -> Option<f64> {
    let line = page.lines().find(|l| l.starts_with(&format!("{name}{{")) && l.contains(label))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_busy_port_is_thinned_and_everything_else_is_whole() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (busy, rare, nobody, metrics) = (free_port(), free_port(), free_port(), free_port());
    let _busy = backend(busy, dir.path());
    let _rare = Server::Threaded.start(rare, dir.path());
    let agent = Options::ports(&[busy, rare, nobody])
        .budget(BUDGET)
        .args(&["--metrics-listen", &format!("127.0.0.1:{metrics}")])
        .start();
    let page = || run(Command::new("curl").args(["-sf", &format!("http://127.0.0.1:{metrics}/metrics")]));
    let share =
        |page: &str| metric(page, "ktrdr_agent_observed_share_ratio", &format!("server_port=\"{busy}\""));
    under_load(busy, || {
        wait_until_told(&agent, BEGINS);
        for n in 0..10 {
            get(rare, &format!("/c/rare/{n}/bytes/9"));
        }
        let refused = output(Command::new("curl").args(["-s", &format!("http://127.0.0.1:{nobody}/")]));
        assert!(!refused.status.success());
        agent.wait_for("the refused connect", |spans| {
            spans.iter().any(|s| s.text("error.type") == Some("connection_refused"))
        });
        let text = page();
        assert!(share(&text).is_some_and(|part| part > 0.0 && part < 1.0), "{text}");
        let left_out = metric(&text, "ktrdr_agent_left_out_total", "what=\"transfers\"");
        assert!(left_out.is_some_and(|n| n > 0.0), "{text}");
    });
    wait_until_whole(&agent);
    for n in 0..10 {
        get(busy, &format!("/again/{n}"));
    }
    let again = |s: &Span| s.path().is_some_and(|p| p.starts_with("/again/"));
    agent.wait_for("all calls afterwards", |spans| spans.iter().filter(|s| again(s)).count() >= 20);
    assert_eq!(share(&page()), Some(1.0));
    // `stop` checks that the books balance.
    let finished = agent.stop();
    let spans = &finished.spans;
    let stats = finished.stats.unwrap();
    assert!(stats.kernel["transfers_left_out"] > 0, "{stats:?}");
    println!("{} spans, {} transfers left out", spans.len(), stats.kernel["transfers_left_out"]);

    // Nothing is an error or broken but what was meant to be.
    let nobody = i64::from(nobody);
    for span in spans.iter().filter(|s| s.int("server.port") != Some(nobody)) {
        assert!(span.text("error.type").is_none() && span.status != "error", "{}", span.brief());
        assert!(matches!(span.incomplete(), None | Some("left_out")), "{}", span.brief());
    }
    let refused: Vec<&Span> = spans.iter().filter(|s| s.int("server.port") == Some(nobody)).collect();
    assert_eq!(refused.len(), 1, "{}", brief(spans));
    // What is rare is all there, at both ends, and does not say that it was a part.
    let of_rare: Vec<&Span> = on_port(spans, rare).collect();
    assert_eq!(of_rare.len(), 20, "{}", brief(spans));
    for span in of_rare.iter().chain(&spans.iter().filter(|s| again(s)).collect::<Vec<_>>()) {
        assert_eq!((span.status_code(), span.incomplete()), (Some(200), None), "{}", span.brief());
        assert!(!span.attributes.contains_key("ktrdr.observed.share"), "{}", span.brief());
    }
    // A call is seen at both ends, or not at all; but for those under way when their connection was left out, or seen
    // again, of which one end may be on one side of that moment, the other one on the other.
    let mut ends: BTreeMap<(usize, usize), Vec<&Span>> = BTreeMap::new();
    for span in spans {
        if let Some(call) = number(span) {
            ends.entry(call).or_default().push(span);
        }
    }
    assert!(ends.len() > CLIENTS * CONNECTIONS, "{}", brief(spans));
    for ((connection, number), of_call) in &ends {
        let known = |number: Option<usize>| number.is_some_and(|n| ends.contains_key(&(*connection, n)));
        let (before, after) = (known(number.checked_sub(1)), known(Some(number + 1)));
        let text = || of_call.iter().map(|s| s.brief() + "\n").collect::<String>();
        match of_call[..] {
            [a, b] => {
                assert!(a.is_client() != b.is_client(), "{}", text());
                assert!(a.incomplete().is_none() && b.incomplete().is_none() || !after, "{}", text());
                let (client, server) = if a.is_client() { (a, b) } else { (b, a) };
                assert_eq!(server.parent_span_id.as_ref(), Some(&client.span_id), "{}", text());
            }
            [one] if one.incomplete() == Some("left_out") => assert!(!after, "{}", text()),
            [one] => assert!(!before && one.is_server(), "{}", text()),
            _ => panic!("{}", text()),
        }
    }
}

/// A service whose calls carry the id of the request that caused them, while some of its requests are left out, some of its
/// calls, or both.
#[test]
fn what_is_left_out_makes_no_wrong_parents() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    let _backend = backend(upstream, dir.path());
    let mut app = causality::program("app.py");
    // Alone: its poller would be thinned for ever.
    app.args(["fastapi", "asyncio", &port.to_string(), &upstream.to_string(), "alone"]);
    let agent = Options::ports(&[port, upstream]).budget(BUDGET).start();
    let _app = listening(app, port, dir.path());
    wait::until(BEGINS, || {
        load(port, "async", 30, 300);
        agent.log().contains(BEGINS).then_some(())
    });
    // On other connections each time, of which others are observed.
    for case in ["async", "gather", "sync", "to-thread", "executor", "background"] {
        for in_flight in [31, 32] {
            load(port, case, in_flight, 320);
        }
    }
    wait_until_whole(&agent);
    // And afterwards every call is seen and has its parent again, one at a time.
    load(port, "async", 1, 20);
    let asked = |s: &Span| s.is_server() && s.path().is_some_and(|p| p.starts_with("/async/1-"));
    let called = |s: &Span| s.is_client() && s.path().is_some_and(|p| p.starts_with("/x/async/1-"));
    agent.wait_for("all calls afterwards", |spans| {
        spans.iter().filter(|s| asked(s)).count() == 20 && spans.iter().filter(|s| called(s)).count() == 40
    });
    let finished = agent.stop();
    let spans = &finished.spans;
    assert!(finished.stats.unwrap().kernel["transfers_left_out"] > 0);
    let (right, none) = causality::calls(spans, upstream);
    println!("{} calls have their parent, {} have none", right.len(), none.len());
    assert!(!right.is_empty());
    let last: Vec<&Span> = spans.iter().filter(|s| called(s)).collect();
    assert!(last.iter().all(|s| s.parent_span_id.is_some()), "{}", brief(spans));
}

#[test]
fn a_recording_knows_what_was_left_out() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("recording.gz");
    let port = free_port();
    let _backend = backend(port, dir.path());
    let agent = Options::recording(&[port], &recording).budget(BUDGET).start();
    under_load(port, || wait_until_told(&agent, BEGINS));
    wait_until_whole(&agent);
    get(port, "/again");
    agent.wait_for("the call afterwards", |spans| {
        spans.iter().filter(|s| s.path() == Some("/again")).count() == 2
    });
    let finished = agent.stop();
    let replayed = Span::parse_all(&replay(&recording, &[port]));
    let texts = |spans: &[Span]| spans.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>();
    for (live, again) in texts(&finished.spans).iter().zip(texts(&replayed)) {
        assert_eq!(*live, again);
    }
    assert_eq!(finished.spans.len(), replayed.len());
}
