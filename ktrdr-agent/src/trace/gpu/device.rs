//! One device's readings.

use std::collections::VecDeque;

use super::series::Series;
use crate::event::Ns;
use crate::event::gpu::{GpuDevice, GpuReading};

/// Readings kept of each quantity: 7 minutes at five a second in full, then ever coarser (90 bytes each).
pub(super) const POINTS: usize = 2048;
/// A device, or a process on it, that runs kernels for less of the time (percent) is idle: what a display or a
/// heartbeat takes.
pub const IDLE_BELOW: f64 = 5.0;
/// Changes of a state that are kept.
const MAX_MARKS: usize = 256;

/// Reasons for lower clocks that take performance away (NVML's bits), by name. The others mean that nothing is to be
/// done, or that somebody wanted it.
const THROTTLES: [(u64, &str); 5] = [
    (0x04, "sw_power_cap"),
    (0x08, "hw_slowdown"),
    (0x20, "sw_thermal_slowdown"),
    (0x40, "hw_thermal_slowdown"),
    (0x80, "hw_power_brake_slowdown"),
];

/// A device and what it did.
#[derive(Debug)]
pub struct Device {
    /// Which it is.
    pub meta: GpuDevice,
    /// Percent of the time with a kernel running.
    pub utilization: Series,
    /// Bytes in use.
    pub memory: Series,
    /// Watts.
    pub power: Series,
    /// Degrees Celsius.
    pub temperature: Series,
    /// The last reading and its time.
    pub latest: Option<(Ns, GpuReading)>,
    /// Readings, whatever they hold.
    pub(super) read: Series,
    /// ECC errors when they were last read: corrected, uncorrected.
    ecc: Option<(u64, u64)>,
    throttle: Marks,
    uncorrected: Marks,
    xids: Marks,
}

impl Device {
    pub(super) fn new(meta: GpuDevice) -> Self {
        let series = |idle_below| Series::new(POINTS, idle_below);
        Self {
            meta,
            utilization: series(IDLE_BELOW),
            memory: series(0.0),
            power: series(0.0),
            temperature: series(0.0),
            latest: None,
            read: series(0.0),
            ecc: None,
            throttle: Marks::default(),
            uncorrected: Marks::default(),
            xids: Marks::default(),
        }
    }

    /// Takes in a reading; false if it is not younger than the one before.
    pub(super) fn take(&mut self, ts: Ns, r: &GpuReading, hold: Ns) -> bool {
        if !self.read.push(ts, 1.0, hold) {
            return false;
        }
        if let Some(percent) = r.utilization {
            self.utilization.push(ts, f64::from(percent.min(100)), hold);
        }
        if let Some(bytes) = r.memory_used {
            self.memory.push(ts, float(bytes), hold);
        }
        if let Some(mw) = r.power {
            self.power.push(ts, f64::from(mw) / 1000.0, hold);
        }
        if let Some(degrees) = r.temperature {
            self.temperature.push(ts, f64::from(degrees), hold);
        }
        if let Some(bits) = r.throttle {
            self.throttle.change(ts, bits);
        }
        self.ecc = r.ecc.or(self.ecc);
        if let Some((_, uncorrected)) = r.ecc {
            self.uncorrected.change(ts, uncorrected);
        }
        for xid in &r.xids {
            self.xids.add(ts, *xid);
        }
        self.latest = Some((ts, r.clone()));
        true
    }

    /// ECC errors when they were last read: corrected, uncorrected.
    pub fn ecc(&self) -> Option<(u64, u64)> {
        self.ecc
    }

    /// What held the clocks down in (start, end].
    pub fn throttled(&self, start: Ns, end: Ns) -> Vec<String> {
        let at_start = self.throttle.at(start).unwrap_or(0);
        let bits = self.throttle.within(start, end).fold(at_start, |all, bits| all | bits);
        THROTTLES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
    }

    /// Uncorrected ECC errors that came up in (start, end].
    pub fn uncorrected(&self, start: Ns, end: Ns) -> u64 {
        let Some(before) = self.uncorrected.at(start) else { return 0 };
        self.uncorrected.within(start, end).last().map_or(0, |now| now.saturating_sub(before))
    }

    /// XID errors in (start, end].
    pub fn xids(&self, start: Ns, end: Ns) -> Vec<u64> {
        let mut all: Vec<u64> = self.xids.within(start, end).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A state's changes, or events, the latest of them.
#[derive(Debug, Default)]
struct Marks(VecDeque<(Ns, u64)>);

impl Marks {
    fn change(&mut self, ts: Ns, value: u64) {
        if self.0.back().is_none_or(|(_, v)| *v != value) {
            self.add(ts, value);
        }
    }

    fn add(&mut self, ts: Ns, value: u64) {
        if self.0.len() >= MAX_MARKS {
            self.0.pop_front();
        }
        self.0.push_back((ts, value));
    }

    /// The state at `ts`.
    fn at(&self, ts: Ns) -> Option<u64> {
        let n = self.0.partition_point(|(t, _)| *t <= ts);
        self.0.get(n.checked_sub(1)?).map(|(_, v)| *v)
    }

    /// Values that came up in (start, end].
    fn within(&self, start: Ns, end: Ns) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |(t, _)| *t > start && *t <= end).map(|(_, v)| *v)
    }
}

/// Bytes as a number that means are made of: exact up to 8 PiB.
#[allow(clippy::cast_precision_loss)]
pub(super) fn float(bytes: u64) -> f64 {
    bytes as f64
}
