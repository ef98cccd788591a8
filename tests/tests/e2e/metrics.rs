//! Metrics of a live agent count what its clients count, wherever they arrive: on its own page, in Prometheus, over OTLP.

use std::path::Path;
use std::process::{Command, Stdio};

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::otlp::Receiver;
use ktrdr_tests::process::{root, run};
use ktrdr_tests::prometheus::Prometheus;
use ktrdr_tests::servers::Server;
use ktrdr_tests::wait;
use serde_json::Value;

/// Requests of curl, one after the other.
const REQUESTS: u32 = 1_500;

#[test]
fn counts_are_those_of_the_load_generators() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (port, loaded, metrics) = (free_port(), free_port(), free_port());
    let _server = Server::UvicornHttptools.start(port, dir.path());
    let node = tempfile::tempdir().unwrap();
    let _loaded = Server::Node.start(loaded, node.path());
    let receiver = Receiver::start(dir.path());
    let agent = Options::ports(&[port, loaded, metrics])
        .args(&["--metrics-listen", &format!("127.0.0.1:{metrics}"), "--otlp-endpoint", &receiver.url()])
        .env("KTRDR_AGENT_METRICS__INTERVAL", "1s")
        // The receiver takes none.
        .env("KTRDR_AGENT_OTLP__LOGS__ENABLED", "false")
        .start();
    let mut prometheus = Prometheus::start(metrics, dir.path());

    let urls = format!("http://127.0.0.1:{port}/c/1/[1-{REQUESTS}]/bytes/10");
    let said = run(Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}\\n", &urls]));
    let answered = said.lines().filter(|line| *line == "200").count();
    assert_eq!(answered, REQUESTS as usize, "curl's own word");
    let both_ends = f64::from(REQUESTS);
    for (end, service) in [("server", ".*"), ("client", "curl")] {
        let series = format!(
            "http_{end}_request_duration_seconds_count{{service_name=~\"{service}\",\
             http_response_status_code=\"200\",http_request_method=\"GET\"}}"
        );
        prometheus.wait_for(&series, both_ends);
        received(&receiver, &format!("http.{end}.request.duration"), "", both_ends);
    }
    for family in ["request_body_size_bytes", "response_body_size_bytes"] {
        let of = prometheus.sum(&format!("http_server_{family}_count")).unwrap_or(0.0);
        assert!(of == both_ends || family.starts_with("request") && of == 0.0, "{family}: {of}");
    }
    let bytes = prometheus.sum("http_server_response_body_size_bytes_sum");
    assert_eq!(bytes, Some(both_ends * 10.0));

    // wrk ends in the middle of requests, and counts answers that it has read whole. Node writes each at once, so none is
    // read by halves.
    let load = ["-t", "1", "-c", "4", "-d", "2s", "-s"];
    let mut wrk = Command::new("wrk");
    wrk.args(load).arg(root().join("tests/programs/paced.lua"));
    let said = run(wrk.arg(format!("http://127.0.0.1:{loaded}/c/2/1/bytes/10")));
    let line = said.lines().find(|line| line.contains(" requests in ")).unwrap();
    let requests: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
    assert!(requests > 100.0, "{said}");
    let answered =
        "http_client_request_duration_seconds_count{service_name=\"wrk\",http_response_status_code=\"200\"}";
    prometheus.wait_for(answered, requests);
    received(&receiver, "http.client.request.duration", "wrk", requests);

    // The page says the same, in both formats, and Prometheus' own tool has nothing to say about it.
    let page = format!("http://127.0.0.1:{metrics}/metrics");
    let text = run(Command::new("curl").args(["-sf", &page]));
    // Those that wrk left without an answer are on the page, too.
    let of_wrk = ["service_name=\"wrk\"", "http_response_status_code=\"200\""];
    assert_eq!(on_page(&text, "http_client_request_duration_seconds_count", of_wrk), requests);
    lint(&text, dir.path());
    let open = run(Command::new("curl").args(["-sf", "-H", "Accept: application/openmetrics-text", &page]));
    assert!(open.ends_with("# EOF\n") && open.contains(" # {trace_id=\""), "{open}");
    let targets = prometheus.ask("targets", &[]);
    assert_eq!(targets["activeTargets"][0]["lastError"], "", "{targets}");
    assert_eq!(prometheus.sum("up"), Some(1.0));
    assert_eq!(prometheus.sum("max(abs(ktrdr_agent_books_imbalance))"), Some(0.0));

    // Exemplars lead to spans that were made.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (from, to) = ((now - 600).to_string(), (now + 1).to_string());
    let query = [("query", "http_server_request_duration_seconds_bucket"), ("start", &from), ("end", &to)];
    let exemplars = prometheus.ask("query_exemplars", &query);
    let traces: Vec<String> = exemplars
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|series| series["exemplars"].as_array().unwrap())
        .map(|e| e["labels"]["trace_id"].as_str().unwrap().to_owned())
        .collect();
    let spans = agent.spans();
    assert!(!traces.is_empty(), "{exemplars}");
    for trace in &traces {
        assert!(spans.iter().any(|s| s.trace_id == *trace), "no span of {trace}");
    }
    // Nobody's scraping is among them.
    assert!(spans.iter().all(|s| s.int("server.port") != Some(i64::from(metrics))));
    agent.stop();
}

/// The sum of a name's samples that have these texts in their labels.
fn on_page(text: &str, name: &str, labels: [&str; 2]) -> f64 {
    let of = |line: &&str| line.starts_with(&format!("{name}{{")) && labels.iter().all(|l| line.contains(l));
    text.lines().filter(of).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// `promtool check metrics`.
fn lint(text: &str, dir: &Path) {
    let file = dir.join("metrics.txt");
    std::fs::write(&file, text).unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::from(std::fs::File::open(&file).unwrap()));
    let done = promtool.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.is_empty(), "{said}");
}

/// Waits until the latest points of a histogram for whole answers with 200 add up to this count; of all services, or of one.
fn received(receiver: &Receiver, name: &str, service: &str, wanted: f64) {
    let mut last = 0.0;
    let found = wait::within(wait::DEADLINE, || {
        last = count(receiver, name, service);
        (last == wanted).then_some(())
    });
    assert!(found.is_some(), "{name} of {service:?} over OTLP is {last} and not {wanted}");
}

fn count(receiver: &Receiver, name: &str, service: &str) -> f64 {
    let points: Vec<Value> = receiver
        .points(name)
        .into_iter()
        .filter(|p| p["attributes"]["http.response.status_code"] == 200)
        .filter(|p| p["attributes"]["error.type"].is_null())
        .filter(|p| service.is_empty() || p["resource"]["service.name"] == service)
        .collect();
    // A snapshot may come in more than one request; all of it has one time.
    let latest = points.iter().filter_map(|p| p["time"].as_u64()).max();
    let counts = points.iter().filter(|p| p["time"].as_u64() == latest).map(|p| p["count"].as_f64());
    counts.map(Option::unwrap).sum()
}
