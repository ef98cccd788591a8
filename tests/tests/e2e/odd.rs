//! Requests that are not as they should be, sent to real servers: each takes some and refuses others, and the spans say
//! what it did. What a server made of a body it says itself: it sends it back.

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::raw::Peer;
use ktrdr_tests::servers::{self, Server};
use ktrdr_tests::span::{Span, brief};

use crate::libraries::clean;

/// Requests: what is odd about them, and their bytes, in which `PATH` stands for a path that echoes the body.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&str, Vec<u8>)> = [
        ("folded length", &b"POST PATH HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n 3\r\n\r\nabc"[..]),
        ("folded codings", b"POST PATH HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ("query in Latin-1", b"GET PATH?caf\xe9 HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("path in Latin-1", b"GET PATH/caf\xe9 HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("blanks before the target", b"GET   PATH HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("blanks before the version", b"GET PATH   HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("blank behind the version", b"GET PATH HTTP/1.1 \r\nHost: h\r\n\r\n"),
        ("later version", b"GET PATH HTTP/1.3\r\nHost: h\r\n\r\n"),
        ("lone line feeds", b"POST PATH HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc"),
        ("chunks of lone line feeds", b"POST PATH HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n3\nabc\n5\nhello\n0\n\n"),
        ("chunk sizes with zeros", b"POST PATH HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000003;a=b\r\nabc\r\n00\r\nA: b\r\n\r\n"),
        ("empty lines first", b"\r\n\r\nGET PATH HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("method unknown", b"BREW PATH HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("method of the UPnP", b"M-SEARCH PATH HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("control character", b"POST PATH HTTP/1.1\r\nHost: h\r\nA: b\x01c\r\nContent-Length: 3\r\n\r\nabc"),
        ("bytes above 0x80", b"POST PATH HTTP/1.1\r\nHost: h\r\nA: \xff\xe9\r\nContent-Length: 3\r\n\r\nabc"),
        ("field without a colon", b"POST PATH HTTP/1.1\r\nHost: h\r\nNonsense\r\nContent-Length: 3\r\n\r\nabc"),
        ("empty coding", b"POST PATH HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc"),
        ("length twice", b"POST PATH HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    ]
    .map(|(name, bytes)| (name, bytes.to_vec()))
    .into();
    let many =
        format!("POST PATH HTTP/1.1\r\nHost: h\r\n{}Content-Length: 3\r\n\r\nabc", "A: b\r\n".repeat(90));
    all.push(("many fields", many.into_bytes()));
    let more =
        format!("POST PATH HTTP/1.1\r\nHost: h\r\n{}Content-Length: 3\r\n\r\nabc", "A: b\r\n".repeat(180));
    all.push(("more fields", more.into_bytes()));
    // nginx reads 1024 bytes first: the first line is divided, just before the version.
    let long = format!("GET PATH?{} HTTP/1.1\r\nHost: h\r\n\r\n", "q".repeat(1003));
    all.push(("long target", long.into_bytes()));
    all
}

/// A response as the test reads it: status, bytes of the body, and whether the connection stays open. None: the server
/// closed without a word.
fn response(peer: &mut Peer) -> Option<(i64, i64, bool)> {
    if peer.stream.peek(&mut [0]).unwrap() == 0 {
        return None;
    }
    let mut bytes = peer.receive_until(b"\r\n\r\n");
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let status = text[9..12].parse().unwrap();
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    };
    let closes = field("connection").is_some_and(|value| value == "close");
    assert_eq!(field("transfer-encoding"), None, "{text}");
    match field("content-length").map(|n| n.parse::<usize>().unwrap()) {
        Some(n) => {
            let missing = n - (bytes.len() - head);
            bytes.extend(peer.receive(missing));
        }
        None => bytes.extend(peer.receive_all()),
    }
    Some((status, (bytes.len() - head) as i64, !closes && field("content-length").is_some()))
}

/// What a server did with one request.
struct Told {
    what: String,
    path: String,
    status: i64,
    received: i64,
    /// It took the request, and sent its body back.
    echoed: bool,
}

/// Sends all of them to one server, each on a connection of its own with a plain request behind it.
fn tell(server: &str, port: u16, place: usize) -> Vec<Told> {
    let mut told = Vec::new();
    for (n, (name, bytes)) in requests().into_iter().enumerate() {
        let path = format!("/c/{place}/{n}/echo");
        let at = bytes.windows(4).position(|w| w == b"PATH").unwrap();
        let bytes = [&bytes[..at], path.as_bytes(), &bytes[at + 4..]].concat();
        let what = format!("{name} to {server}");
        let unfit = match name {
            // The others wait for a carriage return, or refuse.
            "chunks of lone line feeds" => !["Threaded", "nginx"].contains(&server),
            // http.server leaves bodies to our program, which reads plain chunks only.
            "folded codings" | "chunk sizes with zeros" => server == "Threaded",
            // CPython's email parser lets the fields end there, and the body is its next request's method. No other does.
            "field without a colon" => server == "Threaded",
            _ => false,
        };
        if unfit {
            continue;
        }
        let mut peer = Peer::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
        peer.send(&bytes);
        let Some((status, received, open)) = response(&mut peer) else { continue };
        let path = if name.starts_with("path in") { format!("{path}/caf%E9") } else { path };
        told.push(Told { what, path, status, received, echoed: status == 200 });
        if status != 200 || !open {
            continue;
        }
        let (what, path) = (format!("behind {name} to {server}"), format!("/c/{place}/{n}/bytes/7"));
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        let Some((status, received, _)) = response(&mut peer) else { panic!("no answer: {what}") };
        assert_eq!((status, received), (200, 7), "{what}");
        told.push(Told { what, path, status, received, echoed: false });
    }
    told
}

#[test]
fn odd_requests_are_read_as_the_server_read_them() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut running = Vec::new();
    let mut ports = Vec::new();
    let all = [Server::UvicornH11, Server::UvicornHttptools, Server::Aiohttp, Server::Threaded, Server::Node];
    for server in all {
        let port = free_port();
        running.push(server.start(port, dir.path()));
        ports.push((format!("{server:?}"), port));
    }
    // What nginx passes on is not looked at.
    let (port, upstream) = (free_port(), free_port());
    running.push(Server::Threaded.start(upstream, dir.path()));
    running.push(servers::nginx(port, dir.path(), Some(upstream), dir.path()));
    ports.push(("nginx".to_owned(), port));
    let numbers: Vec<u16> = ports.iter().map(|(_, port)| *port).collect();
    let agent = Options::ports(&numbers).start();
    let mut told = Vec::new();
    for (place, (server, port)) in ports.iter().enumerate() {
        told.extend(tell(server, *port, place));
    }
    agent.wait_for_spans(2 * told.len());
    let finished = agent.stop();
    let taken = told.iter().filter(|t| t.echoed).count();
    assert!(taken > 60, "only {taken} of {} were taken", told.len());
    let mut wrong = Vec::new();
    for t in &told {
        let found: Vec<&Span> = finished.spans.iter().filter(|s| s.path() == Some(&t.path)).collect();
        if !found.iter().any(|s| s.is_client()) || !found.iter().any(|s| !s.is_client()) {
            wrong.push(format!("{}: {} spans of {}", t.what, found.len(), t.path));
        }
        for span in found {
            let said = (span.status_code(), span.response_size(), span.incomplete());
            let size = !t.echoed || span.request_size() == t.received;
            if said != (Some(t.status), Some(t.received), None) || !size {
                wrong.push(format!("{}: {}", t.what, span.brief()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), brief(&finished.spans));
    clean(&finished);
}
