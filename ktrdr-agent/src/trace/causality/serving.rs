//! Connections that have a task of their own, which serves their requests one after the other (asyncio's streams, sanic).
//!
//! Its context is older than the requests and stays the same for all of them: what runs there from the read of one to its
//! response is that request's work; after the response, too, until the next one is read. From then on only the next response
//! tells. What it has copied meanwhile goes on to be the work of the request that it was copied for.
//!
//! It is such a task's, and not a loop's that writes for all, or one of which nobody saw the making at the address of another: it was
//! copied after its connection was opened, under our eyes, and has answered on no other. Until a second connection of the process
//! was answered under a context of its own, no call is believed before all requests in flight with it are over.

use super::state::Causality;
use super::tree::NodeId;
use crate::event::{ConnId, Ns};

/// A connection whose requests are served by a task of its own, as far as is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    by: NodeId,
    /// When its last request was read.
    read: Ns,
}

/// How many of a process's tasks serve connections of their own, as it seems.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Serving {
    #[default]
    None,
    /// It may be the loop's own context, under which it writes for all: until others are answered under others.
    One(NodeId),
    Several,
}

impl Serving {
    pub fn add(&mut self, node: NodeId) {
        *self = match *self {
            Serving::None => Serving::One(node),
            Serving::One(other) if other != node => Serving::Several,
            same => same,
        };
    }

    pub fn may_be_one(self) -> bool {
        matches!(self, Serving::One(_))
    }
}

impl Causality {
    /// A request was read on the connection: whoever serves it goes on to that.
    pub(super) fn asked_next(&mut self, conn: ConnId, ts: Ns) {
        if let Some(served) = self.served.get_mut(&conn) {
            served.read = ts;
            self.tree.goes_on(served.by, ts);
        }
    }

    /// A request of the connection, read at `read`, was answered under the context of its task. From when on
    /// what is done there may be for the next one.
    pub(super) fn serves_next(&mut self, conn: ConnId, by: NodeId, read: Ns, ts: Ns) -> Option<Ns> {
        self.tree.serve(by, conn);
        if self.served.len() == self.served.capacity()
            && let Some((_, forgotten)) = self.served.remove_lru()
        {
            // Of its next request its task will not be told.
            self.tree.goes_on(forgotten.by, ts);
        }
        let before = self.served.insert(conn, Served { by, read }).filter(|before| before.by == by);
        // Asked before this one was answered.
        let next = before.map(|before| before.read).filter(|next| *next > read)?;
        self.served.insert(conn, Served { by, read: next });
        Some(ts)
    }
}
