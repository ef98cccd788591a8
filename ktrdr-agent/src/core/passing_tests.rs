//! Requests that a reverse proxy passes on: one thread, many at once, no contexts.

use super::scenario::{Host, Pipe};
use crate::event::ShellEvent;
use crate::event::shell::{ProcessMeta, PythonStatus};
use crate::trace::model::{Span, SpanId, SpanKind, Value};

const PROXY: u32 = 100;
const API: u32 = 200;
const CLIENT: u32 = 300;
const FRONT: &str = "127.0.0.1:8080";
const BACK: &str = "127.0.0.1:8000";

fn host() -> Host {
    with_threads(1)
}

/// A proxy that was seen with so many threads.
fn with_threads(threads: u32) -> Host {
    let mut h = Host::new();
    for (pid, name) in [(API, "api"), (CLIENT, "client")] {
        h.process(pid, name);
    }
    proxy(&mut h, threads);
    h.listen(PROXY, FRONT);
    h.listen(API, BACK);
    h
}

fn proxy(h: &mut Host, threads: u32) {
    let meta = ProcessMeta { tgid: PROXY, service: "nginx".into(), threads, ..ProcessMeta::default() };
    h.shell(ShellEvent::Process(meta));
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: curl/8\r\n\r\n").into_bytes()
}

/// As a proxy sends it: another host, a header more.
fn passed(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nX-Real-IP: 10.0.0.1\r\nHost: api\r\nUser-Agent: curl/8\r\n\r\n")
        .into_bytes()
}

/// Two requests in flight, so that there being a single one tells nothing; the first of them was read last.
fn two_at_once(h: &mut Host) -> [Pipe; 2] {
    let mut front = h.connect(CLIENT, PROXY, FRONT);
    let mut other = h.connect(CLIENT, PROXY, FRONT);
    h.request(&mut other, &get("/api/v1/long"));
    h.request(&mut front, &get("/api/v1/symbols"));
    [front, other]
}

