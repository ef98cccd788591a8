//! What one thread writes to one file: half a line, and a record that may go on.

use foldhash::fast::FixedState;
use hashlink::LruCache;

use super::super::{parse, stack::Stack, text};
use super::{JoinCounts, MAX_WRITERS, Raw};
use crate::event::{FileId, FileKind, Ns, Task};

/// Lines of a record: a recursion error has a thousand frames, of which Python prints the last.
const MAX_LINES: usize = 2_000;

/// What one thread writes to one file.
pub(super) struct Writer<O> {
    /// Of a write in several parts: what came so far, and what is known of it.
    write: Vec<u8>,
    write_of: Option<About<O>>,
    /// Half a line, of how many bytes it was made, when it was begun, and its origin.
    half: Vec<u8>,
    half_bytes: usize,
    half_at: Option<(Ns, Task, Option<O>)>,
    record: Option<Open<O>>,
}

/// A record that may go on.
struct Open<O> {
    raw: Raw<O>,
    stack: Stack,
    lines: usize,
    last: Ns,
    /// Its first line has a logger's form, or is the beginning of a stack trace.
    recognised: bool,
}

/// A write, but for its bytes.
#[derive(Clone)]
pub(super) struct About<O> {
    pub ts: Ns,
    pub task: Task,
    pub file: FileId,
    pub kind: FileKind,
    pub fd: u32,
    pub origin: Option<O>,
    /// Bytes of it that were not captured.
    pub cut: usize,
}

/// Records that are complete, and what all writers need to make them.
pub(super) struct Records<O> {
    pub(super) closed: Vec<Raw<O>>,
    pub(super) counts: JoinCounts,
    max_record: usize,
    /// Writes lost by process, as far as told.
    lost: LruCache<u32, (u64, u64), FixedState>,
}

impl<O> Records<O> {
    pub(super) fn new(max_record: usize) -> Self {
        Self {
            closed: Vec::new(),
            counts: JoinCounts::default(),
            max_record,
            lost: LruCache::with_hasher(MAX_WRITERS, FixedState::with_seed(0)),
        }
    }

    /// A process has lost so many writes in all.
    pub(super) fn note_lost(&mut self, tgid: u32, total: u64) {
        if total > 0 || self.lost.contains_key(&tgid) {
            let (last, pending) = self.lost.get(&tgid).copied().unwrap_or_default();
            // Less than before: the kernel side began anew.
            let new = total.checked_sub(last).unwrap_or(total);
            self.lost.insert(tgid, (total, pending + new));
        }
    }

    /// Writes lost since this was last asked.
    fn lost(&mut self, tgid: u32) -> u64 {
        self.lost.get_mut(&tgid).map_or(0, |(_, pending)| std::mem::take(pending))
    }

    pub(super) fn ended(&mut self, tgid: u32) {
        self.lost.remove(&tgid);
    }
}

/// The complete lines of one write.
struct Batch {
    /// Records closed before it.
    before: usize,
    /// Records begun in it.
    began: usize,
}

impl<O> Default for Writer<O> {
    fn default() -> Self {
        Self {
            write: Vec::new(),
            write_of: None,
            half: Vec::new(),
            half_bytes: 0,
            half_at: None,
            record: None,
        }
    }
}

impl<O: Clone> Writer<O> {
    /// Takes a write, or a part of one that begins at this offset; `more` of it follow. The origin of the first part is that
    /// of all.
    pub(super) fn write(
        &mut self,
        (offset, bytes): (u32, &[u8]),
        mut about: About<O>,
        more: bool,
        records: &mut Records<O>,
    ) {
        if offset == 0 {
            self.end_write(records);
        } else {
            // Where a part was lost, these may be two writes.
            let before = self.write_of.take().filter(|_| offset as usize == self.write.len());
            about.origin = before.and_then(|first| first.origin);
        }
        if more {
            self.write.extend_from_slice(bytes);
            self.write_of = Some(about);
        } else if self.write.is_empty() {
            // Nearly every write is of one part, and need not be kept.
            self.whole(bytes, about, records);
        } else {
            let mut whole = std::mem::take(&mut self.write);
            whole.extend_from_slice(bytes);
            self.whole(&whole, about, records);
        }
    }

