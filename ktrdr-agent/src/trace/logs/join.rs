//! From writes to records: lines are split and joined, and lines that belong together stay together.
//!
//! What a thread writes to a file is one sequence, whatever others write to the file in between. A record ends with
//! the next one's first line, or when nothing more has come for a moment.
//!
//! Who wrote a record is known where the write shows it. Logging handlers write each record by itself, at once. A
//! write that ends in the middle of a line after others, or holds several records, came out of a buffer, filled by
//! whoever ran before: of those records only the last, complete and in a logger's form, is the writer's own.

use foldhash::fast::FixedState;
use hashlink::LruCache;

use super::{parse, stack::Stack, text};
use crate::event::{FileId, FileKind, MS, Ns, Task, Write};

/// Threads and files followed at once, about 200 bytes each when idle; the one silent for longest is closed as it is.
const MAX_WRITERS: usize = 4_096;
/// How long a record waits for a line that goes on with it. Handlers write whole records; who prints a stack trace
/// line by line does so within microseconds.
const CONTINUE_NS: Ns = 30 * MS;
/// The same where a stack trace has begun and not ended.
const UNFINISHED_NS: Ns = 250 * MS;
/// How long half a line waits for its end: a prompt or a progress bar may never have one.
const HALF_LINE_NS: Ns = 1_000 * MS;
/// Lines of a record: a recursion error has a thousand frames, of which Python prints the last.
const MAX_LINES: usize = 2_000;

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
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinCounts {
    /// Bytes of captured writes.
    pub bytes: u64,
    /// Lines that were no text.
    pub binary_lines: u64,
    /// Bytes of lines and records beyond the limit.
    pub cut_bytes: u64,
    /// Bytes that the kernel side did not capture of writes that were too long.
    pub uncaptured_bytes: u64,
    /// Records closed early because too many threads wrote at once.
    pub evicted: u64,
}

/// What one thread writes to one file.
struct Writer<O> {
    /// Of a write in several parts: what came so far, and the origin, which comes with the first.
    write: Vec<u8>,
    write_origin: Option<O>,
    /// Half a line, when it was begun, and its origin.
    half: Vec<u8>,
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

type Key = (u32, FileId, u32);

/// All writers.
pub struct Joiner<O> {
    writers: LruCache<Key, Writer<O>, FixedState>,
    max_record: usize,
    /// Writes lost by process, as far as told.
    lost: LruCache<u32, (u64, u64), FixedState>,
    closed: Vec<Raw<O>>,
    /// What was counted.
    pub counts: JoinCounts,
}

impl<O: Clone> Joiner<O> {
    /// Records of at most so many bytes.
    pub fn new(max_record: usize) -> Self {
        Self {
            writers: LruCache::with_hasher(MAX_WRITERS, FixedState::with_seed(0)),
            max_record,
            lost: LruCache::with_hasher(MAX_WRITERS, FixedState::with_seed(0)),
            closed: Vec::new(),
            counts: JoinCounts::default(),
        }
    }

    /// Takes a write, or a part of one; the origin of the first part is that of all.
    pub fn write(&mut self, ts: Ns, task: Task, w: &Write<'_>, origin: O) {
        self.note_lost(task.tgid, w.lost);
        self.counts.bytes += w.payload.len() as u64;
        let key = (task.tgid, w.id, task.tid);
        let mut writer = match self.writers.remove(&key) {
            Some(writer) => writer,
            None => {
                if self.writers.len() >= MAX_WRITERS
                    && let Some((_, old)) = self.writers.remove_lru()
                {
                    self.counts.evicted += u64::from(old.record.is_some() || !old.half.is_empty());
                    self.close_all(old);
                }
                Writer {
                    write: Vec::new(),
                    write_origin: None,
                    half: Vec::new(),
                    half_at: None,
                    record: None,
                }
            }
        };
        if w.offset == 0 {
            writer.write.clear();
            writer.write_origin = Some(origin);
        } else if w.offset as usize != writer.write.len() {
            // A part was lost: these may be two writes.
            writer.write_origin = None;
        }
        writer.write.extend_from_slice(w.payload);
        let end = w.offset as usize + w.payload.len();
        let part = w.payload.len() == ktrdr_ebpf_common::limits::MAX_PAYLOAD
            && end < w.len as usize
            && end
                < ktrdr_ebpf_common::limits::MAX_PAYLOAD
                    * ktrdr_ebpf_common::limits::MAX_WRITE_RECORDS as usize;
        if !part {
            let bytes = std::mem::take(&mut writer.write);
            let origin = writer.write_origin.take();
            let missing = w.len as usize - end;
            self.counts.uncaptured_bytes += missing as u64;
            let about = Raw {
                ts,
                task,
                file: w.id,
                kind: w.kind,
                fd: w.fd,
                text: String::new(),
                origin,
                cut: missing,
                lost: 0,
            };
            self.whole(&mut writer, &bytes, about);
        }
        self.writers.insert(key, writer);
    }

