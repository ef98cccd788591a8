//! The stand-in for NVIDIA's library, as a source.

use ktrdr_agent::gpu::nvml::NvmlSource;

#[path = "../../../tests/src/standin.rs"]
mod built;
pub use built::StandIn;

impl StandIn {
    pub fn source(&self) -> NvmlSource {
        NvmlSource::new(Some(self.path().into()))
    }
}
