//! XID errors: what the driver reports of a device that misbehaved.

use std::ffi::c_void;
use std::mem::ManuallyDrop;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::event::EventSet;

/// Events taken at once; more at a time are one trouble.
const MAX_EVENTS: usize = 16;
/// What the library reports when it does not know the number.
const UNKNOWN: u64 = 999;

/// A set of events, without the wrapper's loan of the library: it is kept beside it.
pub struct Events(*mut c_void);

impl Events {
    /// Asks for the XID errors of all devices that tell them; `None` = of none.
    pub fn register(nvml: &Nvml, devices: u32) -> Option<Self> {
        let mut set = nvml.create_event_set().ok()?;
        let mut some = false;
        for index in 0..devices {
            let Ok(device) = nvml.device_by_index(index) else { continue };
            let tells =
                device.supported_event_types().is_ok_and(|t| t.contains(EventTypes::CRITICAL_XID_ERROR));
            if !tells {
                continue;
            }
            match device.register_events(EventTypes::CRITICAL_XID_ERROR, set) {
                Ok(same) => set = same,
                // The wrapper has freed it.
                Err(e) => {
                    tracing::debug!("GPU {index}: no XID errors: {e}");
                    return None;
                }
            }
            some = true;
        }
        // SAFETY: only the address is kept. `take` and `free` lend it the library that it came from.
        some.then(|| Self(unsafe { ManuallyDrop::new(set).handle() }.cast()))
    }

    /// The errors since the last call: device, XID.
    pub fn take(&self, nvml: &Nvml) -> Vec<(u32, u64)> {
        // SAFETY: the set was made by this library and is freed by `free` only, which takes `self`.
        let set = ManuallyDrop::new(unsafe { EventSet::new(self.0.cast(), nvml) });
        let mut all = Vec::new();
        while all.len() < MAX_EVENTS {
            let Ok(event) = set.wait(0) else { break };
            let xid = match event.event_data {
                Some(XidError::Value(n)) => n,
                Some(XidError::Unknown) => UNKNOWN,
                None => continue,
            };
            if let Ok(index) = event.device.index() {
                all.push((index, xid));
            }
        }
        all
    }

    /// Frees the set.
    pub fn free(self, nvml: &Nvml) {
        // SAFETY: as in `take`; dropping it frees it, once.
        drop(unsafe { EventSet::new(self.0.cast(), nvml) });
    }
}
