//! Who listened at addresses whose network namespace is gone: of a container that ended, and that is made anew under the
//! same address as a rule.

use std::net::SocketAddr;

use hashlink::LruCache;

use super::listeners::Listener;

/// Targets remembered: a thousand containers that ended, with four ports each.
const MAX_TARGETS: usize = 4_096;

/// Somebody who listened at an address that was another namespace's then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// Who.
    pub listener: Listener,
    /// Words for where: "in container 3f2a9b7c1d2e, which is gone".
    pub place: String,
}

/// The last of them by target.
#[derive(Debug)]
pub struct Departures(LruCache<SocketAddr, Departed, foldhash::fast::FixedState>);

impl Default for Departures {
    fn default() -> Self {
        Self(LruCache::with_hasher(MAX_TARGETS, foldhash::fast::FixedState::default()))
    }
}

impl Departures {
    /// Its namespace is gone. One that listened longer is kept.
    pub fn left(&mut self, target: SocketAddr, departed: Departed) {
        if self.0.peek(&target).is_none_or(|known| known.listener.until <= departed.listener.until) {
            self.0.insert(target, departed);
        }
    }

    /// Who listened at this target, of those whose namespace is gone.
    pub fn last(&self, target: SocketAddr) -> Option<&Departed> {
        self.0.peek(&target)
    }
}
