//! From what the agent takes and reads each second to what is left out: the control law. It has no clock and reads
//! nothing, so that it can be tried with loads that are made up.
//!
//! Costs are learned (`spent = idle + cost × records`), the rate of what is not seen is counted by the kernel programs, and
//! so the part that fits can be told without trying. But connections are not alike, and how many of a few are behind a part
//! is luck: each step is measured by what it did to the port. More is shown in steps, and where that was too much, the
//! port is left as it was for a while, for longer each time.

use std::collections::{BTreeMap, VecDeque};

use ktrdr_ebpf_common::thinning::ALL;

use super::fair;

#[cfg(test)]
mod tests;

/// Ports that are thinned at once. Each of more than so many would have less than a 64th of the budget to itself: then it
/// is not a few busy services that cost, and a host that has so many is one to raise the budget on.
pub const MAX_PORTS: usize = 64;
/// What the agent takes at first is spent on a look at the host (s).
const FIRST: f64 = 10.0;
/// Looks in a row above the budget before less is shown: a burst of a second or two is worth its price.
const ABOVE: u32 = 3;
/// Looks in a row with much room before more is shown.
const BELOW: u32 = 5;
/// Looks at a port with next to nothing on it before it is forgotten: more than the pause of a load generator.
const QUIET: u32 = 5;
/// Looks after a change that say nothing: of before in part, and of what the ring still held.
const SETTLING: u32 = 2;
/// Looks whose mean counts.
const WINDOW: usize = 3;
/// Part of the budget that is aimed at.
const AIM: f64 = 0.85;
/// Below this part of the budget there is room for more. Apart from [`AIM`] by more than a step changes.
const ROOM: f64 = 0.6;
/// Part of what is aimed at that ports keep, whatever the rest costs (log lines, say, which are not thinned): to show
/// hardly anything of them would not make up for that.
const KEPT: f64 = 0.25;
/// Records a second below which a port is complete in any case: some 0.05 % of a processor. As few in all tell what the agent
/// takes by itself.
pub const ENOUGH: f64 = 100.0;
/// Weight of a new look among the older ones in what was learned.
const NEW: f64 = 0.3;
/// More is shown by this factor at most.
const MOST_MORE: f64 = 2.0;
/// An excess within this time after more was shown comes of that (s).
const BLAMED: f64 = 15.0;
/// How long a port is left as it was, the first time, and at most (s).
const HOLD: (f64, f64) = (15.0, 600.0);
/// With less than this part of the load that was too much, it is tried again at once.
const MUCH_LESS: f64 = 0.7;

/// What one look tells, about each second.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Time since the one before (s).
    pub elapsed: f64,
    /// Processor time that the agent took meanwhile, in parts of what its budget gives it for that time.
    pub spent: f64,
    /// Records read meanwhile of connections, by service port.
    pub by_port: Vec<(u16, u64)>,
    /// All other records, which cannot be thinned.
    pub other: u64,
    /// Records that were lost meanwhile because they were not read in time.
    pub lost: u64,
    /// Transfers that the kernel programs left out meanwhile. Each would have been a record.
    pub left_out: u64,
}

/// A port of which a part is left out.
#[derive(Clone, Copy, Debug)]
struct Port {
    step: u8,
    /// Its transfers that nobody sees, per second, estimated.
    unseen: f64,
    /// With those that are seen.
    full: f64,
    /// Looks in a row with next to nothing on it.
    quiet: u32,
}

/// More of a port was too much.
#[derive(Clone, Copy, Debug)]
struct Failure {
    step: u8,
    at: f64,
    hold: f64,
    /// Its records per second then, seen and unseen.
    full: f64,
}

/// Means of a few looks, per second.
#[derive(Clone, Debug, Default)]
struct Rates {
    spent: f64,
    /// Records read; the others include those that were lost.
    read: f64,
    by_port: BTreeMap<u16, f64>,
    other: f64,
    left_out: f64,
}

/// What a port has, per second.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    seen: f64,
    full: f64,
}

/// The law and what it has learned.
#[derive(Debug, Default)]
pub struct Law {
    age: f64,
    ports: BTreeMap<u16, Port>,
    failures: BTreeMap<u16, Failure>,
    /// Ports of which more was shown last, with their steps before, and when.
    tried: (BTreeMap<u16, u8>, f64),
    window: VecDeque<Rates>,
    settling: u32,
    above: u32,
    below: u32,
    /// Spent without any record.
    idle: f64,
    /// Spent per record and second.
    cost: f64,
}

impl Law {
    /// With this table, for tests of who uses one.
    #[cfg(test)]
    pub fn of(table: &[(u16, u8)]) -> Self {
        let port = |step| Port { step, unseen: 0.0, full: 0.0, quiet: 0 };
        Self { ports: table.iter().map(|(p, step)| (*p, port(*step))).collect(), ..Self::default() }
    }

    /// What is left out now, by port, as [`ktrdr_ebpf_common::thinning::left_out`] counts it.
    pub fn table(&self) -> Vec<(u16, u32)> {
        self.ports.iter().map(|(port, p)| (*port, fair::left_out(p.step))).collect()
    }

