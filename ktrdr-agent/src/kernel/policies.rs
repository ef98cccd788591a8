//! The policies of connections, in memory that the programs read: to say or to forget one takes no system call.

use std::{
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use ktrdr_ebpf_common::{
    maps,
    policies::{self, Entry, PLACES, Policy},
};

use super::{
    KernelError,
    mapped::{Access, Mapped},
};

/// As [`policies::Place`]: the programs read it at any time.
type Place = [AtomicU64; WORDS];
const WORDS: usize = 2;

/// The array, mapped.
pub(super) struct Policies {
    memory: Mapped,
    /// Programs that are loaded later name the map by its descriptor.
    _map: MapData,
}

impl Policies {
    pub fn take(ebpf: &mut Ebpf) -> Result<Policies, KernelError> {
        let name = maps::POLICIES;
        let map = match ebpf.take_map(name) {
            Some(Map::Array(map)) => map,
            _ => return Err(KernelError::MissingMap(name)),
        };
        let memory = Mapped::new(map.fd().as_fd(), 0, PLACES as usize * WORDS, Access::Write)
            .map_err(|source| KernelError::Map { name, source: Box::new(source) })?;
        Ok(Policies { memory, _map: map })
    }

    pub fn set(&mut self, conn: u64, policy: Policy) {
        let Some(place) = self.place(conn) else { return };
        let [first, second] = place;
        let entry = own(place, conn).unwrap_or_else(|| {
            // The newer one of two is the first, and is there all the time.
            let newer = first.load(Relaxed);
            if newer != Entry::NONE.0 {
                second.store(newer, Relaxed);
            }
            first
        });
        entry.store(Entry::new(conn, policy).0, Relaxed);
    }

    pub fn forget(&mut self, conn: u64) {
        if let Some(entry) = self.place(conn).and_then(|place| own(place, conn)) {
            entry.store(Entry::NONE.0, Relaxed);
        }
    }

    fn place(&self, conn: u64) -> Option<&Place> {
        let first = policies::place_of(conn) as usize * WORDS;
        self.memory.words().get(first..)?.first_chunk()
    }
}

/// The entry of a connection at its place.
fn own(place: &Place, conn: u64) -> Option<&AtomicU64> {
    place.iter().find(|entry| Entry(entry.load(Relaxed)).of(conn).is_some())
}
