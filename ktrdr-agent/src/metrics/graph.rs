//! Edges between services as metrics, under the names that Grafana's service graph reads
//! (Tempo, "Service graphs": `traces_service_graph_request_total` and so on).
//!
//! A call counts when its client's span ends, under the service that answered it, or that is known to be there. A
//! server whose client is not observed counts as a call of `user`, as in Tempo.

use hashlink::LruCache;

use super::known::Edges;
use super::registry::Measured;
use super::{Exemplar, Given, Id, Registry, ServiceId};
use crate::trace::model::{Span, SpanId, SpanKind};

/// One end of calls whose other end has not been seen yet. The ends of a call finish within milliseconds of each other, so
/// this is what 100,000 calls/s leave open for 80 ms; a call whose entry is gone lacks its server's duration only.
const MAX_HALVES: usize = 8_192;
/// Callers that are not observed (Tempo's name).
const USER: &str = "user";
/// Tempo's mark of an edge with an end that was not observed.
const VIRTUAL: &str = "virtual_node";

/// What the graph needs of a call.
pub(super) struct Call<'a> {
    /// Its duration.
    pub seconds: f64,
    /// Whether it failed.
    pub failed: bool,
    /// Who is at the other end, as far as a client knows.
    pub peer: Option<&'a str>,
    /// A server's span joined with its client's.
    pub joined: bool,
}

#[derive(Clone, Copy)]
enum Half {
    /// The server ended first.
    Server(ServiceId, f64),
    /// The client ended first.
    Client(ServiceId),
}

/// Calls of which one end is known, by the client's span.
pub(super) struct Graph {
    halves: LruCache<SpanId, Half, foldhash::fast::FixedState>,
    known: Edges,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            halves: LruCache::with_hasher(MAX_HALVES, foldhash::fast::FixedState::default()),
            known: Edges::default(),
        }
    }
}

impl Graph {
    /// Takes one end of a call.
    pub fn call(
        &mut self,
        r: &mut Registry,
        me: ServiceId,
        span: &Span,
        call: &Call<'_>,
        exemplar: Exemplar,
    ) {
        match (span.kind, span.parent_span_id) {
            (SpanKind::Client, _) => self.client(r, me, span, call, exemplar),
            (SpanKind::Server, Some(parent)) if call.joined => self.server(r, me, parent, call, exemplar),
            (SpanKind::Server, _) => {
                let resource = r.resource(me);
                let of = edge(USER, &resource.service, true);
                let counted = counted(call, Id::GraphServerSeconds, exemplar);
                r.measure(me, &of, if call.failed { &counted } else { &counted[..2] });
            }
            (SpanKind::Internal, _) => {}
        }
    }

    fn client(&mut self, r: &mut Registry, me: ServiceId, span: &Span, call: &Call<'_>, exemplar: Exemplar) {
        let other = self.halves.remove(&span.span_id);
        if let Some(Half::Server(server, seconds)) = other {
            let counted = counted(call, Id::GraphClientSeconds, exemplar);
            self.between(r, [me, me, server], if call.failed { &counted } else { &counted[..2] });
            let took = Measured::Value(seconds, None);
            self.between(r, [server, me, server], &[(Id::GraphServerSeconds, took)]);
            return;
        }
        let client = r.resource(me);
        // Nobody was seen there, or nothing is known at all.
        let of = edge(&client.service, call.peer.unwrap_or("unknown"), call.peer.is_none());
        let counted = counted(call, Id::GraphClientSeconds, exemplar);
        r.measure(me, &of, if call.failed { &counted } else { &counted[..2] });
        self.halves.insert(span.span_id, Half::Client(me));
    }

    /// Measurements of a call between two observed services: whose, from which, to which.
    fn between(&mut self, r: &mut Registry, whose: [ServiceId; 3], all: &[(Id, Measured)]) {
        if self.known.get(whose).is_some_and(|set| r.measure_at(set, all)) {
            return;
        }
        let [service, client, server] = whose;
        let (client, server) = (r.resource(client), r.resource(server));
        if let Some(set) = r.measure(service, &edge(&client.service, &server.service, false), all) {
            self.known.note(whose, set);
        }
    }

    fn server(
        &mut self,
        r: &mut Registry,
        me: ServiceId,
        parent: SpanId,
        call: &Call<'_>,
        exemplar: Exemplar,
    ) {
        match self.halves.remove(&parent) {
            Some(Half::Client(client)) => {
                let took = Measured::Value(call.seconds, Some(exemplar));
                self.between(r, [me, client, me], &[(Id::GraphServerSeconds, took)]);
            }
            _ => {
                self.halves.insert(parent, Half::Server(me, call.seconds));
            }
        }
    }
}

fn edge<'a>(client: &'a str, server: &'a str, unseen: bool) -> [Given<'a>; 3] {
    let kind = if unseen { VIRTUAL } else { "" };
    [("client", client.into()), ("server", server.into()), ("connection_type", kind.into())]
}

/// A call is one more, took so long at the end that `seconds` is for, and is one more of those that failed.
fn counted(call: &Call<'_>, seconds: Id, exemplar: Exemplar) -> [(Id, Measured); 3] {
    let took = (seconds, Measured::Value(call.seconds, Some(exemplar)));
    [(Id::GraphRequests, Measured::More(1)), took, (Id::GraphFailed, Measured::More(1))]
}
