//! Keeping within the budget: what the agent takes is looked at each second, and when it is more than it may be, a part of the
//! connections of the busiest ports is left out for as long as that lasts (docs/budget.md). [`law`] decides how many.

mod fair;
mod law;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::core::Load;
use crate::event::shell::Thinned;
use crate::meta::{host, processors};
use crate::settings::CpuBudget;
use law::{Law, Look, observed};
use words::{Thin, Words};

/// Part of a quota of the agent's control group that it may take: at the quota it is stopped, and would never be seen to
/// take more.
const OF_QUOTA: f64 = 0.8;
/// Part of a processor that the thread that reads may take, however many there are: there is one such thread, and records
/// that it does not read are lost.
const OF_READER: f64 = 0.8;
/// What counts as spent at least while records are lost: more than there is.
const LOSING: f64 = 1.05;
/// Looks in a row above the budget with nothing left out, after which that is told.
const NOT_THINNED: u32 = 60;

/// What the agent may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Processors, of all its threads together.
    processors: f64,
    fraction: f64,
    online: f64,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}% of this host's {} processors", self.fraction * 100.0, self.online)
    }
}

/// What was read at the last look.
struct Reading {
    at: Instant,
    cpu_ns: u64,
    reader_ns: u64,
    kernel: Kernel,
}

impl Reading {
    fn now(kernel: Kernel) -> Self {
        let (cpu_ns, reader_ns) = (host::own_cpu_ns(), host::own_thread_cpu_ns());
        Self { at: Instant::now(), cpu_ns, reader_ns, kernel }
    }
}

/// What the kernel programs have counted so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel {
    /// Transfers that were left out.
    pub left_out: u64,
    /// Records that were lost because they were not read in time.
    pub lost: u64,
}

/// Another table. The core is told [`both`](Self::both) tables first, then the kernel programs get [`kernel`](Self::kernel), then
/// the core is told [`after`](Self::after): in this order it never takes silence for something that happened on the wire.
pub struct Change {
    /// Of each port, what is left out before or after, whichever is more.
    pub both: Thinned,
    /// What the kernel programs leave out of each port from now on; 0 where that ends.
    pub kernel: Vec<(u16, u32)>,
    /// What is left out from now on.
    pub after: Thinned,
}

/// Watches what the agent takes.
pub struct Governor {
    limits: Limits,
    law: Law,
    last: Reading,
    table: BTreeMap<u16, u32>,
    words: Words,
    started: Instant,
    /// Looks in a row above the budget with nothing left out; told once.
    above: Option<u32>,
    counts: Counts,
}

/// What became of it, for the books.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Counts {
    /// Processors that the agent may take; none = as many as it wants.
    pub processors: Option<f64>,
    /// Seconds in which anything was left out.
    pub thinned_seconds: f64,
    /// Times that the table changed.
    pub changes: u64,
    /// Part of the connections that is observed, by port; of all others, all are.
    pub observed: BTreeMap<u16, f64>,
    /// The least of them at any time; 1 = all were observed all the time.
    pub least_observed: f64,
}

impl Default for Counts {
    fn default() -> Self {
        let observed = BTreeMap::new();
        Self { processors: None, thinned_seconds: 0.0, changes: 0, observed, least_observed: 1.0 }
    }
}

impl Governor {
    /// For the thread that reads, which is this one; `None` = no budget.
    pub fn start(budget: CpuBudget) -> Option<Self> {
        let fraction = budget.fraction()?;
        let online = processors::online();
        let quota = processors::quota().map_or(f64::INFINITY, |q| q * OF_QUOTA);
        let limits = Limits { processors: (fraction * online).min(quota), fraction, online };
        let last = Reading::now(Kernel::default());
        let started = last.at;
        let counts = Counts { processors: Some(limits.processors), ..Counts::default() };
        Some(Self {
            limits,
            law: Law::default(),
            last,
            table: BTreeMap::new(),
            words: Words::default(),
            started,
            above: Some(0),
            counts,
        })
    }

