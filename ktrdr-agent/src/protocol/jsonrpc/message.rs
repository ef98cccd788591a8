//! JSON-RPC 2.0 messages (<https://www.jsonrpc.org/specification>) and the bodies that carry them.

use xxhash_rust::xxh3::xxh3_64;

use super::json::{self, Raw};

/// Messages looked at in one body: batches of real clients have tens (Ethereum nodes allow 100 to 1000).
pub const MAX_BATCH: usize = 64;
/// Longest id that is told, and longest method: ids are numbers or UUIDs, methods words.
const MAX_ID: usize = 128;
const MAX_METHOD: usize = 128;

/// An id: a string, a number or null (§4). Anything else is a mistake, and still names what answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a>(Raw<'a>);

impl<'a> Id<'a> {
    /// An id that stands elsewhere (in the parameters of what cancels a request).
    pub fn of(value: Raw<'a>) -> Self {
        Self(value)
    }

    /// Tells requests apart: 1 and "1" are two ids.
    pub fn key(self) -> u64 {
        xxh3_64(self.0.bytes)
    }

    /// Value of `jsonrpc.request.id`: none for null (semantic conventions) and for what is no id.
    pub fn text(self) -> Option<String> {
        if self.0.is_string() {
            return self.0.text(MAX_ID);
        }
        let number = self.0.is_number() && self.0.bytes.len() <= MAX_ID;
        number.then(|| String::from_utf8_lossy(self.0.bytes).into_owned())
    }

    /// Null: an error that answers what could not be understood (§5).
    pub fn is_null(self) -> bool {
        self.0.is("null")
    }
}

/// A message, as far as it is at hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// Its id; a request without one is a notification.
    pub id: Option<Id<'a>>,
    /// Method: it is a request or a notification.
    pub method: Option<String>,
    /// Parameters.
    pub params: Option<Raw<'a>>,
    /// Result: it is a response.
    pub result: Option<Raw<'a>>,
    /// Error: it is a response, too.
    pub error: Option<Raw<'a>>,
    /// All of it is at hand.
    pub whole: bool,
}

impl<'a> Message<'a> {
    /// Reads an object. `None` if it is no message of JSON-RPC 2.0, or too little of it is there to tell.
    pub fn of(object: Raw<'a>) -> Option<Self> {
        let mut m =
            Message { id: None, method: None, params: None, result: None, error: None, whole: object.whole };
        let mut version = None;
        for (key, value) in object.members() {
            let is = |name: &str| key.is_text(name);
            if is("jsonrpc") {
                version = Some(value);
            } else if is("id") {
                // Half an id is another one.
                m.id = value.whole.then_some(Id(value));
            } else if is("method") {
                m.method = value.text(MAX_METHOD);
            } else if is("params") {
                m.params = Some(value);
            } else if is("result") {
                m.result = Some(value);
            } else if is("error") {
                // Some servers write `"error": null` beside a result.
                m.error = (!value.is("null")).then_some(value);
            }
        }
        let known = match version {
            Some(v) => v.is_text("2.0"),
            // The official MCP libraries write it last, behind parameters that may be long.
            None => !object.whole && m.params.is_some(),
        };
        let something = m.method.is_some() || m.result.is_some() || m.error.is_some();
        (known && something).then_some(m)
    }

    /// It asks for an answer, or tells something.
    pub fn asks(&self) -> bool {
        self.method.is_some()
    }

    /// It answers.
    pub fn answers(&self) -> bool {
        self.method.is_none() && (self.result.is_some() || self.error.is_some())
    }
}

/// The messages of one body.
#[derive(Debug, Default, PartialEq)]
pub struct Body<'a> {
    /// At most [`MAX_BATCH`].
    pub messages: Vec<Message<'a>>,
    /// They stand in an array (§6).
    pub batch: bool,
}

impl<'a> Body<'a> {
    /// Reads a JSON text.
    pub fn json(text: &'a [u8]) -> Self {
        let Some(value) = json::first(text) else { return Self::default() };
        let batch = value.bytes.first() == Some(&b'[');
        let messages = if batch {
            value.items().take(MAX_BATCH).filter_map(Message::of).collect()
        } else {
            Message::of(value).into_iter().collect()
        };
        Self { messages, batch }
    }

