//! What the shell tells of GPUs: which there are and in what state, and what they did at one moment.
//!
//! Samples come up to ten times a second and are recorded with everything else: their JSON has one-letter names, and
//! what a device does not offer is left out.

use serde::{Deserialize, Serialize};

/// Where samples come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuSource {
    /// NVIDIA's management library.
    #[default]
    Nvml,
    /// A recorded file, played again.
    Recording,
    /// Invented, for demonstrations.
    Synthetic,
}

impl GpuSource {
    /// As in `ktrdr.gpu.source`.
    pub const fn name(self) -> &'static str {
        match self {
            GpuSource::Nvml => "nvml",
            GpuSource::Recording => "recording",
            GpuSource::Synthetic => "synthetic",
        }
    }
}

/// Whether GPUs can be sampled, or why not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuCondition {
    /// At least one device is sampled.
    Ok,
    /// The library is not on this host, or cannot be loaded.
    #[default]
    LibraryNotFound,
    /// The library lacks a function that nothing works without.
    LibraryTooOld,
    /// The kernel driver is not loaded.
    DriverNotLoaded,
    /// Driver and library are of different versions, as after an update without a reboot.
    VersionMismatch,
    /// The driver knows no device.
    NoDevice,
    /// Devices are there, but not for this user.
    NoPermission,
    /// The devices fell off the bus, or need a reset.
    DeviceLost,
    /// Another failure.
    Failed,
}

impl GpuCondition {
    /// In words.
    pub const fn describe(self) -> &'static str {
        match self {
            GpuCondition::Ok => "sampled",
            GpuCondition::LibraryNotFound => "no NVIDIA library on this host",
            GpuCondition::LibraryTooOld => "the NVIDIA library is too old",
            GpuCondition::DriverNotLoaded => "the NVIDIA driver is not loaded",
            GpuCondition::VersionMismatch => {
                "the NVIDIA driver and its library differ in version: reboot, or load the module again"
            }
            GpuCondition::NoDevice => "no NVIDIA device",
            GpuCondition::NoPermission => "no permission to use the NVIDIA devices",
            GpuCondition::DeviceLost => "the NVIDIA devices are lost",
            GpuCondition::Failed => "the NVIDIA library failed",
        }
    }
}

/// Which devices there are, and how they are. Sent at start and whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuStatus {
    /// Where it comes from.
    pub source: GpuSource,
    /// All in all.
    pub condition: GpuCondition,
    /// What the source said, if something is wrong.
    #[serde(default)]
    pub detail: String,
    /// Version of the driver.
    #[serde(default)]
    pub driver: String,
    /// The devices.
    #[serde(default)]
    pub devices: Vec<GpuDevice>,
}

/// A device, or a MIG instance of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuDevice {
    /// Its number in samples of this stream; a device that comes back keeps it.
    pub id: u32,
    /// As `nvidia-smi` numbers it: `0`, or `0/1` for the second MIG instance of device 0.
    pub index: String,
    /// Its identity for ever: `GPU-…`, `MIG-…`.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Why it is not sampled, if it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

/// What all devices did at the record's time. Rates and utilisations are of a moment before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSample {
    /// Milliseconds between samples at present.
    #[serde(rename = "p")]
    pub period_ms: u32,
    /// The devices that could be read.
    #[serde(rename = "d")]
    pub devices: Vec<GpuReading>,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuReading {
    /// [`GpuDevice::id`].
    #[serde(rename = "i")]
    pub id: u32,
    /// Percent of the time with a kernel running.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<u32>,
    /// Percent of the time with memory being read or written.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub memory_utilization: Option<u32>,
    /// Bytes of memory in use.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    /// Degrees Celsius.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// Milliwatts.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub power: Option<u32>,
    /// Clock of the SMs, MHz.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub sm_clock: Option<u32>,
    /// Clock of the memory, MHz.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub memory_clock: Option<u32>,
    /// What holds the clocks down: NVML's bits (`nvmlClocksEventReasons`).
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<u64>,
    /// ECC errors since the driver was loaded: corrected, uncorrected.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub ecc: Option<(u64, u64)>,
    /// KB/s over PCIe: received, sent.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub pcie: Option<(u32, u32)>,
    /// XID errors since the sample before.
    #[serde(rename = "X", default, skip_serializing_if = "Vec::is_empty")]
    pub xids: Vec<u64>,
    /// Processes with a context on the device; `None` = they could not be listed.
    #[serde(rename = "P", default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<Vec<GpuUse>>,
}

/// A process on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUse {
    /// Process id in the host's pid namespace; 0 = it could not be told which.
    #[serde(rename = "p")]
    pub pid: u32,
    /// Bytes of the device's memory it holds.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Percent of the time with one of its kernels running.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub sm: Option<u32>,
}
