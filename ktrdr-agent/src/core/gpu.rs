//! What GPUs did, on its way to the spans it belongs to.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Core;
use crate::event::Ns;
use crate::event::gpu::{GpuCondition, GpuReading, GpuSample};
use crate::metrics::{Given, Id, Metrics, ServiceId};
use crate::trace::gpu::demand::Call;
use crate::trace::gpu::{Device, Gpus};
use crate::trace::model::{Span, SpanKind, Value};
use crate::trace::processes::Processes;

impl Core {
    pub(super) fn gpu_sample(&mut self, ts: Ns, sample: &GpuSample) {
        let processes = &self.processes;
        let parent = |pid: u32| processes.get(pid).map(|p| p.meta.ppid).filter(|p| *p != 0);
        self.gpus.sample(ts, sample, &parent);
    }

    /// A call that may say who wants a GPU.
    pub(super) fn gpu_demand(&mut self, operation: Option<&Arc<str>>, call: &Call<'_>) {
        self.gpus.demand.registered(call);
        if let Some(id) = operation {
            self.gpus.demand.called(id, call);
        }
    }
}

/// A span is about to leave: samples from before its end have arrived.
pub(super) fn tell(gpus: &mut Gpus, span: &mut Span) {
    // Those of operations were told by who served them.
    if gpus.is_idle() || span.kind == SpanKind::Internal {
        return;
    }
    if let Some(Value::Int(pid)) = span.resource.attributes.get("process.pid")
        && let Ok(tgid) = u32::try_from(*pid)
        && gpus.annotate(span, &[tgid])
    {
        gpus.counts.spans += 1;
    }
}

/// A reading older than this says nothing of now: more than the longest period between samples.
const STALE_NS: Ns = 150_000_000_000;

/// Readings of now: of devices, which belong to the host that the agent speaks for, and of processes.
pub(super) fn measure(m: &mut Metrics, gpus: &Gpus, processes: &mut Processes, now: Ns) {
    let counted =
        [Id::GpuMemoryUsage, Id::GpuMemoryLimit, Id::GpuProcessMemory, Id::GpuStatus, Id::GpuThrottled];
    counted.into_iter().for_each(|id| m.registry.none(id, now));
    let host = processes.agent();
    for device in gpus.devices() {
        let of: [Given<'_>; 3] =
            [("hw.id", device.meta.uuid.as_str().into()), ("hw.name", device.meta.name.as_str().into()), GPU];
        let service = m.registry.service(&host);
        let works = device.meta.trouble.is_empty() && gpus.status().condition == GpuCondition::Ok;
        for (state, is) in [("ok", works), ("failed", !works)] {
            let of = [of[0], of[1], of[2], ("hw.state", state.into())];
            m.registry.set(service, Id::GpuStatus, &of, f64::from(u8::from(is)), now);
        }
        errors(m, service, device, &of);
        // What a lost device did last is not what it does now.
        let latest = device.latest.as_ref().filter(|(ts, _)| works && now.saturating_sub(*ts) < STALE_NS);
        let Some((_, r)) = latest else { continue };
        if let Some(percent) = r.utilization {
            let general = [of[0], of[1], of[2], ("hw.gpu.task", "general".into())];
            m.registry.set(service, Id::GpuUtilization, &general, f64::from(percent) / 100.0, now);
        }
        let readings = [
            (Id::GpuMemoryUsage, r.memory_used.map(float)),
            (Id::GpuMemoryLimit, device.meta.memory.map(float)),
            (
                Id::GpuMemoryUtilization,
                r.memory_used
                    .zip(device.meta.memory)
                    .filter(|(_, all)| *all > 0)
                    .map(|(u, all)| float(u) / float(all)),
            ),
            (Id::GpuPower, r.power.map(|mw| f64::from(mw) / 1000.0)),
            (Id::GpuTemperature, device.temperature.last()),
        ];
        for (id, value) in readings {
            if let Some(value) = value {
                m.registry.set(service, id, &of, value, now);
            }
        }
        details(m, service, device, r, [of[0], of[1]], now);
    }
    for (pid, device, memory, sm) in gpus.uses() {
        let resource = processes.resource_of(pid);
        let of: [Given<'_>; 2] =
            [("hw.id", device.meta.uuid.as_str().into()), ("process.pid", i64::from(pid).into())];
        if let Some(bytes) = memory {
            m.gauge(&resource, Id::GpuProcessMemory, &of, bytes, now);
        }
        if let Some(percent) = sm {
            m.gauge(&resource, Id::GpuProcessUtilization, &of, percent / 100.0, now);
        }
    }
}

/// Errors of a device, as far as they were told.
fn errors(m: &mut Metrics, service: ServiceId, device: &Device, of: &[Given<'_>; 3]) {
    let mut add = |kind: &str, n: u64| {
        m.registry.total(service, Id::GpuErrors, &[of[0], of[1], of[2], ("error.type", kind.into())], n);
    };
    if let Some((corrected, uncorrected)) = device.ecc() {
        add("corrected", corrected);
        add("uncorrected", uncorrected);
    }
    device.xid_counts().for_each(|(xid, n)| add(&format!("xid_{xid}"), n));
}

/// What the conventions have no names for. Clocks and PCIe are read once a second, so of them the last one counts.
fn details(
    m: &mut Metrics,
    service: ServiceId,
    device: &Device,
    r: &GpuReading,
    of: [Given<'_>; 2],
    now: Ns,
) {
    let mut set = |id, value: f64, more: Option<Given<'_>>| {
        let labels: SmallVec<[Given<'_>; 3]> = of.into_iter().chain(more).collect();
        m.registry.set(service, id, &labels, value, now);
    };
    if let Some(percent) = r.memory_utilization {
        set(Id::GpuMemoryBusy, f64::from(percent) / 100.0, None);
    }
    for (kind, series) in [("sm", &device.clock), ("memory", &device.memory_clock)] {
        if let Some(mhz) = series.last() {
            set(Id::GpuClock, mhz * 1e6, Some(("ktrdr.gpu.clock", kind.into())));
        }
    }
    for (way, series) in [("receive", &device.received), ("transmit", &device.sent)] {
        if let Some(rate) = series.last() {
            set(Id::GpuPcie, rate, Some(("network.io.direction", way.into())));
        }
    }
    for (reason, does) in device.throttled_now() {
        set(Id::GpuThrottled, f64::from(u8::from(does)), Some(("ktrdr.gpu.throttle.reason", reason.into())));
    }
}

const GPU: Given<'static> = ("hw.type", crate::metrics::Label::Str("gpu"));

/// Exact up to 8 PiB.
#[allow(clippy::cast_precision_loss)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}
