//! Log records beside the traces: warnings and errors by trace or operation, and the last lines of each process.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashlink::{LinkedHashMap, LruCache};

use crate::explain::Logged;
use crate::trace::logs::{LogRecord, Severity};
use crate::trace::model::TraceId;

/// Records of one trace or operation: the first ones tell how a failure began, the last ones how it ended.
const FIRST: usize = 12;
/// See [`FIRST`].
const LAST: usize = 4;
/// Last lines of a process.
const MAX_TAIL: usize = 4;
/// Processes whose last lines are kept, those that ended included.
const MAX_TAILS: usize = 1_024;
/// Longest operation id: as the index of operations keeps them.
const MAX_ID: usize = 128;
/// A line of a process that has ended counts as one of its last for so long before its end: what it wrote an hour
/// before says nothing of it.
const TAIL_NS: u64 = 60_000_000_000;

/// What records are about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Trace(TraceId),
    /// Of a record without a trace.
    Operation(String),
}

/// Records about one subject.
#[derive(Debug, Default)]
struct About {
    records: VecDeque<Arc<Logged>>,
    bytes: usize,
}

type Map = LinkedHashMap<Subject, About, FixedState>;

/// All records kept.
pub struct Logs {
    max_bytes: usize,
    /// Those about which there are warnings only, and those with errors; the longest without news first.
    maps: [Map; 2],
    bytes: [usize; 2],
    tails: LruCache<i64, VecDeque<Arc<Logged>>, FixedState>,
    tail_bytes: usize,
}

impl Logs {
    /// In at most so many bytes, estimated.
    pub fn new(max_bytes: usize) -> Self {
        let map = || Map::with_hasher(FixedState::with_seed(0));
        Self {
            max_bytes,
            maps: [map(), map()],
            bytes: [0; 2],
            tails: LruCache::with_hasher(MAX_TAILS, FixedState::with_seed(0)),
            tail_bytes: 0,
        }
    }

    /// Takes a record, and forgets others to make room.
    pub fn add(&mut self, record: &LogRecord) {
        let logged = Arc::new(Logged::of(record));
        if logged.severity >= Severity::WARN {
            self.keep(&logged);
        }
        self.tail(logged);
    }

    fn keep(&mut self, logged: &Arc<Logged>) {
        let subject = match (logged.trace_id, &logged.operation) {
            (Some(id), _) => Subject::Trace(id),
            (None, Some(id)) if id.len() <= MAX_ID => Subject::Operation(id.clone()),
            _ => return,
        };
        let (mut about, before) = self.take(&subject).unwrap_or_default();
        if about.records.len() == FIRST + LAST
            && let Some(old) = about.records.remove(FIRST)
        {
            about.bytes -= old.weight();
        }
        about.bytes += logged.weight();
        about.records.push_back(logged.clone());
        let at = before.max(usize::from(logged.severity >= Severity::ERROR));
        self.bytes[at] += about.bytes;
        self.maps[at].insert(subject, about);
        while self.bytes.iter().sum::<usize>() > self.max_bytes / 4 * 3 {
            // Warnings give way to errors, but for a quarter of the room.
            let first = usize::from(self.bytes[0] <= self.max_bytes / 4 && !self.maps[1].is_empty());
            let Some((_, old)) = self.maps[first].pop_front() else { break };
            self.bytes[first] -= old.bytes;
        }
    }

    fn take(&mut self, subject: &Subject) -> Option<(About, usize)> {
        let at = self.maps.iter().position(|m| m.contains_key(subject))?;
        let about = self.maps[at].remove(subject)?;
        self.bytes[at] -= about.bytes;
        Some((about, at))
    }

    /// Remembers the last lines of each process.
    fn tail(&mut self, logged: Arc<Logged>) {
        let Some(pid) = logged.pid() else { return };
        let mut tail = match self.tails.remove(&pid) {
            Some(tail) => tail,
            None => {
                if self.tails.len() >= MAX_TAILS {
                    self.forget_a_tail();
                }
                VecDeque::new()
            }
        };
        self.tail_bytes += logged.weight();
        tail.push_back(logged);
        if tail.len() > MAX_TAIL
            && let Some(old) = tail.pop_front()
        {
            self.tail_bytes -= old.weight();
        }
        self.tails.insert(pid, tail);
        while self.tail_bytes > self.max_bytes / 4 && self.forget_a_tail() {}
    }

    fn forget_a_tail(&mut self) -> bool {
        let Some((_, tail)) = self.tails.remove_lru() else { return false };
        self.tail_bytes -= tail.iter().map(|r| r.weight()).sum::<usize>();
        true
    }

