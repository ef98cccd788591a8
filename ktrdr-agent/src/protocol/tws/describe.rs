//! Names and attributes of the messages.

use std::net::SocketAddr;

use super::codes::Code;
use super::frame::Fields;
use super::mask;
use super::tables::{self, Asked, Body};
use crate::protocol::{ConnContext, Response, Role};
use crate::trace::model::{Attributes, Status};

/// Describes the messages of one connection.
pub(super) struct Describe {
    server: SocketAddr,
    peer: SocketAddr,
}

/// Last field of a contract, counted from the request id.
const CONTRACT: usize = 12;

/// Last field that [`Describe::request`] looks at.
pub(super) fn last_field(asked: &Asked) -> usize {
    let base = asked.req_id.unwrap_or(0);
    match asked.body {
        Body::Contract => base + CONTRACT,
        // includeExpired endDateTime barSize duration useRTH whatToShow
        Body::History => base + CONTRACT + 6,
        // includeExpired useRTH whatToShow
        Body::HeadTimestamp => base + CONTRACT + 3,
        Body::None => match asked.id {
            tables::START_API | tables::REQ_ACCOUNT_UPDATES => 2,
            _ => base,
        },
    }
}

impl Describe {
    pub(super) fn new(context: &ConnContext) -> Self {
        let peer = match context.role {
            Role::Server => context.client,
            Role::Client => context.server,
        };
        Self { server: context.server, peer }
    }

    /// What every request has.
    pub(super) fn call(&self, method: &str) -> Attributes {
        let mut a = Attributes::with_capacity(24);
        a.push("rpc.system", "ib");
        a.push("rpc.method", method.to_owned());
        a.push("server.address", self.server.ip().to_canonical().to_string());
        a.push("server.port", self.server.port());
        a.push("network.peer.address", self.peer.ip().to_canonical().to_string());
        a.push("network.peer.port", self.peer.port());
        a
    }

    /// Name and attributes of a request.
    pub(super) fn request(&self, asked: &Asked, f: &Fields<'_>) -> (String, Attributes) {
        let method = method(asked, f);
        let mut a = self.call(method);
        let mut name = format!("IB {method}");
        let Some(at) = asked.req_id else { return (name, a) };
        if let Some(id) = f.int(at) {
            a.push("ib.request.id", id);
        }
        if asked.body == Body::None {
            return (name, a);
        }
        contract(&mut name, &mut a, f, at);
        let mut set = |key: &'static str, at: usize| {
            if let Some(text) = f.text(at) {
                a.push(key, text);
            }
        };
        match asked.body {
            Body::History => {
                let q = at + CONTRACT;
                set("ib.end_date_time", q + 2);
                set("ib.bar_size", q + 3);
                set("ib.duration", q + 4);
                set("ib.what_to_show", q + 6);
                if let Some(bar_size) = f.text(q + 3) {
                    add(&mut name, ' ', &bar_size);
                }
                a.push("ib.use_rth", f.bytes(q + 5) == b"1");
            }
            Body::HeadTimestamp => {
                let q = at + CONTRACT;
                set("ib.what_to_show", q + 3);
                a.push("ib.use_rth", f.bytes(q + 2) == b"1");
            }
            Body::None | Body::Contract => {}
        }
        (name, a)
    }

    /// The response that an error is.
    pub(super) fn failure(&self, code: i64, text: &str, said: Code) -> Response {
        let text = mask::accounts(text);
        let attributes = error(code, &text, said);
        let mut sentence = format!("IB error {code}: {}", text.trim_end_matches('.'));
        if !said.meaning.is_empty() {
            sentence.push_str(" (");
            sentence.push_str(said.meaning);
            sentence.push(')');
        }
        let mut a = attributes;
        a.push("error.type", code.to_string());
        Response { attributes: a, status: Status::Error(sentence), ..Response::default() }
    }
}

/// `subscribe` = 0 takes the subscription back under the same number.
fn method(asked: &Asked, f: &Fields<'_>) -> &'static str {
    if is_unsubscribe(asked, f) { "cancelAccountUpdates" } else { asked.name }
}

/// `reqAccountUpdates` that ends the updates; nothing answers it.
pub(super) fn is_unsubscribe(asked: &Asked, f: &Fields<'_>) -> bool {
    asked.id == tables::REQ_ACCOUNT_UPDATES && f.bytes(2) == b"0"
}

/// conId symbol secType lastTrade strike right multiplier exchange primaryExchange currency localSymbol tradingClass,
/// behind field `at`.
fn contract(name: &mut String, a: &mut Attributes, f: &Fields<'_>, at: usize) {
    let symbol = f.text(at + 2).or_else(|| f.text(at + 11));
    let sec_type = f.text(at + 3);
    let currency = f.text(at + 10);
    match (&symbol, f.int(at + 1).filter(|id| *id > 0)) {
        (Some(symbol), _) => {
            add(name, ' ', symbol);
            // A currency is only half of a pair.
            if sec_type.as_deref() == Some("CASH")
                && let Some(currency) = &currency
            {
                add(name, '.', currency);
            }
        }
        (None, Some(id)) => name.push_str(&format!(" conId {id}")),
        (None, None) => {}
    }
    if let Some(sec_type) = &sec_type {
        add(name, ' ', sec_type);
    }
    if let Some(id) = f.int(at + 1).filter(|id| *id > 0) {
        a.push("ib.con_id", id);
    }
    for (key, text) in [
        ("ib.symbol", symbol),
        ("ib.sec_type", sec_type),
        ("ib.expiry", f.text(at + 4)),
        ("ib.exchange", f.text(at + 8)),
        ("ib.primary_exchange", f.text(at + 9)),
        ("ib.currency", currency),
        ("ib.local_symbol", f.text(at + 11)),
    ] {
        if let Some(text) = text {
            a.push(key, text);
        }
    }
}

/// Longest part of a name: the longest of IB's symbols (local ones of options) have 21 characters.
const MAX_PART: usize = 32;

/// Adds to a name, less what would make it unreadable.
fn add(name: &mut String, separator: char, part: &str) {
    name.push(separator);
    name.extend(part.chars().filter(|c| !c.is_control()).take(MAX_PART));
}

/// The attributes of an error or warning. `text` is masked.
pub(super) fn error(code: i64, text: &str, said: Code) -> Attributes {
    let mut a = Attributes::new();
    a.push("ib.error.code", code);
    a.push("ib.error.message", text.to_owned());
    if !said.meaning.is_empty() {
        a.push("ib.error.meaning", said.meaning);
    }
    a.push("ib.error.severity", said.severity.word());
    a
}
