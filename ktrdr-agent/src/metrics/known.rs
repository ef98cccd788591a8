//! Where calls are counted, found before. Most calls are like another one a moment ago: the same request at the same end
//! with the same outcome, between the same services.
//!
//! A pure shortcut: what decides the attributes of a series is compared, and with and without it the series are the same.

use super::ServiceId;
use super::registry::SetRef;
use crate::trace::attributes::Common;

/// Calls remembered: the routes of a busy host, at both ends. Each holds the attributes of its request.
const CALLS: usize = 256;
/// Pairs of services remembered.
const EDGES: usize = 64;

/// What decides the attributes under which a call is counted.
pub(super) struct Call<'a> {
    /// What its request says.
    pub common: &'a Common,
    /// At which service.
    pub service: ServiceId,
    /// Status code of the answer.
    pub status: i64,
    /// Name of the span.
    pub name: &'a str,
    /// Name of the callee.
    pub peer: Option<&'a str>,
}

struct KnownCall {
    common: Common,
    service: ServiceId,
    status: i64,
    name: Box<str>,
    peer: Option<Box<str>>,
    set: SetRef,
}

/// An edge of the graph: whose series it is, and the two services it joins.
type Edge = [ServiceId; 3];

/// Calls; a newer one takes the place.
pub(super) struct Calls(Box<[Option<KnownCall>]>);

impl Default for Calls {
    fn default() -> Self {
        Self(std::iter::repeat_with(|| None).take(CALLS).collect())
    }
}

impl Calls {
    /// Where such a call was counted last.
    pub fn get(&self, call: &Call<'_>) -> Option<SetRef> {
        let known = self.0[call.common.place(CALLS)].as_ref()?;
        let same = known.common == *call.common
            && known.service == call.service
            && known.status == call.status
            && *known.name == *call.name
            && known.peer.as_deref() == call.peer;
        same.then_some(known.set)
    }

    /// Such a call is counted here.
    pub fn note(&mut self, call: &Call<'_>, set: SetRef) {
        self.0[call.common.place(CALLS)] = Some(KnownCall {
            common: call.common.clone(),
            service: call.service,
            status: call.status,
            name: call.name.into(),
            peer: call.peer.map(Into::into),
            set,
        });
    }
}

/// Pairs of services; a newer one takes the place.
pub(super) struct Edges(Box<[Option<(Edge, SetRef)>]>);

impl Default for Edges {
    fn default() -> Self {
        Self(vec![None; EDGES].into())
    }
}

impl Edges {
    /// Where calls between two services were counted last.
    pub fn get(&self, edge: Edge) -> Option<SetRef> {
        self.0[place(edge)].filter(|(known, _)| *known == edge).map(|(_, set)| set)
    }

    /// Calls between two services are counted here.
    pub fn note(&mut self, edge: Edge, set: SetRef) {
        self.0[place(edge)] = Some((edge, set));
    }
}

fn place(edge: Edge) -> usize {
    edge.into_iter().fold(0, |at, service| at * 31 + usize::from(service.0)) % EDGES
}
