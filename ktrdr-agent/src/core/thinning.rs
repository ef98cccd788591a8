//! Connections that are left out for a while, so that the agent stays within its budget.

use std::collections::BTreeMap;

use ktrdr_ebpf_common::thinning::left_out;

use crate::event::Tuple;
use crate::event::shell::Thinned;

/// What is left out, by port.
#[derive(Debug, Default)]
pub(super) struct Thinning {
    shares: BTreeMap<u16, u32>,
}

impl Thinning {
    /// From now on this is left out, and nothing else.
    pub fn replace(&mut self, thinned: Thinned) {
        self.shares = thinned.ports.into_iter().filter(|(_, share)| *share > 0).collect();
    }

    /// Whether a connection is left out.
    pub fn leaves_out(&self, t: &Tuple) -> bool {
        let share = |port| self.shares.get(&port).copied().unwrap_or(0);
        !self.shares.is_empty() && left_out(t.local.port(), t.remote.port(), share)
    }
}
