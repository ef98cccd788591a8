//! Any bytes as JSON-RPC bodies and as lines on a pipe: no panic, and what is told stays bounded.
//!
//! Input: a request, `\xff`, a response.
#![no_main]

use ktrdr_agent::event::{FileId, FileKind, Write};
use ktrdr_agent::protocol::jsonrpc::message::{Body, event_data};
use ktrdr_agent::protocol::jsonrpc::{describe, http};
use ktrdr_agent::trace::stdio::lines::{Lines, MAX_LINE};
use libfuzzer_sys::fuzz_target;

/// More than all that is kept of arguments, names and messages together.
const MOST: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|b| *b == 0xff).unwrap_or(input.len());
    let (request, response) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let mask = Default::default();
    for m in &Body::json(request).messages {
        let asked = describe::asked(m, false, &mask);
        let bytes: usize = asked.attributes.iter().filter_map(|a| a.value.as_str()).map(str::len).sum();
        assert!(bytes < MOST);
    }
    for text in event_data(response).iter().map(Vec::as_slice).chain([response]) {
        for m in &Body::json(text).messages {
            describe::answered(m, &mask);
        }
    }
    http::context(request);
    http::message(request);
    let mut lines = Lines::default();
    for (i, part) in input.chunks(61).enumerate() {
        // Every third transfer was captured in part.
        let len = part.len() as u32 + u32::from(i % 3 == 2);
        let id = FileId::default();
        let w = Write { py_context: 0, id, kind: FileKind::Pipe, fd: 0, len, offset: 0, payload: part, lost: 0 };
        lines.take(&w, &mut |line| assert!(line.bytes.len() <= MAX_LINE));
    }
});
