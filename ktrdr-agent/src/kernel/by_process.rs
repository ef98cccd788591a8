//! What the programs are told of processes, at a place in an array: a look there costs them a tenth of one into a hash.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use ktrdr_ebpf_common::maps::{OfProcess, place_of};

use super::{
    KernelError,
    controls::{absent_is_fine, take},
};

/// The array, and where those are whose place another has.
pub(super) struct ByProcess<P: Pod> {
    places: Array<MapData, P>,
    /// By tgid.
    beside: HashMap<MapData, u32, P>,
    /// By place: not 0 = one is, or was, beside.
    any_beside: Array<MapData, u32>,
}

impl<P: Pod + OfProcess> ByProcess<P> {
    /// Takes the three maps out of the loaded object.
    pub fn take(
        ebpf: &mut Ebpf,
        places: &'static str,
        beside: &'static str,
        any_beside: &'static str,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            places: take(ebpf, places)?,
            beside: take(ebpf, beside)?,
            any_beside: take(ebpf, any_beside)?,
        })
    }

    pub fn set(&mut self, entry: P) -> Result<(), MapError> {
        let tgid = entry.tgid();
        let place = place_of(tgid);
        let holder = self.places.get(&place, 0)?.tgid();
        if holder != 0 && holder != tgid {
            // Said before the entry is there, or the process could pass it by.
            self.any_beside.set(place, 1, 0)?;
            return self.beside.insert(tgid, entry, 0);
        }
        if holder == 0 {
            // The kernel copies in no order that it promises: all the rest first, then whose it is.
            self.places.set(place, entry.nobodys(), 0)?;
        }
        self.places.set(place, entry, 0)?;
        absent_is_fine(self.beside.remove(&tgid))
    }

    /// `none` takes the place.
    pub fn remove(&mut self, tgid: u32, none: P) -> Result<(), MapError> {
        let place = place_of(tgid);
        if self.places.get(&place, 0)?.tgid() == tgid {
            self.places.set(place, none, 0)?;
        }
        absent_is_fine(self.beside.remove(&tgid))
    }
}
