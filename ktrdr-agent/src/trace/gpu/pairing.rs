//! Joins a finished span with what its process did on GPUs meanwhile.

use super::device::Device;
use super::series::{Series, Window};
use super::{Gpus, Use};
use crate::event::Ns;
use crate::trace::model::{Attributes, Span, SpanEvent, Value};

/// Of the span's time readings must stand for this much before their silence says something.
const ENOUGH: f64 = 0.8;
/// A job needs this long to load its libraries and to open a device, before its absence says something.
const TIME_TO_OPEN_NS: Ns = 10_000_000_000;

/// A process on a device, during a span.
struct Found<'a> {
    pid: u32,
    device: &'a Device,
    using: &'a Use,
    /// Readings with the process in it; `None` = it was there, but none was taken.
    there: Option<Window>,
}

impl Gpus {
    /// Tells a span of one of these processes what they did on GPUs; false if they did nothing.
    pub fn annotate(&self, span: &mut Span, tgids: &[u32]) -> bool {
        let mut found = self.found(span.start, span.end, tgids);
        let Some(main) = found.first() else { return false };
        attributes(&mut span.attributes, self.status.source.name(), main, span.start, span.end);
        if found.len() > 1 {
            let devices: Vec<String> = found.iter().map(|f| f.device.meta.uuid.clone()).collect();
            span.attributes.set("ktrdr.gpu.devices", devices);
            for other in found.drain(1..) {
                let mut a = Attributes::new();
                attributes(&mut a, self.status.source.name(), &other, span.start, span.end);
                span.events.push(SpanEvent { ts: span.end, name: "ktrdr.gpu.device".into(), attributes: a });
            }
        }
        true
    }

    /// Tells an operation's span what the processes that served it did on GPUs, or that a GPU was asked for in vain.
    pub fn annotate_operation(&self, span: &mut Span, id: &str) -> bool {
        if self.annotate(span, self.demand.served_by(id)) {
            return true;
        }
        let kind = span.attributes.get("operation.type").and_then(Value::as_str).unwrap_or_default();
        let Some(why) = self.demand.expected(id, kind) else { return false };
        let (start, end) = (span.start, span.end);
        let state = if self.none_works() {
            "no_gpu"
        } else if !self.demand.workers(id).is_empty()
            && end.saturating_sub(start) >= TIME_TO_OPEN_NS
            && self.listed.window(start, end).is_some_and(|w| {
                // Every process was known, nearly all the time.
                w.max == 0.0 && ratio(w.covered, end - start) >= ENOUGH
            })
        {
            "no_process"
        } else {
            return false;
        };
        span.attributes.set("ktrdr.gpu.state", state);
        span.attributes.set("ktrdr.gpu.source", self.status.source.name());
        span.attributes.set("ktrdr.gpu.expected", why);
        true
    }

    /// The processes' devices, the one they did most on first.
    fn found(&self, start: Ns, end: Ns, tgids: &[u32]) -> Vec<Found<'_>> {
        let mut all: Vec<Found<'_>> = self
            .uses
            .iter()
            .filter(|((pid, _), u)| tgids.iter().any(|t| t == pid || u.parents.contains(t)))
            .filter_map(|((pid, device), using)| {
                let there = using.there.window(start, end);
                // Too short for a reading, but the one before found the process there.
                let before = || using.there.latest_at(start).is_some_and(|t| start - t <= self.hold);
                if there.is_none() && !before() {
                    return None;
                }
                Some(Found { pid: *pid, device: self.devices.get(device)?, using, there })
            })
            .collect();
        let work = |f: &Found<'_>| {
            let of = |s: &Series| s.window(start, end);
            let busy = of(&f.using.sm).map_or(0.0, |w| w.mean * w.covered as f64);
            (f.there.is_some(), busy, of(&f.using.memory).map_or(0.0, |w| w.max))
        };
        all.sort_by(|a, b| {
            let (x, y) = (work(b), work(a));
            x.0.cmp(&y.0).then(x.1.total_cmp(&y.1)).then(x.2.total_cmp(&y.2))
        });
        // One entry per device: of several processes the busiest.
        let mut seen: Vec<u32> = Vec::new();
        all.retain(|f| {
            let new = !seen.contains(&f.device.meta.id);
            seen.push(f.device.meta.id);
            new
        });
        all
    }
}

