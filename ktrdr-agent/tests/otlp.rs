//! The OTLP exporter against receivers that share no code with it: Python's protobuf and gRPC, and its HTTP server.

// Helpers of tests fail as tests do; clippy lets only `#[test]` functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "otlp/metrics.rs"]
mod metrics;
#[path = "otlp/receiver.rs"]
mod receiver;
#[path = "otlp/spans.rs"]
mod spans;

use std::time::{Duration, Instant};

use ktrdr_agent::export::otlp::{Compression, OtlpOptions, OtlpSink, Protocol, TlsFiles};
use ktrdr_agent::export::sampling::{Keep, Rules};
use ktrdr_agent::export::{Books, ExportOptions, Exporters, Item, SpanSink};
use ktrdr_agent::trace::model::Status;
use receiver::{Collector, DEADLINE, Receiver, wait_until};

const ALL: [Protocol; 3] = [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson];

fn options(receiver: &Receiver, protocol: Protocol) -> OtlpOptions {
    OtlpOptions {
        batch_delay: Duration::from_millis(20),
        ..OtlpOptions::new(receiver.url(protocol), protocol)
    }
}

fn start(options: OtlpOptions) -> Exporters {
    Exporters::start(ExportOptions { otlp: Some(options), ..ExportOptions::default() }).unwrap()
}

fn books(exporters: &Exporters) -> Books {
    let books = exporters.books()[0].1;
    assert!(books.balanced(), "{books:?}");
    books
}

fn stop(exporters: Exporters) -> Books {
    let books = exporters.flush_and_stop(Duration::from_millis(900))[0].1;
    assert!(books.balanced() && books.waiting == 0, "{books:?}");
    books
}

#[test]
fn every_transport_encoding_and_compression_delivers_every_field() {
    for protocol in ALL {
        for compression in [Compression::None, Compression::Gzip] {
            let mut receiver = Receiver::start(&[]);
            let headers = vec![("authorization".to_owned(), "Bearer a b=c".to_owned())];
            let exporters = start(OtlpOptions { compression, headers, ..options(&receiver, protocol) });
            let spans = spans::varied();
            spans.iter().for_each(|s| exporters.submit(s.clone()));
            let got = receiver.spans(spans.len());
            let what = format!("{protocol:?} {compression:?}");
            for (got, span) in got.iter().zip(&spans::grouped(&spans)) {
                assert_eq!(*got, spans::expected(span), "{what}");
            }
            let request = &receiver.requests()[0];
            assert_eq!(request["groups"], 2, "one Resource per service: {what}");
            assert_eq!(request["headers"]["authorization"], "Bearer a b=c", "{what}");
            assert!(request["headers"]["user-agent"].as_str().unwrap().starts_with("ktrdr-agent/"), "{what}");
            if protocol != Protocol::Grpc {
                let encoding = (compression == Compression::Gzip).then_some("gzip");
                assert_eq!(request["headers"]["content-encoding"].as_str(), encoding, "{what}");
            }
            assert_eq!(stop(exporters).exported, spans.len() as u64, "{what}");
        }
    }
}

#[test]
fn a_collector_by_others_passes_everything_on() {
    let mut receiver = Receiver::start(&[]);
    let Some(collector) = Collector::start(&receiver) else {
        eprintln!("skipped: rotel has no package for this CPython (3.14 or later)");
        return;
    };
    for protocol in ALL {
        for compression in [Compression::None, Compression::Gzip] {
            let url = collector.url(protocol);
            let exporters = start(OtlpOptions { compression, url, ..options(&receiver, protocol) });
            let spans = spans::varied();
            spans.iter().for_each(|s| exporters.submit(s.clone()));
            let mut got = receiver.spans(spans.len());
            assert_eq!(stop(exporters).exported, spans.len() as u64, "{protocol:?} {compression:?}");
            got.sort_by_key(|s| s["span_id"].as_str().map(str::to_owned));
            for (got, span) in got.iter().zip(&spans) {
                assert_eq!(*got, spans::expected(span), "{protocol:?} {compression:?}");
            }
        }
    }
}

#[test]
fn the_receiver_gets_what_sampling_lets_through_and_the_rest_is_in_the_books() {
    let mut receiver = Receiver::start(&[]);
    let keep = Keep { errors: true, wait: 1_000_000_000, ..Keep::default() };
    let exporters = Exporters::start(ExportOptions {
        otlp: Some(options(&receiver, Protocol::Grpc)),
        sampling: Some(Rules { ratio: 0.0, keep }),
        ..ExportOptions::default()
    })
    .unwrap();
    let of = |trace: u8, n: u64| {
        let mut span = spans::numbered(n);
        span.trace_id.0 = [trace; 16];
        span.status = Status::Unset;
        span
    };
    for n in 1..=3 {
        exporters.submit(of(1, n));
        exporters.submit(of(2, n + 10));
    }
    let mut failed = of(1, 4);
    failed.status = Status::Error("no".into());
    exporters.submit(failed);
    let got = receiver.spans(4);
    assert!(got.iter().all(|s| s["trace_id"] == "01".repeat(16)), "{got:?}");
    // The receiver has them before the exporter knows that it has.
    wait_until("the three wait alone", || books(&exporters).waiting == 3);
    let books = stop(exporters);
    assert_eq!((books.submitted, books.exported, books.sampled_out), (7, 4, 3));
}

