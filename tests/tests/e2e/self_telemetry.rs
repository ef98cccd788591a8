//! The agent's own log and steps, at a receiver that shares no code with it; and nothing of that where nobody asked for it.

use std::process::Command;

use ktrdr_tests::agent::{Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::otlp::Receiver;
use ktrdr_tests::process::run;
use ktrdr_tests::servers::Server;
use ktrdr_tests::wait;
use serde_json::Value;

/// Steps of every start.
const START: [&str; 6] =
    ["start.sinks", "start.load", "start.attach", "start.processes", "start.python", "start.confine"];

fn named<'a>(items: &'a [Value], name: &str) -> Vec<&'a Value> {
    items.iter().filter(|i| i["name"] == name).collect()
}

#[test]
fn a_receiver_is_told_of_the_start_the_exports_and_the_end_and_of_no_call_to_itself() {
    if !can_observe() {
        return;
    }
    let (dir, served) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let _server = Server::UvicornHttptools.start(port, served.path());
    let (own, data) = (Receiver::start(dir.path()), tempfile::tempdir().unwrap());
    let data = Receiver::start(data.path());
    // No narrowing to ports: its own connections would be seen if they could be.
    let agent = Options::ports(&[])
        .args(&["--otlp-endpoint", &data.url(), "--no-socket"])
        .env("KTRDR_AGENT_SELF_TELEMETRY__ENDPOINT", &own.url())
        .env("KTRDR_AGENT_SELF_TELEMETRY__HEADERS", "x-who=agent")
        // A token for the other one.
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-token=data")
        .start();
    let url = format!("http://127.0.0.1:{port}/status/200");
    run(Command::new("curl").args(["--silent", "--output", "/dev/null", &url]));
    let sent = |items: &[Value]| {
        named(items, "export").iter().any(|s| s["attributes"]["ktrdr.agent.sink"] == "otlp")
    };
    wait::until("its steps come", || {
        let spans = own.items("spans");
        (sent(&spans) && !named(&spans, "housekeeping").is_empty()).then_some(())
    });
    let finished = agent.stop();

    let spans = own.items("spans");
    let start = named(&spans, "start")[0];
    for step in START {
        let found = named(&spans, step);
        assert_eq!(found.len(), 1, "{step}: {spans:?}");
        assert_eq!(found[0]["parent_span_id"], start["span_id"], "{step}");
    }
    assert_eq!((named(&spans, "stop").len(), named(&spans, "stop.flush").len()), (1, 1), "{spans:?}");
    let resource = &start["resource"];
    assert_eq!(resource["service.name"], "ktrdr-agent");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(resource["service.instance.id"].as_str().is_some_and(|id| id.len() == 36), "{resource}");
    assert!(resource["host.name"].is_string(), "{resource}");
    let export = named(&spans, "export")[0];
    assert!(export["attributes"]["ktrdr.agent.bytes"].as_i64() > Some(0), "{export}");

    // What standard error says, with the span during which it was said.
    let logs = own.items("logs");
    let observing = logs.iter().find(|l| l["body"].as_str().is_some_and(|b| b.starts_with("observing")));
    let observing = observing.unwrap_or_else(|| panic!("{logs:?}"));
    assert_eq!(observing["span_id"], start["span_id"]);
    assert_eq!(observing["severity"], "INFO");
    assert!(finished.log.contains("observing"), "{}", finished.log);
    assert!(!finished.log.contains("start.load"), "steps are not for standard error: {}", finished.log);

    let headers = |receiver: &Receiver, name: &str| -> Vec<Value> {
        let all = receiver.requests().into_iter().filter(|r| r["spans"].is_array());
        all.map(|r| r["headers"][name].clone()).collect()
    };
    assert!(headers(&own, "x-who").iter().all(|h| h == "agent") && !headers(&own, "x-who").is_empty());
    assert!(headers(&own, "x-token").iter().all(Value::is_null), "{:?}", headers(&own, "x-token"));
    assert!(headers(&data, "x-token").iter().all(|h| h == "data") && !headers(&data, "x-token").is_empty());

    let to_receiver = |s: &&ktrdr_tests::span::Span| s.int("server.port") == Some(i64::from(own.port()));
    assert_eq!(finished.spans.iter().filter(to_receiver).count(), 0, "{}", finished.text);
}

#[test]
fn an_absent_receiver_is_named_once_and_holds_nothing_up() {
    if !can_observe() {
        return;
    }
    let (port, nobody) = (free_port(), free_port());
    let agent = Options::ports(&[port])
        .args(&["--no-socket"])
        .env("KTRDR_AGENT_SELF_TELEMETRY__ENDPOINT", &format!("http://127.0.0.1:{nobody}"))
        // Both of the SDK's delays, so that several batches fail within the test's time.
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("OTEL_BLRP_SCHEDULE_DELAY", "100")
        .start();
    let said =
        |what: &str| format!("the agent's own {what} do not reach the receiver at http://127.0.0.1:{nobody}");
    for what in ["spans", "log records"] {
        wait::until("it is said", || agent.log().contains(&said(what)).then_some(()));
    }
    let finished = agent.stop();
    for what in ["spans", "log records"] {
        assert_eq!(finished.log.matches(&said(what)).count(), 1, "{}", finished.log);
    }
    assert!(!finished.log.contains("BatchSpanProcessor"), "the SDK's own words: {}", finished.log);
}