    /// Transfers per second of a thinned port, seen and unseen.
    pub fn rate(&self, port: u16) -> f64 {
        self.ports.get(&port).map_or(0.0, |p| p.full)
    }

    /// Takes a look in. Whether the table changed.
    pub fn look(&mut self, look: &Look) -> bool {
        self.age += look.elapsed;
        if look.elapsed <= 0.0 || self.age <= FIRST {
            return false;
        }
        if self.settling > 0 {
            self.settling -= 1;
            return false;
        }
        let rates = Rates::of(look);
        self.above = if rates.spent > 1.0 { self.above + 1 } else { 0 };
        self.below = if rates.spent < ROOM { self.below + 1 } else { 0 };
        self.window.push_back(rates);
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
        let rates = self.mean();
        self.learn(&rates);
        let traffic = self.traffic(&rates);
        let cap = self.cap(&rates, &traffic);
        self.forgive();
        let steps = if self.above >= ABOVE {
            self.less(&traffic, cap)
        } else if self.below >= BELOW || (cap == f64::INFINITY && self.window.len() == WINDOW) {
            self.more(&traffic, cap)
        } else {
            BTreeMap::new()
        };
        self.change(steps, &traffic)
    }

    fn mean(&self) -> Rates {
        let mut mean = Rates::default();
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let part = 1.0 / self.window.len().max(1) as f64;
        for r in &self.window {
            mean.spent += r.spent * part;
            mean.read += r.read * part;
            mean.other += r.other * part;
            mean.left_out += r.left_out * part;
            for (port, rate) in &r.by_port {
                *mean.by_port.entry(*port).or_default() += rate * part;
            }
        }
        mean
    }

    /// What the agent takes by itself, and what a record costs.
    fn learn(&mut self, rates: &Rates) {
        if rates.read < ENOUGH {
            self.idle += (rates.spent - self.idle) * NEW;
        } else {
            // That may have been more once; but records are never free.
            self.idle = self.idle.min(rates.spent / 2.0);
            let cost = (rates.spent - self.idle) / rates.read;
            let weight = if self.cost == 0.0 { 1.0 } else { NEW };
            self.cost += (cost - self.cost) * weight;
        }
    }

    /// What each port has. The kernel programs count all transfers that they leave out, not whose they are: what a port
    /// shows says how many of them should be its own, and the rest is of those that used to have more than they show. So a
    /// single busy connection that is left out is not forgotten, although nothing is seen of its port.
    fn traffic(&mut self, rates: &Rates) -> BTreeMap<u16, Traffic> {
        let seen = |port: &u16| rates.by_port.get(port).copied().unwrap_or(0.0);
        let shown: BTreeMap<u16, f64> = self
            .ports
            .iter()
            .map(|(port, p)| (*port, seen(port) * (1.0 / fair::part(p.step) - 1.0)))
            .collect();
        let told: f64 = shown.values().sum();
        let rest = (rates.left_out - told).max(0.0);
        let scale = if told > rates.left_out { rates.left_out / told } else { 1.0 };
        let lacks: BTreeMap<u16, f64> =
            self.ports.iter().map(|(port, p)| (*port, (p.unseen - shown[port]).max(0.0))).collect();
        let lacking: f64 = lacks.values().sum();
        #[allow(clippy::cast_precision_loss, reason = "at most MAX_PORTS")]
        let alike = 1.0 / self.ports.len().max(1) as f64;
        for (port, p) in &mut self.ports {
            let of_rest = if lacking > 0.0 { lacks[port] / lacking } else { alike };
            p.unseen = shown[port] * scale + rest * of_rest;
            p.full = seen(port) + p.unseen;
            p.quiet = if p.full < ENOUGH { p.quiet + 1 } else { 0 };
        }
        let ports = rates.by_port.keys().chain(self.ports.keys());
        ports
            .map(|port| {
                let seen = seen(port);
                (*port, Traffic { seen, full: self.ports.get(port).map_or(seen, |p| p.full) })
            })
            .collect()
    }

    /// Records a second that a port may have; infinite where all of them fit.
    fn cap(&self, rates: &Rates, traffic: &BTreeMap<u16, Traffic>) -> f64 {
        if self.cost <= 0.0 {
            return f64::INFINITY;
        }
        let left = (AIM - self.idle) / self.cost - rates.other;
        let capacity = left.max(KEPT * AIM / self.cost);
        fair::cap(traffic.values().map(|t| t.full), capacity).max(ENOUGH)
    }

    /// The part of a port's connections that should show what it may have, judged by what they show now.
    fn wanted(&self, port: u16, t: &Traffic, cap: f64) -> f64 {
        let now = self.ports.get(&port).map_or(1.0, |p| fair::part(p.step));
        if t.seen > 0.0 { (now * cap / t.seen).min(now * MOST_MORE) } else { now * MOST_MORE }
    }

