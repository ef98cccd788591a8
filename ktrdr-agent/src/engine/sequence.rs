//! Transfers of one direction, put in order by their TCP sequence numbers.
//!
//! Records of one socket arrive in order except when two threads use it at once or a record was lost. A transfer
//! ahead of its place is held for a short, bounded while; then what is missing is declared missing.

use crate::event::{MS, Ns, Task};

/// How long a transfer waits for the one before it. Two threads that swap records are microseconds apart; 20 ms
/// covers a reader that was descheduled between the transfer and its record.
const HOLD_NS: Ns = 20 * MS;
/// Transfers held per direction: more threads than this do not share one socket in practice.
const HOLD_COUNT: usize = 8;
/// Bytes held per direction, against a hostile mix of sizes.
const HOLD_BYTES: usize = 128 * 1024;

/// A transfer: sequence numbers `[start, start + len)`, of which the first `bytes.len()` bytes are at hand.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Sequence number of the first byte.
    pub start: u32,
    /// Bytes moved.
    pub len: u32,
    /// The captured prefix.
    pub bytes: &'a [u8],
    /// When.
    pub ts: Ns,
    /// By whom.
    pub task: Task,
}

/// What the stream consists of, in order.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Captured bytes, starting at sequence number `seq`. `fresh`: they begin a transfer.
    Bytes {
        /// Sequence number of the first byte.
        seq: u32,
        /// The bytes.
        bytes: &'a [u8],
        /// When they moved.
        ts: Ns,
        /// By whom.
        task: Task,
    },
    /// Bytes that moved but are not at hand.
    Missing {
        /// How many.
        len: u64,
        /// Their record was lost; otherwise they lay beyond what the policy captures.
        lost: bool,
        /// When that was found.
        ts: Ns,
        /// By whom the bytes before or after them were moved.
        task: Task,
    },
}

#[derive(Debug)]
struct Held {
    start: u32,
    len: u32,
    bytes: Vec<u8>,
    ts: Ns,
    task: Task,
}

/// Puts the transfers of one direction in order.
#[derive(Debug, Default)]
pub struct Sequencer {
    next: Option<u32>,
    held: Vec<Held>,
    held_since: Ns,
}

/// Signed distance from `from` to `to` in sequence space (RFC 9293 §3.4: modulo 2³²).
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

impl Sequencer {
    /// The stream begins here (known from the connection's opening).
    pub fn begin(&mut self, seq: u32) {
        self.next.get_or_insert(seq);
    }

    /// Whether any position is known.
    pub fn positioned(&self) -> bool {
        self.next.is_some()
    }

    /// Sequence number of the next byte, if nothing before it is waited for.
    pub fn next(&self) -> Option<u32> {
        self.next.filter(|_| self.held.is_empty())
    }

    /// Whether all of these bytes were moved by transfers that were taken.
    pub fn has(&self, start: u32, len: u32) -> bool {
        let end = start.wrapping_add(len);
        self.next.is_some_and(|next| distance(end, next) >= 0)
            || self
                .held
                .iter()
                .any(|h| distance(h.start, start) >= 0 && distance(end, h.start.wrapping_add(h.len)) >= 0)
    }

