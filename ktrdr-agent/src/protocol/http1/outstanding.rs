//! What the coming responses answer, as far as their framing depends on it.

use std::collections::VecDeque;

use super::body::Asked;

/// Requests remembered while no response comes: far above what any client pipelines; reached only where the
/// responses are not seen at all.
const MAX: usize = 256;

/// An entry: a request, or a place where requests may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Request(Asked),
    Gap,
}

/// Requests without a response, oldest first.
///
/// After lost bytes it is unknown how many requests (or responses) were in them. A gap in the queue stands for
/// that: responses that come to it are framed without knowing their request. A client that does not pipeline
/// sends a request only after the last response ended, so its next request clears the gap; on a connection where
/// requests were pipelined, the gap stays.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    queue: VecDeque<Entry>,
    pipelined: bool,
}

impl Outstanding {
    /// A request began.
    pub(super) fn request(&mut self, asked: Asked) {
        if self.queue.contains(&Entry::Gap) && !self.pipelined {
            self.queue.clear();
        }
        self.pipelined |= !self.queue.is_empty();
        if self.queue.len() == MAX {
            self.queue.clear();
            self.queue.push_back(Entry::Gap);
        }
        self.queue.push_back(Entry::Request(asked));
    }

    /// A final response began: what it answers, `None` = unknown.
    pub(super) fn response(&mut self) -> Option<Asked> {
        match self.queue.front()? {
            Entry::Gap => None,
            Entry::Request(asked) => {
                let asked = *asked;
                self.queue.pop_front();
                Some(asked)
            }
        }
    }

    /// Bytes with requests in them may be missing.
    pub(super) fn lost_requests(&mut self) {
        if self.queue.back() != Some(&Entry::Gap) {
            self.queue.push_back(Entry::Gap);
        }
    }

    /// Bytes with responses in them may be missing: which requests they answered is unknown.
    pub(super) fn lost_responses(&mut self) {
        self.queue.clear();
        self.queue.push_back(Entry::Gap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_order() {
        let mut open = Outstanding::default();
        assert_eq!(open.response(), None);
        for asked in [Asked::Plain, Asked::Head, Asked::Connect] {
            open.request(asked);
        }
        assert_eq!(open.response(), Some(Asked::Plain));
        assert_eq!(open.response(), Some(Asked::Head));
        assert_eq!(open.response(), Some(Asked::Connect));
        assert_eq!(open.response(), None);
    }

    #[test]
    fn a_gap_hides_what_follows_it_until_the_next_request_of_a_sequential_client() {
        let mut open = Outstanding::default();
        open.request(Asked::Head);
        open.lost_requests();
        assert_eq!(open.response(), Some(Asked::Head), "asked before the gap");
        assert_eq!(open.response(), None);
        open.request(Asked::Connect);
        assert_eq!(open.response(), Some(Asked::Connect));
    }

    #[test]
    fn a_gap_stays_where_requests_were_pipelined() {
        let mut open = Outstanding::default();
        open.request(Asked::Plain);
        open.request(Asked::Head);
        open.lost_responses();
        open.request(Asked::Head);
        assert_eq!(open.response(), None);
        assert_eq!(open.response(), None);
    }

    #[test]
    fn stays_bounded_without_responses() {
        let mut open = Outstanding::default();
        for _ in 0..10 * MAX {
            open.request(Asked::Plain);
            open.lost_requests();
        }
        assert!(open.queue.len() <= MAX + 1);
    }
}
