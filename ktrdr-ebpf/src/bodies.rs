//! Long bodies, of which little is copied.

use aya_ebpf::{macros::map, maps::Array};
use ktrdr_ebpf_common::{bodies::Run, limits};

#[map]
static RUNS: Array<Run> = Array::with_max_entries(limits::RUNS, 0);

/// A transfer in the run it belongs to.
#[derive(Clone, Copy)]
pub struct Part {
    place: Option<*mut Run>,
    run: Run,
    conn: u64,
    direction: u8,
}

impl Part {
    /// A transfer on this connection.
    #[inline(always)]
    pub fn of(conn: u64, direction: u8) -> Part {
        let place = RUNS.get_ptr_mut(Run::place_of(conn));
        // SAFETY: a valid map value of one aligned word. A run of the programs beside this one may change it meanwhile, which
        // costs some bytes more or less of a body.
        let run = place.map_or(Run::default(), |place| unsafe { place.read_volatile() });
        Part { place, run, conn, direction }
    }

    /// See [`Run::limit`].
    #[inline(always)]
    pub fn limit(self, len: u32, most: u32) -> u32 {
        self.run.limit(self.conn, self.direction, len, most)
    }

    /// So much of it was copied.
    #[inline(always)]
    pub fn copied(self, captured: u32) {
        if let Some(place) = self.place {
            // SAFETY: as above.
            unsafe { place.write_volatile(self.run.and(self.conn, self.direction, captured)) };
        }
    }
}
