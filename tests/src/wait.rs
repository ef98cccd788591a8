//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Longest wait for anything that is sure to come; generous, because test machines are shared.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Polls until `condition` gives something, or fails the test.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    match within(DEADLINE, &mut condition) {
        Some(value) => value,
        None => panic!("waited {} s in vain for {what}", DEADLINE.as_secs()),
    }
}

/// Polls until `condition` gives something or `limit` has passed.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
