//! From writes to records: lines are split and joined, and lines that belong together stay together.
//!
//! What a thread writes to a file is one sequence, whatever others write to the file in between. A record ends with
//! the next one's first line, or when nothing more has come for a moment.
//!
//! Who wrote a record is known where the write shows it. Logging handlers write each record by itself, at once. A
//! write that ends in the middle of a line after others, or holds several records, came out of a buffer, filled by
//! whoever ran before: of those records only the last, complete and in a logger's form, is the writer's own.

mod writer;

use foldhash::fast::FixedState;
use hashlink::LruCache;

use ktrdr_ebpf_common::limits::{MAX_PAYLOAD, MAX_WRITE_RECORDS};

use crate::event::{FileId, FileKind, MS, Ns, Task, Write};
use writer::{About, Records, Writer};

/// Threads and files followed at once, about 200 bytes each when idle; the one silent for longest is closed as it is.
const MAX_WRITERS: usize = 4_096;
/// How long a record waits for a line that goes on with it. Handlers write whole records; who prints a stack trace
/// line by line does so within microseconds.
const CONTINUE_NS: Ns = 30 * MS;
/// The same where a stack trace has begun and not ended.
const UNFINISHED_NS: Ns = 250 * MS;
/// How long half a line waits for its end: a prompt or a progress bar may never have one. Nor may a write whose last part was
/// lost.
const HALF_LINE_NS: Ns = 1_000 * MS;

/// A record as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw<O> {
    /// When its first byte was written.
    pub ts: Ns,
    /// By whom.
    pub task: Task,
    /// To what.
    pub file: FileId,
    /// What that is.
    pub kind: FileKind,
    /// By which descriptor.
    pub fd: u32,
    /// The text, without colours; lines separated by `\n`.
    pub text: String,
    /// What the write says of its origin; `None` = nothing, because it came out of a buffer.
    pub origin: Option<O>,
    /// Bytes of it that were not kept.
    pub cut: usize,
    /// Writes of the process that were lost before it, since its last record.
    pub lost: u64,
    /// Captured bytes that it is made of: line feeds, colours and what was not kept are among them.
    pub bytes: u64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinCounts {
    /// Bytes of captured writes.
    pub bytes: u64,
    /// Lines that were no text.
    pub binary_lines: u64,
    /// Bytes of those.
    pub binary_bytes: u64,
    /// Bytes of lines with nothing on them that belong to no record.
    pub blank_bytes: u64,
    /// Bytes of lines and records beyond the limit.
    pub cut_bytes: u64,
    /// Bytes that the kernel side did not capture of writes that were too long.
    pub uncaptured_bytes: u64,
    /// Records closed early because too many threads wrote at once.
    pub evicted: u64,
}

type Key = (u32, FileId, u32);

/// All writers.
pub struct Joiner<O> {
    writers: LruCache<Key, Writer<O>, FixedState>,
    records: Records<O>,
}

impl<O: Clone> Joiner<O> {
    /// Records of at most so many bytes.
    pub fn new(max_record: usize) -> Self {
        Self {
            writers: LruCache::with_hasher(MAX_WRITERS, FixedState::with_seed(0)),
            records: Records::new(max_record),
        }
    }

    /// What was counted.
    pub fn counts(&self) -> JoinCounts {
        self.records.counts
    }

    /// Takes a write, or a part of one; the origin of the first part is that of all.
    pub fn write(&mut self, ts: Ns, task: Task, w: &Write<'_>, origin: O) {
        let Self { writers, records } = self;
        records.note_lost(task.tgid, w.lost);
        records.counts.bytes += w.payload.len() as u64;
        let key = (task.tgid, w.id, task.tid);
        let part = w.payload.len() == MAX_PAYLOAD
            && w.offset as usize + MAX_PAYLOAD
                < (w.len as usize).min(MAX_PAYLOAD * MAX_WRITE_RECORDS as usize);
        if !writers.contains_key(&key) {
            if writers.len() >= MAX_WRITERS
                && let Some(((_, file, _), old)) = writers.remove_lru()
            {
                records.counts.evicted += u64::from(old.holds());
                old.close(file, records);
            }
            writers.insert(key, Writer::default());
        }
        let Some(writer) = writers.get_mut(&key) else { return };
        let cut = w.len as usize - (w.offset as usize + w.payload.len());
        let about = About { ts, task, file: w.id, kind: w.kind, fd: w.fd, origin: Some(origin), cut };
        writer.write((w.offset, w.payload), about, part, records);
    }

    /// Closes what has waited long enough at `now`.
    pub fn expire(&mut self, now: Ns) {
        let Self { writers, records } = self;
        let mut halves = Vec::new();
        for (key, writer) in writers.iter_mut() {
            writer.expire(now, CONTINUE_NS, UNFINISHED_NS, records);
            let waits = [writer.half_since(), writer.part_since()].into_iter().flatten().min();
            if waits.is_some_and(|at| at.saturating_add(HALF_LINE_NS) <= now) {
                halves.push(*key);
            }
        }
        for key in halves {
            if let Some(writer) = writers.get_mut(&key) {
                writer.end_write(records);
                writer.end_half(key.1, records);
            }
        }
    }

    /// Stack traces that are not known to be complete: when each was begun, and its origin.
    pub fn open_stacks(&self) -> impl Iterator<Item = (Ns, &O)> {
        self.writers.iter().filter_map(|(_, writer)| writer.open_stack())
    }

    /// The process ended: half lines and open records are all there is.
    pub fn ended(&mut self, tgid: u32) {
        let keys: Vec<Key> = self.writers.iter().map(|(k, _)| *k).filter(|k| k.0 == tgid).collect();
        for key in keys {
            if let Some(writer) = self.writers.remove(&key) {
                writer.close(key.1, &mut self.records);
            }
        }
        self.records.ended(tgid);
    }

    /// The stream ends.
    pub fn end(&mut self) {
        while let Some(((_, file, _), writer)) = self.writers.remove_lru() {
            writer.close(file, &mut self.records);
        }
    }

    /// Bytes of writes of which nothing is complete yet.
    #[cfg(test)]
    pub fn in_hand(&self) -> u64 {
        self.writers.iter().map(|(_, writer)| writer.in_hand()).sum()
    }

    /// Records that are complete, in the order of their writing as far as that is known.
    pub fn take(&mut self) -> Vec<Raw<O>> {
        let mut closed = std::mem::take(&mut self.records.closed);
        closed.sort_by_key(|r| r.ts);
        closed
    }
}

#[cfg(test)]
mod tests;
