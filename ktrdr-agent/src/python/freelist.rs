//! The interpreter's free list of contexts, found in its memory.
//!
//! From 3.10 on, an interpreter keeps up to 255 freed contexts in a list of its own (`PyInterpreterState`; before, in a
//! variable without a name), and `PyContext_CopyCurrent` takes the new one from the head. Where in that structure differs
//! between builds of one version, so it is not looked up but looked for: a word that begins a list of contexts, as
//! long as the number behind it says. The kernel programs check it against the copies that are made, before they rely
//! on it and ever after (`PyForetelling`).

use std::ops::RangeInclusive;

use super::memory::Memory;

/// What tells a free list of contexts from other memory.
#[derive(Clone, Copy, Debug)]
pub struct Contexts {
    /// Address of `PyContext_Type`: the type of what is in the list, also when it is free.
    pub kind: u64,
    /// Offset of an object's type.
    pub object_type: u64,
    /// Offset of the word that leads to the next: `ctx_weakreflist`, and from 3.14 on the object's first.
    pub links: [u64; 2],
}

/// Bytes of `PyInterpreterState` that are searched: 3.12's has some 400,000.
const SPAN: u64 = 1 << 20;
/// Bytes read at once.
const CHUNK: usize = 1 << 14;
/// `PyContext_MAXFREELIST` of all versions, and at least one, or there is nothing to see.
const LENGTH: RangeInclusive<u64> = 1..=255;
/// Contexts are objects of the cyclic garbage collector, which lie at multiples of this.
const ALIGNMENT: u64 = 16;
/// Looks at a list that changes; one takes some microseconds, and a busy process takes a context every hundred.
const ATTEMPTS: usize = 64;
/// Words that look like the list's that are followed; some hundred do.
const MAX_LOOKS: usize = 4_096;

/// Offset of the list's head in the interpreter's structure at `interpreter`; `None` while the list is empty, while it
/// changes, and where there is none.
pub fn find(memory: &impl Memory, interpreter: u64, contexts: Contexts) -> Option<u32> {
    let mut found = Vec::new();
    let mut looks = 0;
    let mut raw = vec![0; CHUNK + 8];
    for base in (0..SPAN).step_by(CHUNK) {
        // The structure may end before the span does, with nothing behind it; and inside the last pages.
        let read = (1..=4)
            .rev()
            .map(|parts| parts * CHUNK / 4)
            .find(|len| memory.read(interpreter.wrapping_add(base), &mut raw[..len + 8]).is_ok());
        let Some(read) = read else { break };
        for at in (0..read).step_by(8) {
            let word = |at: usize| raw[at..].first_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
            // `int numfree`, or `Py_ssize_t size` from 3.14 on.
            let (head, length) = (word(at), word(at + 8) & u64::from(u32::MAX));
            if head == 0 || !head.is_multiple_of(ALIGNMENT) || head >> 47 != 0 || !LENGTH.contains(&length) {
                continue;
            }
            looks += 1;
            if looks > MAX_LOOKS {
                break;
            }
            let offset = base + at as u64;
            if confirmed(memory, interpreter.wrapping_add(offset), head, length, contexts) {
                found.push(u32::try_from(offset).ok()?);
            }
        }
    }
    // Of two it is not known which.
    <[u32; 1]>::try_from(found).ok().map(|[offset]| offset)
}

/// Whether a list of `length` contexts begins with `head`, as `at` said a moment ago. The process goes on while it is looked
/// at, and may have taken that context meanwhile; so what begins with a context is looked at some more times.
fn confirmed(memory: &impl Memory, at: u64, mut head: u64, mut length: u64, contexts: Contexts) -> bool {
    let is_context = |node: u64| {
        memory.u64(node.wrapping_add(contexts.object_type)).is_ok_and(|kind| kind == contexts.kind)
    };
    for _ in 0..ATTEMPTS {
        if head != 0 && !is_context(head) {
            return false;
        }
        if LENGTH.contains(&length)
            && contexts.links.iter().any(|link| length_of(memory, head, contexts, *link) == Some(length))
        {
            return true;
        }
        let mut raw = [0; 16];
        if memory.read(at, &mut raw).is_err() {
            return false;
        }
        let word = |at: usize| raw[at..].first_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
        (head, length) = (word(0), word(8) & u64::from(u32::MAX));
    }
    false
}

