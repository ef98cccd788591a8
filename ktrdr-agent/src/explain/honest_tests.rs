//! What an answer must not say: that nothing failed which was not seen, that a line belongs here which does not.

use std::sync::Arc;

use super::build::{Build, EPOCH_NS, Id, trace_id};
use super::logged::Logged;
use super::{Case, Kind, Report, explain};
use crate::trace::logs::{LogRecord, Severity};
use crate::trace::model::{Attributes, Resource, SpanEvent, SpanKind};

const SHOP: (&str, u16) = ("shop", 7001);
const STOCK: (&str, u16) = ("stock", 7002);

#[track_caller]
fn says(r: &Report, kind: Kind, part: &str) {
    assert_eq!(r.verdict.kind, kind, "{}", r.verdict.sentence);
    assert!(r.verdict.sentence.contains(part), "`{part}` is not in: {}", r.verdict.sentence);
}

#[test]
fn a_call_that_failed_meanwhile_and_is_nobodys_is_told() {
    let mut b = Build::default();
    let shop = b.call(0, "curl", SHOP, "GET /up", (0, 40), 500);
    b.of_process(shop, 7);
    let alone = explain(&b.case());
    says(&alone, Kind::HttpError, "; none of the calls seen failed");
    let mut other = Build::default();
    other.next_trace();
    let call = other.client(0, SHOP.0, STOCK, "GET /boom", (10, 30), 500);
    other.of_process(call, 7);
    let of = |other: &Build| explain(&Case { nearby: other.arcs(), ..b.case() });
    let part = "; at that time its GET /boom to stock:7002 failed (500), for which request is not known";
    says(&of(&other), Kind::HttpError, part);
    // Another process of that name, and another time.
    other.of_process(call, 8);
    says(&of(&other), Kind::HttpError, "; none of the calls seen failed");
    other.of_process(call, 7).get(call).start += 1_000_000_000;
    says(&of(&other), Kind::HttpError, "; none of the calls seen failed");
}

#[test]
fn what_is_not_looked_at_is_said() {
    let mut b = Build::default();
    b.call(0, "curl", SHOP, "GET /up", (0, 40), 502);
    let r = explain(&Case { narrowed: Some("only port 7001".to_owned()), ..b.case() });
    assert!(r.gaps.iter().any(|g| g.contains("(only port 7001)")), "{:?}", r.gaps);
    assert!(!explain(&b.case()).gaps.iter().any(|g| g.contains("only port")));
}

#[test]
fn a_command_that_gave_up_says_on_whom() {
    let mut b = Build::default();
    let curl = b.command("curl", "curl", (0, 310), 28);
    let call = b.client(curl, "curl", SHOP, "GET /slow/2", (10, 310), 0);
    b.ended(call, 4242);
    let r = explain(&b.case());
    let part = "exited with status 28 (curl: its time was over); its call to shop:7001 (GET /slow/2) had not been answered \
                by then, after 300 ms";
    says(&r, Kind::Failed, part);
    assert!(r.hints.iter().any(|h| h.starts_with("look at the log of shop at")), "{:?}", r.hints);
    let mut b = Build::default();
    b.command("ktrdr-cli", "ktrdr data", (0, 310), 28);
    says(&explain(&b.case()), Kind::Failed, "exited with status 28; none of the calls seen failed");
}

#[test]
fn an_answer_that_blames_the_request_is_told_though_nobody_failed_with_it() {
    let mut b = Build::default();
    let curl = b.command("curl", "curl", (0, 10), 0);
    b.call(curl, "curl", SHOP, "GET /nope", (1, 3), 404);
    let r = explain(&b.case());
    says(&r, Kind::Ok, "curl's GET /nope to shop:7001 was answered 404 (not found) after 2.00 ms");
    assert!(!r.verdict.sentence.contains("nothing failed"));
    // Further down, too.
    let mut b = Build::default();
    let shop = b.call(0, "curl", SHOP, "GET /order", (0, 9), 200);
    b.call(shop, SHOP.0, STOCK, "GET /item/7", (2, 4), 404);
    says(&explain(&b.case()), Kind::Ok, "; 1 call was answered 404, with which its caller went on");
}

#[test]
fn an_exception_about_a_name_is_a_name_that_was_not_resolved() {
    let mut b = Build::default();
    let shop = b.call(0, "curl", SHOP, "GET /dns", (0, 40), 500);
    let mut attributes = Attributes::new();
    attributes.set("exception.type", "httpx.ConnectError");
    attributes.set("exception.message", "[Errno -2] Name or service not known");
    let ts = b.get(shop).start;
    b.get(shop).events.push(SpanEvent { name: "exception".into(), ts, attributes });
    says(&explain(&b.case()), Kind::NameNotResolved, "Name or service not known");
}

#[test]
fn a_port_is_the_one_that_was_called() {
    let mut b = Build::default();
    let call = b.client(0, "curl", SHOP, "GET /x", (0, 40), 500);
    // `Host: a` names no port, which stands for 80.
    b.set(call, "server.port", 80_u16).set(call, "network.peer.port", 7001_u16);
    says(&explain(&b.case()), Kind::HttpError, "shop:7001 answered 500");
}

fn error(trace: u64, service: &str, text: &str) -> Arc<Logged> {
    let mut attributes = Attributes::new();
    attributes.set("exception.type", "RuntimeError");
    attributes.set("exception.message", "kaputt");
    Arc::new(Logged::of(&LogRecord {
        ts: 1_000_000,
        wall_offset_ns: EPOCH_NS,
        severity: Severity::ERROR,
        severity_text: String::new(),
        body: text.to_owned(),
        trace_id: Some(trace_id(trace)),
        span_id: None,
        attributes,
        resource: Arc::new(Resource { service: service.to_owned(), attributes: Attributes::new() }),
    }))
}

#[test]
fn lines_of_other_traces_are_not_shown_as_this_ones() {
    let mut b = Build::default();
    b.call(0, "curl", SHOP, "GET /up", (0, 40), 500);
    let logs = vec![error(1, SHOP.0, "ours"), error(2, SHOP.0, "another's")];
    let r = explain(&Case { logs, ..b.case() });
    let lines: Vec<&str> = r.logs.iter().map(|l| l.message.as_str()).collect();
    assert_eq!(lines, ["ours"]);
    let hint = "the message and stack trace are in the log of shop";
    assert!(r.hints.iter().any(|h| h.starts_with(hint)), "{:?}", r.hints);
    // Another trace's line is no reason to say so.
    let r = explain(&Case { logs: vec![error(2, SHOP.0, "another's")], ..b.case() });
    assert!(r.hints.iter().any(|h| h.starts_with("look at the log of shop")), "{:?}", r.hints);
}

#[test]
fn of_several_traces_with_a_word_in_their_urls_the_answer_is_about_all() {
    let mut b = Build::default();
    let ids: Vec<Id> = (0..2)
        .map(|n| {
            b.next_trace();
            b.span(0, SpanKind::Server, SHOP.0, "GET /shop", (n, n + 1))
        })
        .collect();
    assert_eq!(ids.len(), 2);
    let r = explain(&Case { query: "it's".to_owned(), by_part: true, ..b.case() });
    assert!(
        r.gaps.iter().any(|g| g == "`it's` is a part of URLs in 2 traces, and this is about all of them")
    );
    assert!(r.hints.iter().any(|h| h.starts_with(r"ktrdr-agent explain 'it'\''s' --json")), "{:?}", r.hints);
}
