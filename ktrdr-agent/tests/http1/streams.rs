//! Streams drawn by dice: messages of all framings, with oddities here and there.

use ktrdr_agent::protocol::Side;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::judges::Stream;
use super::reader::Reader;

fn pick<'a, T: ?Sized>(dice: &mut StdRng, of: &[&'a T]) -> &'a T {
    of.choose(dice).unwrap()
}

/// Data that looks like all that a reader could stumble over.
fn data(dice: &mut StdRng) -> Vec<u8> {
    let pieces: [&[u8]; 9] = [
        b"abc",
        b"\r\n",
        b"\n",
        b"0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"ff\r\n",
        b"\0\xff\x80",
        b"Content-Length: 3\r\n",
    ];
    (0..dice.random_range(0..6)).flat_map(|_| pick(dice, &pieces).to_vec()).collect()
}

fn odd(dice: &mut StdRng) -> bool {
    dice.random_ratio(1, 25)
}

fn line_end(dice: &mut StdRng) -> &'static str {
    if odd(dice) { "\n" } else { "\r\n" }
}

/// Fields that frame nothing.
fn others(dice: &mut StdRng, out: &mut Vec<String>) {
    let plain = [
        "Accept: */*",
        "User-Agent: test/1",
        "Cookie: a=b; c=d",
        "X-Empty:",
        "content-type: text/plain; charset=utf-8",
        "X-Spaces:   \t a b \t ",
        "Content-Length-Not: 12",
    ];
    let strange =
        ["X-Folded: a\r\n\tb", "X-Folded:\r\n a", "X-Control: a\u{1}b", "Odd Name: a", "X-Umlaut: \u{fc}"];
    for _ in 0..dice.random_range(0..4) {
        out.push(if odd(dice) { pick(dice, &strange) } else { pick(dice, &plain) }.to_owned());
    }
}

/// A field's name in some case.
fn cased(dice: &mut StdRng, name: &str) -> String {
    match dice.random_range(0..4) {
        0 => name.to_lowercase(),
        1 => name.to_uppercase(),
        _ => name.to_owned(),
    }
}

fn chunked(dice: &mut StdRng) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..dice.random_range(0..4) {
        let data = data(dice);
        if data.is_empty() {
            continue;
        }
        let size = match dice.random_range(0..6) {
            0 => format!("{:X}", data.len()),
            1 => format!("000{:x}", data.len()),
            2 => format!("{:020x}", data.len()),
            _ => format!("{:x}", data.len()),
        };
        let extension = match dice.random_range(0..8) {
            0 => ";a",
            1 => ";a=b;c",
            2 => ";a=\"b;c\"",
            3 if odd(dice) => " ",
            _ => "",
        };
        body.extend(format!("{size}{extension}{}", line_end(dice)).into_bytes());
        body.extend(data);
        body.extend(line_end(dice).as_bytes());
    }
    body.extend(pick(dice, &["0\r\n", "000\r\n", "0;a=b\r\n"]).as_bytes());
    for _ in 0..dice.random_range(0..2) {
        body.extend(pick(dice, &["A: b\r\n", "Content-Length: 9\r\n", "A:\r\n"]).as_bytes());
    }
    body.extend(line_end(dice).as_bytes());
    body
}

/// Head and body with a first line, which must not go on until the end of the connection.
fn message(dice: &mut StdRng, first: &str, host: bool, framing: u32) -> Vec<u8> {
    let mut fields = Vec::new();
    others(dice, &mut fields);
    if host {
        fields.push("Host: h".to_owned());
    }
    let body = match framing {
        0 => Vec::new(),
        1 => {
            let body = data(dice);
            let name = cased(dice, "Content-Length");
            let length = match dice.random_range(0..20) {
                0 => format!("{:08}", body.len()),
                1 => format!("\t{} ", body.len()),
                2 => format!("{0}\r\n{name}: {0}", body.len()),
                3 => format!("{0}, {0}", body.len()),
                4 => format!("\r\n {}", body.len()),
                _ => body.len().to_string(),
            };
            fields.push(format!("{name}: {length}"));
            body
        }
        _ => {
            let name = cased(dice, "Transfer-Encoding");
            let coding = match dice.random_range(0..20) {
                0 => "gzip, chunked",
                1 => "Chunked ",
                2 => "gzip\r\nTransfer-Encoding: chunked",
                3 => "\r\n chunked",
                _ => "chunked",
            };
            fields.push(format!("{name}: {coding}"));
            if dice.random_ratio(1, 15) {
                fields.push("Content-Length: 4".to_owned());
            }
            chunked(dice)
        }
    };
    others(dice, &mut fields);
    let mut bytes = format!("{first}{}", line_end(dice));
    for field in fields {
        bytes += &field;
        bytes += line_end(dice);
    }
    bytes += line_end(dice);
    // What is one character here is one byte there: Latin-1, so that not all is UTF-8.
    let mut bytes: Vec<u8> = bytes.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    bytes.extend(body);
    bytes
}

/// Length of the head that a message begins with.
fn head(message: &[u8]) -> usize {
    let ends = [&b"\r\n\r\n"[..], b"\n\n", b"\n\r\n"];
    let end = (0..message.len())
        .find_map(|at| ends.iter().find(|end| message[at..].starts_with(end)).map(|end| at + end.len()));
    end.unwrap_or(message.len())
}

