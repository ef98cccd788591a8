//! Cost of one request on its way from records to spans, both ends of it observed: the whole core, no kernel, no sink.
//!
//! `cargo bench -p ktrdr-agent --bench core` prints the best of several rounds, as on a shared host the others measure
//! the neighbours. Instructions depend on nobody: `valgrind --tool=callgrind BENCH --rounds 1 [nginx|api]`.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use ktrdr_agent::core::{Core, CoreConfig, Output};
use ktrdr_agent::event::shell::{ListenerMeta, ProcessMeta, ShellEvent, Start, tick};
use ktrdr_agent::store::{Limits, Store};
use ktrdr_agent::trace::model::SpanKind;
use ktrdr_ebpf_common::{ConnTuple, DataBody, EventHeader, RECV, SEND, flags, kind};
use zerocopy::IntoBytes;

#[global_allocator]
static ALLOCATOR: ktrdr_agent::allocator::Allocator = ktrdr_agent::allocator::Allocator;

/// Long against the 60 ms that a span waits for its other end, at the rate below.
const REQUESTS: u32 = 40_000;
/// As wrk in `cargo xtask bench`.
const CONNECTIONS: u16 = 32;
/// Nanoseconds between two records: 80,000 requests/s.
const PACE: u64 = 3_125;
/// Records between two ticks: the reader's timer.
const TICK: u32 = 12_800;

/// Room of the store: the default of `explain.memory`.
const STORE: usize = 24 << 20;

const CLIENT: u32 = 4_000;
const SERVER: u32 = 5_000;

/// What is asked and what is answered.
struct Load {
    name: &'static str,
    request: &'static str,
    response: &'static str,
    metrics: bool,
    /// Spans are kept for `explain`, as in a running agent.
    store: bool,
}

const NGINX: (&str, &str) = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:18080\r\n\r\n",
    "HTTP/1.1 200 OK\r\nServer: nginx/1.24.0 (Ubuntu)\r\nDate: Sun, 22 Nov 2026 13:33:23 GMT\r\nContent-Type: text/plain\r\n\
     Content-Length: 3\r\nConnection: keep-alive\r\n\r\nok\n",
);
const API: (&str, &str) = (
    "GET /api/v1/data/AAPL/1h?start=2026-01-01&end=2026-02-01 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept: */*\r\n\
     Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: python-httpx/0.28.1\r\n\r\n",
    "HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 13:33:23 GMT\r\nserver: uvicorn\r\ncontent-length: 90\r\n\
     content-type: application/json\r\n\r\n\
     {\"success\":true,\"data\":{\"symbol\":\"AAPL\",\"timeframe\":\"1h\",\"rows\":744,\"source\":\"cache\"},\"e\":0}",
);

const LOADS: &[Load] = &[
    Load { name: "nginx", request: NGINX.0, response: NGINX.1, metrics: false, store: false },
    Load { name: "nginx, metrics", request: NGINX.0, response: NGINX.1, metrics: true, store: false },
    Load { name: "nginx, store", request: NGINX.0, response: NGINX.1, metrics: false, store: true },
    Load { name: "api", request: API.0, response: API.1, metrics: false, store: false },
    Load { name: "api, metrics, store", request: API.0, response: API.1, metrics: true, store: true },
];

fn process(tgid: u32, service: &str) -> ShellEvent {
    ShellEvent::Process(ProcessMeta {
        tgid,
        service: service.to_owned(),
        command: vec![service.to_owned()],
        ..ProcessMeta::default()
    })
}

/// Nothing here is long.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn loopback() -> [u8; 16] {
    Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()
}

