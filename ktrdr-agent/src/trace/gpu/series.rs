//! One quantity over time, in bounded memory, and what it was during a window.
//!
//! A reading taken at `t` tells of the time before `t`, so:
//! - it belongs to a window (start, end] in which it was taken; one taken after the end never counts;
//! - it stands for the time since the reading before it, but for no more than `hold`: after a pause (a lost device, a
//!   suspended host) the time without readings is nobody's;
//! - means are weighted by that time. The period of sampling changes as processes come and go, and a plain mean over
//!   readings would lean towards the time when they were dense.
//!
//! Memory is bounded by merging neighbours that are old. A merged point is at most 1/256 as long as it is old (unless
//! far more is kept than was planned for), so a window that ends now and begins in it is wrong at its edge by less
//! than half a percent of its length.

use std::collections::VecDeque;

use crate::event::Ns;

/// A merged point is this many times as old as it is long.
const AGE_PER_WIDTH: u64 = 256;

/// Neighbouring readings; at first one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// It stands for time from here …
    from: Ns,
    /// … to here, when the last reading in it was taken.
    to: Ns,
    /// How much of that time readings stand for.
    covered: Ns,
    samples: u64,
    /// Sum of value × time in ns.
    weighted: f64,
    min: f64,
    max: f64,
    /// Time below the idle threshold.
    idle: Ns,
    last: f64,
}

/// What a quantity was during a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Readings taken in it.
    pub samples: u64,
    /// Time of it that readings stand for.
    pub covered: Ns,
    /// Lowest reading.
    pub min: f64,
    /// Mean over the time covered.
    pub mean: f64,
    /// Highest reading.
    pub max: f64,
    /// The last reading.
    pub last: f64,
    /// Time covered by readings below the idle threshold.
    pub idle: Ns,
}

/// A quantity over time.
#[derive(Clone, Debug)]
pub struct Series {
    points: VecDeque<Point>,
    capacity: usize,
    idle_below: f64,
}

impl Series {
    /// None yet; keeps at most `capacity` points (at least 8). Values below `idle_below` are idle time.
    pub fn new(capacity: usize, idle_below: f64) -> Self {
        Self { points: VecDeque::new(), capacity: capacity.max(8), idle_below }
    }

    /// Adds a reading that stands for `hold` at most. One that is not younger than the last is refused: false.
    pub fn push(&mut self, ts: Ns, value: f64, hold: Ns) -> bool {
        let before = self.points.back().map(|p| p.to);
        if before.is_some_and(|b| b >= ts) || !value.is_finite() {
            return false;
        }
        let from = ts.saturating_sub(hold).max(before.unwrap_or(0)).min(ts);
        let covered = ts - from;
        self.points.push_back(Point {
            from,
            to: ts,
            covered,
            samples: 1,
            weighted: value * ns(covered),
            min: value,
            max: value,
            idle: if value < self.idle_below { covered } else { 0 },
            last: value,
        });
        if self.points.len() > self.capacity {
            self.compact(ts);
        }
        true
    }

    /// When the last reading was taken.
    pub fn latest(&self) -> Option<Ns> {
        self.points.back().map(|p| p.to)
    }

    /// The last reading, whenever it was taken.
    pub fn last(&self) -> Option<f64> {
        self.points.back().map(|p| p.last)
    }

    /// The last reading, if it was taken at `ts`.
    pub fn last_at(&self, ts: Ns) -> Option<f64> {
        self.points.back().filter(|p| p.to == ts).map(|p| p.last)
    }

    /// When the last reading at or before `ts` was taken.
    pub fn latest_at(&self, ts: Ns) -> Option<Ns> {
        let n = self.points.partition_point(|p| p.to <= ts);
        self.points.get(n.checked_sub(1)?).map(|p| p.to)
    }

    /// What it was in (start, end]; `None` = no reading was taken in it.
    pub fn window(&self, start: Ns, end: Ns) -> Option<Window> {
        let first = self.points.partition_point(|p| p.to <= start);
        let mut points = self.points.range(first..).take_while(|p| p.to <= end).peekable();
        let head = points.peek()?;
        let mut w = Window {
            samples: 0,
            covered: 0,
            min: head.min,
            mean: 0.0,
            max: head.max,
            last: head.last,
            idle: 0,
        };
        let mut weighted = 0.0;
        for p in points {
            let part = p.within(start);
            w.samples += if part < 1.0 { share(p.samples, part).max(1) } else { p.samples };
            w.covered += share(p.covered, part);
            w.idle += share(p.idle, part);
            weighted += p.weighted * part;
            w.min = w.min.min(p.min);
            w.max = w.max.max(p.max);
            w.last = p.last;
        }
        // Rounding must not carry a mean out of its range.
        w.mean = if w.covered == 0 { w.last } else { weighted / ns(w.covered) }.clamp(w.min, w.max);
        Some(w)
    }

