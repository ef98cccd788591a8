//! HTTP/1.1 as it is on the wire: forms that libraries rarely use, and ends that nobody plans.

use std::net::Shutdown;

use ktrdr_tests::agent::{Agent, Finished, Options, can_observe};
use ktrdr_tests::raw::Listener;
use ktrdr_tests::span::{Span, brief};

use crate::libraries::clean;

/// An agent that sees one listener, by one of the two hooks.
fn observed(hook: &str) -> (Listener, Agent) {
    let listener = Listener::new();
    let agent = Options::ports(&[listener.port()]).args(&["--hook", hook]).start();
    (listener, agent)
}

/// Runs `test` with each hook; both must show the same.
fn with_both_hooks(test: impl Fn(&str)) {
    if can_observe() {
        test("socket");
        test("syscall");
    }
}

/// The only span of a kind for a path.
fn only<'a>(spans: &'a [Span], kind: &str, path: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|s| s.kind == kind && s.path() == Some(path)).collect();
    assert_eq!(found.len(), 1, "{kind} spans of {path} in\n{}", brief(spans));
    found[0]
}

fn finish(agent: Agent, spans: usize) -> Finished {
    agent.wait_for_spans(spans);
    let finished = agent.stop();
    assert_eq!(finished.spans.len(), spans, "{}", brief(&finished.spans));
    finished
}

#[test]
fn a_thousand_requests_over_one_connection() {
    with_both_hooks(|hook| {
        const N: usize = 1000;
        let (listener, agent) = observed(hook);
        let server = listener.serve(|mut peer| {
            for n in 0..N {
                peer.receive_head();
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n{}", "x".repeat(n)));
            }
        });
        let mut client = listener.connect();
        for n in 0..N {
            client.send(format!("GET /k/{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
            let head = client.receive_until(b"\r\n\r\n");
            let body = head.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            client.receive(n - (head.len() - body));
        }
        server.join().unwrap();
        drop(client);
        let finished = finish(agent, 2 * N);
        clean(&finished);
        for kind in ["client", "server"] {
            let mut spans: Vec<&Span> = finished.spans.iter().filter(|s| s.kind == kind).collect();
            spans.sort_by(|a, b| a.start_time.cmp(&b.start_time));
            for (n, span) in spans.iter().enumerate() {
                assert_eq!(span.path(), Some(format!("/k/{n}").as_str()), "{}", span.brief());
                assert_eq!(span.response_size(), Some(n as i64), "{}", span.brief());
                assert_eq!(span.incomplete(), None, "{}", span.brief());
                // Connecting belongs to the first call alone.
                let connected = span.attributes.contains_key("ktrdr.connect.duration_ms");
                assert_eq!(connected, kind == "client" && n == 0, "{}", span.brief());
            }
        }
    });
}

#[test]
fn pipelined_requests_keep_their_order() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        let server = listener.serve(|mut peer| {
            peer.receive_until(b"GET /p/19 HTTP/1.1\r\nHost: t\r\n\r\n");
            let answers: String = (0..20)
                .map(|n| {
                    // Every fourth asks with HEAD: its answer has the length, and no body.
                    let body = if n % 4 == 3 { String::new() } else { "y".repeat(n) };
                    format!("HTTP/1.1 {} X\r\nContent-Length: {n}\r\n\r\n{body}", 210 + n)
                })
                .collect();
            peer.send(answers);
        });
        let mut client = listener.connect();
        let requests: String = (0..20)
            .map(|n| {
                let method = if n % 4 == 3 && n != 19 { "HEAD" } else { "GET" };
                format!("{method} /p/{n} HTTP/1.1\r\nHost: t\r\n\r\n")
            })
            .collect();
        client.send(requests);
        server.join().unwrap();
        client.receive_all();
        drop(client);
        let finished = finish(agent, 40);
        for n in 0..19 {
            for kind in ["client", "server"] {
                let span = only(&finished.spans, kind, &format!("/p/{n}"));
                assert_eq!(span.status_code(), Some(210 + n), "{}", span.brief());
                let size = if n % 4 == 3 { 0 } else { n };
                assert_eq!(span.response_size(), Some(size), "{}", span.brief());
                assert_eq!(span.incomplete(), None, "{}", span.brief());
            }
        }
        // The server's mistake: the last answer promised 19 bytes and gave none.
        let last = only(&finished.spans, "client", "/p/19");
        assert_eq!(last.status_code(), Some(229));
        assert_eq!(last.incomplete(), Some("eof_in_body"), "{}", last.brief());
        assert_eq!(last.text("error.type"), Some("peer_closed"), "{}", last.brief());
    });
}

