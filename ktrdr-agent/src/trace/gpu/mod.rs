//! What GPUs did while a span lasted.
//!
//! The shell samples; here the samples are kept ([`series`]), and a finished span of a process that used a GPU, or of
//! an operation that such a process served, is told what they say of its own time ([`pairing`]). Both are on the boot
//! clock, so the wall clock may be set meanwhile. [`demand`] remembers who asked for a GPU.

pub mod demand;
mod device;
mod pairing;
pub mod series;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::event::gpu::{GpuCondition, GpuReading, GpuSample, GpuSource, GpuStatus};
use crate::event::{MS, Ns};
use demand::Demand;
pub use device::Device;
use series::Series;

/// Devices followed; a DGX has 8, with 7 MIG instances each.
const MAX_DEVICES: usize = 64;
/// Processes on devices that are followed at once; the one unseen for longest is forgotten. With [`USE_POINTS`] that
/// is 9 MB at worst.
const MAX_USES: usize = 64;
/// Readings kept of each quantity of a process.
const USE_POINTS: usize = 512;
/// Generations of parents that a GPU process counts for: a reloader, a launcher, a data loader.
const MAX_GENERATIONS: usize = 4;
/// A reading stands for this many periods at most, in tenths: one may be late, but not lost.
const HOLD_TENTHS: u64 = 25;
/// The longest period believed, whatever a recording says.
const MAX_PERIOD_MS: u32 = 60_000;

/// Counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuCounts {
    /// Samples taken in.
    pub samples: u64,
    /// Readings that were not younger than the one before, or of no known device.
    pub refused: u64,
    /// Processes forgotten because too many used GPUs at once.
    pub forgotten: u64,
    /// Spans that were told what a GPU did.
    pub spans: u64,
}

/// A process on a device.
#[derive(Debug)]
struct Use {
    /// Its parents, nearest first.
    parents: Vec<u32>,
    /// Readings in which it was there.
    there: Series,
    sm: Series,
    memory: Series,
}

/// All that is known of GPUs.
pub struct Gpus {
    status: GpuStatus,
    devices: BTreeMap<u32, Device>,
    /// By process and device.
    uses: BTreeMap<(u32, u32), Use>,
    /// Readings in which the processes of every device were listed: how many could not be told who they are.
    listed: Series,
    hold: Ns,
    /// Who asked for a GPU.
    pub demand: Demand,
    /// Counters.
    pub counts: GpuCounts,
}

impl Gpus {
    /// None known.
    pub fn new() -> Self {
        Self {
            status: GpuStatus::default(),
            devices: BTreeMap::new(),
            uses: BTreeMap::new(),
            listed: Series::new(device::POINTS, 0.0),
            hold: 0,
            demand: Demand::new(),
            counts: GpuCounts::default(),
        }
    }

    /// Whether no process was seen to use a GPU.
    pub fn is_idle(&self) -> bool {
        self.uses.is_empty()
    }

    /// Where samples come from, and how the devices are.
    pub fn status(&self) -> &GpuStatus {
        &self.status
    }

    /// The devices, by number.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// What processes took in their last reading, if that is not out of date: process, device, memory, utilisation.
    pub fn uses(&self) -> impl Iterator<Item = (u32, &Device, Option<f64>, Option<f64>)> {
        self.uses.iter().filter_map(|((pid, device), u)| {
            let device = self.devices.get(device)?;
            // The device was read again since, and the process was not there.
            let (last, read) = (u.there.latest()?, device.read.latest()?);
            (last == read).then(|| (*pid, device, u.memory.last_at(last), u.sm.last_at(last)))
        })
    }

    /// Learns which devices there are. What one did before it was lost stays.
    pub fn status_is(&mut self, status: GpuStatus) {
        for d in &status.devices {
            let room = self.devices.len() < MAX_DEVICES;
            match self.devices.get_mut(&d.id) {
                Some(known) if known.meta.uuid == d.uuid => known.meta = d.clone(),
                Some(other) => *other = Device::new(d.clone()),
                None if room => {
                    self.devices.insert(d.id, Device::new(d.clone()));
                }
                None => {}
            }
        }
        self.status = status;
    }

    /// Takes in a sample; `parent` tells a process's parent.
    pub fn sample(&mut self, ts: Ns, sample: &GpuSample, parent: &dyn Fn(u32) -> Option<u32>) {
        self.counts.samples += 1;
        self.hold = u64::from(sample.period_ms.min(MAX_PERIOD_MS)) * HOLD_TENTHS * MS / 10;
        let mut unknown = Some(0u32);
        for reading in &sample.devices {
            let taken = self.devices.get_mut(&reading.id).is_some_and(|d| d.take(ts, reading, self.hold));
            if !taken {
                self.counts.refused += 1;
                continue;
            }
            match &reading.processes {
                None => unknown = None,
                Some(list) => {
                    let strangers = list.iter().filter(|p| p.pid == 0).count();
                    unknown = unknown.map(|n| n.saturating_add(u32::try_from(strangers).unwrap_or(u32::MAX)));
                }
            }
            self.processes(ts, reading, parent);
        }
        if let (Some(n), false) = (unknown, sample.devices.is_empty()) {
            self.listed.push(ts, f64::from(n), self.hold);
        }
    }

    fn processes(&mut self, ts: Ns, reading: &GpuReading, parent: &dyn Fn(u32) -> Option<u32>) {
        for p in reading.processes.iter().flatten().filter(|p| p.pid != 0) {
            let key = (p.pid, reading.id);
            if !self.uses.contains_key(&key) && self.uses.len() >= MAX_USES {
                let oldest = self.uses.iter().min_by_key(|(_, u)| u.there.latest()).map(|(k, _)| *k);
                if let Some(k) = oldest {
                    self.uses.remove(&k);
                    self.counts.forgotten += 1;
                }
            }
            let new = || Use {
                parents: parents(p.pid, parent),
                there: Series::new(USE_POINTS, 0.0),
                sm: Series::new(USE_POINTS, device::IDLE_BELOW),
                memory: Series::new(USE_POINTS, 0.0),
            };
            let using = self.uses.entry(key).or_insert_with(new);
            // The number may be another process's by now.
            if using.there.latest().is_some_and(|last| ts.saturating_sub(last) > self.hold) {
                using.parents = parents(p.pid, parent);
            }
            using.there.push(ts, 1.0, self.hold);
            if let Some(sm) = p.sm {
                using.sm.push(ts, f64::from(sm.min(100)), self.hold);
            }
            if let Some(bytes) = p.memory {
                using.memory.push(ts, device::float(bytes), self.hold);
            }
        }
    }

    /// Whether the source itself says that this host has no GPU that works.
    fn none_works(&self) -> bool {
        self.status.source == GpuSource::Nvml
            && matches!(self.status.condition, GpuCondition::NoDevice | GpuCondition::DriverNotLoaded)
    }
}

impl Default for Gpus {
    fn default() -> Self {
        Self::new()
    }
}

/// Parents of a process, nearest first, without the init process.
fn parents(pid: u32, parent: &dyn Fn(u32) -> Option<u32>) -> Vec<u32> {
    let mut all = Vec::new();
    let mut at = pid;
    while let Some(p) = parent(at).filter(|p| *p > 1 && *p != at && all.len() < MAX_GENERATIONS) {
        all.push(p);
        at = p;
    }
    all
}
