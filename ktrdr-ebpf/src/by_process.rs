//! What the agent says of processes: at a place in an array, which costs a tenth of a look into a hash, or in a hash beside
//! it where another has the place. Places are the agent's to give; the programs only give them back.

use aya_ebpf::maps::{Array, HashMap};
use ktrdr_ebpf_common::maps::place_of;

/// An entry that says whose it is.
pub trait Held {
    /// Where in the entry that stands, a tgid; 0 = nobody's.
    fn whose(entry: *mut Self) -> *mut u32;
}

/// The array, and what is beside it.
pub struct ByProcess<T: 'static> {
    pub places: &'static Array<T>,
    /// By tgid.
    pub beside: &'static HashMap<u32, T>,
    /// By place: not 0 = one is, or was, beside.
    pub any_beside: &'static Array<u32>,
}

impl<T: Held> ByProcess<T> {
    /// A process's entry, wherever it is.
    #[inline(always)]
    pub fn entry(&self, tgid: u32) -> Option<*mut T> {
        match self.placed(tgid) {
            Some(entry) => Some(entry),
            None if self.has_beside(tgid) => self.beside.get_ptr_mut(tgid),
            None => None,
        }
    }

    /// An entry for a process that has none. 0 in `flags`, or `BPF_NOEXIST`.
    #[inline(always)]
    pub fn put_beside(&self, tgid: u32, entry: &T, flags: u64) {
        // Said before the entry is there, or the process could pass it by.
        if let Some(any) = self.any_beside.get_ptr_mut(place_of(tgid)) {
            // SAFETY: a valid map value; one aligned `u32`.
            unsafe { any.write_volatile(1) };
        }
        // A full map: nothing is known of the process until the agent says it.
        let _ = self.beside.insert(tgid, entry, flags);
    }

    /// The process ended, or is not what was said any more.
    #[inline(always)]
    pub fn forget(&self, tgid: u32) {
        if let Some(entry) = self.placed(tgid) {
            // SAFETY: a valid map value; one aligned `u32`.
            unsafe { T::whose(entry).write_volatile(0) };
        }
        if self.has_beside(tgid) {
            let _ = self.beside.remove(tgid);
        }
    }

    /// The one at its place, if that is its own.
    #[inline(always)]
    fn placed(&self, tgid: u32) -> Option<*mut T> {
        let entry = self.places.get_ptr_mut(place_of(tgid))?;
        // SAFETY: a valid map value; one aligned `u32`, volatile because the agent writes it.
        (unsafe { T::whose(entry).read_volatile() } == tgid).then_some(entry)
    }

    /// Whether one of its place is, or was, in the hash.
    #[inline(always)]
    fn has_beside(&self, tgid: u32) -> bool {
        // SAFETY: a valid map value; one aligned `u32`, volatile because others write it.
        self.any_beside.get_ptr(place_of(tgid)).is_some_and(|any| unsafe { any.read_volatile() } != 0)
    }
}
