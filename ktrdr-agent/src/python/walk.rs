//! From `_PyRuntime` to all thread states, in memory that may change, be gone, or lie.

use std::collections::BTreeSet;
use std::io;

use super::memory::Memory;
use super::offsets::{Offsets, THREAD_STATE};

/// Interpreters followed: one, and a few in servers that embed several.
const MAX_INTERPRETERS: usize = 64;
/// Thread states followed per process; more threads than this are served by their own look-up when seen.
const MAX_THREADS: usize = 16_384;

/// A thread state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// Its address.
    pub addr: u64,
    /// `thread_id`: the pthread structure.
    pub pthread: u64,
    /// `native_thread_id`, in the process's own pid namespace.
    pub native: Option<u32>,
    /// `context`, 0 = none yet.
    pub context: u64,
}

/// All thread states that could be read. A list that loops, breaks off or never ends gives what came before.
///
/// # Errors
/// Not even the head could be read.
pub fn thread_states(memory: &impl Memory, runtime: u64, o: &Offsets) -> io::Result<Vec<ThreadState>> {
    let mut states = Vec::new();
    let mut seen = BTreeSet::new();
    let mut interp = memory.u64(runtime.wrapping_add(o.interpreters))?;
    for _ in 0..MAX_INTERPRETERS {
        if interp == 0 || !seen.insert(interp) {
            break;
        }
        let Ok(mut thread) = memory.u64(interp.wrapping_add(o.threads)) else { break };
        while thread != 0 && states.len() < MAX_THREADS && seen.insert(thread) {
            let mut raw = [0; THREAD_STATE];
            if memory.read(thread, &mut raw).is_err() {
                break;
            }
            let (state, next) = parse(thread, &raw, o);
            states.push(state);
            thread = next;
        }
        interp = memory.u64(interp.wrapping_add(o.interp_next)).unwrap_or(0);
    }
    Ok(states)
}

fn parse(addr: u64, raw: &[u8; THREAD_STATE], o: &Offsets) -> (ThreadState, u64) {
    let field = |at: u64| {
        usize::try_from(at)
            .ok()
            .and_then(|at| raw.get(at..)?.first_chunk::<8>())
            .map_or(0, |b| u64::from_ne_bytes(*b))
    };
    let state = ThreadState {
        addr,
        pthread: field(o.thread_id),
        native: o.native_thread_id.and_then(|at| u32::try_from(field(at)).ok()),
        context: field(o.context),
    };
    (state, field(o.next))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::python::offsets::by_version;

    /// Sparse memory; what is not there is unmapped.
    #[derive(Default)]
    struct Fake(BTreeMap<u64, u64>);

    impl Memory for Fake {
        fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
            if buf.len() > 8 && !self.0.contains_key(&addr) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            for (i, chunk) in buf.chunks_mut(8).enumerate() {
                match self.0.get(&addr.wrapping_add(i as u64 * 8)) {
                    Some(v) => chunk.copy_from_slice(&v.to_ne_bytes()[..chunk.len()]),
                    None if i == 0 => return Err(io::ErrorKind::InvalidInput.into()),
                    None => chunk.fill(0),
                }
            }
            Ok(())
        }
    }

    const RUNTIME: u64 = 0x10_0000;
    const INTERP: u64 = 0x20_0000;

    fn fake(o: &Offsets, threads: &[u64], tail: u64) -> Fake {
        let mut m = Fake::default();
        m.0.insert(RUNTIME + o.interpreters, INTERP);
        m.0.insert(INTERP + o.interp_next, 0);
        m.0.insert(INTERP + o.threads, *threads.first().unwrap_or(&0));
        for (i, t) in threads.iter().enumerate() {
            m.0.insert(*t, 0);
            m.0.insert(t + o.next, threads.get(i + 1).copied().unwrap_or(tail));
            m.0.insert(t + o.context, 0xc000 + i as u64);
            if let Some(native) = o.native_thread_id {
                m.0.insert(t + native, 100 + i as u64);
            }
        }
        m
    }

    #[test]
    fn threads_of_each_version_are_found() {
        for minor in 8..=14 {
            let o = by_version(minor).unwrap();
            let m = fake(&o, &[0x30_0000, 0x31_0000], 0);
            let found = thread_states(&m, RUNTIME, &o).unwrap();
            assert_eq!(found.iter().map(|t| t.context).collect::<Vec<_>>(), [0xc000, 0xc001], "3.{minor}");
            assert_eq!(found[1].native, o.native_thread_id.map(|_| 101));
        }
    }

    #[test]
    fn a_loop_ends_where_it_closes() {
        let o = by_version(12).unwrap();
        let m = fake(&o, &[0x30_0000, 0x31_0000, 0x32_0000], 0x31_0000);
        assert_eq!(thread_states(&m, RUNTIME, &o).unwrap().len(), 3);
    }

    #[test]
    fn unmapped_pointers_end_the_walk() {
        let o = by_version(11).unwrap();
        let m = fake(&o, &[0x30_0000], 0xdead_beef_0000_0000);
        assert_eq!(thread_states(&m, RUNTIME, &o).unwrap().len(), 1);
        assert!(thread_states(&Fake::default(), RUNTIME, &o).is_err());
        assert!(thread_states(&m, u64::MAX - 4, &o).is_err());
    }

    #[test]
    fn an_endless_list_is_cut_at_the_bound() {
        /// Every thread points to the next 256 bytes.
        struct Endless;
        impl Memory for Endless {
            fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
                buf.fill(0);
                if buf.len() == THREAD_STATE {
                    buf[8..16].copy_from_slice(&addr.wrapping_add(256).to_ne_bytes());
                } else {
                    buf.copy_from_slice(&addr.wrapping_add(0x1000).to_ne_bytes()[..buf.len()]);
                }
                Ok(())
            }
        }
        let o = by_version(13).unwrap();
        assert_eq!(thread_states(&Endless, RUNTIME, &o).unwrap().len(), MAX_THREADS);
    }

    #[test]
    fn ten_thousand_threads_are_followed() {
        let o = by_version(13).unwrap();
        let threads: Vec<u64> = (0..10_000).map(|n| 0x100_0000 + n * 0x1000).collect();
        assert_eq!(thread_states(&fake(&o, &threads, 0), RUNTIME, &o).unwrap().len(), 10_000);
    }
}