    /// Warnings and errors of these traces, and those without a trace that name the operation.
    pub fn about(&self, traces: impl Iterator<Item = TraceId>, operation: Option<&str>) -> Vec<Arc<Logged>> {
        let subjects =
            traces.map(Subject::Trace).chain(operation.map(|id| Subject::Operation(id.to_owned())));
        let mut found: Vec<Arc<Logged>> = Vec::new();
        for subject in subjects {
            let about = self.maps.iter().find_map(|m| m.get(&subject));
            found.extend(about.into_iter().flat_map(|a| a.records.iter().cloned()));
        }
        found.sort_by_key(|r| r.wall_ns);
        found
    }

    /// What a process wrote last before it ended, at `by` at the latest.
    pub fn last_words(&self, pid: i64, service: Option<&str>, by: u64) -> Vec<Arc<Logged>> {
        let Some(tail) = self.tails.peek(&pid) else { return Vec::new() };
        // A process number may be another's by now.
        let its = |r: &&Arc<Logged>| service.is_none_or(|s| r.resource.service == s);
        let last =
            tail.iter().filter(its).map(|r| r.wall_ns).filter(|at| *at <= by).max().unwrap_or_default();
        let near = |r: &&Arc<Logged>| r.wall_ns <= by && r.wall_ns.saturating_add(TAIL_NS) >= last;
        tail.iter().filter(its).filter(near).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fixture;
    use crate::trace::model::Attributes;

    fn record(trace: u8, severity: Severity, text: &str) -> LogRecord {
        LogRecord {
            ts: 1,
            wall_offset_ns: fixture::EPOCH_NS,
            severity,
            severity_text: String::new(),
            body: text.to_owned(),
            trace_id: (trace != 0).then_some(TraceId([trace; 16])),
            span_id: None,
            attributes: Attributes::new(),
            resource: fixture::service("ktrdr-api"),
        }
    }

    fn texts(found: &[Arc<Logged>]) -> Vec<&str> {
        found.iter().map(|r| r.message.as_str()).collect()
    }

    #[test]
    fn records_are_found_by_trace_or_by_the_operation_they_name() {
        let mut logs = Logs::new(1 << 20);
        logs.add(&record(1, Severity::INFO, "nothing to worry about"));
        logs.add(&record(1, Severity::ERROR, "no"));
        logs.add(&record(2, Severity::WARN, "hm"));
        let mut named = record(0, Severity::ERROR, "op failed");
        named.attributes.set("operation.id", "op_a_1234567");
        logs.add(&named);
        let ids = [1, 2, 3].map(|n| TraceId([n; 16]));
        assert_eq!(texts(&logs.about(ids.into_iter(), None)), ["no", "hm"]);
        assert_eq!(texts(&logs.about([].into_iter(), Some("op_a_1234567"))), ["op failed"]);
        let last = logs.last_words(4711, Some("ktrdr-api"), u64::MAX);
        assert_eq!(texts(&last), ["nothing to worry about", "no", "hm", "op failed"]);
        assert!(logs.last_words(4711, Some("another"), u64::MAX).is_empty());
        assert!(logs.last_words(4712, None, u64::MAX).is_empty());
    }

    #[test]
    fn a_flood_is_bounded_and_errors_outlive_warnings() {
        let mut logs = Logs::new(64 * 1024);
        logs.add(&record(7, Severity::ERROR, "the cause"));
        for n in 0..20_000u32 {
            let mut r = record(1, Severity::WARN, &"x".repeat(2_000));
            r.trace_id = Some(TraceId(u128::from(n + 1).to_be_bytes()));
            logs.add(&r);
        }
        for n in 0..100 {
            logs.add(&record(8, Severity::ERROR, &format!("again {n}")));
        }
        assert!(logs.bytes.iter().sum::<usize>() + logs.tail_bytes <= 64 * 1024);
        let held: usize =
            logs.maps.iter().flat_map(|m| m.values()).flat_map(|a| &a.records).map(|r| r.weight()).sum();
        assert_eq!(held, logs.bytes.iter().sum::<usize>());
        let of = |n: u8| logs.about([TraceId([n; 16])].into_iter(), None);
        assert_eq!(texts(&of(7)), ["the cause"]);
        assert_eq!(of(8).len(), FIRST + LAST);
        assert_eq!(
            (of(8)[0].message.as_str(), of(8)[FIRST + LAST - 1].message.as_str()),
            ("again 0", "again 99")
        );
    }
}
