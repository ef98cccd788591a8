//! What NVML's errors mean here. The only place that decides.

use nvml_wrapper::error::NvmlError;

use super::super::Trouble;
use crate::event::gpu::GpuCondition;

/// What an error of the whole library, or of a device as such, amounts to.
pub fn trouble(e: &NvmlError) -> Trouble {
    let condition = match e {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => GpuCondition::LibraryNotFound,
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => GpuCondition::LibraryTooOld,
        NvmlError::DriverNotLoaded => GpuCondition::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => GpuCondition::VersionMismatch,
        NvmlError::NoPermission | NvmlError::OperatingSystem => GpuCondition::NoPermission,
        NvmlError::NotFound => GpuCondition::NoDevice,
        NvmlError::GpuLost | NvmlError::ResetRequired => GpuCondition::DeviceLost,
        _ => GpuCondition::Failed,
    };
    Trouble { condition, detail: e.to_string() }
}

/// Whether the device is gone; then nothing else of it is worth asking.
pub fn is_lost(e: &NvmlError) -> bool {
    matches!(e, NvmlError::GpuLost | NvmlError::ResetRequired)
}

/// Whether the library itself is of no use any more: it was shut down, or the driver was unloaded or replaced.
pub fn is_fatal(e: &NvmlError) -> bool {
    matches!(e, NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch)
}

/// Whether asking again would bring the same answer.
pub fn is_final(e: &NvmlError) -> bool {
    matches!(
        e,
        NvmlError::NotSupported
            | NvmlError::NoPermission
            | NvmlError::InvalidArg
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound
    )
}
