//! All metrics at one moment, for exporters.

use std::ops::Range;
use std::sync::Arc;

use super::Id;
use super::label::OwnedLabel;
use super::value::Value;
use crate::trace::model::Resource;

/// A series at that moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Index of its service.
    pub service: u16,
    /// Its instrument.
    pub id: Id,
    /// Its attributes.
    pub labels: Arc<[(&'static str, OwnedLabel)]>,
    /// Its value; sums since [`Snapshot::start_wall_ns`].
    pub value: Value,
}

/// All metrics at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Since when sums add up, nanoseconds since the Unix epoch.
    pub start_wall_ns: u64,
    /// The moment; not before the start, whatever the clock does.
    pub wall_ns: u64,
    /// The services.
    pub services: Vec<Arc<Resource>>,
    /// All series, by service and instrument.
    pub points: Vec<Point>,
}

impl Snapshot {
    /// The series in slices of at most `most`, so that a request stays small.
    pub fn slices(self: &Arc<Self>, most: usize) -> impl Iterator<Item = Slice> {
        let (snapshot, len) = (self.clone(), self.points.len());
        (0..len)
            .step_by(most.max(1))
            .map(move |from| Slice { snapshot: snapshot.clone(), range: from..(from + most.max(1)).min(len) })
    }
}

/// Some series of a snapshot.
#[derive(Clone, Debug)]
pub struct Slice {
    /// All of it.
    pub snapshot: Arc<Snapshot>,
    range: Range<usize>,
}

impl Slice {
    /// The series.
    pub fn points(&self) -> &[Point] {
        self.snapshot.points.get(self.range.clone()).unwrap_or_default()
    }
}