/// One transfer at one end of connection `c`.
fn transfer(
    ts: u64,
    c: u16,
    server: bool,
    direction: u8,
    seq_end: u32,
    bytes: &[u8],
    first: bool,
) -> Vec<u8> {
    let len = length(bytes.len());
    let body = DataBody {
        conn: 2 * u64::from(c) + 1 + u64::from(server),
        py_context: 0,
        seq_end,
        len,
        captured: len,
        direction,
        reserved: [0; 3],
    };
    let (near, far) = (8000, 40_000 + c);
    let (local_port, remote_port) = if server { (near, far) } else { (far, near) };
    let tuple = ConnTuple {
        local_addr: loopback(),
        remote_addr: loopback(),
        local_port,
        remote_port,
        netns: 1,
        family: 2,
        state: 1,
    };
    let tuple = if first { tuple.as_bytes() } else { &[] };
    let total = size_of::<EventHeader>() + size_of::<DataBody>() + tuple.len() + bytes.len();
    let pid = if server { SERVER } else { CLIENT };
    let header = EventHeader {
        ts,
        tgid: pid,
        tid: pid,
        len: length(total),
        kind: kind::DATA,
        flags: if first { flags::TUPLE } else { 0 },
    };
    [header.as_bytes(), body.as_bytes(), tuple, bytes].concat()
}

/// The records of a load. Like a server under load, it answers several requests after it has read them.
fn records(load: &Load) -> Vec<Vec<u8>> {
    let mut now = 1_000_000_000;
    let mut out = vec![
        ShellEvent::Start(Start { id_seed: 7, agent_tgid: 1, ..Start::default() }).to_record(now),
        process(CLIENT, "wrk").to_record(now),
        process(SERVER, "server").to_record(now),
        ShellEvent::Listener(ListenerMeta { netns: 1, addr: loopback(), port: 8000, tgid: SERVER })
            .to_record(now),
    ];
    let (request, response) = (load.request.as_bytes(), load.response.as_bytes());
    let lens = [request, response].map(|bytes| length(bytes.len()));
    let mut made = 0;
    for round in 0..REQUESTS / u32::from(CONNECTIONS) {
        let seq = lens.map(|len| 1_000u32.wrapping_add((round + 1) * len));
        let first = round == 0;
        let steps = [
            (false, SEND, seq[0], request, first),
            (true, RECV, seq[0], request, first),
            (true, SEND, seq[1], response, false),
            (false, RECV, seq[1], response, false),
        ];
        for group in 0..CONNECTIONS / 4 {
            for (server, direction, seq, bytes, first) in steps {
                for c in 4 * group..4 * group + 4 {
                    now += PACE;
                    out.push(transfer(now, c, server, direction, seq, bytes, first));
                    made += 1;
                    if made % TICK == 0 {
                        out.push(tick(now));
                    }
                }
            }
        }
    }
    out.push(ShellEvent::End.to_record(now + 1));
    out
}

/// Feeds all records; spans and, of those, servers' that found their client.
fn play(load: &Load, records: &[Vec<u8>]) -> (u32, u32) {
    let mut core = Core::new(CoreConfig { metrics: load.metrics, ..CoreConfig::default() });
    let store = load.store.then(|| Store::new(Limits::live(STORE)));
    let (mut spans, mut joined) = (0, 0);
    for record in records {
        core.feed(black_box(record));
        while let Some(output) = core.next_output() {
            if let Output::Span(span) = black_box(output) {
                spans += 1;
                joined += u32::from(span.kind == SpanKind::Server && span.parent_span_id.is_some());
                if let Some(store) = &store {
                    store.add(&span.into());
                }
            }
        }
    }
    (spans, joined)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let rounds =
        arguments.iter().position(|a| a == "--rounds").and_then(|at| arguments.get(at + 1)?.parse().ok());
    let wanted = |load: &&Load| {
        let named = |a: &String| LOADS.iter().any(|l| l.name == a);
        !arguments.iter().any(named) || arguments.iter().any(|a| a == load.name)
    };
    for load in LOADS.iter().filter(wanted) {
        let records = records(load);
        let mut best = f64::MAX;
        for _ in 0..rounds.unwrap_or(10) {
            let start = Instant::now();
            let (spans, joined) = play(load, &records);
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(REQUESTS));
            assert_eq!((spans, joined), (2 * REQUESTS, REQUESTS), "{}", load.name);
        }
        println!("{:20} {best:.0} ns per request, {:.0} requests/s", load.name, 1e9 / best);
    }
}
