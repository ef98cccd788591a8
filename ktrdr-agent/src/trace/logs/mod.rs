//! Log records of the observed services: from writes to records with a place in a trace.
//!
//! ```text
//! write ─► join (lines, multi-line records) ─► parse (level, logger, fields, stack trace) ─► once ─► pending ─► LogRecord
//!   └─► causality: whose work was the writer doing? ────────────────────────────────────────────────────┘
//! ```
//!
//! A record has a trace only on evidence, and says which. Text is never evidence of a trace: whoever can have a service
//! log what he sends could claim any. An operation id in a text is kept as what it is, inferred.

mod bytes;
pub mod hints;
pub mod join;
mod last;
mod once;
pub mod parse;
mod pending;
mod record;
pub mod stack;
mod text;
mod unlinked;

use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashlink::LruCache;

use crate::event::{FileId, FileKind, Ns, Task, Write};
use crate::mask::Mask;
use crate::trace::causality::{SpanRef, Written};
pub use bytes::{Aside, ByteCounts};
use hints::Hints;
use join::{JoinCounts, Joiner, Raw};
use last::Last;
use once::Once;
use parse::{Format, Parsed};
pub use pending::{PLACE_NS, Pending, Settled};
pub use record::{LogRecord, Severity};
use stack::Exception;
pub use unlinked::Unlinked;

/// Files, connections and processes remembered: as many as the kernel programs know of files.
const MAX_KNOWN: usize = 16_384;
/// Longest path remembered, in bytes.
const MAX_PATH: usize = 128;
const STDERR: u32 = 2;

/// A record taken apart, on its way to its place.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where and when it was written.
    pub raw: Raw<Written>,
    /// What it says.
    pub parsed: Parsed,
    /// What was thrown, if it tells of that.
    pub exception: Option<Exception>,
    /// The one operation id in it.
    pub operation: Option<Arc<str>>,
    /// The log file it was written to.
    pub path: Option<Arc<str>>,
}

impl Draft {
    /// It says something of the span it was written in: that something was thrown, or went wrong.
    pub fn tells(&self) -> bool {
        self.exception.is_some() || self.parsed.severity >= Severity::ERROR
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Of lines and records.
    pub join: JoinCounts,
    /// What became of what was written.
    pub bytes: ByteCounts,
    /// Records made.
    pub records: u64,
    /// Records that are another one's copy in a second file.
    pub copies: u64,
    /// Records that have a trace.
    pub linked: u64,
    /// Lines of output that are no log: a command's result, a protocol's message.
    pub output: u64,
    /// Records that have none, by reason: in the order of [`Unlinked::ALL`].
    pub unlinked: [u64; Unlinked::ALL.len()],
}

/// A request, its path, and when it was read.
type Asked = (SpanRef, Box<str>, Ns);

/// State of all logs.
pub struct Logs {
    joiner: Joiner<Written>,
    once: Once,
    /// Records that wait for their place.
    pub pending: Pending,
    /// Operation ids that were named.
    pub hints: Hints,
    last: Last,
    /// Log files, and files that are none.
    files: LruCache<FileId, Option<Arc<str>>, FixedState>,
    /// The newest request on a connection and when it was read, by server process and client's address.
    requests: LruCache<(u32, SocketAddr), Asked, FixedState>,
    /// Processes that serve.
    servers: LruCache<u32, (), FixedState>,
    /// What was counted.
    pub counts: LogCounts,
}

fn lru<K: std::hash::Hash + Eq, V>() -> LruCache<K, V, FixedState> {
    LruCache::with_hasher(MAX_KNOWN, FixedState::with_seed(0))
}

impl Logs {
    /// Records of at most so many bytes.
    pub fn new(max_record: usize) -> Self {
        Self {
            joiner: Joiner::new(max_record),
            once: Once::new(),
            pending: Pending::default(),
            hints: Hints::default(),
            last: Last::default(),
            files: lru(),
            requests: lru(),
            servers: lru(),
            counts: LogCounts::default(),
        }
    }

    /// A file is a log, or is none.
    pub fn file(&mut self, id: FileId, path: &str, log: bool) {
        self.files.insert(id, log.then(|| path.into()));
    }

    /// A process serves: it listens, or uses a connection at the server's end.
    pub fn serves(&mut self, tgid: u32) {
        self.servers.insert(tgid, ());
    }

    /// A request for `path` was read from `client` at `ts`.
    pub fn request(&mut self, tgid: u32, client: SocketAddr, (span, ts): (SpanRef, Ns), path: &str) {
        self.serves(tgid);
        // A path that was escaped, or hides something, is written in another way than it was read.
        let plain = path.len() <= MAX_PATH
            && memchr::memchr2(b'%', b'+', path.as_bytes()).is_none()
            && parse::find(path, crate::mask::REDACTED).is_none();
        self.requests.insert((tgid, client), (span, if plain { path.into() } else { "".into() }, ts));
    }

