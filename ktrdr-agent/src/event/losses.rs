//! Where records are missing, told by the records around them.
//!
//! The kernel programs count losses in the header of every record ([`ktrdr_ebpf_common::EventHeader::losses`]), so that a
//! loss is known at the first record that was begun behind it, before anything is concluded from that record. How many are
//! missing is known from the counters, a little later.

/// Follows the counts of a stream of records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    count: u16,
    told: bool,
}

impl Losses {
    /// Takes a record's count. Whether records are missing between those seen so far and this one.
    ///
    /// A record that was begun before a loss, on another CPU, may lie behind one that was begun after it. Then the loss is
    /// told three times: the counts of two records in a row may differ by anything, so older and newer cannot be told
    /// apart, and one loss too many forgets something, where one too few would claim something.
    pub fn advance(&mut self, count: u16) -> bool {
        let new = count != self.count;
        self.count = count;
        self.told |= new;
        new
    }

    /// Whether a loss was told since this was last asked.
    pub fn told(&mut self) -> bool {
        std::mem::take(&mut self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(counts: impl IntoIterator<Item = u16>) -> usize {
        let mut l = Losses::default();
        counts.into_iter().filter(|count| l.advance(*count)).count()
    }

    #[test]
    fn a_loss_is_told_once_at_the_first_record_behind_it() {
        assert_eq!(losses([0, 0, 0]), 0);
        assert_eq!(losses([0, 1, 1, 1]), 1);
        assert_eq!(losses([0, 40_000, 40_000]), 1);
    }

    #[test]
    fn a_loss_while_another_record_finds_room_is_told() {
        assert_eq!(losses([0, 1, 2, 2]), 2);
    }

    #[test]
    fn no_loss_is_missed_for_a_record_that_was_begun_before_it() {
        assert_eq!(losses([0, 1, 0, 1]), 3);
    }

    #[test]
    fn the_count_may_wrap() {
        assert_eq!(losses((1..=u16::MAX).chain([0])), 65_536);
    }

    #[test]
    fn told_is_asked_once() {
        let mut l = Losses::default();
        assert!(!l.told());
        assert!(l.advance(1));
        assert!(l.told() && !l.told());
    }
}
