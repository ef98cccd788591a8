//! When spans are looked at.

use std::collections::{BTreeSet, VecDeque};

use crate::event::Ns;
use crate::trace::causality::SpanRef;

/// Spans by the time they are due, at the same time by number.
#[derive(Default)]
pub struct Due {
    /// Spans end in the order of time, all but a few.
    ordered: VecDeque<(Ns, SpanRef)>,
    /// Those that did not, and those that wait again.
    others: BTreeSet<(Ns, SpanRef)>,
}

impl Due {
    /// The span is due at this time.
    pub fn insert(&mut self, at: Ns, span: SpanRef) {
        if self.ordered.back().is_none_or(|last| *last <= (at, span)) {
            self.ordered.push_back((at, span));
        } else {
            self.others.insert((at, span));
        }
    }

    /// When the first one is due.
    pub fn first(&self) -> Option<Ns> {
        self.ordered.front().into_iter().chain(self.others.first()).map(|(at, _)| *at).min()
    }

    /// Takes out the first span, if it is due by `now`.
    pub fn pop(&mut self, now: Ns) -> Option<SpanRef> {
        let (ordered, other) = (self.ordered.front(), self.others.first());
        let from_others = match (ordered, other) {
            (Some(a), Some(b)) => b < a,
            (None, other) => other.is_some(),
            (Some(_), None) => false,
        };
        let (at, span) = if from_others { *other? } else { *ordered? };
        if at > now {
            return None;
        }
        if from_others {
            self.others.pop_first();
        } else {
            self.ordered.pop_front();
        }
        Some(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Whatever the order of insertion, as a sorted set would do it.
        #[test]
        fn comes_out_in_order(steps in proptest::collection::vec((0u64..50, 0u64..40), 0..60)) {
            let (mut due, mut model) = (Due::default(), BTreeSet::new());
            for (number, (at, now)) in steps.into_iter().enumerate() {
                let span = SpanRef(number as u64);
                due.insert(at, span);
                model.insert((at, span));
                while let Some(got) = due.pop(now) {
                    let (at, want) = model.pop_first().unwrap();
                    proptest::prop_assert!(at <= now);
                    proptest::prop_assert_eq!(got, want);
                }
                proptest::prop_assert!(model.first().is_none_or(|(at, _)| *at > now));
            }
        }
    }
}
