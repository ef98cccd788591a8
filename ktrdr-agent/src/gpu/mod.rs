//! Samples GPUs. A [`Source`] says what they do; the [`sampler`] asks it at its own pace, on a thread of its own.
//!
//! Everything above the source (the record stream, the pairing with spans, the verdicts) is the same for the real
//! library, a recording and the invented device of the demo.

pub mod nvml;
mod recording;
pub mod sampler;
mod synthetic;

use std::fmt;

pub use recording::Recording;
pub use synthetic::{Synthetic, Watched};

use crate::event::gpu::{GpuCondition, GpuDevice, GpuReading, GpuSource};

/// Why there are no samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The kind of it.
    pub condition: GpuCondition,
    /// What the source said.
    pub detail: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.describe())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl std::error::Error for Trouble {}

/// What there is to sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Version of the driver.
    pub driver: String,
    /// The devices.
    pub devices: Vec<GpuDevice>,
}

/// What a source read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// The devices that could be read.
    pub devices: Vec<GpuReading>,
    /// The devices as they are from now on, if that changed.
    pub inventory: Option<Inventory>,
}

/// Where samples come from. It is used by one thread; its calls may block.
pub trait Source {
    /// Which kind it is.
    fn kind(&self) -> GpuSource;

    /// Opens it, again if it was open.
    fn open(&mut self) -> Result<Inventory, Trouble>;

    /// Reads all devices. After an error it has to be opened again.
    fn read(&mut self) -> Result<Readings, Trouble>;
}