    /// Takes a transfer; `sink` gets what is in order now.
    pub fn push(&mut self, chunk: Chunk<'_>, sink: &mut dyn FnMut(Piece<'_>)) {
        let next = *self.next.get_or_insert(chunk.start);
        if distance(next, chunk.start) > 0 {
            self.hold(chunk, sink);
            return;
        }
        self.emit(chunk, sink);
        self.drain(sink);
    }

    /// Declares missing what held transfers have waited for too long.
    pub fn expire(&mut self, now: Ns, sink: &mut dyn FnMut(Piece<'_>)) {
        if !self.held.is_empty() && now.saturating_sub(self.held_since) > HOLD_NS {
            self.release(sink);
        }
    }

    /// Declares missing whatever is still waited for: no more will come.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Piece<'_>)) {
        while !self.held.is_empty() {
            self.release(sink);
        }
    }

    /// Bytes moved by transfers that wait for an earlier one.
    pub fn in_hand(&self) -> u64 {
        self.held.iter().map(|h| u64::from(h.len)).sum()
    }

    /// Whether transfers are waiting for an earlier one.
    pub fn holding(&self) -> bool {
        !self.held.is_empty()
    }

    fn hold(&mut self, chunk: Chunk<'_>, sink: &mut dyn FnMut(Piece<'_>)) {
        if self.held.is_empty() {
            self.held_since = chunk.ts;
        }
        let at = self.held.partition_point(|h| distance(h.start, chunk.start) >= 0);
        self.held.insert(
            at,
            Held {
                start: chunk.start,
                len: chunk.len,
                bytes: chunk.bytes.to_vec(),
                ts: chunk.ts,
                task: chunk.task,
            },
        );
        let bytes: usize = self.held.iter().map(|h| h.bytes.len()).sum();
        if self.held.len() > HOLD_COUNT || bytes > HOLD_BYTES {
            self.release(sink);
        }
    }

    /// Gives up on the gap before the first held transfer.
    fn release(&mut self, sink: &mut dyn FnMut(Piece<'_>)) {
        if let (Some(first), Some(next)) = (self.held.first(), self.next) {
            let gap = distance(next, first.start);
            if gap > 0 {
                let (ts, task) = (first.ts, first.task);
                self.next = Some(first.start);
                sink(Piece::Missing { len: u64::from(gap.unsigned_abs()), lost: true, ts, task });
            }
        }
        self.drain(sink);
    }

    fn drain(&mut self, sink: &mut dyn FnMut(Piece<'_>)) {
        while let (Some(first), Some(next)) = (self.held.first(), self.next) {
            if distance(next, first.start) > 0 {
                self.held_since = first.ts;
                return;
            }
            let h = self.held.remove(0);
            self.emit(Chunk { start: h.start, len: h.len, bytes: &h.bytes, ts: h.ts, task: h.task }, sink);
        }
    }

    /// Emits a chunk that starts at or before `next`, without what was there already.
    fn emit(&mut self, chunk: Chunk<'_>, sink: &mut dyn FnMut(Piece<'_>)) {
        let Some(next) = self.next else { return };
        let already = distance(chunk.start, next).max(0).unsigned_abs();
        let Some(fresh) = chunk.len.checked_sub(already).filter(|n| *n > 0) else { return };
        let (ts, task) = (chunk.ts, chunk.task);
        let bytes = chunk.bytes.get(already as usize..).unwrap_or(&[]);
        self.next = Some(next.wrapping_add(fresh));
        if !bytes.is_empty() {
            sink(Piece::Bytes { seq: next, bytes, ts, task });
        }
        let missing = u64::from(fresh).saturating_sub(bytes.len() as u64);
        if missing > 0 {
            sink(Piece::Missing { len: missing, lost: false, ts, task });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u32, chunks: &[(u32, &[u8], u32)]) -> (Vec<u8>, u64) {
        let mut s = Sequencer::default();
        s.begin(start);
        let (mut got, mut missing) = (Vec::new(), 0);
        let mut sink = |p: Piece<'_>| match p {
            Piece::Bytes { bytes, .. } => got.extend_from_slice(bytes),
            Piece::Missing { len, .. } => missing += len,
        };
        for (i, (at, bytes, len)) in chunks.iter().enumerate() {
            let ts = i as u64;
            s.push(Chunk { start: *at, len: *len, bytes, ts, task: Task::default() }, &mut sink);
        }
        s.finish(&mut sink);
        (got, missing)
    }

    #[test]
    fn swapped_transfers_heal_across_the_wrap() {
        let start = u32::MAX - 1;
        let (got, missing) = run(
            start,
            &[(start.wrapping_add(3), b"def", 3), (start, b"abc", 3), (start.wrapping_add(6), b"g", 1)],
        );
        assert_eq!((got.as_slice(), missing), (b"abcdefg".as_slice(), 0));
    }

    #[test]
    fn duplicates_and_overlaps_count_once() {
        let (got, missing) = run(10, &[(10, b"abc", 3), (10, b"abc", 3), (11, b"bcde", 4)]);
        assert_eq!((got.as_slice(), missing), (b"abcde".as_slice(), 0));
    }

    #[test]
    fn what_was_not_captured_is_missing_and_nothing_else() {
        let (got, missing) = run(0, &[(0, b"ab", 5), (5, b"fg", 2), (9, b"j", 1)]);
        assert_eq!((got.as_slice(), missing), (b"abfgj".as_slice(), 5));
    }

    #[test]
    fn held_bytes_are_bounded() {
        let chunks: Vec<(u32, &[u8], u32)> = (0..50u32).map(|i| (10 + i * 10, &b"x"[..], 1)).collect();
        let (got, missing) = run(0, &chunks);
        assert_eq!(got.len(), 50);
        assert_eq!(missing, 10 + 49 * 9);
    }
}
