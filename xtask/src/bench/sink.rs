//! A receiver of OTLP over HTTP that takes everything and keeps nothing: its own cost must not be what is
//! measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

/// An empty ExportTraceServiceResponse is an empty message.
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

pub struct Sink {
    port: u16,
    requests: Arc<AtomicU64>,
}

impl Sink {
    /// Listens on a free port of the loopback interface, until the process ends.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port for an OTLP receiver")?;
        let sink = Self { port: listener.local_addr()?.port(), requests: Arc::default() };
        let requests = Arc::clone(&sink.requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let requests = Arc::clone(&requests);
                // A connection ends when the agent closes it; an error then is no news.
                std::thread::spawn(move || serve(stream, &requests).ok());
            }
        });
        Ok(sink)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream, requests: &AtomicU64) -> std::io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut body = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                body = length.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(body), &mut std::io::sink())?;
        requests.fetch_add(1, Ordering::Relaxed);
        answers.write_all(TAKEN)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_on_one_connection_are_taken() {
        let sink = Sink::start().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", sink.port)).unwrap();
        for _ in 0..2 {
            stream.write_all(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").unwrap();
            let mut answer = vec![0; TAKEN.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, TAKEN);
        }
        assert_eq!(sink.requests(), 2);
    }
}
