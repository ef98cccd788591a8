//! One device's readings.

use std::collections::{BTreeMap, VecDeque};

use super::series::Series;
use crate::event::Ns;
use crate::event::gpu::{GpuDevice, GpuReading};

/// Readings kept of each quantity: 7 minutes at five a second in full, then ever coarser (90 bytes each).
pub(super) const POINTS: usize = 2048;
/// A device, or a process on it, that runs kernels for less of the time (percent) is idle: what a display or a
/// heartbeat takes.
pub const IDLE_BELOW: f64 = 5.0;
/// Readings kept of what is read once a second: nearly as long in full.
const SLOW_POINTS: usize = 512;
/// Numbers of XID errors that are counted; NVIDIA's list has about 150, a device that fails reports a handful.
const MAX_XIDS: usize = 32;
/// Changes of a state that are kept.
const MAX_MARKS: usize = 256;

/// NVML counts PCIe traffic in these.
const KB: f64 = 1000.0;

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
    /// Clock of the multiprocessors, MHz.
    pub clock: Series,
    /// Clock of the memory, MHz.
    pub memory_clock: Series,
    /// Bytes a second from the host.
    pub received: Series,
    /// Bytes a second to the host.
    pub sent: Series,
    /// The last reading and its time.
    pub latest: Option<(Ns, GpuReading)>,
    /// Readings, whatever they hold.
    pub(super) read: Series,
    /// ECC errors when they were last read: corrected, uncorrected.
    ecc: Option<(u64, u64)>,
    throttle: Marks,
    uncorrected: Marks,
    xids: Marks,
    /// XID errors by number.
    xid_counts: BTreeMap<u64, u64>,
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
            clock: Series::new(SLOW_POINTS, 0.0),
            memory_clock: Series::new(SLOW_POINTS, 0.0),
            received: Series::new(SLOW_POINTS, 0.0),
            sent: Series::new(SLOW_POINTS, 0.0),
            latest: None,
            read: series(0.0),
            ecc: None,
            throttle: Marks::default(),
            uncorrected: Marks::default(),
            xids: Marks::default(),
            xid_counts: BTreeMap::new(),
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
        if let Some(mhz) = r.sm_clock {
            self.clock.push(ts, f64::from(mhz), hold);
        }
        if let Some(mhz) = r.memory_clock {
            self.memory_clock.push(ts, f64::from(mhz), hold);
        }
        if let Some((received, sent)) = r.pcie {
            self.received.push(ts, f64::from(received) * KB, hold);
            self.sent.push(ts, f64::from(sent) * KB, hold);
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
            if self.xid_counts.len() < MAX_XIDS || self.xid_counts.contains_key(xid) {
                *self.xid_counts.entry(*xid).or_default() += 1;
            }
        }
        self.latest = Some((ts, r.clone()));
        true
    }

    /// ECC errors when they were last read: corrected, uncorrected.
    pub fn ecc(&self) -> Option<(u64, u64)> {
        self.ecc
    }

    /// XID errors since the first sample, by number.
    pub fn xid_counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.xid_counts.iter().map(|(xid, n)| (*xid, *n))
    }

    /// Each reason that may hold the clocks down, and whether it does as of the last reading; none where that is not told.
    pub fn throttled_now(&self) -> impl Iterator<Item = (&'static str, bool)> + use<> {
        let bits = self.latest.as_ref().and_then(|(_, r)| r.throttle);
        bits.into_iter().flat_map(|bits| THROTTLES.iter().map(move |(bit, name)| (*name, bits & bit != 0)))
    }

    /// What held the clocks down in (start, end].
    pub fn throttled(&self, start: Ns, end: Ns) -> Vec<String> {
        let at_start = self.throttle.at(start).unwrap_or(0);
        let bits = self.throttle.within(start, end).fold(at_start, |all, bits| all | bits);
        reasons(bits).map(str::to_owned).collect()
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

/// Names of the reasons in NVML's bits.
fn reasons(bits: u64) -> impl Iterator<Item = &'static str> {
    THROTTLES.iter().filter(move |(bit, _)| bits & bit != 0).map(|(_, name)| *name)
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
