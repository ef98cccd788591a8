//! Metrics from every finished call, before any sampling: pure and bounded, like the rest of the core.
//!
//! [`Id`] is the one table of instruments; exporters, documentation and the checks of dashboards follow it. [`Metrics`]
//! turns spans into measurements; [`Registry`] holds the series. Whoever has a number of another kind puts it in with
//! one line: `metrics.registry.set(service, Id::…, &[("attribute", "value".into())], reading, now)`.
//!
//! Sums are cumulative and start with the agent. What goes beyond the bounds of [`registry`] goes to one series per
//! metric, `otel.metric.overflow=true`, and is counted.

mod graph;
mod instrument;
mod instrument_table;
mod known;
mod label;
pub mod registry;
mod snapshot;
mod spans;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use instrument::{Instrument, Kind};
pub use instrument_table::Id;
pub use label::{Given, Label, OwnedLabel};
pub use registry::{Registry, ServiceId};
pub use snapshot::{Point, Slice, Snapshot};
pub use spans::ENDS;
pub use value::{Exemplar, Histogram, Value};

use crate::event::Ns;
use crate::trace::model::{Resource, Span};
use graph::Graph;
use known::Calls;

/// Series, and what is needed to make measurements of spans.
#[derive(Default)]
pub struct Metrics {
    /// All series.
    pub registry: Registry,
    graph: Graph,
    calls: Calls,
    /// The process of each service that listened last, and whether it has ended since.
    listening: BTreeMap<ServiceId, (u32, bool)>,
}

impl Metrics {
    /// Measures a finished span.
    pub fn span(&mut self, span: &Span) {
        let service = self.registry.service(&span.resource);
        spans::measure(self, service, span);
    }

    /// A connect that succeeded.
    pub fn connected(&mut self, resource: &Arc<Resource>, address: &str, port: u16, peer: Option<&str>) {
        let service = self.registry.service(resource);
        let mut labels: Vec<Given<'_>> =
            vec![("server.address", address.into()), ("server.port", i64::from(port).into())];
        labels.extend(peer.map(|p| ("peer.service", p.into())));
        self.registry.add(service, Id::Connects, &labels, 1);
    }

    /// A process listens. One that does after the previous one of its service ended is a restart.
    pub fn listens(&mut self, resource: &Arc<Resource>, tgid: u32) {
        let service = self.registry.service(resource);
        let before = self.listening.insert(service, (tgid, false));
        if before.is_some_and(|(old, ended)| ended && old != tgid) {
            self.registry.add(service, Id::ProcessRestarts, &[], 1);
        }
    }

    /// A process ended, with the code that `wait(2)` reports. Only those of services that did something count.
    pub fn exited(&mut self, resource: &Arc<Resource>, tgid: u32, code: u32, signal: Option<&str>) {
        if !self.registry.knows(resource) {
            return;
        }
        let service = self.registry.service(resource);
        if let Some((_, ended)) = self.listening.get_mut(&service).filter(|(last, _)| *last == tgid) {
            *ended = true;
        }
        let labels: [Given<'_>; 1] = match (code & 0x7f, signal) {
            (0, _) => [("process.exit.code", i64::from((code >> 8) & 0xff).into())],
            (n, None) => [("signal", Label::Int(i64::from(n)))],
            (_, Some(name)) => [("signal", name.into())],
        };
        self.registry.add(service, Id::ProcessExits, &labels, 1);
    }

    /// A number of things of a service that there are now.
    pub fn gauge(&mut self, resource: &Arc<Resource>, id: Id, labels: &[Given<'_>], reading: f64, now: Ns) {
        let service = self.registry.service(resource);
        self.registry.set(service, id, labels, reading, now);
    }
}