fn attributes(a: &mut Attributes, source: &'static str, f: &Found<'_>, start: Ns, end: Ns) {
    let d = f.device;
    a.set("hw.id", d.meta.uuid.clone());
    a.set("hw.name", d.meta.name.clone());
    a.set("hw.type", "gpu");
    a.set("gpu.device", d.meta.index.clone());
    a.set("ktrdr.gpu.source", source);
    let Some(there) = &f.there else {
        a.set("ktrdr.gpu.state", "no_sample");
        a.set("ktrdr.gpu.samples", 0u64);
        return;
    };
    a.set("ktrdr.gpu.state", "sampled");
    a.set("ktrdr.gpu.samples", there.samples);
    a.set("ktrdr.gpu.coverage", rounded(ratio(there.covered, end - start), 3));
    a.set("ktrdr.gpu.process.pid", f.pid);
    if let Some(w) = d.utilization.window(start, end) {
        a.set("gpu.utilization_percent", rounded(w.mean, 1));
        three(a, ["ktrdr.gpu.utilization.min", "ktrdr.gpu.utilization.avg", "ktrdr.gpu.utilization.max"], &w);
        a.set("ktrdr.gpu.idle", rounded(ratio(w.idle, w.covered), 3));
    }
    if let Some(w) = f.using.sm.window(start, end) {
        let names = [
            "ktrdr.gpu.process.utilization.min",
            "ktrdr.gpu.process.utilization.avg",
            "ktrdr.gpu.process.utilization.max",
        ];
        three(a, names, &w);
    }
    if let Some(w) = d.memory.window(start, end) {
        bytes(
            a,
            ["ktrdr.gpu.memory.usage.min", "ktrdr.gpu.memory.usage.avg", "ktrdr.gpu.memory.usage.max"],
            &w,
        );
        a.set("ktrdr.gpu.memory.usage.last", whole(w.last));
    }
    if let Some(limit) = d.meta.memory {
        a.set("ktrdr.gpu.memory.limit", limit);
    }
    if let Some(w) = f.using.memory.window(start, end) {
        a.set("gpu.memory_allocated_mb", rounded(w.max / 1_048_576.0, 1));
        let names = [
            "ktrdr.gpu.process.memory.usage.min",
            "ktrdr.gpu.process.memory.usage.avg",
            "ktrdr.gpu.process.memory.usage.max",
        ];
        bytes(a, names, &w);
    }
    if let Some(w) = d.power.window(start, end) {
        a.set("ktrdr.gpu.power.avg", rounded(w.mean, 1));
    }
    if let Some(w) = d.temperature.window(start, end) {
        a.set("ktrdr.gpu.temperature.max", rounded(w.max, 0));
    }
    if let Some(w) = d.clock.window(start, end) {
        a.set("ktrdr.gpu.clock.avg", rounded(w.mean, 0));
    }
    for (name, series) in [("ktrdr.gpu.pcie.received.avg", &d.received), ("ktrdr.gpu.pcie.sent.avg", &d.sent)]
    {
        if let Some(w) = series.window(start, end) {
            a.set(name, whole(w.mean));
        }
    }
    let throttled = d.throttled(start, end);
    if !throttled.is_empty() {
        a.set("ktrdr.gpu.throttled", throttled);
    }
    let errors = d.uncorrected(start, end);
    if errors > 0 {
        a.set("ktrdr.gpu.ecc.uncorrected", errors);
    }
    let xids = d.xids(start, end);
    if !xids.is_empty() {
        a.set("ktrdr.gpu.xids", xids.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
}

/// Percent as fractions, as `hw.gpu.utilization` has them.
fn three(a: &mut Attributes, names: [&'static str; 3], w: &Window) {
    for (name, percent) in names.into_iter().zip([w.min, w.mean, w.max]) {
        a.set(name, rounded(percent / 100.0, 3));
    }
}

fn bytes(a: &mut Attributes, names: [&'static str; 3], w: &Window) {
    for (name, value) in names.into_iter().zip([w.min, w.mean, w.max]) {
        a.set(name, whole(value));
    }
}

#[allow(clippy::cast_precision_loss)]
fn ratio(part: Ns, of: Ns) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Bytes are whole, and fit: they come from a `u64` or a mean of such.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}
