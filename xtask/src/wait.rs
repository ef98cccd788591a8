//! Waiting for a condition with a deadline: the one place where the tasks pause.

use std::time::{Duration, Instant};

/// Time between two looks. Short against anything a person notices, long against the look itself.
const INTERVAL: Duration = Duration::from_millis(20);

/// Polls `look` until it gives something; `None` if it has not by the deadline.
pub fn until<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::park_timeout(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_was_found_or_gives_up() {
        let mut looks = 0;
        let third_time = || {
            looks += 1;
            (looks == 3).then_some(looks)
        };
        assert_eq!(until(Duration::from_secs(5), third_time), Some(3));
        assert_eq!(until(Duration::ZERO, || None::<()>), None);
    }
}
