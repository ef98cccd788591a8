//! Who called whom, from the traces in memory.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::query::Window;
use crate::explain::view;
use crate::store::Store;
use crate::trace::model::SpanKind;

/// Edges with their number of calls, from the callers' ends: a call whose caller was not observed has no parent to
/// name, and is no edge.
pub fn of(store: &Store, window: Window) -> Vec<Value> {
    let mut edges: BTreeMap<(String, String), u64> = BTreeMap::new();
    store.each_span(|span| {
        if span.kind == SpanKind::Client
            && window.contains(span.start_wall_ns())
            && let Some(child) = view::peer_name(span)
        {
            *edges.entry((span.resource.service.clone(), child.to_owned())).or_default() += 1;
        }
    });
    edges.into_iter().map(|((from, to), n)| json!({"parent": from, "child": to, "callCount": n})).collect()
}
