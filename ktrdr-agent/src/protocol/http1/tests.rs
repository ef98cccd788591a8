//! The parser on samples written by hand. Samples of real programs are in `tests/fixtures/http1`, see `laws`.

use super::Http1;
use crate::protocol::driver::{Driver, Note, context};
use crate::protocol::{Protocol, Role, Side};

const REQUEST: Side = Side::Request;
const RESPONSE: Side = Side::Response;

fn driver() -> Driver {
    Driver::new(&Http1, &context(Role::Server))
}

/// `>` name, `<` status, `i` interim status, `.` complete end with size, `!` incomplete end.
fn short(driver: &Driver) -> Vec<String> {
    let between = |text: &str, from: &str, to: &str| {
        let rest = text.split_once(from).map_or("", |(_, rest)| rest);
        rest.split_once(to).map_or(rest, |(found, _)| found).to_string()
    };
    let number = |text: &str| between(text, "Int(", ")");
    driver
        .notes
        .iter()
        .map(|note| match note {
            Note::Begin(REQUEST, text) => format!(">{}", between(text, "name: \"", "\"")),
            Note::Begin(RESPONSE, text) => format!("<{}", number(text)),
            Note::Interim(text) => format!("i{}", number(text)),
            Note::End(side, text, None) => format!("{side:?}.{}", number(text)),
            Note::End(side, text, Some(why)) => format!("{side:?}!{why} {}", number(text)),
            Note::Opaque => "opaque".to_string(),
        })
        .collect()
}

/// Feeds `>…` as request bytes and `<…` as response bytes.
fn play(transfers: &[&str]) -> Driver {
    let mut driver = driver();
    for transfer in transfers {
        match transfer.split_at(1) {
            (">", bytes) => driver.feed(REQUEST, bytes.as_bytes()),
            (_, bytes) => driver.feed(RESPONSE, bytes.as_bytes()),
        }
    }
    driver
}

#[test]
fn keep_alive_with_lengths_and_chunks() {
    let d = play(&[
        ">POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n",
        ">abc",
        "<HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
        ">GET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        "<HTTP/1.1 204 No Content\r\n\r\n",
    ]);
    assert_eq!(
        short(&d),
        [">POST /a", "Request.3", "<200", "Response.8", ">GET /b", "Request.", "<204", "Response.0"]
    );
}

#[test]
fn pipelining_remembers_what_was_asked() {
    let d = play(&[
        ">HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nHEAD /c HTTP/1.1\r\n\r\n",
        "<HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "<HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]);
    assert_eq!(short(&d)[6..], ["<200", "Response.0", "<200", "Response.5", "<200", "Response.0"]);
}

/// Begins and ends of one play, after the end of both sides.
fn told(transfers: &[&str]) -> Vec<String> {
    let mut d = play(transfers);
    d.eof(REQUEST);
    d.eof(RESPONSE);
    short(&d)
}

const GET: &str = ">GET / HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn a_close_delimited_body_is_as_long_as_what_came() {
    let expected = [">GET /", "Request.", "<200", "Response.12"];
    assert_eq!(told(&[GET, "<HTTP/1.1 200 OK\r\n\r\nhello", "< world!"]), expected);
    assert_eq!(
        told(&[GET, "<HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 200"]),
        expected,
        "whatever the body looks like"
    );
    assert_eq!(told(&[GET, "<HTTP/1.1 200 OK\r\n\r\n"]), [">GET /", "Request.", "<200", "Response.0"]);
}

#[test]
fn http_1_0_stays_open_where_it_gives_a_length() {
    let d = told(&[
        ">GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "<HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        ">GET /b HTTP/1.0\r\n\r\n",
        "<HTTP/1.0 404 None\r\nContent-Length: 0\r\n\r\n",
    ]);
    assert_eq!(d, [">GET /a", "Request.", "<200", "Response.2", ">GET /b", "Request.", "<404", "Response.0"]);
}

#[test]
fn a_head_in_single_bytes_and_empty_lines_between() {
    let mut d = driver();
    for byte in b"\r\n\nGET /x HTTP/1.1\nHost: h\n\n\r\nget /y HTTP/1.1\r\n\r\n" {
        d.feed(REQUEST, &[*byte]);
    }
    assert_eq!(short(&d), [">GET /x", "Request.", ">HTTP /y", "Request."]);
    assert_eq!((d.held(), d.dropped), (0, 0));
}