/// A request.
pub fn request(dice: &mut StdRng) -> (String, Vec<u8>) {
    let method = if odd(dice) {
        pick(dice, &["REPORT", "NOTIFY", "BREW"])
    } else {
        pick(dice, &["GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
    };
    let target = if odd(dice) {
        pick(dice, &["/caf\u{e9}", "/a?\u{ff}=b", "http://h/a?b", "/\u{c3}\u{a9}", "*"])
    } else {
        pick(dice, &["/", "/a", "/a/b/c?d=e&f", "/%20?%41", "/a?b?c", "/a//b;c=d", "/x#y"])
    };
    let space = if odd(dice) { "  " } else { " " };
    let version = if dice.random_ratio(1, 12) { "HTTP/1.0\r\nConnection: keep-alive" } else { "HTTP/1.1" };
    let framing = dice.random_range(0..3);
    let mut bytes = Vec::new();
    if odd(dice) {
        bytes.extend(b"\r\n");
    }
    let first = format!("{method} {target}{space}{version}");
    bytes.extend(message(dice, &first, true, framing));
    (method.to_owned(), bytes)
}

/// The response to a request of that method.
pub fn response(dice: &mut StdRng, method: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..dice.random_range(0..9).max(6) - 6 {
        bytes.extend(
            pick(dice, &["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"])
                .as_bytes(),
        );
    }
    let status = *[200, 200, 200, 201, 204, 206, 301, 304, 400, 404, 500, 503, 599].choose(dice).unwrap();
    let reason = match dice.random_range(0..12) {
        0 => "",
        1 => " ",
        2 => " Not  \t at all",
        3 if odd(dice) => " Gar\u{e7}on",
        _ => " OK",
    };
    let empty = method == "HEAD" || status == 204 || status == 304;
    let framing = if empty { dice.random_range(0..3) } else { dice.random_range(1..3) };
    let message = message(dice, &format!("HTTP/1.1 {status}{reason}"), false, framing);
    // What the head of an empty one speaks of does not come.
    bytes.extend(&message[..if empty { head(&message) } else { message.len() }]);
    bytes
}

/// The bytes of one side of a connection.
pub fn one_side(dice: &mut StdRng) -> Stream {
    let mut requests: Vec<u8> = Vec::new();
    let mut responses: Vec<u8> = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..dice.random_range(1..6) {
        let (method, request) = request(dice);
        requests.extend(request);
        responses.extend(response(dice, &method));
        asked.push(method);
    }
    if dice.random_ratio(1, 6) {
        asked.push("GET".to_owned());
        responses.extend(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        responses.extend(data(dice));
    }
    let (side, mut bytes) =
        if dice.random() { (Side::Request, requests) } else { (Side::Response, responses) };
    if dice.random_ratio(1, 6) {
        bytes.truncate(dice.random_range(1..=bytes.len()));
    }
    if side == Side::Request {
        asked.clear();
    }
    Stream { side, asked, bytes }
}

/// Requests with their methods, and the responses to them.
pub struct Conversation(Vec<(String, Vec<u8>, Vec<u8>)>);

/// A conversation.
pub fn conversation(dice: &mut StdRng) -> Conversation {
    let calls = (0..dice.random_range(1..7)).map(|_| {
        let (method, request) = request(dice);
        let response = response(dice, &method);
        (method, request, response)
    });
    Conversation(calls.collect())
}

impl Conversation {
    /// Calls.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What each side sends.
    pub fn streams(&self) -> [Stream; 2] {
        let asked = self.0.iter().map(|(method, ..)| method.clone()).collect();
        let requests = self.0.iter().flat_map(|(_, request, _)| request.clone()).collect();
        let responses = self.0.iter().flat_map(|(.., response)| response.clone()).collect();
        [
            Stream { side: Side::Request, asked: Vec::new(), bytes: requests },
            Stream { side: Side::Response, asked, bytes: responses },
        ]
    }

    /// Plays it in pieces, some requests before the response to the last one.
    pub fn play_divided(&self, dice: &mut StdRng, reader: &mut Reader) {
        let ahead = if dice.random_ratio(1, 3) { dice.random_range(1..4) } else { 0 };
        let mut feed = |side, bytes: &[u8]| {
            let mut rest = bytes;
            while !rest.is_empty() {
                let most = if dice.random() { rest.len() } else { rest.len().min(40) };
                let (piece, more) = rest.split_at(dice.random_range(1..=most));
                reader.feed(side, piece);
                rest = more;
            }
        };
        for at in 0..self.0.len() + ahead {
            if let Some((_, request, _)) = self.0.get(at) {
                feed(Side::Request, request);
            }
            if let Some((.., response)) = at.checked_sub(ahead).and_then(|at| self.0.get(at)) {
                feed(Side::Response, response);
            }
        }
    }

    /// Plays it one message a transfer; of a response no more is captured than some bytes behind its head.
    pub fn play_cut(&self, dice: &mut StdRng, reader: &mut Reader) {
        for (_, request, response) in &self.0 {
            reader.feed(Side::Request, request);
            // Interim ones are transfers of their own.
            let mut rest = response.as_slice();
            while rest.starts_with(b"HTTP/1.1 1") {
                let (interim, more) = rest.split_at(head(rest));
                reader.feed(Side::Response, interim);
                rest = more;
            }
            reader.feed_captured(Side::Response, rest, head(rest) + dice.random_range(0..60));
        }
    }
}

impl std::fmt::Display for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (_, request, response) in &self.0 {
            writeln!(f, "  > {}\n  < {}", request.escape_ascii(), response.escape_ascii())?;
        }
        Ok(())
    }
}
