//! Calls that another thread makes, told apart by what they are about.

use super::scenario::{Host, Pipe};
use crate::trace::model::Span;

const API: u32 = 100;
const IB: u32 = 200;
const CLI: u32 = 300;
const GATEWAY: u32 = 400;

fn host() -> Host {
    let mut h = Host::new();
    for (pid, name) in
        [(API, "ktrdr-api"), (IB, "ktrdr-ib-host-service"), (CLI, "ktrdr-cli"), (GATEWAY, "ib-gateway")]
    {
        h.process(pid, name);
    }
    h.listen(API, "127.0.0.1:8000");
    h.listen(IB, "127.0.0.1:5001");
    h.listen(GATEWAY, "127.0.0.1:4002");
    h
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn ok(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn historical(symbol: &str) -> Vec<u8> {
    post("/data/historical", &format!(r#"{{"symbol":"{symbol}","timeframe":"1d"}}"#))
}

fn frame(fields: &[&str]) -> Vec<u8> {
    let text = fields.join("\0") + "\0";
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// The gateway's session, opened by a thread of the IB host of its own, which reads no requests.
fn session(h: &mut Host) -> Pipe {
    let mut p = h.connect_from(IB, 201, GATEWAY, "127.0.0.1:4002");
    h.request(&mut p, b"API\0\0\0\0\x09v157..178");
    h.response(&mut p, &frame(&["178", "20251113 10:00:00 UTC"]));
    p
}

fn ask(h: &mut Host, p: &mut Pipe, id: &str, symbol: &str, sec_type: &str, currency: &str) {
    let contract = ["0", symbol, sec_type, "", "0.0", "", "", "SMART", "", currency, "", ""];
    let query = ["0", "", "1 day", "1 M", "1", "TRADES", "1", "0", ""];
    h.request(p, &frame(&[["20", id].as_slice(), &contract, &query].concat()));
    h.response(p, &frame(&["17", id, "a", "b", "1", "20251113", "1", "1", "1", "1", "1", "1", "1"]));
}

fn text<'a>(s: &'a Span, key: &str) -> &'a str {
    s.attributes.get(key).and_then(|v| v.as_str()).unwrap_or("")
}

/// The IB host's own call with this request id.
fn gateway_call<'a>(spans: &'a [Span], method: &str) -> &'a Span {
    spans
        .iter()
        .find(|s| s.resource.service == "ktrdr-ib-host-service" && text(s, "rpc.method") == method)
        .unwrap_or_else(|| panic!("no {method} in {spans:#?}"))
}

/// The IB host's end of the request for the symbol's bars; the `n`th of them.
fn request(spans: &[Span], n: usize) -> &Span {
    let is = |s: &&Span| {
        s.resource.service == "ktrdr-ib-host-service" && text(s, "url.path") == "/data/historical"
    };
    let mut all: Vec<&Span> = spans.iter().filter(is).collect();
    all.sort_by_key(|s| s.start);
    all[n]
}

/// Two requests in flight for these symbols, a call for the third; gives all spans.
fn two_in_flight(first: &str, second: &str, call: &str) -> Vec<Span> {
    let mut h = host();
    let mut gateway = session(&mut h);
    let mut one = h.connect(API, IB, "127.0.0.1:5001");
    let mut two = h.connect(API, IB, "127.0.0.1:5001");
    h.request(&mut one, &historical(first));
    h.request(&mut two, &historical(second));
    ask(&mut h, &mut gateway, "7", call, "STK", "USD");
    h.pass(20);
    h.response(&mut one, &ok(r#"{"success":true}"#));
    h.response(&mut two, &ok(r#"{"success":true}"#));
    h.spans()
}

#[test]
fn of_two_requests_in_flight_the_one_with_the_symbol_is_the_parent() {
    let spans = two_in_flight("AAPL", "MSFT", "MSFT");
    let call = gateway_call(&spans, "reqHistoricalData");
    assert_eq!(call.parent_span_id, Some(request(&spans, 1).span_id), "{spans:#?}");
    assert_eq!(
        (text(call, "ktrdr.link.method"), text(call, "ktrdr.link.certainty")),
        ("same-symbol", "inferred")
    );
}

#[test]
fn two_requests_for_one_symbol_or_none_give_no_edge() {
    for (first, second) in [("AAPL", "AAPL"), ("MSFT", "EURUSD")] {
        let spans = two_in_flight(first, second, "AAPL");
        let call = gateway_call(&spans, "reqHistoricalData");
        assert_eq!((call.parent_span_id, call.links.len()), (None, 0), "{first} {second}");
    }
}

#[test]
fn a_pair_is_one_symbol_in_a_request_and_two_currencies_in_a_contract() {
    let mut h = host();
    let mut gateway = session(&mut h);
    let mut one = h.connect(API, IB, "127.0.0.1:5001");
    let mut two = h.connect(API, IB, "127.0.0.1:5001");
    h.request(&mut one, &historical("EURUSD"));
    h.request(&mut two, &historical("EURJPY"));
    ask(&mut h, &mut gateway, "7", "EUR", "CASH", "USD");
    h.response(&mut one, &ok("{}"));
    h.response(&mut two, &ok("{}"));
    let spans = h.spans();
    assert_eq!(gateway_call(&spans, "reqHistoricalData").parent_span_id, Some(request(&spans, 0).span_id));
}

#[test]
fn a_body_not_seen_whole_may_name_the_symbol_too() {
    let mut h = host();
    let mut gateway = session(&mut h);
    let mut one = h.connect(API, IB, "127.0.0.1:5001");
    let mut two = h.connect(API, IB, "127.0.0.1:5001");
    h.request(&mut one, &historical("AAPL"));
    let rows = format!(r#"{{"rows":"{}","symbol":"AAPL"}}"#, "x".repeat(6000));
    h.request(&mut two, &post("/data/historical", &rows));
    ask(&mut h, &mut gateway, "7", "AAPL", "STK", "USD");
    h.response(&mut one, &ok("{}"));
    h.response(&mut two, &ok("{}"));
    let spans = h.spans();
    assert_eq!(gateway_call(&spans, "reqHistoricalData").parent_span_id, None);
}

#[test]
fn what_a_process_does_by_itself_is_nobodys() {
    let mut h = host();
    let mut gateway = session(&mut h);
    // Once without a request in flight: a habit.
    h.request(&mut gateway, &frame(&["49", "1"]));
    h.response(&mut gateway, &frame(&["49", "1", "1763028000"]));
    h.pass(500);
    let mut one = h.connect(API, IB, "127.0.0.1:5001");
    h.request(&mut one, &post("/data/refresh", "{}"));
    h.request(&mut gateway, &frame(&["49", "1"]));
    h.response(&mut gateway, &frame(&["49", "1", "1763028001"]));
    h.response(&mut one, &ok("{}"));
    let spans = h.spans();
    let calls: Vec<_> = spans
        .iter()
        .filter(|s| {
            s.resource.service == "ktrdr-ib-host-service" && text(s, "rpc.method") == "reqCurrentTime"
        })
        .collect();
    assert_eq!(calls.len(), 2);
    // Python's contexts are not followed here, so the older rule for a lone request may speak; ours must not.
    assert!(calls.iter().all(|c| text(c, "ktrdr.link.method") != "same-symbol"), "{calls:#?}");
    assert_eq!(calls[0].parent_span_id, None);
}

/// The API has started operations for these symbols and then calls the IB host from a pool's thread.
fn after_the_answer(symbols: &[&str], call: &str) -> (Vec<Span>, Vec<String>) {
    let mut h = host();
    let mut ids = Vec::new();
    for (n, symbol) in symbols.iter().enumerate() {
        let id = format!("op_data_load_20261126_10000{n}_0000000{n}");
        let mut p = h.connect(CLI, API, "127.0.0.1:8000");
        h.request(&mut p, &post("/api/v1/data/acquire/download", &format!(r#"{{"symbol":"{symbol}"}}"#)));
        h.response(&mut p, &ok(&format!(r#"{{"success":true,"operation_id":"{id}","status":"started"}}"#)));
        ids.push(id);
    }
    h.pass(200);
    let mut pool = h.connect_from(API, 101, IB, "127.0.0.1:5001");
    h.request(&mut pool, &historical(call));
    h.response(&mut pool, &ok(r#"{"success":false,"error":"no"}"#));
    (h.spans(), ids)
}

#[test]
fn work_after_the_answer_belongs_to_the_operation_with_its_symbol() {
    let (spans, ids) = after_the_answer(&["AAPL", "MSFT"], "MSFT");
    let is_call =
        |s: &&Span| s.resource.service == "ktrdr-api" && s.name.starts_with("POST /data/historical");
    let call = spans.iter().find(is_call).unwrap();
    assert_eq!(
        (text(call, "ktrdr.link.method"), text(call, "operation.id")),
        ("same-symbol", ids[1].as_str())
    );
    let creator = call.links.first().unwrap().span_id;
    let creator = spans.iter().find(|s| s.span_id == creator).unwrap();
    assert_eq!((text(creator, "operation.id"), creator.trace_id), (ids[1].as_str(), call.trace_id));
    assert_eq!(call.parent_span_id, None, "it came after the answer");
}

#[test]
fn two_operations_for_one_symbol_give_no_edge() {
    for (symbols, call) in [(["AAPL", "AAPL"], "AAPL"), (["AAPL", "MSFT"], "TSLA")] {
        let (spans, _) = after_the_answer(&symbols, call);
        let is_call =
            |s: &&Span| s.resource.service == "ktrdr-api" && s.name.starts_with("POST /data/historical");
        let call = spans.iter().find(is_call).unwrap();
        assert_eq!((call.links.len(), call.parent_span_id, text(call, "operation.id")), (0, None, ""));
    }
}
