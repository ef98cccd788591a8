//! The policies of connections, in memory that the programs read: to say or to forget one takes no system call.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::{self, NonNull},
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

use super::KernelError;

/// As [`policies::Place`]: the programs read it at any time.
type Place = [AtomicU64; 2];
const BYTES: usize = PLACES as usize * size_of::<Place>();

/// The array, mapped.
pub(super) struct Policies {
    memory: NonNull<[Place]>,
    /// Programs that are loaded later name the map by its descriptor.
    _map: MapData,
}

// SAFETY: the memory is this value's alone, but for the programs, and made of atomics.
unsafe impl Send for Policies {}

impl Policies {
    pub fn take(ebpf: &mut Ebpf) -> Result<Policies, KernelError> {
        let name = maps::POLICIES;
        let map = match ebpf.take_map(name) {
            Some(Map::Array(map)) => map,
            _ => return Err(KernelError::MissingMap(name)),
        };
        // SAFETY: a new mapping, where the kernel wants it.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            let source = Box::new(io::Error::last_os_error());
            return Err(KernelError::Map { name, source });
        }
        let places = NonNull::new(memory.cast::<Place>()).ok_or(KernelError::MissingMap(name))?;
        Ok(Policies { memory: NonNull::slice_from_raw_parts(places, PLACES as usize), _map: map })
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
        // SAFETY: mapped as long as `self`, zeroed by the kernel, and never written but as atomics.
        let places = unsafe { self.memory.as_ref() };
        places.get(policies::place_of(conn) as usize)
    }
}

/// The entry of a connection at its place.
fn own(place: &Place, conn: u64) -> Option<&AtomicU64> {
    place.iter().find(|entry| Entry(entry.load(Relaxed)).of(conn).is_some())
}

impl Drop for Policies {
    fn drop(&mut self) {
        // SAFETY: mapped by `take`, with this length, and not used after this. There is nothing to do about an error.
        unsafe {
            libc::munmap(self.memory.as_ptr().cast(), BYTES);
        }
    }
}
