//! Verdicts about processes that end, and about commands.

use super::build::{Build, Id, span_id};
use super::{Case, Kind, Report, explain};
use crate::trace::model::{SpanEvent, SpanKind};

const CLI: &str = "ktrdr-cli";
const API: (&str, u16) = ("ktrdr-api", 8000);
const IB: (&str, u16) = ("ktrdr-ib-host-service", 5001);
const GATEWAY: (&str, u16) = ("ib-gateway", 4002);
const DOWNLOAD: &str = "POST /api/v1/data/acquire/download";

#[track_caller]
fn verdict(b: &Build, kind: Kind, span: Id) -> Report {
    let r = explain(&b.case());
    assert_eq!(r.verdict.kind, kind, "{r:#?}");
    assert_eq!(r.verdict.span_id, Some(span_id(span).to_string()), "{r:#?}");
    r
}

/// The API asks the IB host, which asks the gateway, and is killed meanwhile.
fn killed_in_the_middle(b: &mut Build, parent: Id) -> Id {
    let api = b.call(parent, CLI, API, DOWNLOAD, (0, 3000), 502);
    let cut = b.unanswered(api, API.0, IB, "POST /data/historical", (10, 2900), "connection_reset");
    b.set(cut, "ktrdr.peer.pid", 4711_i64).set(cut, "ktrdr.peer.exit", "was killed by SIGKILL");
    let served = b.server(cut, IB.0, "POST /data/historical", (11, 2900), 0);
    b.ended(served, 4711);
    let asked = b.client(served, IB.0, GATEWAY, "reqHistoricalData SILENT", (20, 2900), 0);
    b.ended(asked, 4711);
    let gateway = b.server(asked, GATEWAY.0, "reqHistoricalData SILENT", (21, 4000), 0);
    b.fail(gateway, "timeout", "ib-gateway did not answer 127.0.0.1:4, which gave up after 2 s");
    cut
}

#[test]
fn a_death_outranks_what_it_cut_off() {
    let mut b = Build::default();
    let cut = killed_in_the_middle(&mut b, 0);
    let r = verdict(&b, Kind::Reset, cut);
    assert!(
        r.verdict.sentence.contains("got no response from ktrdr-ib-host-service"),
        "{}",
        r.verdict.sentence
    );
    assert_eq!(r.causes.len(), 1, "{r:#?}");
    assert_eq!(r.evidence[0].attributes["ktrdr.peer.exit"], "was killed by SIGKILL");
}

#[test]
fn a_death_comes_before_failures_beside_it() {
    let mut b = Build::default();
    let api = b.call(0, CLI, API, DOWNLOAD, (0, 3000), 502);
    b.refused(api, API.0, GATEWAY, 5, 1);
    let cut = b.unanswered(api, API.0, IB, "POST /data/historical", (10, 2900), "peer_closed");
    b.set(cut, "ktrdr.peer.pid", 4711_i64).set(cut, "ktrdr.peer.exit", "exited with status 1");
    verdict(&b, Kind::NoResponse, cut);
}

#[test]
fn a_request_whose_caller_is_not_seen_tells_of_its_process() {
    let mut b = Build::default();
    let served = b.server(0, IB.0, "POST /data/historical", (0, 2000), 0);
    b.ended(served, 4711);
    let asked = b.client(served, IB.0, GATEWAY, "reqHistoricalData SILENT", (20, 2000), 0);
    b.ended(asked, 4711);
    let r = verdict(&b, Kind::ProcessEnded, served);
    assert!(
        r.verdict.sentence.contains("was killed by SIGKILL before it answered"),
        "{}",
        r.verdict.sentence
    );
}

#[test]
fn a_command_is_explained_by_its_calls() {
    let mut b = Build::default();
    let command = b.command(CLI, "ktrdr data", (0, 4000), 1);
    let cut = killed_in_the_middle(&mut b, command);
    let r = verdict(&b, Kind::Reset, cut);
    assert_eq!((r.chain[0].what.as_str(), r.chain[0].outcome.as_str()), ("ktrdr data", "exit 1"));
}

#[test]
fn a_command_that_was_killed_while_it_waited_is_the_cause() {
    let mut b = Build::default();
    let command = b.command(CLI, "ktrdr data", (0, 400), -9);
    let call = b.client(command, CLI, API, DOWNLOAD, (10, 400), 0);
    b.ended(call, 4242);
    let server = b.server(call, API.0, DOWNLOAD, (11, 500), 0);
    b.fail(server, "connection_closed", "ktrdr-api did not answer: the connection ended");
    let r = verdict(&b, Kind::Failed, command);
    assert!(
        r.verdict.sentence.contains("the command `ktrdr data` was killed by SIGKILL"),
        "{}",
        r.verdict.sentence
    );
}

#[test]
fn a_command_that_fails_by_itself_says_what_it_said() {
    let mut b = Build::default();
    let command = b.command(CLI, "ktrdr data", (0, 400), 1);
    b.call(command, CLI, API, DOWNLOAD, (10, 40), 200);
    let mut e = SpanEvent { ts: 0, name: "exception".into(), attributes: Default::default() };
    e.attributes.set("exception.type", "ValueError");
    e.attributes.set("exception.message", "no bars");
    b.get(command).events.push(e);
    let r = verdict(&b, Kind::Failed, command);
    assert!(
        r.verdict.sentence.contains("exited with status 1 (ValueError: no bars)"),
        "{}",
        r.verdict.sentence
    );
    // It tells by its exit code of an operation that has its own verdict.
    let id = "op_data_load_20260102_030405_0a1b2c3d";
    b.operation(2, id, "cancelled", (12, 39));
    let r = explain(&Case { operation: Some(id.to_owned()), ..b.case() });
    assert_eq!(r.verdict.kind, Kind::Cancelled, "{r:#?}");
}

#[test]
fn a_commands_own_time_is_no_slow_call() {
    let mut b = Build::default();
    let command = b.command(CLI, "ktrdr data", (0, 9000), 0);
    let call = b.client(command, CLI, API, DOWNLOAD, (10, 400), 200);
    b.server(call, API.0, DOWNLOAD, (11, 399), 200);
    let r = explain(&b.case());
    assert_eq!(r.verdict.kind, Kind::Ok, "{r:#?}");
    assert!(r.verdict.sentence.contains(DOWNLOAD), "{}", r.verdict.sentence);
    let mut b = Build::default();
    b.command(CLI, "ktrdr data", (0, 9000), 0);
    assert_eq!(explain(&b.case()).verdict.kind, Kind::Slow);
    // A failed call matters, however the command took it.
    let mut b = Build::default();
    let command = b.command(CLI, "ktrdr data", (0, 900), 0);
    let call = b.client(command, CLI, API, DOWNLOAD, (10, 400), 500);
    assert_eq!(b.get(call).kind, SpanKind::Client);
    verdict(&b, Kind::HttpError, call);
}
