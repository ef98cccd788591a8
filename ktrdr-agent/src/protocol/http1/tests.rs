//! The parser on samples written by hand. Samples of real programs are in `tests/fixtures/http1`, see `laws`.

use super::Http1;
use crate::protocol::driver::{Driver, Note, context};
use crate::protocol::{Role, Side};

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
