//! Secrets planted wherever a program can have them are in none of the agent's outputs.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use ktrdr_tests::agent::{Options, binary, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{output, python};
use ktrdr_tests::raw::Listener;
use ktrdr_tests::servers::listening;

/// Planted in headers, the URL, bodies, command lines and the environment. Each says where.
const SECRETS: &[&str] = &[
    "s3cr3tInTheAuthorization0",
    "s3cr3tInAnApiKeyHeader0",
    "s3cr3tInACookie0",
    "s3cr3tInTheRequestBody0",
    "s3cr3tInTheUserinfo0",
    "s3cr3tInTheQuery0",
    "s3cr3tInTheEnvironment0",
    "s3cr3tInTheError0",
    "s3cr3tInAListenersCommand0",
];

fn found(what: &str, text: &[u8]) {
    for secret in SECRETS {
        let there = text.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!there, "{secret} is in {what}:\n{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn planted_secrets_are_in_no_output() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [authorization, api_key, cookie, body, userinfo, query, environment, error, command] = SECRETS else {
        unreachable!()
    };
    let (listener, collector, gone) = (Listener::new(), Listener::new(), free_port());
    let other = Listener::new();
    let collected = collector.serve(|mut peer| peer.receive_all());
    let recording = dir.path().join("calls.ktrdr");
    let agent = Options::recording(&[listener.port(), gone], &recording)
        .args(&["--otlp-protocol", "http/json"])
        .args(&["--otlp-endpoint", &format!("http://127.0.0.1:{}", collector.port())])
        .start();

    // Somebody who listened, with a secret on the command line, and is gone.
    let mut process = Command::new(python());
    process.args([
        "-c",
        "import socket,sys,time;s=socket.create_server(('127.0.0.1',int(sys.argv[1])));time.sleep(60)",
    ]);
    process.args([&gone.to_string(), "--token", command]);
    listening(process, gone, dir.path()).terminate();
    output(Command::new("curl").args(["-s", &format!("http://127.0.0.1:{gone}/")]));

    let answer = format!(r#"{{"success":false,"error":{{"message":"login with password={error} failed"}}}}"#);
    let server = listener.serve(move |mut peer| {
        peer.receive_until(b"}");
        peer.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: a=b\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        ));
    });
    let mut curl = Command::new("curl");
    curl.args(["-s", "-H", &format!("Authorization: Bearer {authorization}")]);
    curl.args(["-H", &format!("X-Api-Key: {api_key}"), "-b", &format!("id={cookie}")]);
    curl.args(["-H", "Content-Type: application/json", "-d", &format!(r#"{{"password":"{body}"}}"#)]);
    curl.arg(format!("http://me:{userinfo}@127.0.0.1:{}/api/v1/login?token={query}", listener.port()));
    curl.env("OTEL_RESOURCE_ATTRIBUTES", format!("deploy.token={environment}"));
    output(&mut curl);
    server.join().unwrap();
    // Another connection of this host, which nobody asked for.
    let unwanted = other.serve(|mut peer| peer.receive_head());
    let mut client = other.connect();
    client.send("GET /unwanted-by-anybody HTTP/1.1\r\n\r\n");
    unwanted.join().unwrap();

    // Both ends of the call, and the refused connect.
    agent.wait_for_spans(3);
    let finished = agent.stop();
    drop(collector);
    let collected = collected.join().unwrap();
    assert!(
        finished.text.contains("/api/v1/login") && finished.text.contains("REDACTED"),
        "{}",
        finished.text
    );
    assert!(!collected.is_empty());
    found("the spans", finished.text.as_bytes());
    found("the log", finished.log.as_bytes());
    found("what was sent by OTLP", &collected);

    let file = recording.to_string_lossy();
    for arguments in [
        &["replay", &file, "--console", "human"][..],
        &["replay", &file, "--console", "json"],
        &["explain", "--file", &file, "last", "error"],
        &["explain", "--file", &file, "last", "error", "--json"],
        &["explain", "--file", &file, "--list"],
    ] {
        let output = output(Command::new(binary()).args(arguments));
        let said = [output.stdout, output.stderr].concat();
        assert!(!said.is_empty(), "{arguments:?}");
        found(&format!("{arguments:?}"), &said);
    }

    // A recording is raw payload, for its owner only: but of the wanted connections, and with masked arguments.
    let mode = std::fs::metadata(&recording).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let raw = std::fs::read(&recording).unwrap();
    let holds = |text: &str| raw.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds(body), "the secrets were not even seen");
    assert!(!holds(command), "arguments are masked in recordings");
    assert!(!holds("unwanted-by-anybody"), "a recording holds the wanted connections only");
}