fn ok(h: &mut Host, p: &mut Pipe) {
    h.response(p, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

fn text(s: &Span, key: &str) -> String {
    s.attributes.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The proxy's own spans of a kind, in the order in which they began.
fn of_proxy(spans: &[Span], kind: SpanKind) -> Vec<&Span> {
    let mut all: Vec<_> = spans.iter().filter(|s| s.resource.service == "nginx" && s.kind == kind).collect();
    all.sort_by_key(|s| s.start);
    all
}

/// For each call of the proxy, in order: which of its requests it hangs below, and by which method.
fn edges(spans: &[Span]) -> Vec<(Option<usize>, String)> {
    let requests = of_proxy(spans, SpanKind::Server);
    let at = |id: SpanId| requests.iter().position(|r| r.span_id == id);
    let calls = of_proxy(spans, SpanKind::Client);
    calls.iter().map(|c| (c.parent_span_id.and_then(at), text(c, "ktrdr.link.method"))).collect()
}

fn same(n: usize) -> (Option<usize>, String) {
    (Some(n), "same-request".to_owned())
}

#[test]
fn equal_requests_at_once_are_told_apart_by_who_was_read_just_before() {
    let mut h = host();
    let mut fronts: Vec<Pipe> = (0..8).map(|_| h.connect(CLIENT, PROXY, FRONT)).collect();
    let mut backs: Vec<Pipe> = (0..8).map(|_| h.connect(PROXY, API, BACK)).collect();
    for (front, back) in fronts.iter_mut().zip(&mut backs) {
        h.request(front, &get("/api/v1/symbols?limit=5"));
        h.request(back, &passed("/api/v1/symbols?limit=5"));
    }
    for (front, back) in fronts.iter_mut().zip(&mut backs).rev() {
        ok(&mut h, back);
        ok(&mut h, front);
    }
    let spans = h.spans();
    assert_eq!(edges(&spans), (0..8).map(same).collect::<Vec<_>>());
    let certain: Vec<_> =
        of_proxy(&spans, SpanKind::Client).iter().map(|s| text(s, "ktrdr.link.certainty")).collect();
    assert_eq!(certain, ["inferred"; 8]);
}

/// HAProxy reads what came in on several connections, and then works on it.
#[test]
fn of_equal_requests_that_were_read_together_none_is_believed() {
    let mut h = host();
    let mut fronts: Vec<Pipe> = (0..4).map(|_| h.connect(CLIENT, PROXY, FRONT)).collect();
    let mut backs: Vec<Pipe> = (0..4).map(|_| h.connect(PROXY, API, BACK)).collect();
    let asked = |h: &mut Host, p: &mut Pipe| h.request(p, &get("/api/v1/symbols"));
    let sent = |h: &mut Host, p: &mut Pipe| h.request(p, &passed("/api/v1/symbols"));
    fronts[..3].iter_mut().for_each(|front| asked(&mut h, front));
    backs[..2].iter_mut().for_each(|back| sent(&mut h, back));
    // Read and sent at once, but the third one still waits.
    asked(&mut h, &mut fronts[3]);
    sent(&mut h, &mut backs[3]);
    sent(&mut h, &mut backs[2]);
    backs.iter_mut().chain(&mut fronts).for_each(|p| ok(&mut h, p));
    // It does not last: one by one they are told apart.
    for (front, back) in fronts.iter_mut().zip(&mut backs).take(2) {
        asked(&mut h, front);
        sent(&mut h, back);
    }
    backs.iter_mut().take(2).chain(fronts.iter_mut().take(2)).for_each(|p| ok(&mut h, p));
    let none = || (None, String::new());
    assert_eq!(edges(&h.spans()), [none(), none(), none(), none(), same(4), same(5)]);
}

#[test]
fn who_connects_right_after_it_has_read_works_on_what_it_read() {
    let mut h = host();
    let mut fronts: Vec<Pipe> = (0..3).map(|_| h.connect(CLIENT, PROXY, FRONT)).collect();
    let mut backs = Vec::new();
    for front in &mut fronts {
        h.request(front, &get("/api/v1/symbols"));
        backs.push(h.connect(PROXY, API, BACK));
    }
    // In whatever order the connections stand.
    for n in [1, 2, 0] {
        h.request(&mut backs[n], &passed("/api/v1/symbols"));
    }
    backs.iter_mut().chain(&mut fronts).for_each(|p| ok(&mut h, p));
    assert_eq!(edges(&h.spans()), [same(1), same(2), same(0)]);
}

/// That a thread works on what it read is believed of one with several such threads only when they were seen to.
#[test]
fn several_threads_have_to_prove_that_requests_stay_on_them() {
    let mut h = with_threads(2);
    // They are event loops: one serves two at once.
    let mut both: Vec<Pipe> = (0..2).map(|_| h.connect(CLIENT, PROXY, FRONT).served_by(101)).collect();
    both.iter_mut().for_each(|front| h.request(front, &get("/api/v1/long")));
    both.iter_mut().for_each(|front| ok(&mut h, front));
    for _ in 0..20 {
        let mut fronts: Vec<Pipe> =
            [101, 102].map(|tid| h.connect(CLIENT, PROXY, FRONT).served_by(tid)).into();
        fronts.iter_mut().for_each(|front| h.request(front, &get("/api/v1/symbols")));
        let mut back = h.connect_from(PROXY, 102, API, BACK);
        h.request(&mut back, &passed("/api/v1/symbols"));
        ok(&mut h, &mut back);
        fronts.iter_mut().for_each(|front| ok(&mut h, front));
    }
    let edges = edges(&h.spans());
    assert_eq!(edges.len(), 20);
    let (before, after) = edges.split_at(7);
    // Two answers a round, after two.
    assert!(before.iter().all(|e| *e == (None, String::new())), "{edges:?}");
    assert!(after.iter().zip(7..).all(|(e, n)| *e == same(2 + 2 * n + 1)), "{edges:?}");
}

#[test]
fn what_waits_in_the_proxy_is_known_by_what_it_says() {
    let mut h = host();
    let mut fronts: Vec<Pipe> = (0..3).map(|_| h.connect(CLIENT, PROXY, FRONT)).collect();
    for (n, front) in fronts.iter_mut().enumerate() {
        h.request(front, &get(&format!("/shop/items/{n}")));
    }
    // The location's prefix is taken away.
    for n in [1, 2, 0] {
        let mut back = h.connect(PROXY, API, BACK);
        h.request(&mut back, &passed(&format!("/items/{n}")));
        ok(&mut h, &mut back);
    }
    fronts.iter_mut().for_each(|front| ok(&mut h, front));
    assert_eq!(edges(&h.spans()), [same(1), same(2), same(0)]);
}

#[test]
fn where_requests_move_between_threads_the_last_one_read_says_nothing() {
    let mut h = host();
    let mut moved = h.connect(CLIENT, PROXY, FRONT).served_by(101);
    h.request(&mut moved, &get("/api/v1/health"));
    moved = moved.served_by(102);
    ok(&mut h, &mut moved);
    let mut fronts: Vec<Pipe> = (0..2).map(|_| h.connect(CLIENT, PROXY, FRONT).served_by(101)).collect();
    fronts.iter_mut().for_each(|front| h.request(front, &get("/api/v1/symbols")));
    // The thread that read the second one sends the first one on.
    let mut back = h.connect_from(PROXY, 101, API, BACK);
    h.request(&mut back, &passed("/api/v1/symbols"));
    ok(&mut h, &mut back);
    fronts.iter_mut().for_each(|front| ok(&mut h, front));
    assert_eq!(edges(&h.spans()), [(None, String::new())]);
}

#[test]
fn of_two_equal_requests_that_waited_neither_is_believed() {
    let mut h = host();
    let mut fronts: Vec<Pipe> = (0..2).map(|_| h.connect(CLIENT, PROXY, FRONT)).collect();
    let mut other = h.connect(CLIENT, PROXY, FRONT);
    fronts.iter_mut().for_each(|front| h.request(front, &get("/api/v1/symbols")));
    h.request(&mut other, &get("/api/v1/health"));
    let mut back = h.connect(PROXY, API, BACK);
    h.request(&mut back, &passed("/api/v1/symbols"));
    ok(&mut h, &mut back);
    fronts.iter_mut().for_each(|front| ok(&mut h, front));
    ok(&mut h, &mut other);
    assert_eq!(edges(&h.spans()), [(None, String::new())]);
}

#[test]
fn a_poller_does_not_pass_on_what_it_was_asked() {
    let mut h = host();
    let mut back = h.connect(PROXY, API, BACK);
    h.request(&mut back, &passed("/api/v1/health"));
    ok(&mut h, &mut back);
    let mut front = h.connect(CLIENT, PROXY, FRONT);
    h.request(&mut front, &get("/api/v1/health"));
    let mut other = h.connect(CLIENT, PROXY, FRONT);
    h.request(&mut other, &get("/api/v1/symbols"));
    // Its next turn, while somebody asks for the same.
    h.request(&mut back, &passed("/api/v1/health"));
    ok(&mut h, &mut back);
    ok(&mut h, &mut front);
    ok(&mut h, &mut other);
    assert_eq!(edges(&h.spans()), [(None, String::new()), (None, String::new())]);
}

#[test]
fn a_refused_upstream_is_the_request_s_own_once_the_proxy_is_known_for_one() {
    let mut h = host();
    let [mut front, mut other] = two_at_once(&mut h);
    h.fail(PROXY, BACK, 111);
    ok(&mut h, &mut front);
    h.request(&mut front, &get("/api/v1/symbols"));
    let mut back = h.connect(PROXY, API, BACK);
    h.request(&mut back, &passed("/api/v1/symbols"));
    ok(&mut h, &mut back);
    ok(&mut h, &mut front);
    h.request(&mut front, &get("/api/v1/symbols"));
    h.fail(PROXY, BACK, 111);
    ok(&mut h, &mut front);
    ok(&mut h, &mut other);
    let spans = h.spans();
    // The first one waited for another address, until it was known.
    assert_eq!(edges(&spans), [same(1), same(2), same(3)]);
}

#[test]
fn a_connect_of_who_never_passed_anything_on_is_nobody_s() {
    let mut h = host();
    let [mut front, mut other] = two_at_once(&mut h);
    h.fail(PROXY, BACK, 111);
    ok(&mut h, &mut front);
    ok(&mut h, &mut other);
    assert_eq!(edges(&h.spans()), [(None, String::new())]);
}

/// Process numbers are used again.
#[test]
fn what_was_known_of_a_proxy_ends_with_it() {
    let mut h = host();
    let [mut front, mut other] = two_at_once(&mut h);
    let mut back = h.connect(PROXY, API, BACK);
    h.request(&mut back, &passed("/api/v1/symbols"));
    ok(&mut h, &mut back);
    ok(&mut h, &mut front);
    ok(&mut h, &mut other);
    h.exit(PROXY, 0);
    proxy(&mut h, 1);
    h.listen(PROXY, FRONT);
    let [mut front, mut other] = two_at_once(&mut h);
    h.fail(PROXY, BACK, 111);
    ok(&mut h, &mut front);
    ok(&mut h, &mut other);
    assert_eq!(edges(&h.spans()), [same(1), (None, String::new())]);
}

#[test]
fn a_connection_made_for_one_request_may_be_used_for_the_next() {
    let mut h = host();
    let mut fronts: Vec<Pipe> = (0..2).map(|_| h.connect(CLIENT, PROXY, FRONT)).collect();
    let mut idle = h.connect(PROXY, API, BACK);
    h.request(&mut fronts[0], &get("/api/v1/symbols"));
    let mut new = h.connect(PROXY, API, BACK);
    // Meanwhile another connection became free.
    h.request(&mut idle, &passed("/api/v1/symbols"));
    h.request(&mut fronts[1], &get("/api/v1/items"));
    h.request(&mut new, &passed("/api/v1/items"));
    ok(&mut h, &mut idle);
    ok(&mut h, &mut new);
    fronts.iter_mut().for_each(|front| ok(&mut h, front));
    assert_eq!(edges(&h.spans()), [same(0), same(1)]);
}

#[test]
fn where_tasks_are_followed_nothing_is_guessed() {
    let mut h = host();
    h.shell(ShellEvent::Python(PythonStatus { tgid: PROXY, exact: true, ..PythonStatus::default() }));
    let [mut front, mut other] = two_at_once(&mut h);
    let mut back = h.connect(PROXY, API, BACK);
    h.request(&mut back, &passed("/api/v1/symbols"));
    ok(&mut h, &mut back);
    ok(&mut h, &mut front);
    ok(&mut h, &mut other);
    assert_eq!(edges(&h.spans()), [(None, String::new())]);
}

#[test]
fn an_id_in_both_joins_what_says_nothing_else_alike() {
    let mut h = host();
    let asked = |path: &str, agent: &str, id: u32| {
        let id = format!("7b0c31f2-{id:04}");
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\nX-Request-ID: {id}\r\n\r\n")
            .into_bytes()
    };
    // Its tasks are followed, but these calls come from threads of a pool.
    h.shell(ShellEvent::Python(PythonStatus { tgid: PROXY, exact: true, ..PythonStatus::default() }));
    let mut fronts: Vec<Pipe> = (0..3).map(|_| h.connect(CLIENT, PROXY, FRONT)).collect();
    for (front, id) in fronts.iter_mut().zip([1, 2, 2]) {
        h.request(front, &asked("/api/v1/symbols", "curl/8", id));
    }
    for id in [2, 1, 3] {
        let mut back = h.connect_from(PROXY, 101, API, BACK);
        h.request(&mut back, &asked("/data/items", "node", id));
        ok(&mut h, &mut back);
    }
    fronts.iter_mut().for_each(|front| ok(&mut h, front));
    let none = (None, String::new());
    assert_eq!(edges(&h.spans()), [none.clone(), (Some(0), "request-id".to_owned()), none]);
}

#[test]
fn after_lost_records_only_what_was_read_since_counts() {
    // A line of a log that was missed is no reason to doubt parents.
    for (reason, edge) in [("map_faults", None), ("program_runs_missed", None), ("call_runs_missed", Some(0))]
    {
        let mut h = host();
        let mut front = h.connect(CLIENT, PROXY, FRONT);
        h.request(&mut front, &get("/api/v1/symbols"));
        h.shell(ShellEvent::Lost(crate::event::shell::Lost { counts: vec![(reason.into(), 3)] }));
        let mut other = h.connect(CLIENT, PROXY, FRONT);
        h.request(&mut other, &get("/api/v1/long"));
        let mut back = h.connect(PROXY, API, BACK);
        h.request(&mut back, &passed("/api/v1/symbols"));
        ok(&mut h, &mut back);
        ok(&mut h, &mut front);
        ok(&mut h, &mut other);
        let found: Vec<_> = edges(&h.spans()).into_iter().map(|(edge, _)| edge).collect();
        assert_eq!(found, [edge], "{reason}");
    }
}