#[test]
fn a_receiver_without_gzip_gets_plain_requests() {
    for protocol in ALL {
        let mut receiver = Receiver::start(&["--no-gzip"]);
        let exporters = start(OtlpOptions { compression: Compression::Gzip, ..options(&receiver, protocol) });
        exporters.submit(spans::numbered(1));
        receiver.spans(1);
        exporters.submit(spans::numbered(2));
        receiver.spans(1);
        let books = stop(exporters);
        assert_eq!((books.exported, books.rejected, books.retried), (2, 0, 0), "{protocol:?}");
    }
}

#[test]
fn an_absent_receiver_is_waited_for_and_gets_everything_exactly_once() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let ports = receiver::free_ports();
        let url = ports.url(protocol);
        let exporters = start(OtlpOptions {
            batch_delay: Duration::from_millis(20),
            batch_size: 100,
            ..OtlpOptions::new(url, protocol)
        });
        let mut numbers = 0..;
        let mut submit = |n| numbers.by_ref().take(n).for_each(|i| exporters.submit(spans::numbered(i)));
        submit(500);
        wait_until("the first attempt failed", || books(&exporters).retried > 0);
        let mut receiver = Receiver::start_at(&ports, &[]);
        let mut got = receiver.spans(500);
        wait_until("the receiver's answer came", || books(&exporters).exported == 500);
        receiver.kill();
        submit(500);
        let before = books(&exporters).retried;
        wait_until("an attempt failed again", || books(&exporters).retried > before);
        assert_eq!(books(&exporters).waiting, 500);
        let mut receiver = Receiver::start_at(&ports, &[]);
        got.extend(receiver.spans(500));
        submit(1);
        got.extend(receiver.spans(1));
        let names: Vec<_> = got.iter().map(|s| s["attributes"]["n"].as_u64().unwrap()).collect();
        assert_eq!(names, (0..1001).collect::<Vec<_>>(), "{protocol:?}: all, once, in order");
        let books = stop(exporters);
        assert_eq!((books.submitted, books.exported), (1001, 1001), "{protocol:?}");
    }
}

#[test]
fn a_receiver_that_asks_for_patience_gets_it() {
    for protocol in ALL {
        let mut receiver = Receiver::start(&["--fail", "1", "--retry-after", "1"]);
        let exporters = start(options(&receiver, protocol));
        let begin = Instant::now();
        exporters.submit(spans::numbered(1));
        receiver.spans(1);
        // Its own first pause would be 250 ms at most.
        assert!(begin.elapsed() >= Duration::from_secs(1), "{protocol:?}: {:?}", begin.elapsed());
        let books = stop(exporters);
        assert_eq!((books.exported, books.retried), (1, 1), "{protocol:?}");
    }
}

#[test]
fn what_is_refused_for_good_is_counted_and_not_sent_again() {
    for protocol in ALL {
        let mut receiver = Receiver::start(&["--fail", "1", "--code", "INVALID_ARGUMENT", "--status", "400"]);
        let exporters = start(options(&receiver, protocol));
        exporters.submit(spans::numbered(1));
        wait_until("the refusal is counted", || books(&exporters).rejected == 1);
        exporters.submit(spans::numbered(2));
        assert_eq!(receiver.spans(1)[0]["attributes"]["n"], 2);
        let books = stop(exporters);
        assert_eq!((books.exported, books.rejected, books.retried), (1, 1, 0), "{protocol:?}");
    }
}

#[test]
fn a_partial_success_is_read() {
    for protocol in ALL {
        let mut receiver = Receiver::start(&["--reject", "2"]);
        let exporters = start(options(&receiver, protocol));
        (0..5).for_each(|n| exporters.submit(spans::numbered(n)));
        receiver.spans(5);
        let books = stop(exporters);
        assert_eq!((books.exported, books.rejected), (3, 2), "{protocol:?}");
    }
}

#[test]
fn a_silent_receiver_blocks_neither_the_caller_nor_the_end() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let receiver = Receiver::start(&["--silent"]);
        let exporters =
            start(OtlpOptions { queue_size: 100, batch_size: 10, ..options(&receiver, protocol) });
        let begin = Instant::now();
        (0..10_000).for_each(|n| exporters.submit(spans::numbered(n)));
        assert!(begin.elapsed() < Duration::from_secs(5), "submitting waited for the receiver");
        let now = books(&exporters);
        assert!(now.dropped_full >= 9_800 && now.waiting >= 100, "{now:?}");
        let begin = Instant::now();
        let books = stop(exporters);
        assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
        assert_eq!(books.submitted, 10_000);
        assert_eq!(books.dropped_full + books.dropped_stop, 10_000, "{books:?}");
    }
}

