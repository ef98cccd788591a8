use std::collections::BTreeSet;

use ktrdr_ebpf_common::thinning;
use proptest::strategy::Strategy;

use super::*;

/// A made-up host: services with connections, and an agent that reads what the law leaves it.
struct Host {
    law: Law,
    /// Service port → (client's port, records per second) of each connection.
    services: BTreeMap<u16, Vec<(u16, f64)>>,
    /// Parts of the budget: taken without a record, per record.
    idle: f64,
    cost: f64,
    /// Records per second that cannot be thinned.
    other: f64,
    /// Tables so far, by second.
    changes: Vec<(u32, Vec<(u16, u32)>)>,
    now: u32,
    spent: f64,
    table: BTreeMap<u16, u32>,
    /// By how much rates and what is spent vary from second to second, as a part; and the state of what varies them.
    noise: f64,
    state: u32,
    /// Records per second that the agent can read at most.
    most: f64,
}

impl Host {
    /// An agent whose budget is worth 40,000 records a second, on a host without traffic.
    fn new() -> Self {
        let cost = 1.0 / 40_000.0;
        Self {
            law: Law::default(),
            services: BTreeMap::new(),
            idle: 0.03,
            cost,
            other: 0.0,
            changes: Vec::new(),
            now: 0,
            spent: 0.0,
            table: BTreeMap::new(),
            noise: 0.0,
            state: 1,
            most: f64::INFINITY,
        }
    }

    /// A factor around 1, drawn anew. (Marsaglia's xorshift.)
    fn about(&mut self) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        1.0 + self.noise * (f64::from(self.state) / f64::from(u32::MAX) * 2.0 - 1.0)
    }

    /// A service with so many connections, each with so many records per second.
    fn serves(&mut self, port: u16, connections: u16, each: f64) {
        self.services.insert(port, (0..connections).map(|n| (32_768 + 2 * n, each)).collect());
    }

    fn shown(&self, port: u16, client: u16) -> bool {
        !thinning::left_out(port, client, |p| self.table.get(&p).copied().unwrap_or(0))
    }

    /// Connections of a port that are observed.
    fn seen(&self, port: u16) -> usize {
        self.services[&port].iter().filter(|(client, _)| self.shown(port, *client)).count()
    }

    fn second(&mut self) {
        let mut look = Look { elapsed: 1.0, other: self.other as u64, ..Look::default() };
        let mut records = self.other;
        for (port, connections) in self.services.clone() {
            let (mut seen, load) = (0.0, self.about());
            for (client, rate) in connections {
                match self.shown(port, client) {
                    true => seen += rate * load,
                    false => look.left_out += (rate * load) as u64,
                }
            }
            records += seen;
            look.by_port.push((port, seen as u64));
        }
        if records > self.most {
            let read = self.most / records;
            look.lost = (records - self.most) as u64;
            look.by_port.iter_mut().for_each(|(_, n)| *n = (*n as f64 * read) as u64);
            look.other = (look.other as f64 * read) as u64;
            records = self.most;
        }
        look.spent = (self.idle + self.cost * records) * self.about();
        self.spent = look.spent;
        self.now += 1;
        if self.law.look(&look) {
            self.changes.push((self.now, self.law.table()));
            self.table = self.law.table().into_iter().collect();
        }
    }

    fn run(&mut self, seconds: u32) {
        (0..seconds).for_each(|_| self.second());
    }

    /// Changes within the last seconds.
    fn changes_within(&self, seconds: u32) -> usize {
        self.changes.iter().filter(|(at, _)| *at + seconds > self.now).count()
    }
}

#[test]
fn what_fits_is_complete() {
    let mut host = Host::new();
    host.serves(80, 32, 1_000.0);
    host.run(600);
    assert_eq!(host.changes, []);
}

#[test]
fn a_busy_port_is_thinned_to_the_budget_and_the_others_are_not() {
    let mut host = Host::new();
    host.serves(80, 400, 1_000.0);
    host.serves(5001, 2, 500.0);
    host.serves(8000, 20, 400.0);
    host.run(10 + 3 + 2 + 30);
    assert!((0.6..=1.0).contains(&host.spent), "{}", host.spent);
    assert_eq!(host.law.table().iter().map(|(port, _)| *port).collect::<Vec<_>>(), [80]);
    // From then on, nothing moves.
    let changes = host.changes.len();
    assert!(changes <= 3, "{:?}", host.changes);
    host.run(3_600);
    assert_eq!(host.changes.len(), changes, "{:?}", host.changes);
    let rate = host.law.rate(80);
    assert!((rate - 400_000.0).abs() < 4_000.0, "{rate}");
}