#[test]
fn interim_responses_are_events() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        let server = listener.serve(|mut peer| {
            peer.receive_head();
            peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            peer.receive(5);
            peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
            peer.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
        });
        let mut client = listener.connect();
        client.send("PUT /interim HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        client.receive_head();
        client.send("hello");
        client.receive_until(b"\r\n\r\nok");
        server.join().unwrap();
        drop(client);
        let finished = finish(agent, 2);
        for kind in ["client", "server"] {
            let span = only(&finished.spans, kind, "/interim");
            assert_eq!(
                (span.status_code(), span.request_size(), span.response_size()),
                (Some(201), 5, Some(2))
            );
            let interim: Vec<i64> = span
                .events
                .iter()
                .filter(|e| e.name == "http.interim_response")
                .map(|e| e.attributes["http.response.status_code"].as_i64().unwrap())
                .collect();
            assert_eq!(interim, [100, 103], "{}", span.brief());
        }
        clean(&finished);
    });
}

#[test]
fn an_upgraded_connection_and_a_tunnel_are_left_alone() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        let inside = "GET /inside HTTP/1.1\r\nHost: t\r\n\r\n";
        for (request, answer) in [
            (
                "GET /chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            ),
            (
                "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n",
                "HTTP/1.1 200 Connection established\r\n\r\n",
            ),
        ] {
            let server = listener.serve(move |mut peer| {
                peer.receive_head();
                peer.send(answer);
                peer.receive(inside.len());
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            });
            let mut client = listener.connect();
            client.send(request);
            client.receive_head();
            client.send(inside);
            client.receive_all();
            server.join().unwrap();
        }
        let finished = finish(agent, 4);
        for kind in ["client", "server"] {
            assert_eq!(only(&finished.spans, kind, "/chat").status_code(), Some(101));
            let tunnels: Vec<&Span> =
                finished.spans.iter().filter(|s| s.kind == kind && s.method() == Some("CONNECT")).collect();
            assert_eq!(tunnels.len(), 1, "{}", brief(&finished.spans));
            assert_eq!(tunnels[0].status_code(), Some(200));
        }
    });
}

#[test]
fn a_reset_in_the_middle_is_said() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        // In the response's body.
        let server = listener.serve(|mut peer| {
            peer.receive_head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf");
            peer.receive(1);
            peer.reset();
        });
        let mut client = listener.connect();
        client.send("GET /reset/body HTTP/1.1\r\nHost: t\r\n\r\n");
        client.receive_until(b"half");
        client.send("!");
        client.receive_all();
        server.join().unwrap();
        drop(client);
        // Before any answer.
        let server = listener.serve(|mut peer| {
            peer.receive_head();
            peer.reset();
        });
        let mut client = listener.connect();
        client.send("GET /reset/silent HTTP/1.1\r\nHost: t\r\n\r\n");
        client.receive_all();
        server.join().unwrap();
        drop(client);
        let finished = finish(agent, 4);
        let body = only(&finished.spans, "client", "/reset/body");
        assert_eq!((body.status_code(), body.response_size()), (Some(200), Some(4)), "{}", body.brief());
        assert!(body.incomplete().is_some(), "{}", body.brief());
        let silent = only(&finished.spans, "client", "/reset/silent");
        assert_eq!(silent.status_code(), None);
        assert_eq!(silent.text("error.type"), Some("connection_reset"), "{}", silent.brief());
        assert!(silent.status_message.contains("the connection was reset"), "{}", silent.brief());
        assert_eq!(silent.status, "error");
    });
}

#[test]
fn a_half_closed_connection_still_answers() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        let server = listener.serve(|mut peer| {
            peer.receive_all();
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            peer.send("until the end");
        });
        let mut client = listener.connect();
        client.send("GET /half HTTP/1.1\r\nHost: t\r\n\r\n");
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.receive_all().ends_with(b"until the end"));
        server.join().unwrap();
        drop(client);
        let finished = finish(agent, 2);
        for kind in ["client", "server"] {
            let span = only(&finished.spans, kind, "/half");
            assert_eq!((span.status_code(), span.response_size()), (Some(200), Some(13)), "{}", span.brief());
            assert_eq!(span.incomplete(), None, "{}", span.brief());
        }
    });
}

#[test]
fn heads_may_come_in_any_number_of_pieces() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        let server = listener.serve(|mut peer| {
            peer.receive_until(b"abc");
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: yz\r\n\r\nxyz" {
                peer.send([*byte]);
            }
        });
        let mut client = listener.connect();
        for byte in b"POST /pieces?a=b HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc" {
            client.send([*byte]);
        }
        client.receive_all();
        server.join().unwrap();
        drop(client);
        let finished = finish(agent, 2);
        clean(&finished);
        for kind in ["client", "server"] {
            let span = only(&finished.spans, kind, "/pieces");
            assert_eq!(
                (span.status_code(), span.request_size(), span.response_size()),
                (Some(200), 3, Some(3))
            );
            assert_eq!(span.incomplete(), None, "{}", span.brief());
        }
    });
}

