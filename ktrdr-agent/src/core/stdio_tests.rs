//! Conversations on pipes, from records to spans.

use ktrdr_ebpf_common::maps::FileId;
use ktrdr_ebpf_common::{WriteBody, file, kind};
use zerocopy::IntoBytes;

use super::scenario::Host;
use super::{CoreConfig, Output, Watched};
use crate::event::MS;
use crate::event::ShellEvent;
use crate::event::shell::ProcessMeta;
use crate::trace::model::{Span, SpanKind, Status};

const CLIENT: u32 = 100;
const SERVER: u32 = 200;
const FILTER: u32 = 150;
const IN: u64 = 7;
const OUT: u64 = 8;
/// Between the filter and the server.
const BETWEEN: u64 = 20;

struct Moved<'a> {
    kind: u16,
    fd: u32,
    inode: u64,
    file: u8,
    text: &'a str,
}

impl Moved<'_> {
    fn record(&self) -> (u16, Vec<u8>) {
        let len = u32::try_from(self.text.len()).unwrap();
        let body = WriteBody {
            py_context: 0,
            id: FileId { inode: self.inode, device: 1, generation: 0 },
            lost: 0,
            fd: self.fd,
            len,
            offset: 0,
            captured: len,
            file: self.file,
            reserved: [0; 7],
        };
        (self.kind, [body.as_bytes(), self.text.as_bytes()].concat())
    }
}

/// A client and the server it started; `file` is what is between them.
struct Talk {
    h: Host,
    file: u8,
}

impl Talk {
    fn new(file: u8) -> Self {
        Self::with(file, CoreConfig::default())
    }

    fn with(file: u8, config: CoreConfig) -> Self {
        let mut h = Host::with(config);
        h.process(CLIENT, "client");
        h.shell(ShellEvent::Process(ProcessMeta {
            tgid: SERVER,
            ppid: CLIENT,
            service: "server".into(),
            ..ProcessMeta::default()
        }));
        Self { h, file }
    }

    fn moved(&mut self, kind: u16, pid: u32, fd: u32, inode: u64, text: &str) {
        self.moved_by(self.file, kind, pid, fd, inode, text);
    }

    fn moved_by(&mut self, file: u8, kind: u16, pid: u32, fd: u32, inode: u64, text: &str) {
        let (kind, body) = Moved { kind, fd, inode, file, text }.record();
        self.h.now += MS;
        self.h.record(kind, 0, (pid, pid), &body);
    }

    /// The two ends of a pair of sockets are two files.
    fn other(&self, inode: u64) -> u64 {
        if self.file == file::PIPE { inode } else { inode + 100 }
    }

    fn ask(&mut self, text: &str) {
        self.moved(kind::WRITE, CLIENT, 9, self.other(IN), text);
        self.read(text);
    }

    fn read(&mut self, text: &str) {
        self.moved(kind::READ, SERVER, 0, IN, text);
    }

    /// As [`new`](Self::new), with `tee` before the server.
    fn filtered(file: u8) -> Self {
        let mut t = Self::new(file);
        t.h.shell(ShellEvent::Process(ProcessMeta {
            tgid: FILTER,
            ppid: CLIENT,
            service: "tee".into(),
            ..ProcessMeta::default()
        }));
        t
    }

    /// The filter reads and passes on, and then the server reads; or, as records may come, that first.
    fn pass_on(&mut self, text: &str, first: bool) {
        self.moved(kind::READ, FILTER, 0, IN, text);
        let read = |t: &mut Self| t.moved_by(file::PIPE, kind::READ, SERVER, 0, BETWEEN, text);
        if first {
            read(self);
        }
        self.moved_by(file::PIPE, kind::WRITE, FILTER, 1, BETWEEN, text);
        if !first {
            read(self);
        }
    }

    fn answer(&mut self, text: &str) {
        self.moved(kind::WRITE, SERVER, 1, OUT, text);
    }
}