#[test]
fn not_before_the_look_at_the_host_is_over_nor_for_a_burst() {
    let mut host = Host::new();
    host.serves(80, 400, 1_000.0);
    host.run(10);
    assert_eq!(host.changes, []);
    for _ in 0..20 {
        host.serves(80, 400, 1_000.0);
        host.run(2);
        host.serves(80, 400, 10.0);
        host.run(4);
    }
    assert_eq!(host.changes, []);
    host.serves(80, 400, 1_000.0);
    host.run(3);
    assert_eq!(host.changes.len(), 1);
}

#[test]
fn all_is_seen_again_when_the_load_falls() {
    for connections in [1, 2, 5, 32, 400] {
        let mut host = Host::new();
        host.serves(80, connections, 400_000.0 / f64::from(connections));
        host.run(60);
        assert!(!host.law.table().is_empty(), "{connections}");
        // To what fits, and to nothing at all.
        for left in [20_000.0, 0.0] {
            host.serves(80, connections, left / f64::from(connections));
            host.run(20);
            assert_eq!(host.law.table(), [], "{connections} connections, {left}/s");
            host.run(600);
            assert_eq!(host.law.table(), []);
            // And it is thinned anew when the load is back.
            host.serves(80, connections, 400_000.0 / f64::from(connections));
            host.run(3);
            assert!(!host.law.table().is_empty());
        }
    }
}

#[test]
fn load_that_rises_and_falls_in_steps_is_followed() {
    let mut host = Host::new();
    for each in [50.0, 300.0, 1_500.0, 600.0, 3_000.0, 200.0, 50.0] {
        host.serves(80, 400, each);
        host.run(120);
        let full = 0.03 + 400.0 * each / 40_000.0;
        assert!(host.spent <= 1.0 && host.spent >= 0.55_f64.min(full), "{} at {each}", host.spent);
    }
    assert_eq!(host.law.table(), []);
    assert!(host.changes.len() <= 30, "{:?}", host.changes);
}

#[test]
fn two_busy_ports_share_alike() {
    let mut host = Host::new();
    host.serves(80, 400, 1_000.0);
    host.serves(81, 400, 100.0);
    host.serves(82, 10, 10.0);
    host.run(600);
    let (seen80, seen81) = (host.seen(80) as f64 * 1_000.0, host.seen(81) as f64 * 100.0);
    assert!(seen81 > 8_000.0 && seen80 < 25_000.0 && seen80 > 8_000.0, "{seen80} {seen81}");
    assert_eq!(host.seen(82), 10);
    assert_eq!(host.changes_within(300), 0, "{:?}", host.changes);
    // One of them goes: the other gets its part.
    host.services.remove(&80);
    host.run(60);
    assert!(host.seen(81) > 250, "{:?}", host.changes);
    // And all of it what is left.
    host.serves(81, 400, 50.0);
    host.run(20);
    assert_eq!(host.law.table(), [], "{:?}", host.changes);
}

/// One busy connection is seen or not; whichever, it does not come and go.
#[test]
fn a_few_busy_connections_do_not_come_and_go() {
    for connections in [1, 2, 3, 5, 8, 13] {
        for port in [80, 443, 5001, 8000, 8080, 9000] {
            for full in [60_000.0, 120_000.0, 400_000.0] {
                let mut host = Host::new();
                host.serves(port, connections, full / f64::from(connections));
                host.run(3_600);
                let excesses = host.changes_within(3_000);
                assert!(excesses <= 24, "{connections} on {port}, {full}/s: {:?}", host.changes);
                // On the whole it stays within the budget.
                let mut spent = 0.0;
                for _ in 0..3_600 {
                    host.second();
                    spent += host.spent / 3_600.0;
                }
                assert!(spent <= 1.0, "{connections} on {port}, {full}/s: {spent}");
            }
        }
    }
}

#[test]
fn a_connection_that_is_not_seen_is_not_forgotten() {
    let mut host = Host::new();
    host.serves(80, 400, 200.0);
    host.serves(9000, 1, 120_000.0);
    host.run(600);
    assert_eq!(host.seen(9000), 0, "{:?}", host.changes);
    assert!(host.law.rate(9000) > 60_000.0, "{}", host.law.rate(9000));
    assert!(host.changes_within(300) <= 6, "{:?}", host.changes);
}

#[test]
fn what_cannot_be_thinned_does_not_take_all_from_what_can() {
    let mut host = Host::new();
    host.serves(80, 400, 50.0);
    host.other = 100_000.0;
    host.run(120);
    assert!(host.spent > 1.0);
    // A quarter of the budget is theirs.
    let seen = host.seen(80) as f64 * 50.0;
    assert!((4_000.0..=10_000.0).contains(&seen), "{seen}");
    assert_eq!(host.changes_within(60), 0, "{:?}", host.changes);
}

