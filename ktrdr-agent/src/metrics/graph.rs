//! Edges between services as metrics, under the names that Grafana's service graph reads
//! (Tempo, "Service graphs": `traces_service_graph_request_total` and so on).
//!
//! A call counts when its client's span ends, under the service that answered it, or that is known to be there. A
//! server whose client is not observed counts as a call of `user`, as in Tempo.

use hashlink::LruCache;

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
}

impl Default for Graph {
    fn default() -> Self {
        Self { halves: LruCache::with_hasher(MAX_HALVES, foldhash::fast::FixedState::default()) }
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
                let name = r.name(me).to_owned();
                let of = edge(USER, &name, true);
                count(r, me, &of, call.failed);
                r.observe(me, Id::GraphServerSeconds, &of, call.seconds, Some(exemplar));
            }
            (SpanKind::Internal, _) => {}
        }
    }

    fn client(&mut self, r: &mut Registry, me: ServiceId, span: &Span, call: &Call<'_>, exemplar: Exemplar) {
        let other = self.halves.remove(&span.span_id);
        let client = r.name(me).to_owned();
        let answered = match other {
            Some(Half::Server(server, _)) => Some(r.name(server).to_owned()),
            _ => None,
        };
        // Nobody was seen there, or nothing is known at all.
        let unseen = answered.is_none() && call.peer.is_none();
        let server = answered.as_deref().or(call.peer).unwrap_or("unknown");
        let of = edge(&client, server, unseen);
        count(r, me, &of, call.failed);
        r.observe(me, Id::GraphClientSeconds, &of, call.seconds, Some(exemplar));
        match other {
            Some(Half::Server(server_id, seconds)) => {
                r.observe(server_id, Id::GraphServerSeconds, &of, seconds, None);
            }
            _ => {
                self.halves.insert(span.span_id, Half::Client(me));
            }
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
                let (client, server) = (r.name(client).to_owned(), r.name(me).to_owned());
                let of = edge(&client, &server, false);
                r.observe(me, Id::GraphServerSeconds, &of, call.seconds, Some(exemplar));
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

fn count(r: &mut Registry, service: ServiceId, of: &[Given<'_>], failed: bool) {
    r.add(service, Id::GraphRequests, of, 1);
    if failed {
        r.add(service, Id::GraphFailed, of, 1);
    }
}
