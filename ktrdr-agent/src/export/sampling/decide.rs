//! The decision, per trace. Pure: time is that of the spans.

use hashlink::{LinkedHashMap, LruCache};

use crate::event::Ns;
use crate::export::Item;
use crate::trace::model::{Status, TraceId, Value};

/// Spans that wait for a decision at most, about 32 MB if nobody else held them; most are in the memory of `explain`
/// as well.
pub(super) const MAX_UNDECIDED: usize = 16 * 1024;
/// Traces remembered as kept, so that what comes later goes the same way.
const MAX_KEPT: usize = 16 * 1024;
/// Bits of a trace id that are random (W3C Trace Context level 2, "random trace id flag"): the last seven bytes.
const RANDOM_BITS: u32 = 56;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Part of the traces that is sent whatever is in them, from 0 to 1.
    pub ratio: f64,
    /// Which of the others are sent, too.
    pub keep: Keep,
}

/// What makes a trace worth keeping. It is kept from its first span on, if that is not too long ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// A span with an error.
    pub errors: bool,
    /// A span that took at least so long.
    pub slow: Option<Ns>,
    /// A span of an operation.
    pub operations: bool,
    /// How long a trace without news waits for such a span.
    pub wait: Ns,
}

impl Rules {
    /// Everything.
    pub const ALL: Self =
        Self { ratio: 1.0, keep: Keep { errors: false, slow: None, operations: false, wait: 0 } };

    /// The smallest random value that is sampled, as OpenTelemetry's "TraceState: Probability Sampling" has it:
    /// rejection threshold `(1 - ratio) * 2^56`.
    fn threshold(&self) -> u64 {
        let all = (1u64 << RANDOM_BITS) as f64;
        let rejected = (1.0 - self.ratio.clamp(0.0, 1.0)) * all;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^56")]
        let threshold = rejected.round() as u64;
        threshold
    }
}

impl Keep {
    fn anything(&self) -> bool {
        self.errors || self.operations || self.slow.is_some()
    }

    fn wants(&self, span: &Item) -> bool {
        self.errors && span.status != Status::Unset
            || self.slow.is_some_and(|slow| span.end.saturating_sub(span.start) >= slow)
            || self.operations && span.attributes.get("operation.id").is_some()
    }
}

/// Spans of a trace that wait.
struct Undecided {
    spans: Vec<Item>,
    /// End of the latest.
    news: Ns,
}

/// Decides for each trace.
pub struct Sampler {
    threshold: u64,
    keep: Keep,
    kept: LruCache<TraceId, (), foldhash::fast::FixedState>,
    /// The longest without news first.
    undecided: LinkedHashMap<TraceId, Undecided, foldhash::fast::FixedState>,
    waiting: usize,
    now: Ns,
    left_out: u64,
}

impl Sampler {
    /// Nothing decided yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            threshold: rules.threshold(),
            keep: rules.keep,
            kept: LruCache::with_hasher(MAX_KEPT, foldhash::fast::FixedState::default()),
            undecided: LinkedHashMap::with_hasher(foldhash::fast::FixedState::default()),
            waiting: 0,
            now: 0,
            left_out: 0,
        }
    }

    /// Sends the span, with those of its trace that waited for it; or has it wait; or leaves it out.
    pub fn offer(&mut self, span: &Item, send: &mut dyn FnMut(Item)) {
        let id = span.trace_id;
        self.now = self.now.max(span.end);
        if self.sampled(span) || self.kept.get(&id).is_some() {
            return send(span.clone());
        }
        if !self.keep.anything() {
            self.left_out += 1;
            return;
        }
        let mut trace = self.undecided.remove(&id).unwrap_or(Undecided { spans: Vec::new(), news: 0 });
        self.waiting -= trace.spans.len();
        if self.keep.wants(span) {
            self.kept.insert(id, ());
            trace.spans.drain(..).for_each(&mut *send);
            send(span.clone());
        } else {
            trace.spans.push(span.clone());
            trace.news = trace.news.max(span.end);
            self.waiting += trace.spans.len();
            self.undecided.insert(id, trace);
        }
        self.give_up();
    }

    /// What the trace's id says, or its caller did.
    fn sampled(&self, span: &Item) -> bool {
        if let Some(Value::Bool(said)) = span.attributes.get("ktrdr.trace.sampled") {
            return *said;
        }
        let [.., a, b, c, d, e, f, g] = span.trace_id.0;
        u64::from_be_bytes([0, a, b, c, d, e, f, g]) >= self.threshold
    }

    /// Traces without news for too long, or too many of them.
    fn give_up(&mut self) {
        let before = self.now.saturating_sub(self.keep.wait);
        while let Some((_, trace)) = self.undecided.front() {
            if trace.news >= before && self.waiting <= MAX_UNDECIDED {
                break;
            }
            let spans = trace.spans.len();
            self.undecided.pop_front();
            self.waiting -= spans;
            self.left_out += spans as u64;
        }
    }

    /// No more spans will come.
    pub fn end(&mut self) {
        self.undecided.clear();
        self.left_out += self.waiting as u64;
        self.waiting = 0;
    }

    /// Spans left out so far.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Spans that wait.
    pub fn undecided(&self) -> u64 {
        self.waiting as u64
    }
}