    /// The steps of ports that are to show less.
    fn less(&self, traffic: &BTreeMap<u16, Traffic>, cap: f64) -> BTreeMap<u16, u8> {
        let mut busiest: Vec<_> = traffic.iter().filter(|(_, t)| t.seen > cap).collect();
        busiest.sort_by(|a, b| b.1.full.total_cmp(&a.1.full));
        let mut room = MAX_PORTS - self.ports.len();
        let mut steps = BTreeMap::new();
        for (port, t) in busiest {
            // Where more was just tried, it was fine before.
            let before = self.tried.0.get(port).filter(|_| self.age <= self.tried.1 + BLAMED);
            let step = before.copied().unwrap_or_else(|| fair::step(self.wanted(*port, t, cap)));
            match self.ports.get(port) {
                Some(p) if step > p.step => {
                    steps.insert(*port, step);
                }
                None if step > 0 && room > 0 => {
                    room -= 1;
                    steps.insert(*port, step);
                }
                _ => {}
            }
        }
        steps
    }

    /// The steps of ports that may show more.
    fn more(&self, traffic: &BTreeMap<u16, Traffic>, cap: f64) -> BTreeMap<u16, u8> {
        let mut steps = BTreeMap::new();
        for (port, p) in &self.ports {
            let Some(t) = traffic.get(port) else { continue };
            // A port with more than it may have is never complete, however little of that is seen by luck.
            let mut step = if t.full <= cap { 0 } else { fair::step(self.wanted(*port, t, cap)).max(1) };
            let known = |f: &&Failure| t.full > f.full * MUCH_LESS;
            if let Some(f) = self.failures.get(port).filter(known) {
                // No further than to what was too much, and that only after a while.
                step = step.max(if self.age < f.at + f.hold { f.step + 1 } else { f.step });
            }
            if step < p.step {
                steps.insert(*port, step);
            }
        }
        steps
    }

    /// Takes these steps, and forgets ports without traffic.
    fn change(&mut self, mut steps: BTreeMap<u16, u8>, traffic: &BTreeMap<u16, Traffic>) -> bool {
        steps.extend(self.ports.iter().filter(|(_, p)| p.quiet >= QUIET).map(|(port, _)| (*port, 0)));
        if steps.is_empty() {
            return false;
        }
        let was = |law: &Self, port: &u16| law.ports.get(port).map_or(0, |p| p.step);
        if steps.iter().any(|(port, step)| *step > was(self, port)) {
            self.blame(traffic);
        }
        let before = steps.iter().map(|(port, step)| (*port, *step, was(self, port)));
        let more: BTreeMap<u16, u8> =
            before.filter(|(_, step, was)| step < was).map(|(port, _, was)| (port, was)).collect();
        if !more.is_empty() {
            self.tried = (more, self.age);
        }
        for (port, step) in steps {
            if step == 0 {
                self.ports.remove(&port);
                continue;
            }
            let full = traffic.get(&port).map_or(0.0, |t| t.full);
            let unseen = full * (1.0 - fair::part(step));
            self.ports.insert(port, Port { step, unseen, full, quiet: 0 });
        }
        self.window.clear();
        (self.above, self.below, self.settling) = (0, 0, SETTLING);
        true
    }

    /// Forgets what was too much once and is not any more, or was long ago.
    fn forgive(&mut self) {
        if self.age > self.tried.1 + BLAMED {
            for port in std::mem::take(&mut self.tried.0).into_keys() {
                let step = self.ports.get(&port).map_or(0, |p| p.step);
                if self.failures.get(&port).is_some_and(|f| step <= f.step) {
                    self.failures.remove(&port);
                }
            }
        }
        self.failures.retain(|_, f| self.age < f.at + 2.0 * f.hold + BLAMED);
    }

    /// Remembers that what was shown last was too much.
    fn blame(&mut self, traffic: &BTreeMap<u16, Traffic>) {
        let (ports, at) = std::mem::take(&mut self.tried);
        if self.age > at + BLAMED {
            return;
        }
        for port in ports.into_keys() {
            let step = self.ports.get(&port).map_or(0, |p| p.step);
            let hold = self.failures.get(&port).map_or(HOLD.0, |f| (2.0 * f.hold).min(HOLD.1));
            let full = traffic.get(&port).map_or(0.0, |t| t.full);
            self.failures.insert(port, Failure { step, at: self.age, hold, full });
        }
    }
}

impl Rates {
    fn of(look: &Look) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a number of records")]
        let rate = |n: u64| n as f64 / look.elapsed;
        let read = look.by_port.iter().fold(look.other, |sum, (_, n)| sum.saturating_add(*n));
        // What was lost was of the same kinds as what was not.
        let all = if read > 0 { 1.0 + rate(look.lost) / rate(read) } else { 1.0 };
        Self {
            spent: look.spent,
            read: rate(read),
            by_port: look.by_port.iter().map(|(port, n)| (*port, rate(*n) * all)).collect(),
            other: rate(look.other) * all,
            left_out: rate(look.left_out),
        }
    }
}

/// The part of a port's connections that is observed where so much of them is left out.
pub fn observed(left_out: u32) -> f64 {
    1.0 - f64::from(left_out) / f64::from(ALL)
}
