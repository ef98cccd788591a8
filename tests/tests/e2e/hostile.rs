//! Bytes that are no HTTP, or only half: no panic, no wrong span, and the calls beside them are still seen.

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::raw::Listener;
use ktrdr_tests::span::brief;

/// Repeatable noise (xorshift64), so that a failure can be looked at again.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

/// Sends `question` and `answer` over a connection of their own.
fn exchange(listener: &Listener, question: Vec<u8>, answer: Vec<u8>) {
    let len = question.len();
    let server = listener.serve(move |mut peer| {
        peer.receive(len);
        peer.send(&answer);
    });
    let mut client = listener.connect();
    client.send(&question);
    client.receive_all();
    server.join().unwrap();
}

#[test]
fn what_is_no_http_makes_no_span() {
    if !can_observe() {
        return;
    }
    for hook in ["socket", "syscall"] {
        let listener = Listener::new();
        let agent = Options::ports(&[listener.port()]).args(&["--hook", hook]).start();
        let others: &[(&[u8], &[u8])] = &[
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x15\x03\x03\x00\x02\x02\x28"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\0\0\0\0\0"),
            (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
            (b"SSH-2.0-x\r\n", b"SSH-2.0-y\r\n"),
            (b"GET", b"x"),
            (b"GET /", b"x"),
            (b"GET / HTTP/2.0\r\n\r\n", b"x"),
            (b"get / http/1.1\r\n\r\n", b"x"),
            (b"\0", b"\0"),
            (b"\r\n\r\n\r\n", b"\r\n"),
        ];
        for (question, answer) in others {
            exchange(&listener, question.to_vec(), answer.to_vec());
        }
        for seed in 1..=20 {
            exchange(&listener, noise(seed, 10 * seed as usize), noise(seed + 100, 5000));
        }
        exchange(&listener, noise(7, 300_000), noise(8, 300_000));
        // The one that counts.
        exchange(
            &listener,
            b"GET /good HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        );
        agent.wait_for_spans(2);
        let finished = agent.stop();
        assert_eq!(finished.spans.len(), 2, "{}", brief(&finished.spans));
        assert!(finished.spans.iter().all(|s| s.path() == Some("/good") && s.status_code() == Some(200)));
    }
}

#[test]
fn broken_http_is_marked_and_hurts_nobody_else() {
    if !can_observe() {
        return;
    }
    for hook in ["socket", "syscall"] {
        let listener = Listener::new();
        let agent = Options::ports(&[listener.port()]).args(&["--hook", hook]).start();
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        let ask =
            |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: t\r\n{more}\r\n").into_bytes();
        let broken: Vec<(Vec<u8>, Vec<u8>)> = vec![
            // Half heads.
            (b"GET /half/1 HTTP/1.1\r\nHost: t\r\nX-".to_vec(), ok.clone()),
            (ask("/half/2", ""), b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
            (ask("/half/3", ""), b"HTTP/1.1 2".to_vec()),
            // Absurd lengths.
            (ask("/absurd/1", "Content-Length: 99999999999999999999999\r\n"), ok.clone()),
            (ask("/absurd/2", "Content-Length: 18446744073709551615\r\n"), ok.clone()),
            (ask("/absurd/3", "Content-Length: -1\r\n"), ok.clone()),
            (
                ask("/absurd/4", ""),
                b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nx".to_vec(),
            ),
            (
                ask("/absurd/5", "Transfer-Encoding: chunked\r\n"),
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nx".to_vec(),
            ),
            (ask("/absurd/6", ""), b"HTTP/1.1 999999 What\r\n\r\n".to_vec()),
            // Contradictions.
            (ask("/contrary/1", "Content-Length: 1\r\nContent-Length: 2\r\n"), ok.clone()),
            (
                ask("/contrary/2", ""),
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy".to_vec(),
            ),
            // Noise behind a head, and instead of an answer.
            ([ask("/noise/1", ""), noise(3, 3000)].concat(), ok.clone()),
            (ask("/noise/2", ""), noise(4, 3000)),
            (ask("/noise/3", &"X: y\r\n".repeat(400)), ok.clone()),
            (ask(&format!("/noise/4/{}", "a".repeat(7000)), ""), ok.clone()),
            ([b"GET /noise/5\xff\xfe\x01 HTTP/1.1\r\nHost: \xff\r\n\r\n".to_vec()].concat(), ok.clone()),
        ];
        for (question, answer) in &broken {
            exchange(&listener, question.clone(), answer.clone());
            exchange(&listener, ask("/good", ""), ok.clone());
        }
        let good = |spans: &[ktrdr_tests::span::Span]| {
            spans.iter().filter(|s| s.path() == Some("/good") && s.status_code() == Some(200)).count()
        };
        agent.wait_for("the good calls", |spans| good(spans) == 2 * broken.len());
        let finished = agent.stop();
        assert_eq!(good(&finished.spans), 2 * broken.len(), "{}", brief(&finished.spans));
        // At most one span per end for each of the broken ones, and none that claims a size nobody sent.
        for kind in ["client", "server"] {
            let of = finished.spans.iter().filter(|s| s.kind == kind).count();
            assert!(of <= 2 * broken.len(), "{of} {kind} spans\n{}", brief(&finished.spans));
        }
        for span in finished.spans.iter().filter(|s| s.path() != Some("/good")) {
            assert!(span.response_size().unwrap_or(0) <= 3000, "{}", span.brief());
            assert!(span.request_size() <= 3000, "{}", span.brief());
            if span.path().is_some_and(|p| p.starts_with("/half/")) {
                assert!(span.incomplete().is_some(), "{}", span.brief());
            }
        }
    }
}
