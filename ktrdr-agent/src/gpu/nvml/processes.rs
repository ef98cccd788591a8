//! Which processes are on a device, and what each takes of it.

use std::time::SystemTime;

use nvml_wrapper::device::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::{ProcessInfo, ProcessUtilizationSample};

use super::errors::is_final;
use crate::event::gpu::GpuUse;

/// Processes told per device; a training has one, a data loader of many workers shares its parent's context.
const MAX_PROCESSES: usize = 64;

/// What is remembered between readings.
#[derive(Debug, Default)]
pub struct Processes {
    /// The list of version 3 is missing (drivers before 510).
    old_list: bool,
    /// Per-process utilisation is not offered (MIG, GeForce of some generations).
    no_utilization: bool,
    /// The library's time stamp of the last utilisation seen: wall clock, microseconds.
    seen: u64,
}

impl Processes {
    /// The processes on a device; pids are as the library gives them.
    pub fn read(&mut self, device: &Device<'_>, instance: bool) -> Result<Vec<GpuUse>, NvmlError> {
        let list = self.list(device)?;
        let busy = if list.is_empty() || instance { None } else { self.utilization(device)? };
        let mut all: Vec<GpuUse> = Vec::new();
        for p in list.into_iter().take(MAX_PROCESSES) {
            let memory = match p.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            // Who did nothing is not in the list of the busy.
            let sm = busy.as_ref().map(|b| {
                let mine = b.iter().filter(|s| s.pid == p.pid);
                mine.max_by_key(|s| s.timestamp).map_or(0, |s| s.sm_util)
            });
            // With several contexts, or on several instances, a process is listed more than once.
            match all.iter_mut().find(|u| u.pid == p.pid) {
                Some(u) => {
                    u.memory = u.memory.zip(memory).map(|(a, b)| a.saturating_add(b)).or(u.memory).or(memory)
                }
                None => all.push(GpuUse { pid: p.pid, memory, sm }),
            }
        }
        Ok(all)
    }

    fn list(&mut self, device: &Device<'_>) -> Result<Vec<ProcessInfo>, NvmlError> {
        if !self.old_list {
            match again(|| device.running_compute_processes()) {
                Err(e) if is_final(&e) => self.old_list = true,
                answer => return answer,
            }
        }
        again(|| device.running_compute_processes_v2())
    }

    /// Utilisation since it was last asked for; `None` = not offered.
    fn utilization(
        &mut self,
        device: &Device<'_>,
    ) -> Result<Option<Vec<ProcessUtilizationSample>>, NvmlError> {
        if self.no_utilization {
            return Ok(None);
        }
        // The library compares with the wall clock: set back, it would say nothing until it has caught up.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros());
        if u128::from(self.seen) > now {
            self.seen = 0;
        }
        match again(|| device.process_utilization_stats(self.seen)) {
            Ok(samples) => {
                self.seen = samples.iter().map(|s| s.timestamp).max().unwrap_or(self.seen).max(self.seen);
                Ok(Some(samples))
            }
            // Nobody ran anything since.
            Err(NvmlError::NotFound) => Ok(Some(Vec::new())),
            Err(e) if is_final(&e) => {
                self.no_utilization = true;
                Ok(None)
            }
            Err(e) if super::errors::is_lost(&e) || super::errors::is_fatal(&e) => Err(e),
            Err(_) => Ok(None),
        }
    }
}

/// Asks once more when a process came between counting and listing.
fn again<T>(ask: impl Fn() -> Result<T, NvmlError>) -> Result<T, NvmlError> {
    match ask() {
        Err(NvmlError::InsufficientSize(_)) => ask(),
        answer => answer,
    }
}