    /// Looks, about once a second.
    pub fn look(&mut self, load: Load, kernel: Kernel) -> Option<Change> {
        let now = Reading::now(kernel);
        let elapsed = (now.at - self.last.at).as_secs_f64();
        let part = |ns: u64, of: f64| Duration::from_nanos(ns).as_secs_f64() / (elapsed * of);
        let all = part(now.cpu_ns.saturating_sub(self.last.cpu_ns), self.limits.processors);
        let reader = part(now.reader_ns.saturating_sub(self.last.reader_ns), OF_READER);
        let lost = kernel.lost.saturating_sub(self.last.kernel.lost);
        // Who loses records takes as much as it can have, however little that is.
        let losing = if lost > 0 { LOSING } else { 0.0 };
        let look = Look {
            elapsed,
            spent: all.max(reader).max(losing),
            by_port: load.by_port,
            other: load.other,
            lost,
            left_out: kernel.left_out.saturating_sub(self.last.kernel.left_out),
        };
        self.last = now;
        if !self.table.is_empty() {
            self.counts.thinned_seconds += elapsed;
        }
        let changed = self.law.look(&look);
        self.count_above(look.spent);
        let change = changed.then(|| self.change());
        self.speak();
        change
    }

    /// The part of the connections that is observed of each thinned port.
    pub fn observed(&self) -> impl Iterator<Item = (u16, f64)> {
        self.table.iter().map(|(port, out)| (*port, observed(*out)))
    }

    /// For the books.
    pub fn counts(&self) -> Counts {
        Counts { observed: self.observed().collect(), ..self.counts.clone() }
    }

    fn change(&mut self) -> Change {
        let after: BTreeMap<u16, u32> = self.law.table().into_iter().collect();
        let before = std::mem::replace(&mut self.table, after);
        let of = |table: &BTreeMap<u16, u32>, port: u16| table.get(&port).copied().unwrap_or(0);
        let ports: BTreeSet<u16> = before.keys().chain(self.table.keys()).copied().collect();
        let both = ports.iter().map(|p| (*p, of(&before, *p).max(of(&self.table, *p)))).collect();
        let other = ports.iter().map(|p| (*p, of(&self.table, *p)));
        let kernel = other.filter(|(p, out)| of(&before, *p) != *out).collect();
        self.counts.changes += 1;
        let least = self.observed().map(|(_, part)| part).fold(self.counts.least_observed, f64::min);
        self.counts.least_observed = least;
        let after = Thinned { ports: self.table.iter().map(|(port, out)| (*port, *out)).collect() };
        Change { both: Thinned { ports: both }, kernel, after }
    }

    fn speak(&mut self) {
        let thin = |(port, left_out): (&u16, &u32)| Thin {
            port: *port,
            left_out: *left_out,
            rate: self.law.rate(*port),
        };
        let ports: Vec<Thin> = self.table.iter().map(thin).collect();
        match self.words.of(self.started.elapsed(), &ports, &self.limits) {
            Some((true, text)) => tracing::warn!("{text}"),
            Some((false, text)) => tracing::info!("{text}"),
            None => {}
        }
    }

    /// What costs may be nothing that can be thinned: then more than the budget is taken, and that is told once.
    fn count_above(&mut self, spent: f64) {
        let Some(above) = &mut self.above else { return };
        *above = if spent > 1.0 && self.table.is_empty() { *above + 1 } else { 0 };
        if *above >= NOT_THINNED {
            self.above = None;
            tracing::warn!(
                "the agent takes more than {}, and not for connections of busy ports, of which it could leave out some",
                self.limits
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_is_told_both_tables_first() {
        let mut governor = Governor::start(CpuBudget::percent(5)).unwrap();
        let mut table = |ports: &[(u16, u32)], to: &[(u16, u8)]| {
            governor.table = ports.iter().copied().collect();
            governor.law = Law::of(to);
            governor.change()
        };
        let change = table(&[(80, 100), (81, 7)], &[(80, 4), (82, 8)]);
        assert_eq!(change.both.ports, [(80, 32_768), (81, 7), (82, 49_152)]);
        assert_eq!(change.kernel, [(80, 32_768), (81, 0), (82, 49_152)]);
        assert_eq!(change.after.ports, [(80, 32_768), (82, 49_152)]);
        let change = table(&[(80, 32_768), (82, 49_152)], &[(80, 4)]);
        assert_eq!(change.both.ports, [(80, 32_768), (82, 49_152)]);
        assert_eq!(change.kernel, [(82, 0)]);
        assert_eq!(change.after.ports, [(80, 32_768)]);
        assert_eq!(governor.counts().least_observed, 0.25);
        assert_eq!(governor.counts().observed, BTreeMap::from([(80, 0.5)]));
    }

    #[test]
    fn without_a_budget_nobody_looks() {
        assert!(Governor::start("off".parse().unwrap()).is_none());
    }
}
