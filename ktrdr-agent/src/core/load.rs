//! What the agent's work comes from: kernel records, by the port of the service that a connection leads to.

use crate::engine::conn::Conn;
use crate::protocol::Role;

/// Kernel records fed since this was asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Transfers on followed connections, by the service's port, in the order of ports: the local one of a server, the
    /// remote one of a client, the lower one while that is not known.
    pub by_port: Vec<(u16, u64)>,
    /// All others.
    pub other: u64,
}

/// Ports there are.
const PORTS: usize = 1 << 16;

/// Counts at each port: this is asked of every transfer, and a look-up in a hash would take it longer than all else here.
#[derive(Default)]
pub(super) struct Loads {
    /// Empty until the first transfer. Of its 256 KiB only the pages of ports in use are ever touched.
    by_port: Vec<u32>,
    /// Ports that have any, each once.
    touched: Vec<u16>,
    /// Records of all kinds.
    pub all: u64,
}

impl Loads {
    /// A transfer on a connection.
    #[inline]
    pub fn of_conn(&mut self, conn: &Conn) {
        let (local, remote) = (conn.tuple.local.port(), conn.tuple.remote.port());
        let port = match conn.role {
            Some(Role::Server) => local,
            Some(Role::Client) => remote,
            None => local.min(remote),
        };
        if self.by_port.is_empty() {
            self.by_port = vec![0; PORTS];
        }
        let Some(n) = self.by_port.get_mut(usize::from(port)) else { return };
        if *n == 0 {
            self.touched.push(port);
        }
        // Asked for every second; four thousand million records take longer.
        *n = n.saturating_add(1);
    }

    /// What was counted, which begins anew.
    pub fn take(&mut self) -> Load {
        self.touched.sort_unstable();
        let mut load =
            Load { by_port: Vec::with_capacity(self.touched.len()), other: std::mem::take(&mut self.all) };
        for port in self.touched.drain(..) {
            let Some(n) = self.by_port.get_mut(usize::from(port)).map(std::mem::take) else { continue };
            load.other = load.other.saturating_sub(u64::from(n));
            load.by_port.push((port, u64::from(n)));
        }
        load
    }
}
