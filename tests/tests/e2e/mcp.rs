//! Tool calls of the Model Context Protocol, with the official Python library at both ends: one trace from the client
//! through the server to the HTTP calls that the tool makes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use ktrdr_tests::agent::{Finished, Options, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{Process, python, root, run};
use ktrdr_tests::servers::listening;
use ktrdr_tests::span::Span;
use serde_json::Value;

/// Tools called at once in the end.
const AT_ONCE: usize = 5;

/// Generations of the library.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Library {
    First,
    Second,
}

impl Library {
    /// What each generation begins a conversation with.
    fn greeting(self) -> &'static str {
        match self {
            Library::First => "initialize",
            Library::Second => "server/discover",
        }
    }
}

fn program(name: &str, library: Library) -> Command {
    let mut command = Command::new(python());
    command.arg(root().join("tests/mcp").join(name));
    if library == Library::Second {
        let path = root().join("tests/.mcp2");
        assert!(path.exists(), "{} is missing: `cargo xtask setup` makes it", path.display());
        command.env("PYTHONPATH", path);
    }
    command
}

struct Seen {
    finished: Finished,
    library: Library,
    /// What the client saw.
    truth: Value,
}

fn backend(dir: &Path) -> (Process, u16) {
    let port = free_port();
    let mut command = program("backend.py", Library::First);
    command.arg(port.to_string());
    (listening(command, port, dir), port)
}

/// Everything the client does over one transport.
fn observe(library: Library, transport: &str, hook: &str) -> Option<Seen> {
    if !can_observe() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_backend, backend) = backend(dir.path());
    let url = format!("http://127.0.0.1:{backend}");
    let port = free_port();
    let client = if library == Library::First { "client.py" } else { "client2.py" };
    let mut client = program(client, library);
    let on_pipes = ["stdio", "filtered"].contains(&transport);
    let _server = if on_pipes {
        let server = root().join("tests/mcp/server.py");
        let mut line = format!("{} {} stdio {url}", python().display(), server.display());
        if transport == "filtered" {
            let copies = ["asked", "answered"].map(|name| dir.path().join(name));
            let [asked, answered] = copies.map(|path| path.display().to_string());
            line = format!("sh -c 'tee {asked} | cat | {line} | tee {answered}'");
        }
        client.args(["stdio", &line]);
        None
    } else {
        let mut server = program("server.py", library);
        server.args([transport, &url, &port.to_string()]);
        client.args(["http", &format!("http://127.0.0.1:{port}/mcp")]);
        Some(listening(server, port, dir.path()))
    };
    let agent = Options::ports(&[backend, port])
        .args(&["--hook", hook])
        .env("KTRDR_AGENT_CAPTURE__STDIO", if on_pipes { "true" } else { "false" })
        .start();
    let told = dir.path().join("truth.json");
    client.arg(AT_ONCE.to_string()).stdout(std::fs::File::create(&told).unwrap()).stderr(Stdio::null());
    run(&mut client);
    agent.wait_for("the last call's end", |spans| {
        let paths = || spans.iter().filter(|s| s.is_server()).filter_map(Span::path);
        (0..AT_ONCE).all(|i| paths().any(|p| p == format!("/many/{i}/second")))
            && spans.iter().filter(|s| s.is_server() && s.name == "tools/call fetch").count() > 10 + AT_ONCE
    });
    let truth = serde_json::from_str(&std::fs::read_to_string(told).unwrap()).unwrap();
    Some(Seen { finished: agent.stop(), library, truth })
}

impl Seen {
    /// The spans of a tool call that names this path, or of a method.
    fn both(&self, name: &str, argument: &str) -> (&Span, &Span) {
        let of = |kind: &str| {
            let found = self.finished.spans.iter().filter(|s| {
                let arguments = s.text("gen_ai.tool.call.arguments").unwrap_or_default();
                s.kind == kind && s.name == name && arguments.contains(argument)
            });
            found.collect::<Vec<_>>()
        };
        let (client, server) = (of("client"), of("server"));
        assert_eq!((client.len(), server.len()), (1, 1), "{name} {argument}");
        (client[0], server[0])
    }

    /// For each HTTP call of a tool: whether it hangs below the right tool call. None may hang below another one.
    fn calls(&self) -> BTreeMap<String, bool> {
        let spans: BTreeMap<&str, &Span> =
            self.finished.spans.iter().map(|s| (s.span_id.as_str(), s)).collect();
        let calls = self.finished.spans.iter().filter(|s| s.is_client() && s.method() == Some("GET"));
        let calls = calls.filter(|s| s.path() != Some("/mcp"));
        calls
            .map(|call| {
                let path = call.path().unwrap();
                let (argument, _) = path.rsplit_once('/').unwrap();
                let parent = call.parent_span_id.as_deref().and_then(|id| spans.get(id));
                assert!(call.links.is_empty(), "{path} is no work after a response: {call:?}");
                if let Some(parent) = parent {
                    let arguments = parent.text("gen_ai.tool.call.arguments").unwrap_or_default();
                    let right = parent.is_server() && arguments.contains(&format!("\"{argument}\""));
                    let how = call.text("ktrdr.link.method");
                    assert!(right, "{path} hangs below {}, by {how:?}", parent.brief());
                    assert_eq!(parent.trace_id, call.trace_id);
                }
                (path.to_owned(), parent.is_some())
            })
            .collect()
    }

