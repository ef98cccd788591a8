//! Values of series: sums, readings, histograms with exemplars.

use crate::trace::model::{SpanId, TraceId};

/// A measurement in its trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// What was measured.
    pub value: f64,
    /// When, nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// Trace.
    pub trace_id: TraceId,
    /// Span.
    pub span_id: SpanId,
}

/// Values counted by bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Values per bucket, not cumulative; the last one is above every bound.
    pub counts: Box<[u64]>,
    /// Sum of all values.
    pub sum: f64,
    /// The latest exemplar of each bucket; empty until the first.
    pub exemplars: Box<[Option<Exemplar>]>,
}

impl Histogram {
    /// Nothing measured; `bounds` upper bounds.
    pub fn new(bounds: usize) -> Self {
        Self { counts: vec![0; bounds + 1].into(), sum: 0.0, exemplars: Box::default() }
    }

    /// Takes a value. Bounds are inclusive, as in OpenTelemetry and in Prometheus' `le`.
    pub fn observe(&mut self, bounds: &[f64], value: f64, exemplar: Option<Exemplar>) {
        let at = bounds.partition_point(|bound| *bound < value);
        if let Some(n) = self.counts.get_mut(at) {
            *n += 1;
        }
        self.sum += value;
        if let Some(exemplar) = exemplar {
            if self.exemplars.is_empty() {
                self.exemplars = vec![None; self.counts.len()].into();
            }
            if let Some(place) = self.exemplars.get_mut(at) {
                *place = Some(exemplar);
            }
        }
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What a series holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A sum of whole numbers.
    Int(u64),
    /// A reading, or a sum of amounts.
    Float(f64),
    /// A distribution.
    Histogram(Histogram),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_the_last_bucket_takes_the_rest() {
        let mut h = Histogram::new(2);
        let bounds = [1.0, 5.0];
        for v in [0.0, 1.0, 1.1, 5.0, 5.1, f64::INFINITY] {
            h.observe(&bounds, v, None);
        }
        assert_eq!(*h.counts, [2, 2, 2]);
        assert_eq!(h.count(), 6);
        assert!(h.exemplars.is_empty());
    }

    #[test]
    fn a_bucket_keeps_its_latest_exemplar() {
        let mut h = Histogram::new(1);
        let at = |n: u8| Exemplar {
            value: f64::from(n),
            wall_ns: 0,
            trace_id: TraceId([n; 16]),
            span_id: SpanId([n; 8]),
        };
        for n in [1, 2, 9] {
            h.observe(&[5.0], f64::from(n), Some(at(n)));
        }
        h.observe(&[5.0], 3.0, None);
        assert_eq!(*h.exemplars, [Some(at(2)), Some(at(9))]);
    }
}
