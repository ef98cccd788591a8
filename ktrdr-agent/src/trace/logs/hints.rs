//! Operation ids that a task named in a line, for the calls it makes next.
//!
//! `Selected worker X for operation op_…` is written on the very thread that then calls the worker. Where nothing
//! better links that call, the operation does, as inferred.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashlink::LruCache;

use crate::event::{Ns, Task};
use crate::trace::operations::ids;

/// Tasks remembered.
const MAX_TASKS: usize = 4_096;
/// How long a word counts: KTRDR's API names the operation and calls within milliseconds, but downloads wait 30 s for
/// each answer, three times.
const VALID_NS: Ns = 120_000_000_000;
/// Bytes of a write that are looked at: an id stands in a record's first line.
const LOOKED_AT: usize = 1_024;

/// The operation each task named last.
pub struct Hints {
    named: LruCache<Task, (Ns, Arc<str>), FixedState>,
}

impl Default for Hints {
    fn default() -> Self {
        Self { named: LruCache::with_hasher(MAX_TASKS, FixedState::with_seed(0)) }
    }
}

impl Hints {
    /// A task wrote something. A line with several ids is about none of them.
    pub fn written(&mut self, ts: Ns, task: Task, payload: &[u8]) {
        let payload = &payload[..payload.len().min(LOOKED_AT)];
        // Only a Python thread's context tells its tasks apart.
        if task.py_context == 0 || !ids::may_stand_in(payload) {
            return;
        }
        let text = String::from_utf8_lossy(payload);
        if let Some(id) = only_id(&text) {
            self.named.insert(task, (ts, id.into()));
        }
    }

    /// The operation that a task named, if that is not long ago.
    pub fn of(&self, task: Task, ts: Ns) -> Option<Arc<str>> {
        let (named, id) = self.named.peek(&task)?;
        (ts.saturating_sub(*named) <= VALID_NS).then(|| id.clone())
    }
}

/// The operation id in a text, if all ids in it are the same.
pub fn only_id(text: &str) -> Option<&str> {
    if !ids::may_stand_in(text.as_bytes()) {
        return None;
    }
    let mut all = words(text).filter(|w| ids::looks_like(w));
    let first = all.next()?;
    all.all(|id| id == first).then_some(first)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).filter(|w| w.len() >= 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "op_training_20251113_101112_1a2b3c4d";

    #[test]
    fn one_operation_is_named_or_none() {
        assert_eq!(only_id(&format!("Selected worker w-1 for operation {ID}: {ID}")), Some(ID));
        assert_eq!(only_id(&format!("{ID} and op_other_20251113_101112_1a2b3c4d")), None);
        assert_eq!(only_id("an option_of_the operation"), None);
    }

    proptest::proptest! {
        /// What all ids begin with is found before each of them.
        #[test]
        fn no_id_is_passed_over(text in "(op|worker_training|worker_backtest|x|[ -~]){1,3}[_-]?[0-9a-f]{6,12}[ -~]{0,9}") {
            let named = words(&text).any(ids::looks_like);
            proptest::prop_assert!(!named || ids::may_stand_in(text.as_bytes()), "{}", text);
        }
    }

    #[test]
    fn a_task_s_word_counts_for_itself_and_for_a_while() {
        let mut hints = Hints::default();
        let task = Task { tgid: 1, tid: 2, py_context: 3 };
        hints.written(1, task, format!("Operation ID: {ID}\n").as_bytes());
        assert_eq!(hints.of(task, 2).as_deref(), Some(ID));
        assert_eq!(hints.of(Task { py_context: 4, ..task }, 2), None);
        assert_eq!(hints.of(task, 2 * VALID_NS), None);
        hints.written(1, Task { py_context: 0, ..task }, ID.as_bytes());
        assert_eq!(hints.of(Task { py_context: 0, ..task }, 2), None);
    }
}