#[test]
fn interim_responses_answer_nothing() {
    let d = told(&[
        ">POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        "<HTTP/1.1 100 Continue\r\n\r\n",
        ">ab",
        "<HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ]);
    assert_eq!(d, [">POST /a", "i100", "Request.2", "i103", "<200", "Response.0"]);
}

#[test]
fn a_refused_expectation_leaves_the_body_out() {
    let refused = [
        ">POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 90\r\n\r\n",
        "<HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n",
    ];
    let next = [refused[0], refused[1], ">GET /b HTTP/1.1\r\n\r\n"];
    assert_eq!(told(&next), [">POST /a", "<417", "Response.0", "Request.0", ">GET /b", "Request."]);
    assert_eq!(told(&refused), [">POST /a", "<417", "Response.0", "Request!eof_in_body 0"]);
    // Many clients wait a second and send it anyway.
    let anyway = [refused[0], ">0123456789", "<HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"];
    assert_eq!(told(&anyway), [">POST /a", "<200", "Response.0", "Request!eof_in_body 10"]);
}

#[test]
fn tunnels_and_upgrades_are_opaque() {
    let d = told(&[
        ">CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n",
        "<HTTP/1.1 200 Connection established\r\n\r\n",
        ">GET / HTTP/1.1\r\n\r\n",
    ]);
    assert_eq!(d, [">CONNECT", "Request.", "<200", "Response.", "opaque"]);
    let refused = told(&[
        ">CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n",
        "<HTTP/1.1 407 Auth\r\nContent-Length: 2\r\n\r\nno",
        GET,
    ]);
    assert_eq!(refused, [">CONNECT", "Request.", "<407", "Response.2", ">GET /", "Request."]);
    let upgraded = told(&[
        ">GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "<HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02",
    ]);
    assert_eq!(upgraded, [">GET /ws", "Request.", "<101", "Response.", "opaque"]);
}

#[test]
fn both_framings_means_chunks_and_contradictions_are_marked() {
    let smuggled = told(&[
        ">POST /a HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        ">GET /b HTTP/1.1\r\n\r\n",
    ]);
    assert_eq!(smuggled, [">POST /a", "Request.1", ">GET /b", "Request."]);
    let equal = told(&[">POST /a HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4, 4\r\n\r\nabcd"]);
    assert_eq!(equal, [">POST /a", "Request.4"]);
    let wrong = told(&[">POST /a HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n", ">abcd", GET]);
    assert_eq!(wrong, [">POST /a", "Request!invalid_framing ", ">GET /", "Request."], "the next is found");
}

#[test]
fn a_response_may_come_before_the_request_ended() {
    let d = told(&[
        ">POST /a HTTP/1.1\r\nContent-Length: 100\r\n\r\n0123456789",
        "<HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
    ]);
    assert_eq!(d, [">POST /a", "<413", "Response.2", "Request!eof_in_body 10"]);
}

#[test]
fn broken_off_bodies_say_how_far_they_came() {
    for (head, body, size) in [
        ("Content-Length: 100", "0123456789", 10),
        ("Transfer-Encoding: chunked", "a\r\n01234", 5),
        ("Transfer-Encoding: chunked", "a\r\n0123456789", 10),
        ("Transfer-Encoding: chunked", "a\r\n0123456789\r\n5", 10),
        ("Transfer-Encoding: chunked", "a\r\n0123456789\r\n0\r\n", 10),
    ] {
        let response = format!("<HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
        let d = told(&[GET, &response]);
        assert_eq!(d[3], format!("Response!eof_in_body {size}"), "{head} {body:?}");
    }
}

#[test]
fn bodies_need_not_be_captured() {
    let mut d = play(&[GET, "<HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\nabc"]);
    d.gap(RESPONSE, 49_999_997);
    d.feed(REQUEST, &GET.as_bytes()[1..]);
    d.feed(RESPONSE, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\nabc");
    // The rest of the data, its line end, and the last chunk behind it, which only its length tells.
    d.gap(RESPONSE, 0x10000 - 3 + 2 + 5);
    assert_eq!(
        short(&d),
        [">GET /", "Request.", "<200", "Response.50000000", ">GET /", "Request.", "<200", "Response.65536"]
    );
    assert_eq!(d.dropped, 0);
}

#[test]
fn a_chunked_body_with_a_hole_goes_on() {
    let mut d = play(&[GET, "<HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]);
    d.gap(RESPONSE, 1000);
    d.feed(RESPONSE, b"in the middle of data");
    d.feed(RESPONSE, b"3\r\nabc\r\n");
    d.feed(RESPONSE, b"0\r\n\r\n");
    d.feed(REQUEST, &GET.as_bytes()[1..]);
    d.feed(RESPONSE, b"HTTP/1.1 204 No\r\n\r\n");
    assert_eq!(
        short(&d),
        [">GET /", "Request.", "<200", "Response!gap_in_body ", ">GET /", "Request.", "<204", "Response.0"]
    );
    let mut endless = play(&[GET, "<HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]);
    endless.gap(RESPONSE, 1000);
    endless.feed(RESPONSE, b"HTTP/1.1 204 No\r\n\r\n");
    assert_eq!(short(&endless)[2..], ["<200", "Response!gap_in_body ", "<204", "Response.0"]);
}

/// Data that ends in hex digits, seen from its last bytes on: read as a size it would be that of the next 3 GB.
#[test]
fn the_end_of_a_chunk_that_reads_as_a_size_swallows_no_request() {
    let put = ">PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3d090\r\nbbb";
    for tail in
        [&["bbbbbbbb\r\n3d090\r\nbbb"][..], &["bbbbbbbb\r\n", "3d090\r\nbbb"], &["bbbbbbbb\r\n0\r\n\r\n"]]
    {
        let mut d = play(&[put]);
        d.gap(REQUEST, 400_000);
        tail.iter().for_each(|bytes| d.feed(REQUEST, bytes.as_bytes()));
        if !tail[0].contains("\r\n0\r\n") {
            d.gap(REQUEST, 249_997 + 2 + 5);
        }
        d.feed(RESPONSE, b"HTTP/1.1 204 No\r\n\r\n");
        d.feed(REQUEST, &GET.as_bytes()[1..]);
        d.feed(RESPONSE, b"HTTP/1.1 204 No\r\n\r\n");
        let all = short(&d);
        assert!(all.iter().any(|note| note == ">GET /"), "{tail:?}: {all:?}");
    }
}

#[test]
fn a_head_beyond_the_capture_is_taken_as_far_as_it_goes() {
    let mut d = driver();
    let long = format!("GET /long HTTP/1.1\r\nHost: h\r\nCookie: {}", "c".repeat(8000));
    d.feed(REQUEST, long.as_bytes());
    d.gap(REQUEST, 3000);
    d.feed(RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    d.feed(REQUEST, &GET.as_bytes()[1..]);
    assert_eq!(
        short(&d),
        [">GET /long", "Request!head_truncated ", "<200", "Response.2", ">GET /", "Request."]
    );
    let Note::Begin(_, request) = &d.notes[0] else { panic!("{:?}", d.notes) };
    assert!(request.contains("Str(\"h\")"), "the fields before the cut count: {request}");
}

#[test]
fn a_target_longer_than_what_is_copied_is_known_as_far_as_that() {
    let mut d = driver();
    let long = format!("GET /long?q={}", "c".repeat(8000));
    d.feed(REQUEST, long.as_bytes());
    d.gap(REQUEST, 3000);
    d.feed(RESPONSE, b"HTTP/1.1 414 URI Too Long\r\nContent-Length: 2\r\n\r\nok");
    d.feed(REQUEST, &GET.as_bytes()[1..]);
    let seen = short(&d);
    assert!(seen[0].starts_with(">GET /long"), "{seen:?}");
    assert_eq!(seen[1..], ["Request!head_truncated ", "<414", "Response.2", ">GET /", "Request."]);
}

#[test]
fn a_head_beyond_the_limit_is_taken_as_far_as_it_goes() {
    let mut d = driver();
    let limit = context(Role::Server).max_head;
    let long = format!("GET /long HTTP/1.1\r\nHost: h\r\nCookie: {}", "c".repeat(3 * limit));
    for piece in long.as_bytes().chunks(1000) {
        d.feed(REQUEST, piece);
        assert!(d.held() <= limit);
    }
    d.feed(REQUEST, b"the end of it\r\n\r\n");
    d.feed(REQUEST, &GET.as_bytes()[1..]);
    assert_eq!(short(&d), [">GET /long", "Request!head_truncated ", ">GET /", "Request."]);
    let many = format!("GET /many HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    d.feed(REQUEST, many.as_bytes());
    assert_eq!(short(&d)[4..], [">GET /many", "Request."], "any number of fields");
}

#[test]
fn after_a_loss_only_the_beginning_of_a_transfer_counts() {
    let mut d = play(&[GET]);
    d.gap(REQUEST, 10);
    d.feed(REQUEST, b"noise GET /no HTTP/1.1\r\n\r\n");
    d.feed(REQUEST, b"NOISE /no HTTP/1.1\r\n\r\n");
    d.feed(REQUEST, b"\r\nGET /no HTTP/1.1\r\n\r\n");
    d.feed(REQUEST, b"GET /yes HTTP/1.1\r\n\r\n");
    assert_eq!(short(&d)[2..], [">GET /yes", "Request."]);
    assert_eq!(d.dropped, 3);
}

#[test]
fn a_response_to_an_unknown_request_may_answer_head() {
    let head = "<HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(told(&[head, head]), ["<200", "Response.0", "<200", "Response!eof_in_body 0"]);
    assert_eq!(told(&[head, "<hello", head, "<world"]), ["<200", "Response.5", "<200", "Response.5"]);
    let chunked = "<HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        told(&[chunked, "<1\r\nx\r\n0\r\n\r\n", chunked, head, "<hello"])[..3],
        ["<200", "Response.1", "<200"]
    );
}

#[test]
fn abandoned_messages_end() {
    let mut parser = super::Http1.parser(&context(Role::Client));
    use crate::protocol::{ParseEvent, Step};
    assert!(matches!(parser.step(REQUEST, &GET.as_bytes()[1..]), Step::Advance { .. }));
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    assert!(matches!(parser.step(RESPONSE, response), Step::Advance { skip: 10, .. }));
    let Some(ParseEvent::End(end)) = parser.abandon(RESPONSE, 4) else { panic!("no end") };
    assert_eq!(end.incomplete, Some("abandoned"));
    assert_eq!(end.attributes.get("http.response.body.size"), Some(&6u64.into()));
    assert!(parser.abandon(RESPONSE, 0).is_none());
    assert!(matches!(parser.step(RESPONSE, response), Step::Advance { .. }), "in step again");
}