    /// The only message, if it is no batch.
    pub fn single(&self) -> Option<&Message<'a>> {
        match self.messages.as_slice() {
            [m] if !self.batch => Some(m),
            _ => None,
        }
    }

    /// The answer to a request.
    pub fn answer_to(&self, id: Option<Id<'_>>) -> Option<&Message<'a>> {
        let answers = || self.messages.iter().filter(|m| m.answers());
        let key = id.map(Id::key);
        answers()
            .find(|m| key.is_some() && m.id.map(Id::key) == key)
            // Of what could not be understood, the id could not either.
            .or_else(|| answers().find(|m| m.error.is_some() && m.id.is_none_or(Id::is_null)))
    }
}

/// The data of the first events of a stream of server-sent events
/// (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), of which the last may be cut.
pub fn event_data(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    let mut data: Option<Vec<u8>> = None;
    for line in stream.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            events.extend(data.take());
            if events.len() >= MAX_BATCH {
                return events;
            }
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let data = data.get_or_insert_default();
            if !data.is_empty() {
                data.push(b'\n');
            }
            data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
    }
    events.extend(data);
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Option<Message<'_>> {
        Body::json(text.as_bytes()).messages.into_iter().next()
    }

    #[test]
    fn ids_of_every_type() {
        for (id, text) in [
            ("7", Some("7")),
            ("-1.5e3", Some("-1.5e3")),
            ("\"a-1\"", Some("a-1")),
            ("\"\"", Some("")),
            ("null", None),
            ("true", None),
            ("{\"a\":1}", None),
            ("[1]", None),
        ] {
            let call = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
            let answer = format!(r#"{{"result":1,"id":{id},"jsonrpc":"2.0"}}"#);
            let (call, answers) = (one(&call).unwrap(), Body::json(answer.as_bytes()));
            assert_eq!(call.id.unwrap().text().as_deref(), text, "{id}");
            assert!(answers.answer_to(call.id).is_some(), "{id}");
        }
        let call = one(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#).unwrap();
        assert_eq!(Body::json(br#"{"jsonrpc":"2.0","id":"1","result":1}"#).answer_to(call.id), None);
        let long = format!(r#"{{"jsonrpc":"2.0","id":{},"method":"m"}}"#, "9".repeat(1000));
        assert_eq!(one(&long).unwrap().id.unwrap().text(), None);
        assert_eq!(one(r#"{"jsonrpc":"2.0","method":"m","id":12"#).unwrap().id, None);
    }

    #[test]
    fn what_is_no_message_is_none() {
        for text in [
            r#"{"id":1,"method":"m","params":{}}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#,
            r#"{"jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"method":"POST","url":"#,
            "[]",
            "[1,2]",
            "null",
            "",
            "data: x",
        ] {
            assert_eq!(one(text), None, "{text}");
        }
        assert!(one(r#"{"jsonrpc":"2.0","id":1,"result":null,"error":null}"#).unwrap().answers());
        assert!(one(r#"{"method":"tools/call","params":{"name":"add","arguments":{"a":"#).unwrap().asks());
    }

    #[test]
    fn batches_are_bounded() {
        let item = r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#;
        let text = format!("[{}{item}]", format!("{item},").repeat(10_000));
        assert_eq!(Body::json(text.as_bytes()).messages.len(), MAX_BATCH);
        assert!(Body::json(format!("[{item}]").as_bytes()).single().is_none());
    }

    #[test]
    fn server_sent_events() {
        let stream =
            b": hi\r\nevent: message\r\nid: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata:\n\ndata: cut";
        let want: [&[u8]; 3] = [b"{\"a\":\n1}", b"", b"cut"];
        assert_eq!(event_data(stream), want);
        assert_eq!(event_data(b"{\"jsonrpc\":\"2.0\"}"), Vec::<Vec<u8>>::new());
    }
}
