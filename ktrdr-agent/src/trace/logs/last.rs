//! What each process said last, in case it ends: often the only word on why.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashlink::LruCache;

use super::Draft;
use crate::event::{MS, Ns};
use crate::mask::Mask;

/// Processes remembered, those that wrote last. A host of KTRDR's size runs tens of services.
const MAX_PROCESSES: usize = 1_024;
/// Lines of each: the error, and what came of it.
const LINES: usize = 3;
/// Bytes kept of a line; more than [`MAX_TOLD`], so that a secret is seen whole.
const MAX_KEPT: usize = 1_024;
/// Bytes told of a line: enough for a sentence with a path in it. All of it is in the log record.
const MAX_TOLD: usize = 240;
/// What was written longer before the end says nothing of it.
const NEAR_NS: Ns = 60_000 * MS;

/// Last lines by process.
pub struct Last(LruCache<u32, VecDeque<(Ns, Box<str>)>, FixedState>);

impl Default for Last {
    fn default() -> Self {
        Self(LruCache::with_hasher(MAX_PROCESSES, FixedState::with_seed(0)))
    }
}

impl Last {
    /// A process wrote a record.
    pub fn wrote(&mut self, draft: &Draft) {
        let message = draft.parsed.message.lines().next().unwrap_or_default();
        let thrown = draft.exception.as_ref().map(|e| e.summary()).filter(|thrown| thrown != message);
        let text = match &thrown {
            Some(thrown) => &format!("{message}: {thrown}"),
            None => message,
        };
        let lines = self.0.entry(draft.raw.task.tgid).or_insert_with(VecDeque::new);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back((draft.raw.ts, text[..text.floor_char_boundary(MAX_KEPT)].into()));
    }

    /// A process ended at `ts`: its last lines, oldest first and without secrets.
    pub fn of(&mut self, tgid: u32, ts: Ns, mask: &Mask) -> Vec<String> {
        let lines = self.0.remove(&tgid).unwrap_or_default();
        let near = lines.into_iter().filter(|(at, _)| ts.saturating_sub(*at) <= NEAR_NS);
        near.map(|(_, text)| {
            let mut text = mask.text(&text).into_owned();
            text.truncate(text.floor_char_boundary(MAX_TOLD));
            text
        })
        .collect()
    }
}
