//! Cost of one HTTP/1 exchange (request and response of one observed end) in the parser, attributes included.
//!
//! `cargo bench -p ktrdr-agent --bench http1`. The figure is the best of several rounds: on a shared host the
//! others measure the neighbours.

use std::hint::black_box;
use std::time::Instant;

use ktrdr_agent::protocol::{ConnContext, Parser, Protocol, Role, Side, Step, http1::Http1};

const ROUNDS: usize = 20;
const EXCHANGES: u32 = 50_000;

/// A status poll and a training dispatch with the fields that httpx and uvicorn send.
const SAMPLES: &[(&str, &str, &str)] = &[
    (
        "GET, 278-byte head, 1.2 kB reply",
        "GET /api/v1/operations/op_training_20251113_120000_ab12cd34?cursor=7 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\
         Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: python-httpx/0.28.1\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
        "HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 13:33:23 GMT\r\nserver: uvicorn\r\ncontent-length: 1200\r\n\
         content-type: application/json\r\n\r\n",
    ),
    (
        "POST with a JSON body, short reply",
        "POST /training/start HTTP/1.1\r\nHost: localhost:5002\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n\
         Connection: keep-alive\r\nUser-Agent: python-httpx/0.28.1\r\nContent-Length: 1800\r\n\
         Content-Type: application/json\r\n\r\n",
        "HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 13:33:23 GMT\r\nserver: uvicorn\r\ncontent-length: 84\r\n\
         content-type: application/json\r\n\r\n",
    ),
];

/// Shows a head and lets what it announces pass.
fn show(parser: &mut dyn Parser, side: Side, head: &[u8]) {
    let step = parser.step(side, black_box(head));
    assert!(matches!(step, Step::Advance { consumed, .. } if consumed == head.len()), "{step:?}");
    black_box(step);
}

fn main() {
    for role in [Role::Server, Role::Client] {
        let context = ConnContext {
            role,
            server: ([127, 0, 0, 1], 8000).into(),
            client: ([127, 0, 0, 1], 40000).into(),
            semconv_dup: false,
            max_head: 16 * 1024,
            kept_headers: Default::default(),
            mask: Default::default(),
            shared: Default::default(),
        };
        for (name, request, response) in SAMPLES {
            let mut parser = Http1.parser(&context);
            let mut best = f64::MAX;
            for _ in 0..ROUNDS {
                let start = Instant::now();
                for _ in 0..EXCHANGES {
                    show(&mut *parser, Side::Request, request.as_bytes());
                    show(&mut *parser, Side::Response, response.as_bytes());
                }
                best = best.min(start.elapsed().as_nanos() as f64 / f64::from(EXCHANGES));
            }
            println!("{role:?}: {best:.0} ns per exchange ({name})");
        }
    }
}
