//! What GPUs did, on its way to the spans it belongs to.

use std::sync::Arc;

use super::Core;
use crate::event::Ns;
use crate::event::gpu::GpuSample;
use crate::trace::gpu::Gpus;
use crate::trace::gpu::demand::Call;
use crate::trace::model::{Span, SpanKind, Value};

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