    /// Merges old neighbours until a quarter of the room is free.
    fn compact(&mut self, now: Ns) {
        let mut age_per_width = AGE_PER_WIDTH;
        while self.points.len() > self.capacity - self.capacity / 4 && age_per_width > 0 {
            let mut merged: VecDeque<Point> = VecDeque::with_capacity(self.points.len());
            for p in self.points.drain(..) {
                let age = now.saturating_sub(p.to);
                match merged.back_mut() {
                    Some(b) if (p.to - b.from).saturating_mul(age_per_width) <= age => b.absorb(&p),
                    _ => merged.push_back(p),
                }
            }
            self.points = merged;
            age_per_width /= 2;
        }
        // Only when most readings are a moment old: the oldest go.
        while self.points.len() > self.capacity {
            self.points.pop_front();
        }
    }
}

impl Point {
    /// The part of its time after `start`.
    fn within(&self, start: Ns) -> f64 {
        if self.from >= start {
            return 1.0;
        }
        ns(self.to.saturating_sub(start)) / ns(self.to - self.from)
    }

    fn absorb(&mut self, next: &Point) {
        self.to = next.to;
        self.covered += next.covered;
        self.samples += next.samples;
        self.weighted += next.weighted;
        self.min = self.min.min(next.min);
        self.max = self.max.max(next.max);
        self.idle += next.idle;
        self.last = next.last;
    }
}

/// Exact to a nanosecond for 104 days.
#[allow(clippy::cast_precision_loss)]
fn ns(n: Ns) -> f64 {
    n as f64
}