fn call(id: &str, tool: &str) -> String {
    let params = format!(r#"{{"name":"{tool}","arguments":{{"token":"hunter2"}}}}"#);
    format!("{{\"method\":\"tools/call\",\"params\":{params},\"jsonrpc\":\"2.0\",\"id\":{id}}}\n")
}

fn result(id: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}\n")
}

const HELLO: &str =
    "{\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"x\"},\"jsonrpc\":\"2.0\",\"id\":0}\n";

fn named<'a>(spans: &'a [Span], kind: SpanKind, name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|s| s.kind == kind && s.name == name).collect();
    let [one] = found.as_slice() else { panic!("{} spans {name}: {spans:#?}", found.len()) };
    one
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    span.attributes.get(key).and_then(|v| v.as_str())
}

#[test]
fn both_ends_of_a_tool_call_are_one_trace() {
    for file in [file::PIPE, file::UNIX_SOCKET] {
        let mut t = Talk::new(file);
        t.read(HELLO);
        t.answer(&result("0"));
        t.ask(&call("1", "add"));
        t.ask(&call("\"1\"", "other"));
        t.answer(&result("\"1\""));
        t.answer(&result("1"));
        let spans = t.h.spans();
        assert_eq!(spans.len(), 5, "{spans:#?}");
        assert_eq!(named(&spans, SpanKind::Server, "initialize").parent_span_id, None);
        for name in ["tools/call add", "tools/call other"] {
            let client = named(&spans, SpanKind::Client, name);
            let server = named(&spans, SpanKind::Server, name);
            assert_eq!((server.trace_id, server.parent_span_id), (client.trace_id, Some(client.span_id)));
            assert_eq!((client.parent_span_id, &client.status), (None, &Status::Unset));
            assert!(client.start < server.start && server.end <= client.end, "{client:?} {server:?}");
            assert_eq!(text(client, "peer.service"), Some("server"));
            assert_eq!(text(server, "network.transport"), Some("pipe"));
            assert_eq!(text(server, "gen_ai.tool.call.arguments"), Some(r#"{"token":"REDACTED"}"#));
        }
    }
}

/// Which ports a server will use is not known when it is first spoken to.
#[test]
fn where_only_some_ports_are_looked_at_servers_that_use_them_are_shown() {
    for (port, shown) in [(8000, 5), (9000, 0)] {
        let mut t = Talk::with(file::PIPE, CoreConfig { ports: vec![8000], ..CoreConfig::default() });
        t.h.process(300, "api");
        t.h.listen(300, "127.0.0.1:8000");
        t.h.listen(300, "127.0.0.1:9000");
        t.read(HELLO);
        t.answer(&result("0"));
        t.ask(&call("1", "add"));
        t.h.pass(500);
        assert_eq!(t.h.so_far(), [], "nothing speaks for it yet");
        // By a program that the server started.
        t.h.exec(400, SERVER, "helper", "helper", false);
        let mut p = t.h.connect(400, 300, &format!("127.0.0.1:{port}"));
        t.h.request(&mut p, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        t.h.response(&mut p, b"HTTP/1.1 204 No Content\r\n\r\n");
        t.answer(&result("1"));
        t.ask(&call("2", "add"));
        t.answer(&result("2"));
        t.h.exit(400, 0);
        let mut spans = t.h.spans();
        spans.retain(|s| text(s, "network.transport") == Some("pipe"));
        assert_eq!(spans.len(), shown, "{port}: {spans:#?}");
    }
}

#[test]
fn the_readers_record_may_come_first() {
    let mut t = Talk::new(file::PIPE);
    t.read(HELLO);
    let text = call("1", "add");
    t.read(&text);
    t.moved(kind::WRITE, CLIENT, 9, IN, &text);
    t.answer(&result("1"));
    let spans = t.h.spans();
    let client = named(&spans, SpanKind::Client, "tools/call add");
    let server = named(&spans, SpanKind::Server, "tools/call add");
    assert_eq!(server.parent_span_id, Some(client.span_id));
    assert!(client.start <= server.start);
}

#[test]
fn another_clients_equal_words_are_not_joined() {
    for file in [file::PIPE, file::UNIX_SOCKET] {
        let mut t = Talk::new(file);
        t.h.process(300, "stranger");
        t.read(HELLO);
        t.h.core.watch(300, Watched::Json);
        t.moved(kind::WRITE, 300, 9, 55, &call("1", "add"));
        t.read(&call("1", "add"));
        t.answer(&result("1"));
        let spans = t.h.spans();
        assert!(spans.iter().all(|s| s.kind == SpanKind::Server), "{spans:#?}");
    }
}

/// A filter is asked nothing: who is asked reads the same behind it.
#[test]
fn a_filter_before_the_server_is_nobody() {
    for (file, first) in
        [(file::PIPE, false), (file::PIPE, true), (file::UNIX_SOCKET, false), (file::UNIX_SOCKET, true)]
    {
        let mut t = Talk::filtered(file);
        // Nobody watches the client yet.
        t.pass_on(HELLO, first);
        t.answer(&result("0"));
        for id in ["1", "2"] {
            let text = call(id, &format!("add{id}"));
            t.moved(kind::WRITE, CLIENT, 9, t.other(IN), &text);
            t.pass_on(&text, first);
            // Its copy is no log either.
            t.moved_by(file::PIPE, kind::WRITE, FILTER, 3, 77, &text);
            t.answer(&result(id));
        }
        t.h.exit(FILTER, 0);
        let spans = t.h.spans();
        assert_eq!(spans.len(), 5, "{file}, {first}: {spans:#?}");
        assert!(spans.iter().all(|s| s.resource.service != "tee"));
        for name in ["tools/call add1", "tools/call add2"] {
            let (client, server) =
                (named(&spans, SpanKind::Client, name), named(&spans, SpanKind::Server, name));
            assert_eq!((server.trace_id, server.parent_span_id), (client.trace_id, Some(client.span_id)));
            assert_eq!((text(client, "peer.service"), &client.status), (Some("server"), &Status::Unset));
            assert!(client.start < server.start && server.end <= client.end);
        }
        assert_eq!(t.h.core.counts().stdio.relays, 1);
    }
}

#[test]
fn a_client_that_a_filter_was_taken_to_serve_is_the_servers() {
    for (first, written) in [(false, HELLO), (true, "{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":4}\n")] {
        let mut t = Talk::filtered(file::PIPE);
        t.h.core.watch(CLIENT, Watched::Json);
        t.moved(kind::WRITE, CLIENT, 9, IN, written);
        t.pass_on(written, first);
        t.answer(&result(if first { "4" } else { "0" }));
        let spans = t.h.spans();
        let [a, b] = spans.as_slice() else { panic!("{spans:#?}") };
        assert_eq!((a.trace_id, a.name.as_str()), (b.trace_id, b.name.as_str()));
        assert!(
            [a, b].iter().any(|s| s.kind == SpanKind::Client && text(s, "peer.service") == Some("server"))
        );
    }
}

#[test]
fn notifications_that_a_filter_passes_on_and_answers_behind_the_server_are_nobodys() {
    let mut t = Talk::filtered(file::PIPE);
    let notice = "{\"method\":\"notifications/initialized\",\"jsonrpc\":\"2.0\"}\n";
    t.pass_on(notice, false);
    // Behind the server.
    const BEHIND: u32 = 250;
    t.h.process(BEHIND, "tee");
    for text in [result("0"), notice.to_owned()] {
        t.moved(kind::READ, BEHIND, 0, OUT, &text);
        t.moved(kind::WRITE, BEHIND, 1, 30, &text);
    }
    t.h.exit(BEHIND, 0);
    let spans = t.h.spans();
    let [one] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!((one.resource.service.as_str(), one.name.as_str()), ("server", "notifications/initialized"));
    assert_eq!(t.h.core.counts().stdio.relays, 2);
}

/// Both ends may ask the same of each other.
#[test]
fn who_has_answered_is_no_filter() {
    let mut t = Talk::new(file::PIPE);
    t.read(HELLO);
    t.answer(&result("0"));
    let ping = "{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":0}\n";
    t.ask(ping);
    t.answer(ping);
    t.answer(&result("0"));
    let spans = t.h.spans();
    assert_eq!(named(&spans, SpanKind::Server, "ping").status, Status::Unset);
    assert_eq!((spans.len(), t.h.core.counts().stdio.relays), (3, 0), "{spans:#?}");
}

/// A number that was a filter's may be a server's.
#[test]
fn another_program_under_the_same_number_is_looked_at_anew() {
    let mut t = Talk::filtered(file::PIPE);
    t.pass_on(HELLO, false);
    t.h.exit(FILTER, 0);
    t.moved(kind::READ, FILTER, 0, IN, HELLO);
    t.moved(kind::WRITE, FILTER, 1, OUT, &result("0"));
    t.answer(&result("0"));
    let spans = t.h.spans();
    assert_eq!(spans.iter().filter(|s| s.name == "initialize" && s.status == Status::Unset).count(), 2);
}

#[test]
fn what_is_not_answered_says_why() {
    let mut t = Talk::new(file::PIPE);
    t.ask(HELLO);
    t.ask(&call("1", "slow"));
    t.ask("{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1},\"jsonrpc\":\"2.0\"}\n");
    t.ask(&call("2", "dies"));
    t.answer(&result("1"));
    t.answer(&result("99"));
    t.h.exit(SERVER, 9);
    let spans = t.h.spans();
    let why = |name| text(named(&spans, SpanKind::Server, name), "ktrdr.incomplete").unwrap().to_owned();
    assert_eq!(why("tools/call slow"), "cancelled");
    assert_eq!(why("tools/call dies"), "process_ended");
    let status = &named(&spans, SpanKind::Server, "tools/call dies").status;
    assert_eq!(status, &Status::Error("server ended without an answer".into()));
    named(&spans, SpanKind::Server, "notifications/cancelled");
    assert_eq!(t.h.core.counts().stdio.unpaired, 2);
}

#[test]
fn a_process_that_reads_something_else_is_let_alone() {
    let mut t = Talk::new(file::PIPE);
    let deaf = |t: &mut Talk, text: &str| {
        let (kind, body) = Moved { kind: kind::READ, fd: 0, inode: IN, file: file::PIPE, text }.record();
        t.h.record(kind, 0, (SERVER, SERVER), &body);
        t.h.outputs.drain(..).filter(|o| matches!(o, Output::Deaf(SERVER))).count()
    };
    assert_eq!(deaf(&mut t, "{\"level\":\"info\"}\n{\"a\":1}\n"), 0);
    assert_eq!(deaf(&mut t, "{\"b\":\n1}\n"), 1);
    assert_eq!(t.h.spans(), []);
}

#[test]
fn hostile_lines_harm_nobody() {
    let mut t = Talk::new(file::PIPE);
    t.ask(HELLO);
    t.answer(&result("0"));
    for text in [
        "{".repeat(60_000),
        format!("[{}]\n", "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":1},".repeat(500)),
        format!("{}\n", "[".repeat(60_000)),
        call("{\"a\":[]}", "x"),
        call("null", "x"),
        call("1e999", "x"),
        "{\"jsonrpc\":\"2.0\",\"method\":\"\\ud800\",\"id\":\"\\\"\n".to_owned(),
    ] {
        t.ask(&text);
        t.answer(&text);
    }
    for i in 0..2000 {
        t.ask(&call(&i.to_string(), "flood"));
    }
    t.h.shell(ShellEvent::End);
    let spans = t.h.spans();
    assert!(spans.len() > 2000);
    assert!(t.h.core.counts().stdio.given_up > 1000);
}