#[test]
fn without_anything_to_thin_nothing_is_done() {
    let mut host = Host::new();
    host.other = 400_000.0;
    host.serves(80, 4, 20.0);
    host.run(600);
    assert_eq!(host.changes, []);
    // An agent that takes more than its budget by itself.
    let mut host = Host { idle: 3.0, ..Host::new() };
    host.serves(80, 4, 20.0);
    host.run(600);
    assert_eq!(host.changes, []);
    // It leaves out what is worth it, and not for longer than it is there.
    host.serves(80, 400, 20.0);
    host.run(600);
    assert!(!host.law.table().is_empty() && host.changes_within(300) == 0, "{:?}", host.changes);
    assert!(host.seen(80) as f64 * 20.0 <= 400.0);
    host.services.clear();
    host.run(20);
    assert_eq!(host.law.table(), []);
}

#[test]
fn what_varies_from_second_to_second_moves_little() {
    for connections in [16, 32, 100, 400] {
        for full in [50_000.0, 100_000.0, 400_000.0, 2_000_000.0] {
            let mut host = Host { noise: 0.2, ..Host::new() };
            host.serves(80, connections, full / f64::from(connections));
            host.serves(8000, 12, 20.0);
            host.run(300);
            let (mut spent, changes) = (0.0, host.changes.len());
            for _ in 0..3_600 {
                host.second();
                spent += host.spent / 3_600.0;
            }
            let changes = host.changes.len() - changes;
            assert!(changes <= 60 && spent <= 1.0, "{connections}, {full}: {changes} changes, {spent} spent");
            assert_eq!(host.seen(8000), 12);
        }
    }
}

#[test]
fn records_that_are_lost_count_as_well() {
    let mut host = Host { most: 60_000.0, ..Host::new() };
    host.serves(80, 400, 3_000.0);
    host.run(30);
    assert!((0.6..=1.0).contains(&host.spent), "{} {:?}", host.spent, host.changes);
    assert!(host.changes.len() <= 2, "{:?}", host.changes);
    let rate = host.law.rate(80);
    assert!((rate - 1_200_000.0).abs() < 12_000.0, "{rate}");
}

#[test]
fn records_that_become_dearer_or_cheaper_are_followed() {
    let mut host = Host::new();
    host.serves(80, 400, 400.0);
    host.run(120);
    for factor in [3.0, 0.25, 2.0, 0.2] {
        host.cost = factor / 40_000.0;
        host.run(180);
        assert!((0.5..=1.0).contains(&host.spent), "{} at {factor}: {:?}", host.spent, host.changes);
        assert_eq!(host.changes_within(60), 0, "{:?}", host.changes);
    }
}

#[test]
fn the_table_is_bounded_and_keeps_a_floor() {
    let mut host = Host::new();
    for port in 1..=200 {
        host.serves(port, 400, 100.0 + f64::from(port));
    }
    host.run(300);
    let table = host.law.table();
    assert!(!table.is_empty() && table.len() <= MAX_PORTS, "{table:?}");
    assert!(table.iter().all(|(_, out)| *out > 0 && *out <= ALL - ALL / 256), "{table:?}");
    // The busiest ones.
    let ports: BTreeSet<u16> = table.iter().map(|(port, _)| *port).collect();
    assert!(ports.iter().all(|port| *port > 200 - MAX_PORTS as u16), "{ports:?}");
}

#[test]
fn the_same_looks_give_the_same_tables() {
    let run = || {
        let mut host = Host::new();
        for each in [50.0, 3_000.0, 100.0, 700.0] {
            host.serves(80, 37, each * 10.0);
            host.serves(81, 5, each * 20.0);
            host.run(100);
        }
        host.changes
    };
    assert_eq!(run(), run());
}

/// Spent, records by port, other records; lost and left out.
type Odd = (f64, Vec<(u16, u64)>, u64, (u64, u64));

fn odd() -> impl Strategy<Value = Odd> {
    let by_port = proptest::collection::btree_map(0_u16..9, 0_u64..1_000_000, 0..6);
    let by_port = by_port.prop_map(|ports| ports.into_iter().collect());
    (0.0..100.0_f64, by_port, 0_u64..1_000_000, (0_u64..1_000_000, 0_u64..10_000_000))
}

proptest::proptest! {
    /// Whatever it is told: shares are shares, and few.
    #[test]
    fn no_look_breaks_the_law(looks in proptest::collection::vec((0.0..5.0_f64, odd()), 0..120)) {
        let mut law = Law::default();
        for (elapsed, (spent, by_port, other, (lost, left_out))) in looks {
            let before = law.table();
            let changed = law.look(&Look { elapsed, spent, by_port, other, lost, left_out });
            proptest::prop_assert_eq!(changed, law.table() != before);
            for (_, out) in law.table() {
                proptest::prop_assert!(out > 0 && out <= ALL - ALL / 256);
            }
        }
    }
}