    fn note_lost(&mut self, tgid: u32, total: u64) {
        if total > 0 || self.lost.contains_key(&tgid) {
            let (last, pending) = self.lost.get(&tgid).copied().unwrap_or_default();
            // Less than before: the kernel side began anew.
            let new = total.checked_sub(last).unwrap_or(total);
            self.lost.insert(tgid, (total, pending + new));
        }
    }

    /// A whole write. `about` has all but the text of the records in it.
    fn whole(&mut self, writer: &mut Writer<O>, bytes: &[u8], about: Raw<O>) {
        let Raw { ts, task, cut, .. } = about;
        let last_newline = memchr::memrchr(b'\n', bytes);
        // What the kernel side cut off ended the line, as far as is known.
        let ended = cut > 0 || bytes.last() == Some(&b'\n');
        let buffered = !ended && last_newline.is_some();
        let (body, rest) = match last_newline {
            _ if ended => (bytes.strip_suffix(b"\n").unwrap_or(bytes), &[][..]),
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&[][..], bytes),
        };
        let mut origin = if buffered { None } else { about.origin.clone() };
        if ended || last_newline.is_some() {
            let mut lines = Vec::new();
            let mut begun = ts;
            for (i, line) in body.split(|b| *b == b'\n').enumerate() {
                let mut joined;
                let line = match writer.half_at.take().filter(|_| i == 0) {
                    None => line,
                    Some((half_ts, half_task, half_origin)) => {
                        begun = half_ts;
                        joined = std::mem::take(&mut writer.half);
                        let room = self.max_record.saturating_sub(joined.len());
                        self.counts.cut_bytes += line.len().saturating_sub(room) as u64;
                        joined.extend_from_slice(&line[..line.len().min(room)]);
                        // Begun by another task of the thread: by whom the whole is, is not known.
                        let same = half_task == task && half_origin.is_some();
                        origin = origin.filter(|_| same);
                        joined.as_slice()
                    }
                };
                match text::line(line) {
                    Some(text) => lines.push(text),
                    None => self.counts.binary_lines += 1,
                }
            }
            self.lines(writer, lines, begun, Raw { origin, ..about.clone() });
        }
        if !rest.is_empty() {
            if writer.half_at.is_none() {
                let origin = if buffered { None } else { about.origin };
                writer.half_at = Some((ts, task, origin));
            } else if let Some((_, half_task, half_origin)) = &mut writer.half_at
                && *half_task != task
            {
                *half_origin = None;
            }
            let room = self.max_record.saturating_sub(writer.half.len());
            self.counts.cut_bytes += rest.len().saturating_sub(room) as u64;
            writer.half.extend_from_slice(&rest[..rest.len().min(room)]);
        }
    }

    /// The complete lines of a write; the first was begun at `begun`.
    fn lines(&mut self, writer: &mut Writer<O>, lines: Vec<String>, begun: Ns, about: Raw<O>) {
        let before = self.closed.len();
        let mut began = 0usize;
        for line in lines {
            if let Some(open) = &mut writer.record {
                // In one write, what a recognised record is followed by is more of its message.
                let within = began > 0 && open.recognised && !parse::begins(&line);
                if open.stack.takes(&line) || within {
                    open.last = about.ts;
                    append(open, &line, self.max_record, &mut self.counts.cut_bytes);
                    continue;
                }
            }
            if let Some(done) = writer.record.take() {
                self.closed.push(done.raw);
            }
            if line.is_empty() {
                continue;
            }
            began += 1;
            let stack = Stack::begin(&line);
            let recognised = stack.any() || parse::begins(&line);
            let lost = self.lost.get_mut(&about.task.tgid).map_or(0, |(_, pending)| std::mem::take(pending));
            let ts = if began == 1 { begun } else { about.ts };
            let raw = Raw { ts, text: String::new(), cut: 0, lost, ..about.clone() };
            let mut open = Open { raw, stack, lines: 0, last: about.ts, recognised };
            append(&mut open, &line, self.max_record, &mut self.counts.cut_bytes);
            writer.record = Some(open);
        }
        if let Some(open) = &mut writer.record {
            open.raw.cut += about.cut;
            if began > 1 && !open.recognised {
                open.raw.origin = None;
            }
        }
        if began > 1 {
            // All but the last may have waited in a buffer. A record of an earlier write, closed here, is not of them.
            let own = self.closed.len().saturating_sub(began - 1).max(before);
            for raw in &mut self.closed[own..] {
                raw.origin = None;
            }
        }
    }

