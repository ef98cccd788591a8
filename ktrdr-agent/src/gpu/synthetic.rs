//! An invented GPU, so that the demo shows on any machine what a real one would add. Its name says so, and so does
//! every span that speaks of it (`ktrdr.gpu.source=synthetic`).

use std::sync::{Arc, Mutex, PoisonError};

use super::{Inventory, Readings, Source, Trouble};
use crate::event::MS;
use crate::event::gpu::{GpuDevice, GpuReading, GpuSource, GpuUse};
use crate::meta::host::boot_now_ns;

/// Processes shown on the device.
const MAX_WATCHED: usize = 16;
/// The device's memory, and what a process begins with.
const MEMORY: u64 = 8 << 30;
const CONTEXT: u64 = 600 << 20;

/// Processes that are shown on the invented device.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<Vec<u32>>>);

impl Watched {
    /// Shows the process, until too many newer ones are.
    pub fn add(&self, pid: u32) {
        let mut pids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !pids.contains(&pid) {
            pids.push(pid);
        }
        if pids.len() > MAX_WATCHED {
            pids.remove(0);
        }
    }

    /// The processes to go on showing.
    pub fn keep(&self, alive: impl Fn(u32) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| alive(*p));
    }

    fn pids(&self) -> Vec<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The invented GPU: busy for three seconds, then idle for one, as between two epochs, as long as a process is on it.
#[derive(Debug, Default)]
pub struct Synthetic {
    watched: Watched,
}

impl Synthetic {
    /// With these processes on it.
    pub fn new(watched: Watched) -> Self {
        Self { watched }
    }
}

impl Source for Synthetic {
    fn kind(&self) -> GpuSource {
        GpuSource::Synthetic
    }

    fn open(&mut self) -> Result<Inventory, Trouble> {
        let device = GpuDevice {
            id: 0,
            index: "0".into(),
            uuid: "GPU-synthetic-0".into(),
            name: "Synthetic GPU (invented, not measured)".into(),
            memory: Some(MEMORY),
            trouble: String::new(),
        };
        Ok(Inventory { driver: "synthetic".into(), devices: vec![device] })
    }

    fn read(&mut self) -> Result<Readings, Trouble> {
        Ok(Readings { devices: vec![reading(boot_now_ns() / MS, &self.watched.pids())], inventory: None })
    }
}

fn reading(ms: u64, pids: &[u32]) -> GpuReading {
    let phase = ms % 4000;
    let busy = !pids.is_empty() && phase < 3000;
    let utilization = if busy { 85 + (phase / 200 % 10) as u32 } else { 0 };
    let each = CONTEXT + phase.min(3000) * (256 << 10);
    let share = u32::try_from(pids.len().max(1)).unwrap_or(u32::MAX);
    GpuReading {
        id: 0,
        utilization: Some(utilization),
        memory_utilization: Some(utilization / 2),
        memory_used: Some((pids.len() as u64).saturating_mul(each).min(MEMORY)),
        temperature: Some(35 + utilization / 3),
        power: Some(20_000 + utilization * 1_500),
        sm_clock: Some(if busy { 1_800 } else { 300 }),
        memory_clock: Some(if busy { 9_500 } else { 405 }),
        throttle: Some(0),
        pcie: Some(if busy { (2_000_000, 500_000) } else { (0, 0) }),
        ecc: Some((0, 0)),
        processes: Some(
            pids.iter()
                .map(|p| GpuUse { pid: *p, memory: Some(each), sm: Some(utilization / share) })
                .collect(),
        ),
        ..GpuReading::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_idle_alone_and_labels_itself() {
        let watched = Watched::default();
        let mut s = Synthetic::new(watched.clone());
        let inventory = s.open().unwrap();
        assert!(
            inventory.devices[0].name.contains("Synthetic")
                && inventory.devices[0].uuid.contains("synthetic")
        );
        let read = s.read().unwrap();
        assert_eq!((read.devices[0].utilization, read.devices[0].memory_used), (Some(0), Some(0)));
        (1..=40).for_each(|pid| watched.add(pid));
        watched.keep(|pid| pid != 40);
        assert_eq!(s.read().unwrap().devices[0].processes.as_ref().unwrap().len(), MAX_WATCHED - 1);
        assert_eq!((reading(100, &[7]).utilization, reading(3500, &[7]).utilization), (Some(85), Some(0)));
    }
}
