//! A receiver of OTLP over HTTP that counts the spans and keeps nothing: its own cost must not be what is
//! measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// An empty ExportTraceServiceResponse is an empty message.
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

pub struct Sink {
    port: u16,
    batches: Receiver<Batch>,
}

struct Batch {
    spans: u64,
    begun: Instant,
    ended: Instant,
}

impl Sink {
    /// Listens on a free port of the loopback interface, until the process ends.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port for an OTLP receiver")?;
        let port = listener.local_addr()?.port();
        let (sender, batches) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                // A connection ends when the agent closes it; an error then is no news.
                std::thread::spawn(move || serve(stream, &sender).ok());
            }
        });
        Ok(Self { port, batches })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Spans per second from the begin of the first batch to the end of the last one so far.
    pub fn spans_per_second(&self) -> Result<f64> {
        let batches: Vec<Batch> = self.batches.try_iter().collect();
        let begun = batches.iter().map(|batch| batch.begun).min();
        let ended = batches.iter().map(|batch| batch.ended).max();
        let (Some(begun), Some(ended)) = (begun, ended) else { bail!("the OTLP receiver got nothing") };
        let spans: u64 = batches.iter().map(|batch| batch.spans).sum();
        Ok(spans as f64 / (ended - begun).as_secs_f64())
    }
}

fn serve(stream: TcpStream, batches: &Sender<Batch>) -> std::io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(length) = read_head(&mut reader)? {
        let begun = Instant::now();
        let mut body = Vec::new();
        reader.by_ref().take(length).read_to_end(&mut body)?;
        let spans = count_spans(&body).unwrap_or(0);
        answers.write_all(TAKEN)?;
        if batches.send(Batch { spans, begun, ended: Instant::now() }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The body's length from the head of the next request; none at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<u64>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            return Ok(Some(length));
        }
    }
}

/// Spans in an ExportTraceServiceRequest: resource_spans = 1, in those scope_spans = 2, in those spans = 2.
fn count_spans(request: &[u8]) -> Option<u64> {
    let mut spans = 0;
    for resource_spans in messages(request, 1)? {
        for scope_spans in messages(resource_spans, 2)? {
            spans += messages(scope_spans, 2)?.len() as u64;
        }
    }
    Some(spans)
}

/// The length-delimited fields with this number; none if `message` is not protobuf.
fn messages(mut message: &[u8], number: u64) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let length = match tag & 7 {
            0 => {
                varint(&mut message)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (field, rest) = message.split_at_checked(length)?;
        if tag >> 3 == number {
            found.push(field);
        }
        message = rest;
    }
    Some(found)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two spans (one empty, one with name "ab") in one scope, after a resource of one byte.
    const REQUEST: &[u8] = &[10, 13, 10, 1, 0, 18, 8, 18, 0, 18, 4, 42, 2, b'a', b'b'];

    #[test]
    fn spans_are_counted_and_garbage_is_none() {
        assert_eq!(count_spans(REQUEST), Some(2));
        assert_eq!(count_spans(&[]), Some(0));
        assert_eq!(count_spans(&REQUEST[..7]), None);
        assert_eq!(count_spans(&[0xff; 12]), None);
    }

    #[test]
    fn requests_on_one_connection_are_taken() {
        let sink = Sink::start().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", sink.port)).unwrap();
        for _ in 0..2 {
            let head = format!("POST /v1/traces HTTP/1.1\r\nContent-Length: {}\r\n\r\n", REQUEST.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(REQUEST).unwrap();
            let mut answer = vec![0; TAKEN.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, TAKEN);
            assert_eq!(sink.batches.recv().unwrap().spans, 2);
        }
        assert!(sink.spans_per_second().is_err());
    }
}