    /// What is the same over every transport.
    fn check(&self) {
        let (client, server) = self.both("tools/call fetch", "\"/alone\"");
        assert_eq!(server.parent_span_id.as_deref(), Some(client.span_id.as_str()));
        for span in [client, server] {
            assert_eq!(span.text("gen_ai.tool.name"), Some("fetch"));
            assert_eq!(
                span.text("gen_ai.tool.call.arguments"),
                Some(r#"{"path":"/alone","api_key":"REDACTED"}"#)
            );
            assert_eq!((span.text("mcp.method.name"), span.status.as_str()), (Some("tools/call"), "unset"));
            assert!(
                span.text("jsonrpc.request.id").is_some() && span.int("ktrdr.jsonrpc.result.size") > Some(50)
            );
        }
        assert!(!self.finished.text.contains("hunter2"), "a secret got out");
        let (client, server) = self.both("tools/call broken", "");
        for span in [client, server] {
            assert_eq!((span.status.as_str(), span.text("error.type")), ("error", Some("tool_error")));
            assert_eq!(span.status_message, self.truth["broken"]["text"]);
        }
        let names =
            |name: &str| self.finished.spans.iter().filter(|s| s.is_server() && s.name == name).count();
        for name in
            [self.library.greeting(), "tools/list", "resources/list", "prompts/list", "prompts/get analyse"]
        {
            assert_eq!(names(name), 1, "{name}");
        }
        let failed = self.finished.spans.iter().filter(|s| s.is_server() && s.name == "resources/read");
        let messages: Vec<_> =
            failed.filter(|s| s.status == "error").map(|s| s.status_message.as_str()).collect();
        assert_eq!(messages, [self.truth["error"]["message"].as_str().unwrap()]);
    }
}

#[test]
fn a_tool_call_over_stdio_is_one_trace_to_the_http_calls_it_makes() {
    for (library, hook) in [
        (Library::First, "auto"),
        (Library::First, "syscall"),
        (Library::Second, "auto"),
        (Library::Second, "syscall"),
    ] {
        let Some(seen) = observe(library, "stdio", hook) else { return };
        seen.check();
        let calls = seen.calls();
        for path in ["/alone/first", "/alone/second", "/alone/sync"] {
            assert!(calls[path], "{library:?}, {hook}: {path} is linked to nothing");
        }
        let known = calls.keys().filter(|path| !path.starts_with("/warm"));
        assert_eq!(known.count(), 3 + 2 * AT_ONCE, "{calls:?}");
        let (_, server) = seen.both("tools/call fetch", "\"/alone\"");
        assert_eq!(server.text("network.transport"), Some("pipe"));
    }
}

/// Who passes on what it reads is asked nothing; the call goes to the server behind.
#[test]
fn filters_around_a_server_are_nobody() {
    for library in [Library::First, Library::Second] {
        let Some(seen) = observe(library, "filtered", "auto") else { return };
        seen.check();
        let calls = seen.calls();
        for path in ["/alone/first", "/alone/second", "/alone/sync"] {
            assert!(calls[path], "{library:?}: {path} is linked to nothing");
        }
        assert_eq!(seen.finished.stats.as_ref().unwrap().stdio["relays"], 3);
    }
}

#[test]
fn a_tool_call_over_http_is_one_trace_to_the_http_calls_it_makes() {
    for (library, transport) in [
        (Library::First, "stateful"),
        (Library::First, "json"),
        (Library::First, "stateless"),
        (Library::Second, "stateful"),
    ] {
        let Some(seen) = observe(library, transport, "auto") else { return };
        seen.check();
        let calls = seen.calls();
        for path in ["/alone/first", "/alone/second", "/alone/sync"] {
            assert!(calls[path], "{library:?}, {transport}: {path} is linked to nothing");
        }
        let (client, server) = seen.both("tools/call fetch", "\"/alone\"");
        for span in [client, server] {
            // The newer protocol has no sessions.
            let sessions = library == Library::First && transport != "stateless";
            assert_eq!(span.text("mcp.session.id").is_some(), sessions);
            assert_eq!(span.text("mcp.protocol.version"), seen.truth["protocolVersion"].as_str());
            assert_eq!(span.method(), Some("POST"));
        }
    }
}
