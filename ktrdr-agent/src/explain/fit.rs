//! Makes the answer small enough.

use super::hints::shorten;
use super::schema::{LogLine, Report};
use super::timeline;

/// Size of the JSON text, in bytes: 3,000 to 4,000 tokens of a language model, which leaves it room to think.
pub const MAX_BYTES: usize = 12_000;
/// Longest text of a field: a listener's command line and how it ended fit.
const MAX_TEXT: usize = 600;
/// Longest text of a log record: an error in a sentence, or three frames.
const MAX_LOGGED: usize = 400;
/// Timeline lines at most: with the rest, one screen.
const MAX_TIMELINE: usize = 30;

/// The record that says least of the failure.
fn least(logs: &[LogLine]) -> usize {
    let worth = |l: &LogLine| match l.relation.as_str() {
        "cause" => 4,
        "caller" => 3,
        "last_words" => 2,
        "operation" => 1,
        _ => 0,
    };
    (0..logs.len()).min_by_key(|i| (worth(&logs[*i]), logs[*i].exception.is_some())).unwrap_or_default()
}

impl Report {
    /// Texts come from the network: each has a bound.
    pub(super) fn cut_texts(&mut self) {
        let cut = |text: &mut String, max: usize| *text = shorten(text, max);
        let cut_some = |text: &mut Option<String>, max: usize| {
            if let Some(t) = text {
                *t = shorten(t, max);
            }
        };
        for c in self.causes.iter_mut().chain(std::iter::once(&mut self.verdict)) {
            cut(&mut c.sentence, MAX_TEXT);
            cut_some(&mut c.service, 100);
            cut_some(&mut c.peer, 100);
        }
        for s in &mut self.chain {
            cut(&mut s.service, 100);
            cut_some(&mut s.to, 100);
            cut(&mut s.what, 120);
            cut(&mut s.outcome, 40);
        }
        for e in &mut self.evidence {
            cut(&mut e.service, 100);
            cut(&mut e.name, 120);
            cut(&mut e.message, MAX_TEXT);
        }
        for l in &mut self.logs {
            cut(&mut l.service, 100);
            cut(&mut l.message, MAX_LOGGED);
            cut_some(&mut l.stack, MAX_LOGGED);
        }
        for r in &mut self.timeline {
            cut(&mut r.service, 100);
            cut_some(&mut r.to, 100);
            cut(&mut r.what, 120);
            cut(&mut r.outcome, 40);
        }
        if let Some(o) = &mut self.operation {
            cut_some(&mut o.kind, 40);
            cut_some(&mut o.status, 40);
            cut_some(&mut o.error, MAX_TEXT);
        }
        self.gaps.iter_mut().chain(&mut self.hints).for_each(|t| cut(t, 400));
    }

    /// Leaves out what matters least until the text is small enough: timeline lines, then evidence, then causes.
    pub(super) fn fit(&mut self) {
        let (mut rows, mut proofs) = (timeline::thin(&mut self.timeline, MAX_TIMELINE), 0);
        let mut records = 0;
        let size = |r: &Report| serde_json::to_string(r).map_or(0, |t| t.len());
        // Room for the words about what was left out.
        const NOTES: usize = 200;
        while size(self) > MAX_BYTES - NOTES {
            let lines = self.timeline.len();
            if lines > 12 {
                rows += timeline::thin(&mut self.timeline, lines - 2);
            } else if self.evidence.len() > 3 {
                self.evidence.pop();
                proofs += 1;
            } else if self.logs.len() > 3 {
                self.logs.remove(least(&self.logs));
                records += 1;
            } else if lines > 5 {
                rows += timeline::thin(&mut self.timeline, lines - 1);
            } else if let Some(e) = self.evidence.iter_mut().find(|e| e.attributes.len() > 4) {
                let last = e.attributes.keys().next_back().cloned().unwrap_or_default();
                e.attributes.remove(&last);
            } else if let Some(l) = self.logs.iter_mut().find(|l| l.stack.is_some()) {
                l.stack = None;
            } else if self.causes.len() > 1 {
                self.causes.pop();
                self.truncated.push("a cause".to_owned());
            } else if self.chain.len() > 4 {
                self.chain.remove(self.chain.len() / 2);
            } else if !self.timeline.is_empty() {
                rows += 1;
                self.timeline.pop();
            } else if !self.logs.is_empty() {
                self.logs.remove(least(&self.logs));
                records += 1;
            } else if self.evidence.len() > 1 {
                proofs += 1;
                self.evidence.pop();
            } else {
                break;
            }
        }
        if rows > 0 {
            self.truncated.push(format!("{rows} lines of the timeline"));
        }
        if records > 0 {
            self.truncated.push(format!("{records} log records more"));
        }
        if proofs > 0 {
            self.truncated.push(format!("{proofs} evidence spans"));
        }
    }
}