    /// What came of a write is all there is: its other parts were lost.
    pub(super) fn end_write(&mut self, records: &mut Records<O>) {
        let Some(about) = self.write_of.take() else { return };
        let write = std::mem::take(&mut self.write);
        self.whole(&write, about, records);
    }

    /// Takes a whole write.
    fn whole(&mut self, bytes: &[u8], mut about: About<O>, records: &mut Records<O>) {
        records.counts.uncaptured_bytes += about.cut as u64;
        let (ts, task) = (about.ts, about.task);
        let last_newline = memchr::memrchr(b'\n', bytes);
        // What the kernel side cut off ended the line, as far as is known.
        let ended = about.cut > 0 || bytes.last() == Some(&b'\n');
        let buffered = !ended && last_newline.is_some();
        let (body, rest) = match last_newline {
            _ if ended => (bytes.strip_suffix(b"\n").unwrap_or(bytes), &[][..]),
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&[][..], bytes),
        };
        if buffered {
            about.origin = None;
        }
        let origin = about.origin.clone();
        if ended || last_newline.is_some() {
            self.lines((body, bytes.len() - rest.len()), about, records);
        }
        if !rest.is_empty() {
            match &mut self.half_at {
                None => self.half_at = Some((ts, task, origin)),
                Some((_, half_task, half_origin)) if *half_task != task => *half_origin = None,
                Some(_) => {}
            }
            self.half_bytes += rest.len();
            keep(&mut self.half, rest, records);
        }
    }

    /// The complete lines of a write, which are so many bytes with what ends the last one.
    fn lines(&mut self, (body, mut left): (&[u8], usize), mut about: About<O>, records: &mut Records<O>) {
        let mut batch = Batch { before: records.closed.len(), began: 0 };
        let mut begun = about.ts;
        // Each with its line feed, which the last one may lack.
        let mut lines = lines(body).map(|line| {
            let bytes = left.min(line.len() + 1);
            left -= bytes;
            (line, bytes)
        });
        if let Some((half_ts, half_task, half_origin)) = self.half_at.take() {
            begun = half_ts;
            let mut joined = std::mem::take(&mut self.half);
            let (line, bytes) = lines.next().unwrap_or_default();
            let bytes = bytes + std::mem::take(&mut self.half_bytes);
            keep(&mut joined, line, records);
            // Begun by another task of the thread: by whom the whole is, is not known.
            let same = half_task == about.task && half_origin.is_some();
            about.origin = about.origin.filter(|_| same);
            self.line((&joined, bytes), begun, &about, &mut batch, records);
        }
        for line in lines {
            self.line(line, begun, &about, &mut batch, records);
        }
        self.written(&batch, &about, records);
    }

    /// A complete line, and how many bytes were written of it; the first of the write was begun at `begun`.
    fn line(
        &mut self,
        (line, bytes): (&[u8], usize),
        begun: Ns,
        about: &About<O>,
        batch: &mut Batch,
        records: &mut Records<O>,
    ) {
        let bytes = bytes as u64;
        let Some(line) = text::line(line) else {
            records.counts.binary_lines += 1;
            records.counts.binary_bytes += bytes;
            return;
        };
        if let Some(open) = &mut self.record {
            // In one write, what a recognised record is followed by is more of its message.
            let within = batch.began > 0 && open.recognised && !parse::begins(&line);
            if open.stack.takes(&line) || within {
                open.last = about.ts;
                open.raw.bytes += bytes;
                open.append(&line, records);
                return;
            }
        }
        if let Some(done) = self.record.take() {
            records.closed.push(done.raw);
        }
        if line.is_empty() {
            records.counts.blank_bytes += bytes;
            return;
        }
        batch.began += 1;
        let stack = Stack::begin(&line);
        let recognised = stack.any() || parse::begins(&line);
        let raw = Raw {
            ts: if batch.began == 1 { begun } else { about.ts },
            task: about.task,
            file: about.file,
            kind: about.kind,
            fd: about.fd,
            text: String::new(),
            origin: about.origin.clone(),
            cut: 0,
            lost: records.lost(about.task.tgid),
            bytes,
        };
        let open = Open { raw, stack, lines: 0, last: about.ts, recognised };
        self.record.insert(open).append(&line, records);
    }

    /// All lines of the write have been taken.
    fn written(&mut self, batch: &Batch, about: &About<O>, records: &mut Records<O>) {
        if let Some(open) = &mut self.record {
            open.raw.cut += about.cut;
            if batch.began > 1 && !open.recognised {
                open.raw.origin = None;
            }
        }
        if batch.began > 1 {
            // All but the last may have waited in a buffer. A record of an earlier write, closed here, is not of them.
            let own = records.closed.len().saturating_sub(batch.began - 1).max(batch.before);
            for raw in &mut records.closed[own..] {
                raw.origin = None;
            }
        }
    }

    /// Closes the record if it has waited long enough at `now`; longer where a stack trace has begun and not ended.
    pub(super) fn expire(&mut self, now: Ns, patience: Ns, unfinished: Ns, records: &mut Records<O>) {
        let Some(open) = &self.record else { return };
        let patience = if open.stack.unfinished() { unfinished } else { patience };
        if open.last.saturating_add(patience) <= now {
            records.closed.extend(self.record.take().map(|o| o.raw));
        }
    }

    /// Since when a write waits for its other parts.
    pub(super) fn part_since(&self) -> Option<Ns> {
        self.write_of.as_ref().map(|about| about.ts)
    }

    /// Bytes that wait here.
    #[cfg(test)]
    pub(super) fn in_hand(&self) -> u64 {
        (self.write.len() + self.half_bytes) as u64 + self.record.as_ref().map_or(0, |open| open.raw.bytes)
    }

    /// Since when half a line waits for its end.
    pub(super) fn half_since(&self) -> Option<Ns> {
        self.half_at.as_ref().map(|(at, ..)| *at)
    }

    /// A stack trace that is not known to be complete: when it was begun, and its origin.
    pub(super) fn open_stack(&self) -> Option<(Ns, &O)> {
        let open = self.record.as_ref().filter(|r| r.stack.any())?;
        Some((open.raw.ts, open.raw.origin.as_ref()?))
    }

    /// Whether anything waits here.
    pub(super) fn holds(&self) -> bool {
        self.record.is_some() || self.half_bytes > 0 || self.write_of.is_some()
    }

    /// Half a line is taken for a whole one.
    pub(super) fn end_half(&mut self, file: FileId, records: &mut Records<O>) {
        let Some((ts, task, origin)) = self.half_at.take() else { return };
        let half = std::mem::take(&mut self.half);
        let bytes = std::mem::take(&mut self.half_bytes);
        let of = self.record.as_ref().map(|o| (o.raw.kind, o.raw.fd));
        let (kind, fd) = of.unwrap_or((FileKind::Pipe, 1));
        let about = About { ts, task, file, kind, fd, origin, cut: 0 };
        let mut batch = Batch { before: records.closed.len(), began: 0 };
        self.line((&half, bytes), ts, &about, &mut batch, records);
        self.written(&batch, &about, records);
    }

    /// Nothing more will be written.
    pub(super) fn close(mut self, file: FileId, records: &mut Records<O>) {
        self.end_write(records);
        self.end_half(file, records);
        records.closed.extend(self.record.take().map(|o| o.raw));
    }
}

/// What stands between line feeds, which are searched for block by block.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = memchr::memchr(b'\n', text);
        rest = end.map(|at| &text[at + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// Keeps as much of half a line as a record may have.
fn keep<O>(half: &mut Vec<u8>, more: &[u8], records: &mut Records<O>) {
    let room = records.max_record.saturating_sub(half.len());
    records.counts.cut_bytes += more.len().saturating_sub(room) as u64;
    half.extend_from_slice(&more[..more.len().min(room)]);
}

impl<O> Open<O> {
    /// Adds a line, as far as there is room.
    fn append(&mut self, line: &str, records: &mut Records<O>) {
        let text = &mut self.raw.text;
        let room = records.max_record.saturating_sub(text.len() + 1);
        let mut end = line.len().min(room);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        if self.lines >= MAX_LINES {
            end = 0;
        }
        self.raw.cut += line.len() - end;
        records.counts.cut_bytes += (line.len() - end) as u64;
        if self.lines > 0 && (end > 0 || line.is_empty()) && room > 0 {
            text.push('\n');
        }
        text.push_str(&line[..end]);
        self.lines += 1;
    }
}
