//! Reads one device.

use nvml_wrapper::Nvml;
use nvml_wrapper::device::Device;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PcieUtilCounter, TemperatureSensor,
};
use nvml_wrapper::error::{NvmlError, nvml_try};

use super::super::Trouble;
use super::errors::{is_fatal, is_final, is_lost, trouble};
use super::processes::Processes;
use crate::event::gpu::{GpuDevice, GpuReading};

/// Why a reading failed as a whole.
pub enum Failed {
    /// This device is gone.
    Device(Trouble),
    /// The library is of no use any more.
    Library(Trouble),
}

/// A quantity that may not be offered.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum What {
    Utilization,
    Memory,
    Power,
    Throttle,
    Temperature,
    SmClock,
    MemoryClock,
    Ecc,
    Pcie,
}

/// A device, or a MIG instance of one.
pub struct Unit {
    /// As the library numbers devices.
    pub index: u32,
    /// Which MIG instance of it.
    pub instance: Option<u32>,
    /// What is told of it.
    pub meta: GpuDevice,
    /// Bits by [`What`]: not offered.
    missing: u16,
    processes: Processes,
}

impl Unit {
    pub fn new(index: u32, instance: Option<u32>, meta: GpuDevice) -> Self {
        Self { index, instance, meta, missing: 0, processes: Processes::default() }
    }

    /// Reads what the device offers; with `slow`, the rest of it too.
    pub fn read(&mut self, nvml: &Nvml, slow: bool) -> Result<GpuReading, Failed> {
        let device = nvml.device_by_index(self.index);
        let device = match self.instance {
            Some(i) => device.and_then(|d| d.mig_device_by_index(i)),
            None => device,
        };
        // A device that is no longer found is as good as lost: it, or its partition, was taken away.
        let d = device.map_err(|e| {
            if is_fatal(&e) { Failed::Library(trouble(&e)) } else { Failed::Device(trouble(&e)) }
        })?;
        let mut r = GpuReading { id: self.meta.id, ..GpuReading::default() };
        if let Some(u) = self.ask(What::Utilization, || d.utilization_rates())? {
            (r.utilization, r.memory_utilization) = (Some(u.gpu), Some(u.memory));
        }
        r.memory_used = self.ask(What::Memory, || memory(&d))?.map(|(used, _)| used);
        r.power = self.ask(What::Power, || d.power_usage())?;
        r.throttle = self.ask(What::Throttle, || d.current_throttle_reasons())?.map(|t| t.bits());
        if slow {
            r.temperature = self.ask(What::Temperature, || d.temperature(TemperatureSensor::Gpu))?;
            r.sm_clock = self.ask(What::SmClock, || d.clock_info(Clock::SM))?;
            r.memory_clock = self.ask(What::MemoryClock, || d.clock_info(Clock::Memory))?;
            let ecc = |kind| d.total_ecc_errors(kind, EccCounter::Volatile);
            r.ecc =
                self.ask(What::Ecc, || Ok((ecc(MemoryError::Corrected)?, ecc(MemoryError::Uncorrected)?)))?;
            let pcie = |way| d.pcie_throughput(way);
            r.pcie =
                self.ask(What::Pcie, || Ok((pcie(PcieUtilCounter::Receive)?, pcie(PcieUtilCounter::Send)?)))?;
        }
        r.processes = classify(self.processes.read(&d, self.instance.is_some()))?;
        Ok(r)
    }

    fn ask<T>(
        &mut self,
        what: What,
        read: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<Option<T>, Failed> {
        let bit = 1u16 << (what as u8);
        if self.missing & bit != 0 {
            return Ok(None);
        }
        let answer = read();
        if let Err(e) = &answer
            && is_final(e)
        {
            self.missing |= bit;
            tracing::debug!("GPU {}: {what:?} is not offered: {e}", self.meta.index);
        }
        classify(answer)
    }
}

/// A value, none this time, or the end of it.
fn classify<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, Failed> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(e) if is_lost(&e) => Err(Failed::Device(trouble(&e))),
        Err(e) if is_fatal(&e) => Err(Failed::Library(trouble(&e))),
        Err(_) => Ok(None),
    }
}

/// Bytes used, and in all. Drivers before 510 know only the first version of the call.
pub fn memory(device: &Device<'_>) -> Result<(u64, u64), NvmlError> {
    match device.memory_info() {
        Ok(info) => Ok((info.used, info.total)),
        Err(e) if is_final(&e) => memory_v1(device).unwrap_or(Err(e)),
        Err(e) => Err(e),
    }
}

/// `None` if the library lacks that one, too.
fn memory_v1(device: &Device<'_>) -> Option<Result<(u64, u64), NvmlError>> {
    let call = device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref().ok()?;
    // SAFETY: the structure of the call's version holds three integers; the handle is the device's own, and the call
    // writes to nothing but the structure.
    let (code, info) = unsafe {
        let mut info = std::mem::zeroed();
        (call(device.handle(), &raw mut info), info)
    };
    Some(nvml_try(code).map(|()| (info.used, info.total)))
}