#[test]
fn a_head_longer_than_the_capture_is_used_as_far_as_it_goes() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        let server = listener.serve(|mut peer| {
            for _ in 0..2 {
                peer.receive_head();
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        let mut client = listener.connect();
        client.send(format!("GET /long HTTP/1.1\r\nHost: t\r\nCookie: {}\r\n\r\n", "c".repeat(12_000)));
        client.receive_until(b"ok");
        client.send("GET /after HTTP/1.1\r\nHost: t\r\n\r\n");
        client.receive_until(b"ok");
        server.join().unwrap();
        drop(client);
        let finished = finish(agent, 4);
        // The client's one send was captured in part; the server received in pieces, which were captured whole.
        let long = only(&finished.spans, "client", "/long");
        assert_eq!(long.incomplete(), Some("head_truncated"), "{}", long.brief());
        for kind in ["client", "server"] {
            assert_eq!(only(&finished.spans, kind, "/long").status_code(), Some(200));
            let after = only(&finished.spans, kind, "/after");
            assert_eq!((after.status_code(), after.incomplete()), (Some(200), None), "{}", after.brief());
        }
    });
}

#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        let server = listener.serve(|mut peer| {
            peer.receive_head();
            peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!");
            peer.receive_all();
        });
        let mut client = listener.connect();
        client.send("POST /early HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\nfirst");
        client.receive_until(b"no!");
        client.send("second");
        drop(client);
        server.join().unwrap();
        let finished = finish(agent, 2);
        for kind in ["client", "server"] {
            let span = only(&finished.spans, kind, "/early");
            assert_eq!((span.status_code(), span.response_size()), (Some(413), Some(3)), "{}", span.brief());
        }
    });
}

#[test]
fn a_trace_context_on_the_wire_is_honoured() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        let server = listener.serve(|mut peer| {
            peer.receive_head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        });
        let mut client = listener.connect();
        client.send(
            "GET /traced HTTP/1.1\r\nHost: t\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        );
        client.receive_head();
        server.join().unwrap();
        drop(client);
        let finished = finish(agent, 2);
        let (client, server) =
            (only(&finished.spans, "client", "/traced"), only(&finished.spans, "server", "/traced"));
        assert_eq!(client.trace_id, "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(client.parent_span_id.as_deref(), Some("b7ad6b7169203331"));
        assert_eq!(server.trace_id, client.trace_id);
        assert_eq!(server.parent_span_id.as_ref(), Some(&client.span_id));
    });
}

#[test]
fn an_idle_connection_that_is_closed_is_no_failure() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        // Never used at all, closed by either end; and used once, then closed by the server.
        let server = listener.serve(drop);
        listener.connect().receive_all();
        server.join().unwrap();
        let server = listener.serve(|mut peer| drop(peer.receive_all()));
        drop(listener.connect());
        server.join().unwrap();
        let server = listener.serve(|mut peer| {
            peer.receive_head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        });
        let mut client = listener.connect();
        client.send("GET /used HTTP/1.1\r\nHost: t\r\n\r\n");
        client.receive_all();
        drop(client);
        server.join().unwrap();
        let finished = finish(agent, 2);
        assert!(finished.spans.iter().all(|s| s.status == "unset"), "{}", brief(&finished.spans));
    });
}

#[test]
fn a_response_whose_end_lies_behind_the_capture_does_not_wait_for_the_next() {
    with_both_hooks(|hook| {
        let (listener, agent) = observed(hook);
        let server = listener.serve(|mut peer| {
            peer.receive_head();
            // Several chunks with one send: the marks between the later ones are not captured.
            let chunk = format!("fa0\r\n{}\r\n", "z".repeat(4000));
            let chunks = chunk.repeat(5);
            peer.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"));
            peer.receive_head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            peer.receive_all();
        });
        let mut client = listener.connect();
        client.send("GET /chunks HTTP/1.1\r\nHost: t\r\n\r\n");
        client.receive_until(b"\r\n0\r\n\r\n");
        // The connection stays open and idle, and the call is seen.
        let spans = agent.wait_for_spans(2);
        for kind in ["client", "server"] {
            let span = only(&spans, kind, "/chunks");
            // The client reads in pieces that were captured whole.
            let (why, size) =
                if kind == "server" { (Some("gap_in_body"), None) } else { (None, Some(20_000)) };
            let seen = (span.status_code(), span.incomplete(), span.response_size());
            assert_eq!(seen, (Some(200), why, size), "{}", span.brief());
            // Its end is its last byte, not the moment at which nothing more came.
            assert!(span.duration_ms < 400.0 * f64::from(ktrdr_tests::agent::patience()), "{}", span.brief());
        }
        client.send("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
        client.receive_until(b"ok");
        drop(client);
        server.join().unwrap();
        let finished = finish(agent, 4);
        for kind in ["client", "server"] {
            let span = only(&finished.spans, kind, "/next");
            assert_eq!((span.response_size(), span.incomplete()), (Some(2), None), "{}", span.brief());
        }
    });
}
