//! Work that one thread hands to another through a queue leaves nothing in contexts or threads that would tell whose
//! it is. What it is about may still tell: the IB host's request says `"symbol": "AAPL"`, and so does the gateway call
//! that another of its threads makes meanwhile.
//!
//! Two rules, both inferred and said to be so; asked only for calls without any other evidence:
//! 1. **Same symbol**: exactly one of the requests in flight in that process, and of the operations under way that it
//!    created, names the symbol the call names. With two of them, or beside a request whose body was not seen whole,
//!    there is no edge.
//! 2. **Single in flight**: the call belongs to a protocol that services do not speak by themselves (not HTTP), exactly
//!    one request is in flight in that process, and nothing it names speaks against it. A kind of call that the
//!    process was seen to make without any request in flight is its own habit and proves nothing.

use std::collections::VecDeque;

use hashlink::LruCache;

use super::created::Created;
use super::node::{Node, Nodes};
use crate::event::Ns;
use crate::protocol::Role;
use crate::trace::causality::{Method, Origin, SpanRef};
use crate::trace::model::{Attributes, Value};

/// Processes whose requests are remembered; the one without requests for longest is forgotten.
const MAX_PROCESSES: usize = 1024;
/// Requests remembered per process. Of a process with more in flight at a time nothing is said.
const MAX_REQUESTS: usize = 64;
/// Kinds of calls that processes make by themselves.
const MAX_HABITS: usize = 1024;
/// Symbols kept per call: a request for a basket names some.
const MAX_SYMBOLS: usize = 8;
/// Longest symbol: `EURUSD`, `BRK.B`, futures' local symbols.
const MAX_SYMBOL: usize = 16;

/// What a call is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Symbols it names, in capitals without separators.
    pub symbols: Vec<Box<str>>,
    /// Its method, if its protocol is one that is only spoken for somebody.
    pub method: Option<Box<str>>,
    /// It may name more than was seen.
    pub partly: bool,
}

impl About {
    /// What a request says in its attributes (URL, contract). `symbols`: those in its body. `partly`: not all of the
    /// body was seen.
    pub fn request<'a>(a: &Attributes, symbols: impl Iterator<Item = &'a str>, partly: bool) -> Self {
        let text = |key: &str| a.get(key).and_then(Value::as_str);
        let mut about = Self { partly, ..Self::default() };
        if let Some(system) = text("rpc.system") {
            about.method = Some(text("rpc.method").unwrap_or(system).into());
        }
        if let Some(symbol) = text("ib.symbol") {
            about.add(symbol);
            if let Some(currency) = text("ib.currency") {
                about.add(&format!("{symbol}{currency}"));
            }
        }
        symbols.for_each(|s| about.add(s));
        for url in [text("url.path"), text("url.full"), text("url.query")].into_iter().flatten() {
            // Without capitals there is no symbol, and every URL comes here.
            if url.as_bytes().iter().any(u8::is_ascii_uppercase) {
                let words = url.split(['/', '?', '&', '=', '#', ',']);
                words.filter(|w| looks_like_symbol(w)).for_each(|w| about.add(w));
            }
        }
        about
    }

    /// A connect to where only such a protocol is spoken.
    pub fn connect() -> Self {
        Self { method: Some("connect".into()), ..Self::default() }
    }

    fn add(&mut self, symbol: &str) {
        let symbol: String = symbol
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(MAX_SYMBOL + 1)
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let fits = (1..=MAX_SYMBOL).contains(&symbol.len());
        if fits && self.symbols.len() < MAX_SYMBOLS && !self.symbols.iter().any(|s| **s == *symbol) {
            self.symbols.push(symbol.into());
        }
    }

    fn shares(&self, symbols: &[Box<str>]) -> bool {
        self.symbols.iter().any(|s| symbols.contains(s))
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Capitals, digits and separators: what a path's own words are not.
fn looks_like_symbol(word: &str) -> bool {
    (1..=MAX_SYMBOL).contains(&word.len())
        && word.bytes().any(|b| b.is_ascii_uppercase())
        && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b".-".contains(&b))
}

/// The requests of a process.
#[derive(Default)]
struct Serving {
    spans: VecDeque<SpanRef>,
    /// Until when requests may have been in flight that are not remembered any more.
    forgotten_until: Ns,
}

/// Requests in flight, by process.
pub struct Handoff {
    serving: LruCache<u32, Serving, foldhash::fast::FixedState>,
    habits: LruCache<(u32, Box<str>), (), foldhash::fast::FixedState>,
}

impl Default for Handoff {
    fn default() -> Self {
        let hasher = foldhash::fast::FixedState::default;
        Self {
            serving: LruCache::with_hasher(MAX_PROCESSES, hasher()),
            habits: LruCache::with_hasher(MAX_HABITS, hasher()),
        }
    }
}

