//! NVIDIA's management library, opened at run time.
//!
//! Nothing here is sure to be there: the library, the driver, a device, the permission, a function, a quantity. What
//! a device does not offer is asked for once and then left out; a device that is lost leaves the others readable.

mod device;
mod errors;
mod events;
mod processes;

use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::device::Device;

use super::{Inventory, Readings, Source, Trouble};
use crate::event::gpu::{GpuCondition, GpuDevice, GpuSource};
use device::{Failed, Unit};
use errors::trouble;
use events::Events;

/// Some quantities cost milliseconds (PCIe throughput is measured over 20 ms) and change slowly, or are counters: they
/// are read no more often than this.
const SLOWLY: Duration = Duration::from_secs(1);
/// Devices and MIG instances sampled; a DGX has 8, with 7 instances each.
const MAX_UNITS: usize = 64;

/// The library as a source.
pub struct NvmlSource {
    path: Option<OsString>,
    /// All devices ever seen, whose places are their numbers for as long as this source lives.
    known: Vec<GpuDevice>,
    session: Option<Session>,
}

impl NvmlSource {
    /// The library at `path`; `None` = as the system finds `libnvidia-ml.so.1`.
    pub fn new(path: Option<OsString>) -> Self {
        Self { path, known: Vec::new(), session: None }
    }
}

impl Source for NvmlSource {
    fn kind(&self) -> GpuSource {
        GpuSource::Nvml
    }

    fn open(&mut self) -> Result<Inventory, Trouble> {
        // One at a time: the library is shut down before it is opened again, or a lost device stays lost.
        self.session = None;
        let session = Session::open(self.path.as_deref(), &mut self.known)?;
        let inventory = session.inventory();
        self.session = Some(session);
        Ok(inventory)
    }

    fn read(&mut self) -> Result<Readings, Trouble> {
        let failed = || Trouble { condition: GpuCondition::Failed, detail: "not open".to_owned() };
        let read = self.session.as_mut().ok_or_else(failed)?.read();
        if read.is_err() {
            self.session = None;
        }
        read
    }
}

/// An open library.
struct Session {
    /// The errors that devices report; freed before the library is shut down.
    events: Option<Events>,
    nvml: Nvml,
    driver: String,
    units: Vec<Unit>,
    slow_at: Option<Instant>,
}

impl Session {
    fn open(path: Option<&OsStr>, known: &mut Vec<GpuDevice>) -> Result<Self, Trouble> {
        let mut builder = Nvml::builder();
        // The name without its version belongs to development packages.
        builder.lib_path(path.unwrap_or_else(|| OsStr::new("libnvidia-ml.so.1")));
        let nvml = builder.init().map_err(|e| trouble(&e))?;
        let count = nvml.device_count().map_err(|e| trouble(&e))?;
        let (mut units, mut troubles) = (Vec::new(), Vec::new());
        for index in 0..count {
            match nvml.device_by_index(index) {
                Ok(device) => find(&device, index, known, &mut units, &mut troubles),
                Err(e) => troubles.push((index, trouble(&e))),
            }
        }
        if units.is_empty() {
            return Err(match troubles.into_iter().next() {
                Some((index, t)) => Trouble { detail: format!("device {index}: {}", t.detail), ..t },
                None => Trouble { condition: GpuCondition::NoDevice, detail: String::new() },
            });
        }
        for (index, t) in troubles {
            units.push(Unit::new(index, None, unreadable(index, &t, known)));
        }
        missing(known, &mut units);
        units.truncate(MAX_UNITS);
        let driver = nvml.sys_driver_version().unwrap_or_default();
        let events = Events::register(&nvml, count);
        Ok(Self { events, nvml, driver, units, slow_at: None })
    }

    fn inventory(&self) -> Inventory {
        Inventory {
            driver: self.driver.clone(),
            devices: self.units.iter().map(|u| u.meta.clone()).collect(),
        }
    }

