//! A fair division among ports, and the steps in which a port's observed part changes.

use ktrdr_ebpf_common::thinning::ALL;

/// Steps from one half to the next: what is left out changes by a fifth at least, so tables change rarely.
const STEPS_PER_HALF: f64 = 4.0;
/// The last step: 1 of 256 connections. A port of which nothing at all is seen could not be told from an idle one.
pub const LAST: u8 = 32;

/// The part of its connections that a port shows at a step; 0 = all of them.
pub fn part(step: u8) -> f64 {
    (-f64::from(step) / STEPS_PER_HALF).exp2()
}

/// The first step at which a port shows no more than this part of its connections.
pub fn step(part: f64) -> u8 {
    // A step that is missed by a hair is meant; a part of nothing is the last step, as is one that is no number.
    let step = (-part.log2() * STEPS_PER_HALF - 0.01).ceil();
    if step <= 0.0 { 0 } else { (1..LAST).find(|s| f64::from(*s) >= step).unwrap_or(LAST) }
}

/// What is left out at a step, as [`ktrdr_ebpf_common::thinning::left_out`] counts it.
pub fn left_out(step: u8) -> u32 {
    let shown = (part(step) * f64::from(ALL)).round();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of ALL, not negative")]
    let shown = shown as u32;
    ALL - shown
}

/// The most that one of these may take so that together they take no more than `capacity`, and none less than it wants
/// for the sake of another that takes more (max-min fairness). Infinite where all of it fits.
pub fn cap(wanted: impl Iterator<Item = f64>, capacity: f64) -> f64 {
    let mut wanted: Vec<f64> = wanted.collect();
    wanted.sort_by(f64::total_cmp);
    let (mut left, mut sharers) = (capacity, wanted.len());
    for one in wanted {
        #[allow(clippy::cast_precision_loss, reason = "a number of ports")]
        let fair = left / sharers as f64;
        if one > fair {
            return fair;
        }
        (left, sharers) = (left - one, sharers - 1);
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_little_gets_it_and_the_others_share_the_rest() {
        let cap = |wanted: &[f64], capacity| super::cap(wanted.iter().copied(), capacity);
        assert_eq!(cap(&[10.0, 500.0, 300.0], 410.0), 200.0);
        assert_eq!(cap(&[10.0, 500.0, 150.0], 410.0), 250.0);
        assert_eq!(cap(&[10.0, 500.0], 5.0), 2.5);
        assert_eq!(cap(&[10.0, 500.0], 510.0), f64::INFINITY);
        assert_eq!(cap(&[], 0.0), f64::INFINITY);
        assert_eq!(cap(&[1.0], -5.0), -5.0);
    }

    #[test]
    fn steps_show_no_more_than_they_are_meant_to() {
        assert_eq!((left_out(0), left_out(4), left_out(LAST)), (0, ALL / 2, ALL - ALL / 256));
        for s in 0..=LAST {
            assert_eq!(step(part(s)), s);
        }
        for wanted in [1.0, 0.99, 0.7, 0.5, 0.14, 0.01, 0.004] {
            let shown = part(step(wanted));
            assert!(shown <= wanted * 1.01 && shown > wanted * 0.83, "{wanted}: {shown}");
        }
        for (odd, s) in [(0.0, LAST), (-1.0, LAST), (f64::NAN, LAST), (2.0, 0), (f64::INFINITY, 0)] {
            assert_eq!(step(odd), s, "{odd}");
        }
    }
}
