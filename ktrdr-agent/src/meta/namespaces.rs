//! Network namespaces, and a process in each.

use std::collections::BTreeMap;

use super::{process::namespace_inode, procfs::ProcFs};

/// The network namespace of a process (inode number).
pub fn of(proc: &ProcFs, pid: u32) -> Option<u32> {
    namespace_inode(&proc.link(pid, "ns/net")?)
}

/// All that these processes live in, with the first of them.
pub fn all(proc: &ProcFs, pids: &[u32]) -> BTreeMap<u32, u32> {
    let mut namespaces = BTreeMap::new();
    for pid in pids {
        if let Some(netns) = of(proc, *pid) {
            namespaces.entry(netns).or_insert(*pid);
        }
    }
    namespaces
}