impl Handoff {
    /// A request reached a process.
    pub fn began(&mut self, tgid: u32, span: SpanRef, nodes: &Nodes) {
        let p = self.serving.entry(tgid).or_insert_with(Serving::default);
        p.spans.push_back(span);
        if p.spans.len() > MAX_REQUESTS
            && let Some(old) = p.spans.pop_front()
        {
            // One that is itself forgotten may still go on.
            let until = nodes.get(old).and_then(|n| n.end).unwrap_or(Ns::MAX);
            p.forgotten_until = p.forgotten_until.max(until);
        }
    }

    /// Whose work a call without other evidence is.
    pub fn origin(&mut self, span: SpanRef, nodes: &Nodes, created: &Created) -> Option<Origin> {
        let node = nodes.get(span)?;
        let about = node.about.as_deref().filter(|a| !a.is_empty())?;
        let in_flight = self.in_flight(node, nodes)?;
        if !about.symbols.is_empty() {
            let named = |s: &SpanRef| about_of(*s, nodes).is_some_and(|a| a.shares(&about.symbols));
            let hides = |s: &SpanRef| about_of(*s, nodes).is_some_and(|a| a.partly);
            let mut whose: Vec<SpanRef> = in_flight.iter().copied().filter(named).collect();
            if in_flight.iter().any(|s| hides(s) && !whose.contains(s)) {
                return None;
            }
            for by in created.under_way(node.start, &about.symbols) {
                let here = nodes.get(by).is_some_and(|n| n.tgid == node.tgid && n.role == Role::Server);
                if here && !whose.contains(&by) {
                    whose.push(by);
                }
            }
            match whose.as_slice() {
                [] => {}
                [one] => return Some(Origin { span: *one, method: Method::SameSymbol }),
                _ => return None,
            }
        }
        self.single(node.tgid, about, &in_flight, nodes)
    }

    fn single(&mut self, tgid: u32, about: &About, in_flight: &[SpanRef], nodes: &Nodes) -> Option<Origin> {
        let habit = (tgid, about.method.clone()?);
        let [one] = in_flight else {
            if in_flight.is_empty() {
                self.habits.insert(habit, ());
            }
            return None;
        };
        let other_symbol =
            !about.symbols.is_empty() && about_of(*one, nodes).is_some_and(|a| !a.symbols.is_empty());
        if other_symbol || self.habits.get(&habit).is_some() {
            return None;
        }
        Some(Origin { span: *one, method: Method::SingleInFlight })
    }

    /// Requests that the process was serving when the call began; `None` if they are not all known.
    fn in_flight(&self, call: &Node, nodes: &Nodes) -> Option<Vec<SpanRef>> {
        let Some(p) = self.serving.peek(&call.tgid) else { return Some(Vec::new()) };
        if p.forgotten_until >= call.start {
            return None;
        }
        let serves = |n: &Node| n.start <= call.start && n.end.is_none_or(|end| end >= call.start);
        Some(p.spans.iter().copied().filter(|s| nodes.get(*s).is_some_and(serves)).collect())
    }
}

fn about_of(span: SpanRef, nodes: &Nodes) -> Option<&About> {
    nodes.get(span)?.about.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(pairs: &[(&'static str, &'static str)], body: &[&str]) -> Vec<String> {
        let mut a = Attributes::new();
        pairs.iter().for_each(|(k, v)| a.push(*k, *v));
        About::request(&a, body.iter().copied(), false).symbols.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn symbols_are_found_in_contracts_paths_and_bodies() {
        assert_eq!(
            about(&[("rpc.system", "ib"), ("ib.symbol", "EUR"), ("ib.currency", "USD")], &[]),
            ["EUR", "EURUSD"]
        );
        assert_eq!(about(&[("url.path", "/data/symbol-info/BRK.B")], &[]), ["BRKB"]);
        assert_eq!(
            about(&[("url.full", "http://h:1/data/head-timestamp?symbol=AAPL&x=1")], &["aapl", "MSFT"]),
            ["AAPL", "MSFT"]
        );
        assert_eq!(
            about(&[("url.path", "/api/v1/operations/op_data_load_20251113")], &[]),
            Vec::<String>::new()
        );
        let long = "X".repeat(10_000);
        let many: Vec<String> = (0..100).map(|i| format!("S{i}")).collect();
        assert_eq!(about(&[], &[&long]).len(), 0);
        assert_eq!(about(&[], &many.iter().map(String::as_str).collect::<Vec<_>>()).len(), MAX_SYMBOLS);
    }
}