/// How many contexts are in the list that begins here; `None` if anything else is.
fn length_of(memory: &impl Memory, head: u64, contexts: Contexts, link: u64) -> Option<u64> {
    let mut node = head;
    for length in 0..=*LENGTH.end() {
        if node == 0 {
            return Some(length);
        }
        if memory.u64(node.wrapping_add(contexts.object_type)).ok()? != contexts.kind {
            return None;
        }
        // `ob_refcnt`, where it is not the link: a thread state in the structure has its context beside a number, too.
        if link != 0 && memory.u64(node).ok()? != 0 {
            return None;
        }
        node = memory.u64(node.wrapping_add(link)).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const INTERPRETER: u64 = 0x10_0000;
    const HEAP: u64 = 0x80_0000;
    const KIND: u64 = 0x7f00_1230;
    const CONTEXTS: Contexts = Contexts { kind: KIND, object_type: 8, links: [32, 0] };

    /// The interpreter's structure, and objects of 64 bytes.
    struct Fake {
        structure: Vec<u8>,
        heap: Vec<u8>,
    }

    impl Memory for Fake {
        fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
            let parts = [(INTERPRETER, &self.structure), (HEAP, &self.heap)];
            let bytes = parts.iter().find_map(|(base, bytes)| {
                let at = usize::try_from(addr.checked_sub(*base)?).ok()?;
                bytes.get(at..at.checked_add(buf.len())?)
            });
            buf.copy_from_slice(bytes.ok_or(io::ErrorKind::InvalidInput)?);
            Ok(())
        }
    }

    fn object(n: u64) -> u64 {
        HEAP + n * 64
    }

    /// A list of `length` contexts at `offset`, which says that there are `said`.
    fn with_list(offset: usize, length: u64, said: u64, link: usize) -> Fake {
        let mut fake = Fake { structure: vec![0; 0x1_3000], heap: vec![0; 0x8000] };
        fake.put_word(offset, if length == 0 { 0 } else { object(0) });
        fake.put_word(offset + 8, said);
        for n in 0..length {
            let at = n as usize * 64;
            fake.heap[at + 8..at + 16].copy_from_slice(&KIND.to_ne_bytes());
            let next = if n + 1 == length { 0 } else { object(n + 1) };
            fake.heap[at + link..at + link + 8].copy_from_slice(&next.to_ne_bytes());
        }
        fake
    }

    impl Fake {
        fn put_word(&mut self, at: usize, word: u64) {
            self.structure[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        }
    }

    #[test]
    fn a_list_is_found_wherever_it_is_and_however_it_is_linked() {
        for offset in [0, 0x3ff8, 0x4000, 0x1_1000] {
            for link in [32, 0] {
                let fake = with_list(offset, 7, 7, link);
                assert_eq!(find(&fake, INTERPRETER, CONTEXTS), Some(offset as u32), "{offset:#x} by {link}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        assert_eq!(find(&with_list(64, 0, 0, 32), INTERPRETER, CONTEXTS), None, "empty");
        assert_eq!(
            find(&with_list(64, 7, 6, 32), INTERPRETER, CONTEXTS),
            None,
            "changing, or another number"
        );
        let mut other = with_list(64, 7, 7, 32);
        other.heap[3 * 64 + 8] ^= 1;
        assert_eq!(find(&other, INTERPRETER, CONTEXTS), None, "not only contexts in it");
        let mut live = with_list(64, 1, 1, 32);
        live.heap[0] = 1;
        assert_eq!(find(&live, INTERPRETER, CONTEXTS), None, "a context in use");
        let mut twice = with_list(64, 7, 7, 32);
        twice.put_word(128, object(5));
        twice.put_word(136, 2);
        assert_eq!(find(&twice, INTERPRETER, CONTEXTS), None, "two of them");
    }

    #[test]
    fn hostile_memory_ends_the_search() {
        let mut ring = with_list(64, 7, 7, 32);
        ring.heap[6 * 64 + 32..6 * 64 + 40].copy_from_slice(&object(0).to_ne_bytes());
        assert_eq!(find(&ring, INTERPRETER, CONTEXTS), None, "a ring");
        let mut unmapped = with_list(64, 7, 7, 32);
        unmapped.heap[6 * 64 + 32..6 * 64 + 40].copy_from_slice(&0x6000_0000_0000_u64.to_ne_bytes());
        assert_eq!(find(&unmapped, INTERPRETER, CONTEXTS), None, "a way into nowhere");
        let everywhere = Fake {
            structure: [object(1), 9].iter().flat_map(|w| w.to_ne_bytes()).cycle().take(1 << 20).collect(),
            heap: vec![0; 0x1000],
        };
        assert_eq!(find(&everywhere, INTERPRETER, CONTEXTS), None, "nothing but candidates");
        assert_eq!(find(&everywhere, u64::MAX - 64, CONTEXTS), None, "no structure at all");
    }
}
