//! Our reader, as the agent uses it: transfers into the engine, calls out.

use std::net::SocketAddr;

use ktrdr_agent::engine::Engine;
use ktrdr_agent::engine::conn::ConnSettings;
use ktrdr_agent::engine::pairing::{Exchange, Paired};
use ktrdr_agent::event::{ConnId, Data, Direction, State, Task, Tuple, tcp};
use ktrdr_agent::protocol::Side;
use ktrdr_agent::trace::model::{Attributes, Value};

const ID: ConnId = ConnId(1);
/// Near the end of the numbers, so that they begin anew in the middle.
const BEGIN: u32 = u32::MAX - 100;

/// A message as we read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Method and target without the authority, or the status code.
    pub start: String,
    /// Bytes of its body, where they are known.
    pub size: Option<u64>,
    /// Nothing of it is said to be missing.
    pub whole: bool,
}

/// A connection, seen from the server's end.
pub struct Reader {
    engine: Engine,
    next: [u32; 2],
    ts: u64,
    /// Calls in the order they began.
    calls: Vec<(u64, Option<Box<Exchange>>)>,
}

impl Reader {
    /// A connection that just stands.
    pub fn new() -> Self {
        let settings = ConnSettings {
            semconv_dup: false,
            max_head: 64 * 1024,
            kept_headers: Default::default(),
            mask: Default::default(),
            shared: Default::default(),
        };
        let mut engine = Engine::new(settings, 16);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let tuple = Tuple { local: at(8000), remote: at(40_000), netns: 1 };
        let state = State {
            conn: ID,
            py_context: 0,
            old: tcp::SYN_RECV,
            new: tcp::ESTABLISHED,
            error: 0,
            write_seq: BEGIN,
            copied_seq: BEGIN,
            tuple,
        };
        engine.established(1, &state, 1, None);
        Self { engine, next: [BEGIN; 2], ts: 1, calls: Vec::new() }
    }

    /// A transfer.
    pub fn feed(&mut self, side: Side, bytes: &[u8]) {
        self.feed_captured(side, bytes, usize::MAX);
    }

    /// A transfer of which at most so many bytes were captured.
    pub fn feed_captured(&mut self, side: Side, bytes: &[u8], limit: usize) {
        if bytes.is_empty() {
            return;
        }
        let len = u32::try_from(bytes.len()).unwrap();
        let next = &mut self.next[side as usize];
        *next = next.wrapping_add(len);
        let data = Data {
            conn: ID,
            py_context: 0,
            direction: if side == Side::Request { Direction::Recv } else { Direction::Send },
            seq_end: *next,
            len,
            payload: &bytes[..bytes.len().min(limit)],
            tuple: None,
            eof: false,
            no_buffer: false,
            fault: false,
            second: false,
        };
        self.ts += 1;
        let outcome = self.engine.data(self.ts, Task { tgid: 1, tid: 1, py_context: 0 }, &data, &|_| None);
        let paired = outcome.map(|o| o.effects.paired).unwrap_or_default();
        self.note(paired);
    }

    fn note(&mut self, paired: Vec<Paired>) {
        for event in paired {
            match event {
                Paired::Began(began) => self.calls.push((began.span.0, None)),
                Paired::Done(exchange) => {
                    let call = self.calls.iter_mut().find(|(span, _)| *span == exchange.span.0);
                    let (_, done) = call.expect("what is done began");
                    assert!(done.is_none(), "done twice: {exchange:?}");
                    *done = Some(exchange);
                }
                Paired::Read(_) | Paired::Answered(..) | Paired::Unasked(_) => {}
            }
        }
    }

    /// The end of the connection: the messages of one side.
    pub fn ended(self, side: Side) -> Vec<Seen> {
        let calls = self.closed();
        match side {
            Side::Request => calls.into_iter().map(|(request, _)| request).collect(),
            Side::Response => calls.into_iter().filter_map(|(_, response)| response).collect(),
        }
    }

    /// The end of the connection: the calls, in the order they began.
    pub fn closed(mut self) -> Vec<(Seen, Option<Seen>)> {
        let outcome = self.engine.closed(self.ts + 1, ID, "connection_closed");
        let paired = outcome.map(|o| o.effects.paired).unwrap_or_default();
        self.note(paired);
        self.engine.forget(ID);
        let counts = &self.engine.counts;
        let bytes = counts.bytes;
        assert_eq!(
            counts.moved + bytes.gaps,
            bytes.parsed + bytes.skipped + bytes.lost,
            "lost count of bytes"
        );
        let done = |x: Option<Box<Exchange>>| seen(&x.expect("all that began is done"));
        self.calls.into_iter().map(|(_, exchange)| done(exchange)).collect()
    }
}

fn text(attributes: &Attributes, name: &str) -> String {
    attributes.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(attributes: &Attributes, name: &str) -> Option<u64> {
    match attributes.get(name) {
        Some(Value::Int(n)) => u64::try_from(*n).ok(),
        _ => None,
    }
}

fn seen(x: &Exchange) -> (Seen, Option<Seen>) {
    // The end of the connection is not the message's.
    let whole = x.incomplete.is_none_or(|why| why == "connection_closed");
    let a = &x.request.attributes;
    let mut method = text(a, "http.request.method");
    if method == "_OTHER" {
        method = text(a, "http.request.method_original");
    }
    let query = text(a, "url.query");
    let target = match (method.as_str(), query.as_str()) {
        ("CONNECT", _) => String::new(),
        (_, "") => text(a, "url.path"),
        (_, query) => format!("{}?{query}", text(a, "url.path")),
    };
    let size = number(a, "http.request.body.size");
    let ended = x.request_end.is_some() && (whole || x.response.is_some());
    // What has no body has no size.
    let size = size.or((ended && !x.request.has_body).then_some(0));
    let request = Seen { start: format!("{method} {target}"), size, whole: ended };
    let response = x.response.as_ref().map(|r| {
        let code = number(&r.attributes, "http.response.status_code").unwrap_or(0);
        // Behind these another protocol begins.
        let last = code == 101 || method == "CONNECT" && matches!(code, 200..=299);
        let size = number(&r.attributes, "http.response.body.size").or(last.then_some(0));
        Seen { start: code.to_string(), size, whole }
    });
    (request, response)
}

/// A request line's method and target, one character a byte, as we show them: without authority and fragment, and what is
/// no UTF-8 percent-encoded.
pub fn shown(start: &str) -> String {
    let (method, target) = start.split_once(' ').unwrap();
    if method == "CONNECT" {
        return "CONNECT ".to_owned();
    }
    let bytes: Vec<u8> = target.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let target: String = bytes
        .utf8_chunks()
        .flat_map(|chunk| {
            let invalid = chunk.invalid().iter().map(|b| format!("%{b:02X}"));
            std::iter::once(chunk.valid().to_owned()).chain(invalid)
        })
        .collect();
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?']).map_or("/".to_owned(), |at| {
                let path = if rest[at..].starts_with('?') { "/" } else { "" };
                format!("{path}{}", &rest[at..])
            })
        }
        _ => target,
    };
    let target = target.split('#').next().unwrap_or_default();
    format!("{method} {}", target.strip_suffix('?').unwrap_or(target))
}
