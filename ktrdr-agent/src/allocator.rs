//! The allocator of the binary and the benchmarks.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// mimalloc. A request makes some tens of short-lived allocations on its way to a span: the C library's allocator took a
/// third of the time of a replay, this one a tenth.
///
/// Not through the crate `mimalloc`, which asks for every block as an aligned one: that way is longer, and blocks of more
/// than a kilobyte, or of a size whose free list is empty, take a slow one that also allocates more than asked for.
pub struct Allocator;

/// Gives free memory back to the system. For once, after much was used for a moment.
pub fn release() {
    // SAFETY: always allowed, also where nothing came from mimalloc.
    unsafe { mi::mi_collect(true) }
}

/// mimalloc's blocks lie on words (`MI_SIZE_SIZE`; its size classes are multiples of a word, counted from an aligned page).
const WORD: usize = size_of::<usize>();

// SAFETY: mimalloc's functions do what the C ones of the same name do, and what the trait asks for: blocks of at least the
// size, aligned to a word or as asked for, that are freed by one `mi_free`, whichever function made them.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see above.
        unsafe {
            if layout.align() <= WORD {
                mi::mi_malloc(layout.size()).cast()
            } else {
                mi::mi_malloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see above.
        unsafe {
            if layout.align() <= WORD {
                mi::mi_zalloc(layout.size()).cast()
            } else {
                mi::mi_zalloc_aligned(layout.size(), layout.align()).cast()
            }
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, _layout: Layout) {
        // SAFETY: see above; the block came from here.
        unsafe { mi::mi_free(at.cast()) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: see above; the block came from here.
        unsafe {
            if layout.align() <= WORD {
                mi::mi_realloc(at.cast(), size).cast()
            } else {
                mi::mi_realloc_aligned(at.cast(), size, layout.align()).cast()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_keep_what_is_in_them() {
        for align in [1, 2, 4, 8, 16, 64, 4096] {
            for size in (1..200).chain([1000, 1120, 4096, 70_000]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: layouts are not empty, and each block is freed with the layout it has.
                unsafe {
                    let blocks: Vec<*mut u8> = (0..20).map(|_| Allocator.alloc_zeroed(layout)).collect();
                    for at in blocks {
                        assert_eq!((at as usize % align, *at, *at.add(size - 1)), (0, 0, 0), "{layout:?}");
                        *at = 7;
                        let at = Allocator.realloc(at, layout, 3 * size);
                        assert_eq!((at as usize % align, *at), (0, 7), "{layout:?}");
                        Allocator.dealloc(at, Layout::from_size_align(3 * size, align).unwrap());
                    }
                }
            }
        }
    }
}
