//! Where the C library (glibc) keeps what belongs to a thread, seen from its pthread structure.

use super::memory::Memory;
use super::process::STATIC_TLS;

/// A pthread structure of glibc is no smaller and no larger on aarch64; 2.17 has 0x6f0, 2.41 has 0x7c0 bytes.
const SIZES: std::ops::Range<u64> = 0x400..0x1000;
/// It is aligned so.
const ALIGNMENT: usize = 16;
/// What stands at the thread pointer on aarch64: a pointer to the thread's vector of modules, and one word.
const HEAD: u64 = 16;

/// The thread pointer of a thread, and where its thread-local variables begin, counted from there. `None`: not glibc's,
/// or no longer there.
pub fn layout(memory: &impl Memory, pthread: u64) -> Option<(u64, i32)> {
    if cfg!(target_arch = "x86_64") { x86_64(memory, pthread) } else { aarch64(memory, pthread) }
}

/// The structure is what the thread pointer points to, its first word is its own address, and the variables lie before
/// it.
fn x86_64(memory: &impl Memory, pthread: u64) -> Option<(u64, i32)> {
    (memory.u64(pthread).ok()? == pthread).then_some((pthread, -(STATIC_TLS as i32)))
}

/// The thread pointer follows the structure, whose size differs between versions: it is where the vector of modules is
/// named whose first module has its variables right behind.
fn aarch64(memory: &impl Memory, pthread: u64) -> Option<(u64, i32)> {
    let fits = |at: &u64| {
        let vector = memory.u64(*at).ok()?;
        let first = memory.u64(vector.wrapping_add(HEAD)).ok()?;
        (HEAD..STATIC_TLS as u64).contains(&first.wrapping_sub(*at)).then_some(())
    };
    let mut places =
        SIZES.step_by(ALIGNMENT).map(|size| pthread.wrapping_add(size)).filter(|at| fits(at).is_some());
    let place = places.next()?;
    // Two would leave a choice.
    places.next().is_none().then_some((place, HEAD as i32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io;

    struct Words(BTreeMap<u64, u64>);

    impl Memory for Words {
        fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
            let word = self.0.get(&addr).ok_or(io::ErrorKind::InvalidInput)?;
            buf.copy_from_slice(&word.to_ne_bytes());
            Ok(())
        }
    }

    const PTHREAD: u64 = 0x7f00_0000_1000;
    const POINTER: u64 = PTHREAD + 0x7c0;
    const VECTOR: u64 = 0x5500_0000_0000;

    fn thread() -> Words {
        Words([(POINTER, VECTOR), (VECTOR + 16, POINTER + 16), (PTHREAD + 0x500, VECTOR + 64)].into())
    }

    #[test]
    fn the_thread_pointer_is_where_the_vector_says() {
        assert_eq!(aarch64(&thread(), PTHREAD), Some((POINTER, 16)));
    }

    #[test]
    fn two_places_or_none_are_not_believed() {
        let mut two = thread();
        two.0.extend([(PTHREAD + 0x600, VECTOR + 0x100), (VECTOR + 0x110, PTHREAD + 0x610)]);
        assert_eq!(aarch64(&two, PTHREAD), None);
        assert_eq!(aarch64(&Words(BTreeMap::new()), PTHREAD), None);
        let mut far = thread();
        far.0.insert(VECTOR + 16, POINTER + 0x10_0000);
        assert_eq!(aarch64(&far, PTHREAD), None);
    }

    #[test]
    fn on_x86_64_the_structure_names_itself() {
        assert_eq!(x86_64(&Words([(PTHREAD, PTHREAD)].into()), PTHREAD), Some((PTHREAD, -0x1000)));
        assert_eq!(x86_64(&Words([(PTHREAD, 1)].into()), PTHREAD), None);
    }
}
