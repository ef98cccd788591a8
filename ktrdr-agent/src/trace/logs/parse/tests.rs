//! Lines as the loggers write them.

use super::*;

fn show(text: &str) -> String {
    let Some(p) = record(text) else { return "protocol".into() };
    let logger = p.logger.unwrap_or_default();
    format!("{} {} [{logger}] {}", p.format.name(), p.severity.name(), p.message)
}

#[test]
fn usual_prefixes() {
    for (line, want) in [
        (
            "2026-11-22 09:26:24,275 | ERROR  | ib.connection | no gateway",
            "prefixed ERROR [ib.connection] no gateway",
        ),
        (
            "2026-11-22 09:26:24,275 - ib.connection - WARNING - slow: 3 s",
            "prefixed WARN [ib.connection] slow: 3 s",
        ),
        (
            "2026-11-22 09:26:24,275 ERROR [ib.connection] no gateway",
            "prefixed ERROR [ib.connection] no gateway",
        ),
        ("2026-11-22 09:26:24,275 INFO ib.connection: hello", "prefixed INFO [ib.connection] hello"),
        ("WARNING:root:watch out: it is: hot", "prefixed WARN [root] watch out: it is: hot"),
        ("ERROR:    Exception in ASGI application", "prefixed ERROR [] Exception in ASGI application"),
        ("INFO:     Application startup complete.", "prefixed INFO [] Application startup complete."),
        ("[2026-11-22 09:26:24 +0000] [1234] [INFO] Booting worker", "prefixed INFO [] Booting worker"),
        (
            "2026-11-22 09:26:24.275 | INFO     | app.main:run:42 - started",
            "prefixed INFO [app.main:run:42] started",
        ),
        (
            "2026-11-22T09:26:24.275Z ERROR my_app::queue: it is full",
            "prefixed ERROR [my_app::queue] it is full",
        ),
        ("2026-11-22T09:26:24.275Z  WARN queue full", "prefixed WARN [] queue full"),
        ("2026-11-22 09:26:24.275 ERROR 1 --- [main] c.x.Y : down", "prefixed ERROR [c.x.Y] down"),
        ("09:26:24.275 [main] ERROR c.x.Y - down", "prefixed ERROR [main] c.x.Y - down"),
        ("<3>disk is full", "prefixed ERROR [] disk is full"),
        ("<4>WARNING:root:x", "prefixed WARN [root] x"),
    ] {
        assert_eq!(show(line), want, "{line}");
        assert!(begins(line), "{line}");
    }
}

#[test]
fn sentences_are_plain() {
    for line in [
        "Error connecting to the gateway",
        "Selected worker X for operation op_training_20251113_101112_1a2b3c4d",
        "info about the thing",
        "  File \"x.py\", line 3, in f",
        "Traceback (most recent call last):",
        "12:30 is noon",
        "2026-11-22 was a Sunday",
        "key=value without a level",
        "{not json}",
        "",
        "http://localhost:8000/docs",
    ] {
        assert_eq!(show(line), format!("plain  [] {line}"));
    }
}

#[test]
fn access_lines_name_the_connection() {
    let p =
        record("INFO:     127.0.0.1:46842 - \"POST /api/v1/trainings/start?x=1 HTTP/1.1\" 200 OK").unwrap();
    assert_eq!((p.format, p.peer), (Format::Access, "127.0.0.1:46842".parse().ok()));
    let field = |key: &str| p.fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    assert_eq!(field("url.path"), Some(Value::Str("/api/v1/trainings/start".into())));
    assert_eq!(field("http.response.status_code"), Some(Value::Int(200)));
    let v6 = record("INFO:     ::1:46842 - \"GET / HTTP/1.1\" 404 Not Found").unwrap();
    assert_eq!(v6.peer, "[::1]:46842".parse().ok());
    let letter = record("INFO:     fe80::1:46842 - \"GET / HTTP/1.1\" 404 Not Found").unwrap();
    assert_eq!((letter.logger, letter.peer), (None, "[fe80::1]:46842".parse().ok()));
    let forged = record("INFO:     x - \"GET / HTTP/1.1\" 999 Odd").unwrap();
    assert_eq!((forged.format, forged.peer), (Format::Prefixed, None));
}

#[test]
fn json_of_several_libraries() {
    for (line, want) in [
        (r#"{"event":"no gateway","level":"error","logger":"ib","port":4002}"#, "json ERROR [ib] no gateway"),
        (r#"{"level":50,"time":1,"pid":7,"hostname":"h","msg":"down"}"#, "json ERROR [] down"),
        (r#"{"levelname":"WARNING","name":"a.b","message":"slow"}"#, "json WARN [a.b] slow"),
        (r#"{"log.level":"info","message":"up","ecs.version":"1.6"}"#, "json INFO [] up"),
        (r#"{"a":1}"#, r#"json  [] {"a":1}"#),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, "protocol"),
    ] {
        assert_eq!(show(line), want, "{line}");
    }
    let p = record(r#"{"msg":"x","level":"info","port":4002,"extra":{"a":true,"deep":{"b":1}},"list":[1]}"#)
        .unwrap();
    let fields: Vec<String> = p.fields.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
    assert_eq!(
        fields,
        ["extra.a=Bool(true)", "extra.deep=Str(\"{\\\"b\\\":1}\")", "list=Str(\"[1]\")", "port=Int(4002)"]
    );
}

#[test]
fn structlog_and_logfmt_have_fields() {
    let p =
        record("2026-11-22 09:26:24 [warning  ] retry later                    attempt=3 host='ib gateway'")
            .unwrap();
    assert_eq!((p.severity, p.message.as_str()), (Severity::WARN, "retry later"));
    assert_eq!(p.fields.len(), 2);
    assert_eq!(p.fields[1], ("host".into(), Value::Str("ib gateway".into())));
    assert_eq!(
        show("time=2026-11-22T09:26:24Z level=error msg=\"no \\\"gateway\\\"\" port=4002"),
        "logfmt ERROR [] no \"gateway\""
    );
}

#[test]
fn lines_below_the_first_stay_with_the_message() {
    let p = record("2026-11-22 09:26:24,275 | ERROR | a | failed\nTraceback (most recent call last):\nX: y")
        .unwrap();
    assert_eq!(p.message, "failed\nTraceback (most recent call last):\nX: y");
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_parsers(text in "\\PC{0,120}") {
        let _ = (record(&text), begins(&text));
    }

    #[test]
    fn nor_do_pieces_of_prefixes(text in "(2026-11-22 09:26:24|,275|Z|\\[|\\]|\\||-|:|::| |ERROR|INFO|a\\.b|1|---|\"|=|<3>|\u{e9}|\\{|\\}){0,16}") {
        if let Some(p) = record(&text) {
            proptest::prop_assert!(p.message.len() <= text.len());
        }
        let _ = begins(&text);
    }
}
