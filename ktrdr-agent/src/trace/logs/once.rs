//! A record that goes to the console and to a file is one record.

use foldhash::fast::FixedState;
use hashlink::LruCache;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::event::{FileId, MS, Ns};

/// Copies of a record are written one after the other by one thread.
const WINDOW_NS: Ns = 1_000 * MS;
/// Records remembered, about 100 bytes each.
const MAX_RECORDS: usize = 8_192;

/// What was written lately.
pub struct Once {
    seen: LruCache<(u32, u64), Seen, FixedState>,
    /// Copies left out.
    pub copies: u64,
}

struct Seen {
    since: Ns,
    /// How often, by file.
    files: SmallVec<[(FileId, u32); 3]>,
}

impl Once {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { seen: LruCache::with_hasher(MAX_RECORDS, FixedState::with_seed(0)), copies: 0 }
    }

    /// Whether a thread wrote the same message to another file just before, more often than to this one.
    pub fn is_copy(&mut self, tid: u32, file: FileId, ts: Ns, message: &str) -> bool {
        let key = (tid, xxh3_64(message.as_bytes()));
        let fresh = |s: &Seen| ts.saturating_sub(s.since) <= WINDOW_NS;
        let Some(seen) = self.seen.get_mut(&key).filter(|s| fresh(s)) else {
            self.seen.insert(key, Seen { since: ts, files: SmallVec::from_slice(&[(file, 1)]) });
            return false;
        };
        let most = seen.files.iter().map(|(_, n)| *n).max().unwrap_or(0);
        let here = match seen.files.iter_mut().find(|(f, _)| *f == file) {
            Some((_, n)) => {
                *n += 1;
                *n
            }
            None => {
                seen.files.push((file, 1));
                1
            }
        };
        let copy = here <= most;
        self.copies += u64::from(copy);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64) -> FileId {
        FileId { inode, device: 0, generation: 0 }
    }

    #[test]
    fn copies_are_matched_one_to_one() {
        let mut once = Once::new();
        let mut is = |tid, f, ts| once.is_copy(tid, file(f), ts * MS, "same");
        assert!(!is(1, 1, 0) && is(1, 2, 0) && is(1, 3, 0), "three handlers");
        assert!(!is(1, 1, 1) && is(1, 2, 1), "the same message again is another record");
        assert!(!is(2, 2, 1), "another thread's is its own");
        assert!(!is(1, 2, 2_000), "long after");
    }
}