    fn read(&mut self) -> Result<Readings, Trouble> {
        let now = Instant::now();
        let slow = self.slow_at.is_none_or(|at| now.duration_since(at) >= SLOWLY);
        if slow {
            self.slow_at = Some(now);
        }
        let xids = self.events.as_ref().map(|e| e.take(&self.nvml)).unwrap_or_default();
        let (mut devices, mut changed, mut last) = (Vec::new(), false, None);
        for unit in self.units.iter_mut().filter(|u| u.meta.trouble.is_empty()) {
            match unit.read(&self.nvml, slow) {
                Ok(mut reading) => {
                    if unit.instance.is_none() {
                        let mine = xids.iter().filter(|(index, _)| *index == unit.index);
                        reading.xids = mine.map(|(_, xid)| *xid).collect();
                    }
                    devices.push(reading);
                }
                Err(Failed::Device(t)) => {
                    unit.meta.trouble = t.to_string();
                    (changed, last) = (true, Some(t));
                }
                Err(Failed::Library(t)) => return Err(t),
            }
        }
        if let (true, Some(t)) = (devices.is_empty(), last) {
            return Err(t);
        }
        Ok(Readings { devices, inventory: changed.then(|| self.inventory()) })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(events) = self.events.take() {
            events.free(&self.nvml);
        }
    }
}

/// A device, and its MIG instances.
fn find(
    device: &Device<'_>,
    index: u32,
    known: &mut Vec<GpuDevice>,
    units: &mut Vec<Unit>,
    troubles: &mut Vec<(u32, Trouble)>,
) {
    let mut add = |device: &Device<'_>, instance: Option<u32>| match identify(device, index, instance) {
        Ok(mut meta) => {
            number(&mut meta, known);
            units.push(Unit::new(index, instance, meta));
        }
        Err(t) => troubles.push((index, t)),
    };
    add(device, None);
    if device.mig_mode().is_ok_and(|m| m.current == 1) {
        for i in 0..device.mig_device_count().unwrap_or(0) {
            // Places without an instance are the rule.
            if let Ok(instance) = device.mig_device_by_index(i) {
                add(&instance, Some(i));
            }
        }
    }
}

/// Gives a device the number it had, or the next one.
fn number(meta: &mut GpuDevice, known: &mut Vec<GpuDevice>) {
    let at = known.iter().position(|k| k.uuid == meta.uuid).unwrap_or(known.len());
    meta.id = u32::try_from(at).unwrap_or(u32::MAX);
    match known.get_mut(at) {
        Some(k) => *k = meta.clone(),
        None => known.push(meta.clone()),
    }
}

/// A device that cannot be opened: the one that was seen there before, if any was.
fn unreadable(index: u32, t: &Trouble, known: &mut Vec<GpuDevice>) -> GpuDevice {
    let place = index.to_string();
    let mut meta = known.iter().find(|k| k.index == place).cloned().unwrap_or_else(|| GpuDevice {
        uuid: format!("unreadable-{index}"),
        name: "NVIDIA GPU".to_owned(),
        index: place,
        ..GpuDevice::default()
    });
    meta.trouble = t.to_string();
    number(&mut meta, known);
    meta
}

/// Devices that were there and are not listed any more. MIG instances come and go as somebody likes.
fn missing(known: &[GpuDevice], units: &mut Vec<Unit>) {
    let gone = |k: &&GpuDevice| {
        !k.index.contains('/')
            && !k.uuid.starts_with("unreadable")
            && !units.iter().any(|u| u.meta.uuid == k.uuid)
    };
    let gone: Vec<GpuDevice> = known.iter().filter(gone).cloned().collect();
    for mut meta in gone {
        meta.trouble = "the driver does not list it any more".to_owned();
        units.push(Unit::new(u32::MAX, None, meta));
    }
}

fn identify(device: &Device<'_>, index: u32, instance: Option<u32>) -> Result<GpuDevice, Trouble> {
    let uuid = device.uuid().map_err(|e| trouble(&e))?;
    Ok(GpuDevice {
        id: 0,
        index: instance.map_or_else(|| index.to_string(), |i| format!("{index}/{i}")),
        name: device.name().unwrap_or_else(|_| "NVIDIA GPU".to_owned()),
        memory: device::memory(device).ok().map(|(_, total)| total),
        uuid,
        trouble: String::new(),
    })
}
