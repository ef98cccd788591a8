//! What the agent told the kernel side about processes and connections.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap},
};
use ktrdr_ebpf_common::{
    limits::{MAX_EXCLUDED, PORTS},
    maps::used,
    policies::{self, Entry},
    thinning,
};

use crate::{constants::AGENT_TGID, error::Error, memory::Object, sock::Sock};

#[map]
static EXCLUDED: HashMap<u32, u32> = HashMap::with_max_entries(MAX_EXCLUDED, 0);

#[map]
static POLICIES: Array<policies::Place> = Array::with_max_entries(policies::PLACES, BPF_F_MMAPABLE);

#[map]
static LEFT_OUT: Array<u32> = Array::with_max_entries(PORTS, 0);

#[map]
static USED: Array<u32> = Array::with_max_entries(used::PLACES, 0);

/// Whether the agent ever put anything into a map (a place of [`used`]).
#[inline(always)]
pub fn in_use(place: u32) -> bool {
    // SAFETY: a valid map value; one aligned `u32`, volatile because the agent writes it.
    USED.get_ptr(place).is_some_and(|used| unsafe { used.read_volatile() } != 0)
}

/// Whether this process's transfers are to be left alone.
#[inline(always)]
pub fn excluded(tgid: u32) -> bool {
    tgid == AGENT_TGID.get() || (in_use(used::EXCLUDED) && EXCLUDED.get_ptr(tgid).is_some())
}

/// Payload bytes to copy per transfer on a connection, `None` while the agent has not said.
#[inline(always)]
pub fn capture_limit(conn: u64) -> Option<u32> {
    let place = POLICIES.get_ptr(policies::place_of(conn))?.cast::<Entry>();
    // SAFETY: a valid map value of two entries; each an aligned `u64`, volatile because the agent writes it.
    let entry = |index: usize| unsafe { place.add(index).read_volatile() };
    entry(0).of(conn).or_else(|| entry(1).of(conn)).map(|policy| policy.capture)
}

/// Whether a connection is left out, because all of them would take more of the host than the agent may. Asked before
/// anything that takes longer: the more is left out, the less it may cost.
#[inline(always)]
pub fn left_out<S: Object>(sock: Sock<S>) -> Result<bool, Error> {
    if !in_use(used::LEFT_OUT) {
        return Ok(false);
    }
    let (local, remote) = sock.ports()?;
    // SAFETY: a valid map value; one aligned `u32`, volatile because the agent writes it.
    let share = |port: u16| LEFT_OUT.get_ptr(port.into()).map_or(0, |share| unsafe { share.read_volatile() });
    Ok(thinning::left_out(local, remote, share))
}
