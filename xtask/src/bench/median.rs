//! The median of the rounds, and how far it can be trusted.

/// The middle value; of an even number of values the upper one of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The range in which the true median lies with at least 95 %, whatever the values' distribution: so many values lie below
/// it as tosses of a coin say. `None` for fewer than six values, all of which may lie on one side.
pub fn range(mut values: Vec<f64>) -> Option<(f64, f64)> {
    const OUTSIDE: f64 = 0.05;
    values.sort_by(f64::total_cmp);
    let n = values.len();
    // The chance that at most `k` values lie below the median, and as many above.
    let (mut exactly, mut at_most, mut cut) = (0.5f64.powi(i32::try_from(n).ok()?), 0.0, 0);
    for k in 0..n / 2 {
        at_most += exactly;
        if 2.0 * at_most > OUTSIDE {
            break;
        }
        cut = k + 1;
        exactly *= (n - k) as f64 / (k + 1) as f64;
    }
    if cut == 0 {
        return None;
    }
    Some((*values.get(cut - 1)?, *values.get(n - cut)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }

    /// The places are those of tables for the sign test.
    #[test]
    fn the_range_of_the_median() {
        let of = |n: u32| range((1..=n).rev().map(f64::from).collect());
        assert_eq!(of(5), None);
        for (n, low) in [(6, 1), (8, 1), (9, 2), (12, 3), (15, 4), (20, 6), (30, 10)] {
            assert_eq!(of(n), Some((f64::from(low), f64::from(n + 1 - low))), "{n}");
        }
    }
}
