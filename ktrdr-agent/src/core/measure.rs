//! What the core tells the metrics: finished spans, what happens beside calls, and readings of now.

use std::sync::Arc;

use super::{Core, Output, facts};
use crate::event::Ns;
use crate::metrics::{ENDS, Id, Metrics, Snapshot};
use crate::protocol::Role;
use crate::trace::connects::Connecting;
use crate::trace::model::Resource;
use crate::trace::operations::workers::{State, Workers};
use crate::trace::processes::signal_name;
use crate::trace::spans::LEFT_OUT;

impl Core {
    /// Hands out finished spans; every one is measured, whatever becomes of it behind the core.
    pub(super) fn emit(&mut self) {
        let thinned = self.thinning.ever();
        for mut span in self.spans.drain(..) {
            super::gpu::tell(&mut self.gpus, &mut span);
            // The only way out for spans: nothing secret goes on, not into metrics either.
            self.config.mask.span(&mut span);
            // How long a call took, and whether it failed, is not known of one that nobody looked at any more.
            let left = || span.attributes.get("ktrdr.incomplete").and_then(|v| v.as_str()) == Some(LEFT_OUT);
            if let Some(m) = self.metrics.as_mut().filter(|_| !(thinned && left())) {
                m.span(&span);
            }
            self.counts.spans += 1;
            self.out.push_back(Output::Span(span));
        }
    }

    pub(super) fn measure_from_now(&mut self) {
        if let Some(m) = &mut self.metrics {
            m.registry.started(self.now.saturating_add_signed(self.wall_offset_ns));
        }
    }

    pub(super) fn measure_exit(&mut self, tgid: u32) {
        let (Some(m), Some(p)) = (&mut self.metrics, self.processes.get(tgid)) else { return };
        if let Some(end) = p.end {
            m.exited(&p.resource, tgid, end.code, signal_name(end.code & 0x7f));
        }
    }

    /// A process listens.
    pub(super) fn measure_listener(&mut self, tgid: u32) {
        let (Some(m), Some(p)) = (&mut self.metrics, self.processes.get(tgid)) else { return };
        if !p.meta.excluded {
            m.listens(&p.resource, tgid);
        }
    }

    pub(super) fn measure_connect(&mut self, c: &Connecting) {
        if self.metrics.is_none() || self.processes.get(c.task.tgid).is_none_or(|p| p.meta.excluded) {
            return;
        }
        let resource = self.processes.resource_of(c.task.tgid);
        let peer = facts!(self).peer(c.netns, c.remote);
        if let Some(m) = &mut self.metrics {
            m.connected(&resource, &c.remote.ip().to_string(), c.remote.port(), peer.as_deref());
        }
    }

    /// The Resource of the agent itself.
    pub fn agent(&mut self) -> Arc<Resource> {
        self.processes.agent()
    }

    /// Connections followed now.
    pub fn connections(&self) -> usize {
        self.engine.len()
    }

    /// The metrics, if they are made.
    pub fn metrics(&mut self) -> Option<&mut Metrics> {
        self.metrics.as_deref_mut()
    }

    /// All metrics at `now`, boot clock, with what there is of requests and operations now.
    pub fn snapshot(&mut self, now: Ns) -> Option<Snapshot> {
        self.now = self.now.max(now);
        let m = self.metrics.as_deref_mut()?;
        requests(m, &self.engine, &mut self.processes, now);
        super::gpu::measure(m, &self.gpus, &mut self.processes, now);
        m.registry.none(Id::OperationsActive, now);
        m.registry.none(Id::OperationStalled, now);
        for (op, moved) in self.operations.under_way() {
            let service = m.registry.service(&op.resource);
            let kind = [("operation.type", op.kind.as_deref().unwrap_or("unknown").into())];
            m.registry.one_more(service, Id::OperationsActive, &kind, now);
            // So that the first one to end is an increase.
            for status in ENDS {
                m.registry.add(service, Id::Operations, &[kind[0], ("status", status.into())], 0);
            }
            if let Some(moved) = moved {
                let stalled = std::time::Duration::from_nanos(now.saturating_sub(moved)).as_secs_f64();
                m.registry.highest(service, Id::OperationStalled, &kind, stalled, now);
            }
        }
        workers(m, self.operations.workers(), now);
        Some(m.registry.snapshot(now, now.saturating_add_signed(self.wall_offset_ns)))
    }
}

/// Workers, under the service that hands out work to them. Where that is not observed, its own host's agent tells them.
fn workers(m: &mut Metrics, workers: &Workers, now: Ns) {
    m.registry.none(Id::Workers, now);
    m.registry.none(Id::WorkersAvailable, now);
    for w in workers.alive(now) {
        let Some(resource) = &w.registry else { continue };
        let service = m.registry.service(resource);
        let (kind, state) = (("worker.type", (&*w.kind).into()), w.state(now));
        let of = [kind, ("worker.id", (&*w.id).into()), ("worker.state", state.name().into())];
        m.registry.one_more(service, Id::Workers, &of, now);
        if state == State::Idle {
            m.registry.one_more(service, Id::WorkersAvailable, &[kind], now);
        }
    }
}

/// Requests that are being served: those that servers' connections have open.
fn requests(
    m: &mut Metrics,
    engine: &crate::engine::Engine,
    processes: &mut crate::trace::processes::Processes,
    now: Ns,
) {
    m.registry.none(Id::HttpServerActive, now);
    let serving = engine.iter().filter(|c| c.role == Some(Role::Server) && c.pairing.open() > 0);
    for conn in serving {
        let resource = processes.resource_of(conn.owner);
        let service = m.registry.service(&resource);
        for request in conn.pairing.requests() {
            let text = |key| request.attributes.get(key).and_then(|v| v.as_str());
            let Some(method) = text("http.request.method") else { continue };
            let labels = [
                ("http.request.method", method.into()),
                ("url.scheme", text("url.scheme").unwrap_or("http").into()),
            ];
            m.registry.one_more(service, Id::HttpServerActive, &labels, now);
        }
    }
}
