//! Connections that services had accepted before the agent came. Each may hold a request that nobody saw come, until
//! something is seen of it that says otherwise.

use std::collections::BTreeMap;

use super::Core;
use crate::event::Tuple;
use crate::event::shell::Accepted;

/// Connections remembered: twice as many as are told of. Of those beyond, time alone says that they hold none.
const MAX_STANDING: usize = 32_768;

/// Who holds which.
#[derive(Debug, Default)]
pub(super) struct Standing(BTreeMap<Tuple, Vec<u32>>);

impl Core {
    /// A process had accepted these.
    pub(super) fn accepted_before(&mut self, accepted: Accepted) {
        let Accepted { tgid, netns, local, peers, more } = accepted;
        if !self.wanted_ports(local.port(), 0) {
            return;
        }
        for remote in peers {
            self.causality.stood(tgid, self.now);
            let known = &mut self.standing.0;
            let tuple = Tuple { local, remote, netns };
            if known.len() < MAX_STANDING || known.contains_key(&tuple) {
                known.entry(tuple).or_default().push(tgid);
            }
        }
        if more {
            self.causality.stood(tgid, self.now);
        }
    }

    /// Such a connection is over, brings another request, or its response; or it was opened since.
    pub(super) fn stands_no_more(&mut self, tuple: &Tuple) {
        if self.standing.0.is_empty() {
            return;
        }
        for tgid in self.standing.0.remove(tuple).unwrap_or_default() {
            self.causality.stands_no_more(tgid);
        }
    }
}
