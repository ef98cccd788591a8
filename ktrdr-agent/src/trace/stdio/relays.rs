//! Filters between a client and a server: `tee`, `cat`, whatever passes on the lines that it reads. None of them is asked
//! anything; who is, reads the same line behind them.

use hashlink::LruCache;

use foldhash::fast::FixedState;

use super::MAX_SERVERS;
use crate::event::FileId;

/// Filters one behind the other that are followed; people put one or two.
const MAX_CHAIN: usize = 4;

/// What a filter reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// The file.
    pub file: FileId,
    /// It is a pipe, whose two ends are one file; of a pair of sockets they are two.
    pub pipe: bool,
}

/// Processes that pass on what they read, and from where to where.
pub struct Relays {
    processes: LruCache<u32, (), FixedState>,
    /// By what the filter writes to.
    inputs: LruCache<FileId, Input, FixedState>,
}

impl Default for Relays {
    fn default() -> Self {
        Self {
            processes: LruCache::with_hasher(MAX_SERVERS, FixedState::with_seed(0)),
            inputs: LruCache::with_hasher(MAX_SERVERS, FixedState::with_seed(0)),
        }
    }
}

impl Relays {
    /// Whether this process is one.
    pub fn is(&self, tgid: u32) -> bool {
        self.processes.peek(&tgid).is_some()
    }

    /// A process was seen to pass on what it read.
    pub fn found(&mut self, tgid: u32, input: Input, output: FileId) {
        self.processes.insert(tgid, ());
        self.inputs.insert(output, input);
    }

    /// The process ended, or became another program.
    pub fn forget(&mut self, tgid: u32) {
        self.processes.remove(&tgid);
    }

    /// Where what is read here was written at first: before all filters.
    pub fn source(&self, mut input: Input) -> Input {
        for _ in 0..MAX_CHAIN {
            match self.inputs.peek(&input.file) {
                Some(before) => input = *before,
                None => break,
            }
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(inode: u64) -> Input {
        Input { file: FileId { inode, device: 1, generation: 0 }, pipe: true }
    }

    #[test]
    fn filters_are_followed_to_the_first_and_rings_end() {
        let mut relays = Relays::default();
        relays.found(10, pipe(1), pipe(2).file);
        relays.found(11, pipe(2), pipe(3).file);
        assert_eq!(relays.source(pipe(3)), pipe(1));
        assert_eq!(relays.source(pipe(7)), pipe(7));
        relays.found(12, pipe(3), pipe(1).file);
        assert!([pipe(1), pipe(2), pipe(3)].contains(&relays.source(pipe(3))));
        relays.forget(10);
        assert!(!relays.is(10) && relays.is(11));
    }
}