#[test]
fn an_absent_receiver_does_not_use_up_the_time_of_the_end() {
    let url = receiver::free_ports().url(Protocol::Grpc);
    let exporters = start(OtlpOptions::new(url, Protocol::Grpc));
    exporters.submit(spans::numbered(1));
    let begin = Instant::now();
    let books = exporters.flush_and_stop(Duration::from_secs(60))[0].1;
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert_eq!((books.exported, books.dropped_stop), (0, 1));
}

#[test]
fn what_is_in_the_queue_at_the_end_is_delivered() {
    for protocol in ALL {
        let mut receiver = Receiver::start(&[]);
        // Nothing would leave by itself within the test's time.
        let exporters = start(OtlpOptions { batch_delay: DEADLINE, ..options(&receiver, protocol) });
        (0..50).for_each(|n| exporters.submit(spans::numbered(n)));
        assert_eq!(stop(exporters).exported, 50, "{protocol:?}");
        receiver.spans(50);
    }
}

#[test]
fn tls_trusts_the_given_roots_only_and_shows_the_client_certificate() {
    let pki = receiver::Pki::new();
    let (cert, key, ca) = (pki.path("server.pem"), pki.path("server.key"), pki.path("ca.pem"));
    let args = ["--tls", &cert, &key, "--client-ca", &ca];
    for protocol in ALL {
        let mut receiver = Receiver::start(&args);
        let url = receiver.url(protocol).replace("http://127.0.0.1", "https://localhost");
        let client = Some((pki.path("client.pem").into(), pki.path("client.key").into()));
        let tls = TlsFiles { certificate: Some(ca.clone().into()), client };
        let good = OtlpOptions { url: url.clone(), tls, ..options(&receiver, protocol) };
        let exporters = start(good.clone());
        exporters.submit(spans::numbered(1));
        receiver.spans(1);
        assert_eq!(stop(exporters).exported, 1, "{protocol:?}");
        for tls in [
            // The system does not know this CA.
            TlsFiles { certificate: None, ..good.tls.clone() },
            // The server wants to know who calls.
            TlsFiles { client: None, ..good.tls.clone() },
        ] {
            let exporters = start(OtlpOptions { tls, ..good.clone() });
            exporters.submit(spans::numbered(2));
            wait_until("the attempt failed", || books(&exporters).retried > 0);
            assert_eq!(stop(exporters).exported, 0, "{protocol:?}");
        }
    }
}

#[test]
fn a_batch_too_large_for_a_grpc_server_is_split() {
    let mut receiver = Receiver::start(&[]);
    let exporters = start(OtlpOptions { batch_size: 64, ..options(&receiver, Protocol::Grpc) });
    for n in 0..64 {
        let mut span = spans::numbered(n);
        // Together 8 MiB; Python's server takes the usual 4 MiB.
        span.attributes.set("ballast", "x".repeat(128 * 1024));
        exporters.submit(span);
    }
    let got = receiver.spans(64);
    let numbers: Vec<_> = got.iter().map(|s| s["attributes"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..64).collect::<Vec<_>>());
    assert_eq!(stop(exporters).exported, 64);
}

#[test]
fn unusable_options_are_refused_in_a_sentence() {
    let message = |options: OtlpOptions| OtlpSink::<Item>::start(options).err().unwrap().to_string();
    for protocol in ALL {
        let bad = |url: &str| message(OtlpOptions::new(url, protocol));
        assert!(
            bad("ftp://c:1").contains("`ftp://c:1` cannot be used: it must begin with http"),
            "{protocol:?}"
        );
        assert!(bad("").contains("cannot be used"), "{protocol:?}");
        let mut options = OtlpOptions::new("http://c:1", protocol);
        options.headers.push(("bad name".into(), "x".into()));
        assert!(message(options).contains("header `bad name` cannot be sent"), "{protocol:?}");
        let mut options = OtlpOptions::new("http://c:1", protocol);
        options.headers.push(("token".into(), "s3cret\n".into()));
        let text = message(options);
        assert!(text.contains("header `token`") && !text.contains("s3cret"), "{text}");
        let mut options = OtlpOptions::new("https://c:1", protocol);
        options.tls.certificate = Some("/nonexistent/ca.pem".into());
        assert!(
            message(options).contains("cannot use the CA certificate /nonexistent/ca.pem"),
            "{protocol:?}"
        );
    }
}

#[test]
fn a_lone_span_does_not_wait_long() {
    let mut receiver = Receiver::start(&[]);
    let sink =
        OtlpSink::<Item>::start(OtlpOptions::new(receiver.url(Protocol::Grpc), Protocol::Grpc)).unwrap();
    sink.submit(&std::sync::Arc::new(spans::numbered(1)));
    receiver.spans(1);
    // The connection is there now.
    let begin = Instant::now();
    sink.submit(&std::sync::Arc::new(spans::numbered(2)));
    receiver.spans(1);
    // 150 ms of lingering; the rest is room for a busy machine.
    assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
    assert_eq!(receiver.requests()[0]["spans"].as_array().map(Vec::len), Some(1));
}
