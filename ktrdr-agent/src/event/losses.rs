//! Where records are missing, told by the records around them.
//!
//! The kernel programs count losses in the flags of every record ([`ktrdr_ebpf_common::flags::LOSSES_SHIFT`]), so that
//! a loss is known at the first record behind it, before anything is concluded from that record. How many are missing
//! is known a little later, from the counters.

/// Episodes of loss that can be told apart: 7 bits of the count, the lowest says whether one is under way.
const EPISODES: u16 = 128;

/// Follows the marks of a stream of records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    episode: u16,
    told: bool,
}

impl Losses {
    /// Takes a record's mark. Whether records are missing between those seen so far and this one.
    pub fn advance(&mut self, mark: u8) -> bool {
        let episode = u16::from(mark).div_ceil(2) % EPISODES;
        // A record that was begun before the loss, on another CPU, may lie behind one that was begun after it.
        let ahead = (episode + EPISODES - self.episode) % EPISODES;
        let new = (1..EPISODES / 2).contains(&ahead);
        if new {
            self.episode = episode;
            self.told = true;
        }
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

    fn losses(marks: impl IntoIterator<Item = u8>) -> usize {
        let mut l = Losses::default();
        marks.into_iter().filter(|m| l.advance(*m)).count()
    }

    #[test]
    fn each_episode_is_told_once_at_its_first_record() {
        assert_eq!(losses([0, 0, 0]), 0);
        // Lost between; the first record behind it still says so, the next that it is over.
        assert_eq!(losses([0, 1, 2, 2, 2]), 1);
        assert_eq!(losses([0, 1, 2, 3, 4]), 2);
        // The first record behind it was begun after another had ended the episode.
        assert_eq!(losses([0, 2, 4]), 2);
    }

    #[test]
    fn a_record_begun_before_the_loss_changes_nothing() {
        assert_eq!(losses([0, 1, 0, 2, 1, 2]), 1);
    }

    #[test]
    fn the_count_may_wrap() {
        assert_eq!(losses((0..=u8::MAX).chain(0..=u8::MAX)), 256);
    }

    #[test]
    fn told_is_asked_once() {
        let mut l = Losses::default();
        assert!(!l.told());
        assert!(l.advance(1));
        assert!(l.told() && !l.told());
    }
}
