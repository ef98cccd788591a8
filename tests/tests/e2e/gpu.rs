//! GPU samples beside real calls: a live agent with the stand-in for NVIDIA's library, a real service that the library names
//! as using the device, and what arrives on spans, as metrics and in the answer to "why".

use std::path::Path;
use std::process::Command;

use ktrdr_tests::agent::{Agent, Options, binary, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::otlp::Receiver;
use ktrdr_tests::process::{output, run};
use ktrdr_tests::raw::Peer;
use ktrdr_tests::servers::Server;
use ktrdr_tests::span::{Span, brief};
use ktrdr_tests::standin::StandIn;
use ktrdr_tests::wait;
use serde_json::Value;

const GIB: u64 = 1 << 30;
/// Of the stand-in's device.
const MEMORY: u64 = 16 * GIB;

/// What the library says of a device that one process uses.
fn says(util: u32, gib: u64, pid: u32) -> String {
    format!("util 0 {util} 10\nmemory 0 {} {MEMORY}\nproc 0 {pid} {GIB} {util}\n", gib * GIB)
}

fn options(lib: &Path, ports: &[u16], metrics: u16) -> Options {
    Options::ports(ports)
        .args(&["--metrics-listen", &format!("127.0.0.1:{metrics}")])
        .env("KTRDR_AGENT_GPU__LIBRARY", &lib.to_string_lossy())
        // Far longer than a quick call, far shorter than the patience of this test.
        .env("KTRDR_AGENT_GPU__IDLE_PERIOD", "500ms")
        .env("KTRDR_AGENT_GPU__BUSY_PERIOD", "500ms")
        .env("KTRDR_AGENT_GPU__RETRY", "1s")
}

/// The agent's page of metrics.
struct Page(String);

impl Page {
    fn of(port: u16) -> Self {
        Self(run(Command::new("curl").args(["-sf", &format!("http://127.0.0.1:{port}/metrics")])))
    }

    /// The value of a name's first sample that has this text in its labels.
    fn value(&self, name: &str, label: &str) -> Option<f64> {
        let is_it = |l: &&str| l.starts_with(&format!("{name}{{")) && l.contains(label);
        let line = self.0.lines().find(is_it)?;
        Some(line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }
}

/// Waits until the page has this value, i.e. until a sample was taken that says so.
fn sampled(metrics: u16, name: &str, wanted: f64) {
    let mut last = None;
    let found = wait::within(wait::DEADLINE, || {
        last = Page::of(metrics).value(name, "hw_id=\"GPU-standin-0\"");
        (last == Some(wanted)).then_some(())
    });
    assert!(found.is_some(), "{name} is {last:?} and not {wanted}");
}

/// A request of which the end waits for `meanwhile`: it lasts until samples were taken.
fn call(port: u16, path: &str, meanwhile: impl FnOnce()) {
    let mut peer = Peer::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    peer.send(format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nha"));
    meanwhile();
    peer.send("lf");
    let head = peer.receive_head();
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
}

/// The server's span of a path.
fn served(agent: &Agent, path: &str) -> Span {
    let its = |s: &&Span| s.is_server() && s.path() == Some(path);
    let spans = agent.wait_for(&format!("span of {path}"), |spans| spans.iter().any(|s| its(&s)));
    spans.iter().find(its).unwrap().clone()
}

fn float(span: &Span, key: &str) -> f64 {
    span.attributes.get(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("{key} of {}", span.brief()))
}

#[test]
fn calls_say_what_the_gpu_did_meanwhile() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, metrics) = (free_port(), free_port());
    let server = Server::UvicornHttptools.start(port, dir.path());
    let lib = StandIn::new(&says(20, 2, server.id()));
    let receiver = Receiver::start(dir.path());
    let socket = dir.path().join("explain.sock");
    let agent = options(&lib.path(), &[port], metrics)
        .args(&["--otlp-endpoint", &receiver.url()])
        .env("KTRDR_AGENT_METRICS__INTERVAL", "1s")
        .env("KTRDR_AGENT_OTLP__LOGS__ENABLED", "false")
        .env("KTRDR_AGENT_EXPLAIN__SOCKET", &socket.to_string_lossy())
        .start();
    sampled(metrics, "hw_gpu_memory_usage_bytes", (2 * GIB) as f64);

    // A sample in which only the memory is another proves that one was taken after the request began.
    call(port, "/c/1/1/echo", || {
        lib.say(&says(20, 3, server.id()));
        sampled(metrics, "hw_gpu_memory_usage_bytes", (3 * GIB) as f64);
        lib.say(&says(80, 5, server.id()));
        sampled(metrics, "hw_gpu_utilization_ratio", 0.8);
    });
    let span = served(&agent, "/c/1/1/echo");
    for (key, want) in [
        ("ktrdr.gpu.state", "sampled"),
        ("ktrdr.gpu.source", "nvml"),
        ("hw.id", "GPU-standin-0"),
        ("hw.name", "Stand-in GPU"),
        ("hw.type", "gpu"),
        ("gpu.device", "0"),
    ] {
        assert_eq!(span.text(key), Some(want), "{key}");
    }
    assert!(span.int("ktrdr.gpu.samples").unwrap() >= 2);
    assert_eq!(span.int("ktrdr.gpu.process.pid"), Some(server.id().into()));
    let [min, avg, max] = ["min", "avg", "max"].map(|k| float(&span, &format!("ktrdr.gpu.utilization.{k}")));
    assert!(min == 0.2 && max == 0.8 && min < avg && avg < max, "{min} {avg} {max}");
    // The last sample of before may have said 2 GiB still.
    let least = span.int("ktrdr.gpu.memory.usage.min").unwrap();
    assert!([2, 3].map(|gib| gib << 30).contains(&least), "{least}");
    assert_eq!(span.int("ktrdr.gpu.memory.usage.max"), Some(5 << 30));
    assert_eq!(span.int("ktrdr.gpu.memory.limit"), Some(16 << 30));
    let throttled = span.attributes["ktrdr.gpu.throttled"].as_array().unwrap();
    assert_eq!(throttled.len(), 2, "{throttled:?}");

    // Quick ones have none, and say so.
    let urls = format!("http://127.0.0.1:{port}/c/2/[1-20]/bytes/1");
    run(Command::new("curl").args(["-s", "-o", "/dev/null", &urls]));
    let quick = |s: &&Span| s.is_server() && s.path().is_some_and(|p| p.starts_with("/c/2/"));
    let spans = agent.wait_for("quick calls", |spans| spans.iter().filter(quick).count() == 20);
    let without: Vec<&Span> =
        spans.iter().filter(quick).filter(|s| s.text("ktrdr.gpu.state") == Some("no_sample")).collect();
    assert!(!without.is_empty(), "{}", brief(&spans));
    for span in without {
        assert_eq!((span.int("ktrdr.gpu.samples"), span.text("hw.id")), (Some(0), Some("GPU-standin-0")));
        assert!(!span.attributes.contains_key("ktrdr.gpu.utilization.avg"), "{}", span.brief());
    }

    arrive(&receiver, metrics, &served(&agent, "/c/1/1/echo"));

    // An answer that gives no reason, and a device that was full.
    call(port, "/c/3/1/status/500", || {
        let full = format!(
            "util 0 90 10\nmemory 0 {} {MEMORY}\nproc 0 {} {GIB} 90\n",
            MEMORY / 100 * 99,
            server.id()
        );
        lib.say(&full);
        sampled(metrics, "hw_gpu_memory_usage_bytes", (MEMORY / 100 * 99) as f64);
    });
    served(&agent, "/c/3/1/status/500");
    let mut explain = Command::new(binary());
    explain.args(["explain", "last error", "--json", "--socket"]).arg(&socket);
    let answer: Value =
        wait::until("an answer", || serde_json::from_slice(&output(&mut explain).stdout).ok());
    assert_eq!(answer["verdict"]["kind"], "gpu_out_of_memory", "{answer}");
    let sentence = answer["verdict"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("GPU 0 (Stand-in GPU) was 98 % full"), "{sentence}");
    agent.stop();
}

/// The device's and the process's metrics, at the receiver and on the page; the histogram leads to the call's trace.
fn arrive(receiver: &Receiver, metrics: u16, span: &Span) {
    let is_ours = |p: &Value| p["attributes"]["hw.id"] == "GPU-standin-0";
    for (name, want) in [
        ("hw.gpu.utilization", 0.8),
        ("hw.gpu.memory.usage", (5 * GIB) as f64),
        ("hw.gpu.memory.limit", MEMORY as f64),
        ("hw.power", 123.456),
        ("hw.temperature", 61.0),
        ("ktrdr.gpu.process.memory.usage", GIB as f64),
    ] {
        wait::until(&format!("{name} = {want} over OTLP"), || {
            let points = receiver.points(name);
            points.iter().any(|p| is_ours(p) && p["value"].as_f64() == Some(want)).then_some(())
        });
    }
    let trace = &span.trace_id;
    wait::until("an exemplar of the call over OTLP", || {
        receiver.points("ktrdr.gpu.call.utilization").iter().find_map(|p| {
            let leads = p["exemplars"].as_array()?.iter().any(|e| e[0] == trace.as_str());
            (is_ours(p) && leads).then_some(())
        })
    });
    let page = Page::of(metrics);
    for (name, label, want) in [
        ("hw_status", "hw_state=\"ok\"", 1.0),
        ("hw_status", "hw_state=\"failed\"", 0.0),
        ("hw_errors_total", "error_type=\"corrected\"", 7.0),
        ("ktrdr_gpu_memory_busy_ratio", "GPU-standin-0", 0.1),
        ("ktrdr_gpu_clock_frequency_hertz", "ktrdr_gpu_clock=\"sm\"", 1.001e9),
        ("ktrdr_gpu_clock_frequency_hertz", "ktrdr_gpu_clock=\"memory\"", 1.002e9),
        ("ktrdr_gpu_pcie_throughput_bytes_per_second", "direction=\"receive\"", 501e3),
        ("ktrdr_gpu_throttled", "reason=\"hw_thermal_slowdown\"", 1.0),
    ] {
        assert_eq!(page.value(name, label), Some(want), "{name} {label} in\n{}", page.0);
    }
}

#[test]
fn a_library_that_comes_late_and_a_device_that_goes_and_returns() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, metrics) = (free_port(), free_port());
    let server = Server::UvicornHttptools.start(port, dir.path());
    let lib = StandIn::new(&says(40, 2, server.id()));
    let away = dir.path().join("away.so");
    std::fs::rename(lib.path(), &away).unwrap();
    let agent = options(&lib.path(), &[port], metrics).start();
    let logged = |what: &str| {
        wait::until(&format!("{what:?} in the log"), || agent.log().contains(what).then_some(()));
    };
    logged("no GPU samples: no NVIDIA library on this host");
    // The rest works without.
    call(port, "/c/1/1/echo", || ());
    let span = served(&agent, "/c/1/1/echo");
    assert_eq!(span.text("ktrdr.gpu.state"), None, "{}", span.brief());

    std::fs::rename(&away, lib.path()).unwrap();
    logged("GPU 0: Stand-in GPU (GPU-standin-0)");
    sampled(metrics, "hw_gpu_utilization_ratio", 0.4);

    lib.say(&format!("{}lost 0\n", says(40, 2, server.id())));
    logged("no GPU samples: the NVIDIA devices are lost");
    wait::until("the loss on the page", || {
        let page = Page::of(metrics);
        (page.value("hw_status", "hw_state=\"failed\"") == Some(1.0)).then_some(())
    });

    lib.say(&says(60, 2, server.id()));
    sampled(metrics, "hw_gpu_utilization_ratio", 0.6);
    assert_eq!(Page::of(metrics).value("hw_status", "hw_state=\"ok\""), Some(1.0));
    call(port, "/c/2/1/echo", || {
        lib.say(&says(70, 2, server.id()));
        sampled(metrics, "hw_gpu_utilization_ratio", 0.7);
    });
    assert_eq!(served(&agent, "/c/2/1/echo").text("ktrdr.gpu.state"), Some("sampled"));
    let log = agent.stop().log;
    for once in ["no NVIDIA library on this host", "the NVIDIA devices are lost"] {
        assert_eq!(log.matches(once).count(), 1, "{log}");
    }
}