/// A part of a whole, between nothing and all of it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn share(whole: u64, part: f64) -> u64 {
    if part >= 1.0 { whole } else { ((ns(whole) * part).round() as u64).min(whole) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::MS;

    const HOLD: Ns = 500 * MS;

    fn series(readings: &[(u64, f64)]) -> Series {
        let mut s = Series::new(1024, 5.0);
        for (ms, value) in readings {
            assert!(s.push(ms * MS, *value, HOLD));
        }
        s
    }

    fn window(s: &Series, from_ms: u64, to_ms: u64) -> Option<Window> {
        s.window(from_ms * MS, to_ms * MS)
    }

    #[test]
    fn a_window_without_a_reading_has_nothing() {
        let s = series(&[(1000, 50.0), (1200, 60.0)]);
        assert_eq!(window(&s, 1010, 1190), None, "between two readings");
        assert_eq!(window(&s, 0, 999), None, "before");
        assert_eq!(window(&s, 1201, 9000), None, "after");
        assert_eq!(window(&Series::new(8, 0.0), 0, 9000), None, "of an empty series");
    }

    #[test]
    fn a_reading_at_the_end_belongs_to_the_window_and_one_at_the_start_does_not() {
        let s = series(&[(1000, 50.0), (1200, 60.0)]);
        let w = window(&s, 1000, 1200).unwrap();
        assert_eq!((w.samples, w.min, w.max, w.covered), (1, 60.0, 60.0, 200 * MS));
        assert_eq!(window(&s, 1199, 1199), None);
        assert_eq!(window(&s, 1200, 1200), None, "an instant has no time before it");
    }

    #[test]
    fn means_are_weighted_by_time_and_not_by_readings() {
        // A second at 0 seen once, then a second at 100 seen five times.
        let mut s = Series::new(64, 5.0);
        s.push(1000 * MS, 0.0, 1500 * MS);
        s.push(2000 * MS, 0.0, 1500 * MS);
        for i in 1..=5 {
            s.push((2000 + 200 * i) * MS, 100.0, 500 * MS);
        }
        let w = window(&s, 1000, 3000).unwrap();
        assert_eq!((w.samples, w.covered), (6, 2000 * MS));
        assert!((w.mean - 50.0).abs() < 1e-9, "{w:?}");
        assert_eq!(w.idle, 1000 * MS);
    }

    #[test]
    fn a_reading_from_before_the_start_weighs_only_what_lies_inside() {
        let s = series(&[(1000, 0.0), (1200, 0.0), (1400, 100.0)]);
        // Of the reading at 1200, 50 ms are inside.
        let w = window(&s, 1150, 1400).unwrap();
        assert_eq!((w.samples, w.covered, w.min, w.max), (2, 250 * MS, 0.0, 100.0));
        assert!((w.mean - 80.0).abs() < 1e-9, "{w:?}");
    }

    #[test]
    fn time_without_readings_is_nobodys() {
        // The device was lost for ten seconds.
        let s = series(&[(1000, 10.0), (11_000, 90.0)]);
        let w = window(&s, 900, 11_000).unwrap();
        assert_eq!((w.samples, w.covered), (2, 600 * MS));
        let w = window(&s, 5000, 11_000).unwrap();
        assert_eq!((w.samples, w.covered, w.last), (1, HOLD, 90.0));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_adds_nothing() {
        let mut s = series(&[(1000, 50.0)]);
        assert!(!s.push(1000 * MS, 99.0, HOLD));
        assert!(!s.push(900 * MS, 99.0, HOLD));
        assert!(!s.push(2000 * MS, f64::NAN, HOLD));
        assert_eq!(window(&s, 0, 9000).unwrap().max, 50.0);
        assert!(s.push(1001 * MS, 60.0, HOLD));
        assert_eq!(window(&s, 1000, 9000).unwrap().covered, MS);
    }

    #[test]
    fn hours_fit_and_stay_right() {
        // Ten hours at five readings a second, idle every second minute.
        let mut s = Series::new(2048, 5.0);
        let busy = |ms: u64| (ms / 60_000).is_multiple_of(2);
        let hours = 10 * 3_600_000;
        for ms in (200..=hours).step_by(200) {
            s.push(ms * MS, if busy(ms - 1) { 100.0 } else { 0.0 }, HOLD);
        }
        assert!(s.points.len() <= 2048);
        for start in [0, 1_234_567, hours / 2, hours - 600_000] {
            let w = window(&s, start, hours).unwrap();
            assert!((w.mean - 50.0).abs() < 1.0, "from {start}: {w:?}");
            assert!(w.covered.abs_diff((hours - start) * MS) < (hours - start) * MS / 200, "{w:?}");
            assert!((w.samples as i64 - ((hours - start) / 200) as i64).unsigned_abs() < hours / 200 / 200);
            assert_eq!((w.min, w.max), (0.0, 100.0));
        }
    }

    /// Readings with gaps between them, and windows over them.
    fn readings() -> impl Strategy<Value = Vec<(u64, f64)>> {
        prop::collection::vec((1u64..3000, 0.0f64..100.0), 1..120).prop_map(|gaps| {
            let mut at = 10_000;
            gaps.into_iter()
                .map(|(gap, value)| {
                    at += gap;
                    (at, value)
                })
                .collect()
        })
    }

    proptest! {
        /// Against the definition, millisecond by millisecond.
        #[test]
        fn a_window_is_what_its_definition_says(all in readings(), a in 9_000u64..200_000, len in 0u64..60_000) {
            let s = series(&all);
            let (start, end) = (a, a + len);
            let mut covered = 0;
            let mut sum = 0.0;
            let mut inside = Vec::new();
            let mut before = 0;
            for (ms, value) in &all {
                if *ms > start && *ms <= end {
                    let from = ms.saturating_sub(500).max(before).max(start);
                    covered += ms - from;
                    sum += value * (ms - from) as f64;
                    inside.push(*value);
                }
                before = *ms;
            }
            match window(&s, start, end) {
                None => prop_assert!(inside.is_empty()),
                Some(w) => {
                    prop_assert_eq!(w.samples, inside.len() as u64);
                    prop_assert_eq!(w.covered, covered * MS);
                    prop_assert!((w.mean - sum / covered as f64).abs() < 1e-6);
                    prop_assert_eq!(w.min, inside.iter().copied().fold(f64::MAX, f64::min));
                    prop_assert_eq!(w.max, inside.iter().copied().fold(f64::MIN, f64::max));
                    prop_assert_eq!(Some(&w.last), inside.last());
                }
            }
        }

        /// Two windows that meet hold what one over both holds.
        #[test]
        fn windows_add_up(all in readings(), mut cuts in prop::array::uniform3(9_000u64..120_000)) {
            cuts.sort_unstable();
            let s = series(&all);
            let [a, b, c] = cuts;
            let of = |from, to| window(&s, from, to).map_or((0, 0, 0.0), |w| (w.samples, w.covered, w.mean * ns(w.covered)));
            let (left, right, whole) = (of(a, b), of(b, c), of(a, c));
            prop_assert_eq!(left.0 + right.0, whole.0);
            // A reading whose time begins before the cut and ends after it has its time counted on the right only
            // as far as it lies there.
            prop_assert!(left.1 + right.1 <= whole.1);
            prop_assert!(whole.1 - left.1 - right.1 <= HOLD);
        }

        /// However much is merged: bounded, within its range, never more time than there was, nothing from outside.
        #[test]
        fn merging_invents_nothing(all in readings(), a in 9_000u64..200_000, len in 1u64..200_000) {
            let mut s = Series::new(16, 5.0);
            for (ms, value) in &all {
                s.push(ms * MS, *value, HOLD);
            }
            prop_assert!(s.points.len() <= 16);
            if let Some(w) = window(&s, a, a + len) {
                prop_assert!(w.covered <= len * MS);
                prop_assert!(w.idle <= w.covered);
                prop_assert!(w.min <= w.mean && w.mean <= w.max);
                prop_assert!(w.samples >= 1 && w.samples <= all.len() as u64);
                prop_assert!(all.iter().any(|(ms, _)| *ms > a && *ms <= a + len));
            }
        }
    }
}
