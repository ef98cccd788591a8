//! Says that a sink drops spans, while it does, at most every half minute.

use std::time::{Duration, Instant};

use super::queue::Books;

/// Between two lines: often enough to be seen, too seldom to be a nuisance.
const PAUSE: Duration = Duration::from_secs(30);

/// What was said so far.
#[derive(Debug, Default)]
pub struct Drops {
    said: u64,
    last: Option<Instant>,
}

impl Drops {
    /// Logs what was dropped since the last line, if anything, and if that is long enough ago. `remedy` ends the
    /// sentence.
    pub fn look(&mut self, sink: &str, what: &str, books: &Books, remedy: &str, now: Instant) {
        if let Some(new) = self.due(books.dropped_full, now) {
            tracing::warn!("{sink}: {new} {what} were dropped because its queue was full; {remedy}");
        }
    }

    fn due(&mut self, total: u64, now: Instant) -> Option<u64> {
        let new = total.saturating_sub(self.said);
        if new == 0 || self.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            return None;
        }
        (self.said, self.last) = (total, Some(now));
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_said_now_and_then() {
        let (mut drops, start) = (Drops::default(), Instant::now());
        assert_eq!(drops.due(0, start), None);
        assert_eq!(drops.due(3, start), Some(3));
        assert_eq!(drops.due(9, start + PAUSE / 2), None);
        assert_eq!(drops.due(10, start + PAUSE), Some(7));
        assert_eq!(drops.due(10, start + PAUSE * 3), None);
    }
}
