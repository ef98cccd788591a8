//! Greenlets' own contexts in the tree: nobody sees them made, and another may have the address by now.

use ktrdr_ebpf_common::THREADS_OWN_CONTEXT;

use super::{Node, NodeId, Place, Tree};
use crate::event::{ConnId, Ns};

/// Responses remembered per greenlet's context: what its first request did is decided when all others are over that were in flight then, and
/// it may have served as many meanwhile.
pub(super) const MAX_GREENLET_CLAIMS: usize = 32;
/// Connections of greenlets that are gone, remembered per context: one that comes back shows that a greenlet serves several, and
/// takes turns with them.
const MAX_LEFT: usize = 8;

impl Tree {
    /// The greenlet's context now at this address, as records carry it.
    pub fn greenlets(&mut self, epoch: u32, addr: u64) -> NodeId {
        let place = Place { epoch, addr: addr & !THREADS_OWN_CONTEXT, thread: None };
        if let Some((id, _)) = self.touch(place).filter(|(_, n)| n.greenlet) {
            return id;
        }
        // A copy was there.
        self.insert(place, Node { greenlet: true, touched: true, ..Node::default() })
    }

    /// A greenlet's own: nobody sees it made, so its address may be another's by now.
    pub fn greenlet(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|n| n.greenlet)
    }

    /// Whether a response claims it for a part of this time, or something was done under it that nobody claims.
    pub fn used(&self, id: NodeId, from: Ns, to: Ns) -> bool {
        self.get(id).is_some_and(|n| n.stray || n.claims.iter().any(|c| c.to > from && c.from < to))
    }

    /// Whether a response on this connection claims it.
    pub fn answers(&self, id: NodeId, conn: ConnId) -> bool {
        self.get(id).is_some_and(|n| n.claims.iter().any(|c| c.conn == conn))
    }

    /// Whether responses on other connections claim it.
    pub fn claimed_by_others(&self, id: NodeId, conn: ConnId) -> bool {
        self.get(id).is_some_and(|n| n.claims.iter().any(|c| c.conn != conn))
    }

    /// A call was made under it that no response claims.
    pub fn stray(&mut self, id: NodeId) {
        if let Some(n) = self.nodes.get_mut(&id) {
            n.stray |= n.greenlet;
        }
    }
}

impl Node {
    /// A request of `conn` is read under it, which served `before`: a greenlet that has ended leaves its address to the next one, and
    /// its connection is no more. If it is, or waits for its answer, one greenlet serves both.
    pub(super) fn another_reads(&mut self, before: ConnId, conn: ConnId) {
        self.shared |= self.left.contains(&conn) || self.unanswered();
        self.left.truncate(MAX_LEFT - 1);
        self.left.insert(0, before);
    }

    /// What was last read under it was not answered under it.
    fn unanswered(&self) -> bool {
        self.read.is_some_and(|read| self.claims.iter().all(|c| c.to < read))
    }
}