    /// Closes what has waited long enough at `now`.
    pub fn expire(&mut self, now: Ns) {
        let mut closed = std::mem::take(&mut self.closed);
        let mut halves = Vec::new();
        for (key, writer) in self.writers.iter_mut() {
            if let Some(open) = &writer.record {
                let patience = if open.stack.unfinished() { UNFINISHED_NS } else { CONTINUE_NS };
                if open.last.saturating_add(patience) <= now {
                    closed.extend(writer.record.take().map(|o| o.raw));
                }
            }
            if writer.half_at.as_ref().is_some_and(|(at, ..)| at.saturating_add(HALF_LINE_NS) <= now) {
                halves.push(*key);
            }
        }
        self.closed = closed;
        for key in halves {
            if let Some(mut writer) = self.writers.remove(&key) {
                self.end_half(&mut writer, key);
                self.writers.insert(key, writer);
            }
        }
    }

    /// Stack traces that are not known to be complete: when each was begun, and its origin.
    pub fn open_stacks(&self) -> impl Iterator<Item = (Ns, &O)> {
        let open = self.writers.iter().filter_map(|(_, w)| w.record.as_ref().filter(|r| r.stack.any()));
        open.filter_map(|r| Some((r.raw.ts, r.raw.origin.as_ref()?)))
    }

    /// Half a line is taken for a whole one.
    fn end_half(&mut self, writer: &mut Writer<O>, (_, file, _): Key) {
        let Some((ts, task, origin)) = writer.half_at.take() else { return };
        let half = std::mem::take(&mut writer.half);
        let Some(line) = text::line(&half) else {
            self.counts.binary_lines += 1;
            return;
        };
        let of = writer.record.as_ref().map(|o| (o.raw.kind, o.raw.fd));
        let (kind, fd) = of.unwrap_or((FileKind::Pipe, 1));
        let about = Raw { ts, task, file, kind, fd, text: String::new(), origin, cut: 0, lost: 0 };
        self.lines(writer, vec![line], ts, about);
    }

    fn close_all(&mut self, mut writer: Writer<O>) {
        if let Some((_, task, _)) = &writer.half_at {
            let file = writer.record.as_ref().map_or(FileId::default(), |o| o.raw.file);
            let key = (task.tgid, file, task.tid);
            self.end_half(&mut writer, key);
        }
        self.closed.extend(writer.record.take().map(|o| o.raw));
    }

    /// The process ended: half lines and open records are all there is.
    pub fn ended(&mut self, tgid: u32) {
        let keys: Vec<Key> = self.writers.iter().map(|(k, _)| *k).filter(|k| k.0 == tgid).collect();
        for key in keys {
            if let Some(writer) = self.writers.remove(&key) {
                self.close_all(writer);
            }
        }
        self.lost.remove(&tgid);
    }

    /// The stream ends.
    pub fn end(&mut self) {
        while let Some((_, writer)) = self.writers.remove_lru() {
            self.close_all(writer);
        }
    }

    /// Records that are complete, in the order of their writing as far as that is known.
    pub fn take(&mut self) -> Vec<Raw<O>> {
        let mut closed = std::mem::take(&mut self.closed);
        closed.sort_by_key(|r| r.ts);
        closed
    }
}

fn append<O>(open: &mut Open<O>, line: &str, max: usize, cut: &mut u64) {
    let text = &mut open.raw.text;
    let room = max.saturating_sub(text.len() + 1);
    let mut end = line.len().min(room);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    if open.lines >= MAX_LINES {
        end = 0;
    }
    open.raw.cut += line.len() - end;
    *cut += (line.len() - end) as u64;
    if open.lines > 0 && (end > 0 || line.is_empty()) && room > 0 {
        text.push('\n');
    }
    text.push_str(&line[..end]);
    open.lines += 1;
}

#[cfg(test)]
mod tests;
