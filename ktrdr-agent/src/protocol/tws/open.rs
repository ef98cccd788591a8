//! Requests under way.

use std::collections::VecDeque;

use super::tables::{Answer, Asked};

/// Requests remembered: IB serves 50 historical and 100 market data requests at once; subscriptions that never got
/// data stay. As many as the engine keeps.
const MAX: usize = 1024;

/// A request under way.
#[derive(Debug)]
pub(super) struct Open {
    /// Its kind.
    pub kind: u16,
    /// Its request id, if it has one.
    pub req_id: Option<i64>,
    /// Messages that belong to its answer so far.
    pub parts: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Accounts told to `startApi`.
    pub accounts: Option<u64>,
}

impl Open {
    /// Which response belongs to it.
    pub(super) fn key(&self) -> u64 {
        key(self.kind, self.req_id)
    }
}

/// Request and response find each other by this. Request ids are 32-bit numbers, chosen by the client; those that
/// would be larger are not IB's.
pub(super) fn key(kind: u16, req_id: Option<i64>) -> u64 {
    let id = req_id.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1);
    u64::from(kind) << 32 | u64::from(id.cast_unsigned())
}

/// The requests under way on one connection, oldest first.
#[derive(Debug, Default)]
pub(super) struct Requests(VecDeque<Open>);

impl Requests {
    pub(super) fn add(&mut self, kind: u16, req_id: Option<i64>) {
        if self.0.len() >= MAX {
            self.0.pop_front();
        }
        self.0.push_back(Open { kind, req_id, parts: 0, bytes: 0, accounts: None });
    }

    /// A request by what answers it.
    pub(super) fn answered(&mut self, answer: &Answer, req_id: Option<i64>) -> Option<usize> {
        self.0.iter().position(|o| o.kind == answer.to && (answer.req_id.is_none() || o.req_id == req_id))
    }

    /// The newest request with an id.
    pub(super) fn by_id(&self, req_id: i64) -> Option<usize> {
        self.0.iter().rposition(|o| o.req_id == Some(req_id))
    }

    /// The oldest of a kind.
    pub(super) fn by_kind(&self, kind: u16) -> Option<usize> {
        self.0.iter().position(|o| o.kind == kind)
    }

    pub(super) fn get(&mut self, at: usize) -> Option<&mut Open> {
        self.0.get_mut(at)
    }

    pub(super) fn take(&mut self, at: usize) -> Option<Open> {
        self.0.remove(at)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The key of the request that a cancellation takes back.
pub(super) fn cancelled(asked: &Asked, req_id: Option<i64>) -> Option<u64> {
    asked.cancels.map(|kind| key(kind, req_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_bounded_and_forgets_the_oldest() {
        let mut open = Requests::default();
        for id in 0..5000 {
            open.add(20, Some(id));
        }
        assert_eq!(open.0.len(), MAX);
        assert_eq!(open.by_id(0), None);
        assert!(open.by_id(4999).is_some());
    }

    #[test]
    fn keys_differ_by_kind_and_id() {
        assert_ne!(key(20, Some(1)), key(9, Some(1)));
        assert_ne!(key(20, Some(1)), key(20, Some(2)));
        assert_eq!(key(49, None), key(49, None));
    }
}