    /// Requests are read that nobody sees: the newest one from a client may be one of those.
    pub fn forget_requests(&mut self) {
        self.requests.clear();
    }

    /// The newest request from `client`, if it is one for `path` and was read before a line written at `ts`: an access line is
    /// written before the next one is read. A server behind a proxy knows a longer path than it was asked for.
    pub fn request_of(&self, tgid: u32, client: SocketAddr, path: &str, ts: Ns) -> Option<SpanRef> {
        let (span, asked, read) = self.requests.peek(&(tgid, client))?;
        (*read <= ts && path.ends_with(&**asked)).then_some(*span)
    }

    /// A write is none of a log's.
    pub fn aside(&mut self, why: Aside, w: &Write<'_>) {
        self.counts.bytes.aside(why, w.payload.len());
    }

    /// Whether a write is to where logs go. `pipes`: the process's other pipes are watched, too, for what is no log.
    pub fn concerns(&self, w: &Write<'_>, pipes: bool) -> bool {
        match (w.fd, w.kind) {
            (1 | 2, _) => true,
            (_, FileKind::Regular) => self.files.peek(&w.id).is_none_or(Option::is_some),
            // A duplicate of standard output or error.
            _ => !pipes,
        }
    }

    /// Takes a write.
    pub fn write(&mut self, ts: Ns, task: Task, w: &Write<'_>, origin: Written) {
        self.counts.bytes.captured += w.payload.len() as u64;
        self.hints.written(ts, task, w.payload);
        self.joiner.write(ts, task, w, origin);
    }

    /// Closes records that nothing was added to for a while, and takes them apart.
    pub fn expire(&mut self, now: Ns) -> Vec<Draft> {
        self.joiner.expire(now);
        self.closed()
    }

    /// Bytes of writes of which nothing is complete yet.
    #[cfg(test)]
    pub fn in_hand(&self) -> u64 {
        self.joiner.in_hand()
    }

    /// What may still be told of a span: stack traces that are not complete yet, and exceptions and errors whose span is not
    /// known yet. When each was written, and what its origin is known of.
    pub fn untold(&self) -> impl Iterator<Item = (Ns, Written)> {
        let open = self.joiner.open_stacks().map(|(ts, origin)| (ts, *origin));
        open.chain(self.pending.untold())
    }

    /// A process ended: what it wrote last is complete.
    pub fn ended(&mut self, tgid: u32) -> Vec<Draft> {
        // That it served is kept until its number is another's and long unused: its last lines are still to come.
        self.joiner.ended(tgid);
        self.closed()
    }

    /// What a process wrote last before it ended at `ts`.
    pub fn last_lines(&mut self, tgid: u32, ts: Ns, mask: &Mask) -> Vec<String> {
        self.last.of(tgid, ts, mask)
    }

    /// The stream ends.
    pub fn end(&mut self) -> Vec<Draft> {
        self.joiner.end();
        self.closed()
    }

    fn closed(&mut self) -> Vec<Draft> {
        let drafts = self.joiner.take().into_iter().filter_map(|raw| self.draft(raw)).collect();
        let join = self.joiner.counts();
        (self.counts.bytes.binary, self.counts.bytes.blank) = (join.binary_bytes, join.blank_bytes);
        self.counts.join = join;
        self.counts.copies = self.once.copies;
        drafts
    }

    fn draft(&mut self, raw: Raw<Written>) -> Option<Draft> {
        let Some(mut parsed) = parse::record(&raw.text) else {
            self.counts.output += 1;
            self.counts.bytes.output += raw.bytes;
            return None;
        };
        let mut exception = None;
        if let Some((before, e)) = stack::exception(&parsed.message) {
            parsed.message = if before.is_empty() { e.summary() } else { before.to_owned() };
            exception = Some(e);
        } else if let Some(stack) = parsed.stack.take() {
            exception = stack::exception(&stack).map(|(_, e)| e);
        }
        if exception.is_some() && parsed.severity == Severity::UNSPECIFIED {
            parsed.severity = Severity::ERROR;
        }
        let server = self.servers.contains_key(&raw.task.tgid);
        if !server && raw.fd != STDERR && parsed.format == Format::Plain && exception.is_none() {
            // What a command prints is its result.
            self.counts.output += 1;
            self.counts.bytes.output += raw.bytes;
            return None;
        }
        if self.once.is_copy(raw.task.tid, raw.file, raw.ts, &parsed.message) {
            self.counts.bytes.copies += raw.bytes;
            return None;
        }
        self.counts.records += 1;
        self.counts.bytes.records += raw.bytes;
        let operation = hints::only_id(&raw.text).map(Arc::from);
        let path = self.files.peek(&raw.file).cloned().flatten();
        let draft = Draft { raw, parsed, exception, operation, path };
        self.last.wrote(&draft);
        Some(draft)
    }
}
