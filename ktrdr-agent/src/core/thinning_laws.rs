//! What holds whatever is left out, and whenever: there are fewer spans, and fewer of their parents are known, but none is
//! another, and no call has failed that did not.

use std::collections::BTreeMap;

use ktrdr_ebpf_common::EventHeader;
use ktrdr_ebpf_common::thinning::{ALL, left_out};
use proptest::prelude::*;
use zerocopy::FromBytes;

use super::scenario::{Host, Pipe};
use crate::core::{Core, CoreConfig, Output};
use crate::dice::Dice;
use crate::event::shell::{ProcessMeta, PythonStatus, Thinned};
use crate::event::{Body, Direction, Ns, ShellEvent, Tuple, decode, tcp};
use crate::trace::model::{Span, SpanId, SpanKind, Status, Value};

const CLIENT: u32 = 300;
/// A pool of threads, a reverse proxy, a Python service on asyncio, who passes on what it reads byte for byte, and who all of
/// them ask.
const SERVICES: [(u32, &str, &str); 5] = [
    (100, "pool", "127.0.0.1:8000"),
    (110, "proxy", "127.0.0.1:8080"),
    (120, "python", "127.0.0.1:8100"),
    (130, "relay", "127.0.0.1:8200"),
    (200, "back", "127.0.0.1:9000"),
];
const PYTHON: usize = 2;
const RELAY: usize = 3;
const BACK: usize = 4;
/// Who asks and is no service.
const OUTSIDE: usize = 9;
const PATHS: [&str; 2] = ["/api/v1/symbols", "/api/v1/long"];

/// A request being served.
struct Job {
    pipe: Pipe,
    service: usize,
    tid: u32,
    context: u64,
    path: usize,
    id: usize,
    /// Who asked.
    by: usize,
    /// For whose client's port a relay asked, and whether it has.
    front: Option<u16>,
    passed: bool,
}

struct Play {
    h: Host,
    dice: Dice,
    jobs: Vec<Job>,
    idle: BTreeMap<(usize, usize), Vec<Pipe>>,
    /// A relay's connections, by the port of the client that it made each for.
    onward: BTreeMap<u16, Pipe>,
    next: u64,
    /// Requests in flight at most.
    most: usize,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut h = Host::new();
        h.process(CLIENT, "client");
        for (pid, name, at) in SERVICES {
            let threads = if name == "proxy" { 1 } else { 4 };
            let meta = ProcessMeta { tgid: pid, service: name.into(), threads, ..ProcessMeta::default() };
            h.shell(ShellEvent::Process(meta));
            h.listen(pid, at);
        }
        let python = PythonStatus { tgid: SERVICES[PYTHON].0, exact: true, ..PythonStatus::default() };
        h.shell(ShellEvent::Python(python));
        Self {
            h,
            dice: Dice(seed),
            jobs: Vec::new(),
            idle: BTreeMap::new(),
            onward: BTreeMap::new(),
            next: 1_000,
            most: 6,
        }
    }

    fn context(&mut self) -> u64 {
        self.next += 1;
        self.next * 16
    }

    /// Under which context a connection's bytes are read.
    fn reader(p: &Pipe) -> u64 {
        (1 << 32) + u64::from(p.client_port()) * 16
    }

    /// `by` asks a service; `work`: its thread and context. A relay asks for a connection of its own (`front`).
    fn ask(
        &mut self,
        by: usize,
        work: (u32, u64),
        (service, path, id): (usize, usize, usize),
        front: Option<u16>,
    ) {
        let client = SERVICES.get(by).map_or(CLIENT, |s| s.0);
        let (pid, _, at) = SERVICES[service];
        let kept = match front {
            Some(front) => self.onward.remove(&front),
            None => self.idle.get_mut(&(by, service)).and_then(Vec::pop),
        };
        let mut pipe = kept.unwrap_or_else(|| self.h.connect_under(client, work, pid, at));
        pipe.called_by(work.0, work.1);
        let python = service == PYTHON;
        let reader = Self::reader(&pipe);
        let busy = |tid: &u32| self.jobs.iter().any(|j| j.service == 0 && j.tid == *tid);
        let free = (1..).map(|n| pid + n).find(|tid| !busy(tid));
        let tid = free.filter(|_| service == 0).unwrap_or(pid);
        pipe = pipe.served_by(tid);
        pipe.served_under(if python { reader } else { 0 });
        let symbol = ["AAPL", "MSFT"][id % 2];
        let host = if matches!(by, OUTSIDE | RELAY) { "x" } else { "y" };
        let named = if id == 0 { String::new() } else { format!("X-Request-ID: 7b0c31f2-{id}\r\n") };
        let request = format!(
            "GET {}?symbol={symbol} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8\r\n{named}\r\n",
            PATHS[path]
        );
        self.h.request(&mut pipe, request.as_bytes());
        let mut context = 0;
        if python {
            context = self.context();
            self.h.copy_context(pid, pid, reader, context);
        }
        self.jobs.push(Job { pipe, service, tid, context, path, id, by, front, passed: false });
    }

    fn step(&mut self) {
        // Now and then one request is in flight, and now and then many are.
        let roll = if self.jobs.len() > self.most { 9 } else { self.dice.roll(10) };
        if self.jobs.is_empty() {
            self.most = 1 + self.dice.roll(12);
        }
        if self.jobs.is_empty() || roll < 3 {
            let what = (self.dice.roll(BACK), self.dice.roll(2), self.dice.roll(4));
            return self.ask(OUTSIDE, (CLIENT, 0), what, None);
        }
        let at = self.dice.roll(self.jobs.len());
        let Job { service, tid, context, path, id, .. } = self.jobs[at];
        match roll {
            _ if service == RELAY && !self.jobs[at].passed => self.pass_on(at),
            3..=5 if service < RELAY => {
                let same = self.dice.roll(3) > 0;
                let (path, id) = if same { (path, id) } else { (self.dice.roll(2), self.dice.roll(4)) };
                self.ask(service, (tid, context), (BACK, path, id), None);
            }
            // It starts a program that asks.
            6 if service == 0 => {
                self.next += 1;
                let child = self.next as u32 + 10_000;
                self.h.fork(SERVICES[service].0, child);
                self.h.exec(child, SERVICES[service].0, "child", "child now", false);
                let mut p = self.h.connect(child, SERVICES[BACK].0, SERVICES[BACK].2);
                self.h.request(&mut p, b"GET /child HTTP/1.1\r\nHost: x\r\n\r\n");
                self.h.response(&mut p, OK);
                self.h.close(&p, 0);
                self.h.exit(child, 0);
            }
            // By itself, whatever it serves.
            7 if service < RELAY => self.ask(service, (tid, 0), (BACK, path, id), None),
            _ => self.answer(at),
        }
    }

    fn pass_on(&mut self, at: usize) {
        self.jobs[at].passed = true;
        let Job { tid, path, id, .. } = self.jobs[at];
        let front = self.jobs[at].pipe.client_port();
        self.ask(RELAY, (tid, 0), (BACK, path, id), Some(front));
    }

    fn answer(&mut self, at: usize) {
        let mut job = self.jobs.swap_remove(at);
        job.pipe.served_under(job.context);
        if job.by == PYTHON {
            // Whatever context reads what is asked for.
            let reader = Self::reader(&job.pipe);
            job.pipe.called_by(SERVICES[PYTHON].0, reader);
        }
        if self.dice.roll(12) == 0 {
            // The server hangs up.
            return self.h.close(&job.pipe, 104);
        }
        self.h.response(&mut job.pipe, OK);
        match (job.front, self.dice.roll(4)) {
            (Some(front), _) => drop(self.onward.insert(front, job.pipe)),
            (None, 0) => self.h.close(&job.pipe, 0),
            (None, _) => self.idle.entry((job.by, job.service)).or_default().push(job.pipe),
        }
        self.h.pass(self.dice.roll(3) as u64 * 10);
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";

/// All records of a play.
pub(super) fn records(seed: u64, steps: usize) -> Vec<Vec<u8>> {
    let mut play = Play::new(seed);
    for _ in 0..steps {
        play.step();
    }
    while !play.jobs.is_empty() {
        play.answer(0);
    }
    play.h.pass(500);
    play.h.records
}

/// What is left out from a record on: of the ports that clients ask, of the back's.
type Table = [u32; 2];

fn shares(t: Table) -> Thinned {
    Thinned { ports: vec![(8000, t[0]), (8080, t[0]), (8100, t[0]), (8200, t[0]), (9000, t[1])] }
}

/// The record as the kernel programs would send it.
fn sent(record: &[u8], t: Table) -> Option<Vec<u8>> {
    let share = |port| shares(t).ports.iter().find(|(p, _)| *p == port).map_or(0, |(_, share)| *share);
    let out = |t: &Tuple| left_out(t.local.port(), t.remote.port(), share);
    let Ok(event) = decode(record) else { return None };
    match event.body {
        Body::Data(d) if d.tuple.is_some_and(|t| out(&t)) => {
            if d.direction == Direction::Send || event.tgid != SERVICES[PYTHON].0 {
                return None;
            }
            // A Python thread's, without what it received.
            let mut short = record[..record.len() - d.payload.len()].to_vec();
            let head = size_of::<EventHeader>();
            let captured = head + std::mem::offset_of!(ktrdr_ebpf_common::DataBody, captured);
            short[captured..captured + 4].fill(0);
            Some(short)
        }
        Body::State(s) if out(&s.tuple) => {
            let untold = matches!((s.old, s.new), (tcp::SYN_RECV, tcp::ESTABLISHED))
                || (s.new == tcp::CLOSE && !matches!(s.old, tcp::SYN_SENT | tcp::LISTEN));
            (!untold).then(|| record.to_vec())
        }
        _ => Some(record.to_vec()),
    }
}

fn ts(record: &[u8]) -> Ns {
    EventHeader::read_from_prefix(record).map_or(0, |(h, _)| h.ts)
}

/// The spans of a core that is told this; everything else is as ever.
fn spans(all: &[Vec<u8>], changes: &BTreeMap<usize, Table>) -> (Vec<Span>, Core) {
    let mut core = Core::new(CoreConfig::default());
    let (mut spans, mut now) = (Vec::new(), [0; 2]);
    let mut feed = |core: &mut Core, record: &[u8]| {
        core.feed(record);
        while let Some(o) = core.next_output() {
            if let Output::Span(s) = o {
                spans.push(*s);
            }
        }
    };
    for (n, record) in all.iter().enumerate() {
        if let Some(next) = changes.get(&n) {
            let most = [now[0].max(next[0]), now[1].max(next[1])];
            for table in [most, *next] {
                feed(&mut core, &ShellEvent::Thinned(shares(table)).to_record(ts(record)));
            }
            now = *next;
        }
        if let Some(record) = sent(record, now) {
            feed(&mut core, &record);
        }
    }
    let end = all.last().map_or(0, |r| ts(r));
    feed(&mut core, &ShellEvent::End.to_record(end));
    (spans, core)
}

fn text<'a>(s: &'a Span, key: &str) -> Option<&'a str> {
    s.attributes.get(key).and_then(Value::as_str)
}

fn table() -> impl Strategy<Value = Table> {
    let share = || prop_oneof![Just(0), Just(ALL / 2), Just(ALL * 7 / 8), Just(ALL)];
    [share(), share()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_parent_is_another_and_no_call_fails(
        seed: u64,
        steps in 10..250usize,
        changes in prop::collection::vec((0..1_000u32, table()), 1..5),
    ) {
        let all = records(seed, steps);
        let changes = changes.into_iter().map(|(at, t)| (all.len() * at as usize / 1_000, t)).collect();
        let (whole, _) = spans(&all, &BTreeMap::new());
        let (thinned, core) = spans(&all, &changes);
        let whole: BTreeMap<SpanId, &Span> = whole.iter().map(|s| (s.span_id, s)).collect();
        for s in &thinned {
            let Some(as_ever) = whole.get(&s.span_id) else {
                prop_assert!(false, "there is no such call: {s:#?}");
                continue;
            };
            let links = |s: &Span| s.links.iter().map(|l| l.span_id).collect::<Vec<_>>();
            // A request that goes on unseen is over when it is seen to be.
            let above = |s: &Span| s.parent_span_id.or(links(s).first().copied());
            prop_assert!(above(s).is_none() || above(s) == above(as_ever), "{s:#?} where it is {as_ever:#?}");
            prop_assert!(s.status == Status::Unset || s.status == as_ever.status, "{s:#?}");
            prop_assert!(text(s, "ktrdr.incomplete").is_none_or(|why| why == "left_out" || Some(why) == text(as_ever, "ktrdr.incomplete")), "{s:#?}");
        }
        let counts = core.counts();
        let e = counts.engine;
        prop_assert_eq!(e.moved + e.bytes.gaps, e.bytes.parsed + e.bytes.skipped + e.bytes.lost);
        prop_assert_eq!(counts.unknown_conn, 0);
    }
}

/// So that the law above says something: all of these are found as long as all is seen, and some are when it is not.
#[test]
fn edges_of_all_kinds_are_there_to_be_found() {
    let mut methods: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    let mut gaps = 0;
    for seed in 0..20 {
        let all = records(seed, 250);
        let half = BTreeMap::from([(all.len() / 2, [ALL / 2, 0])]);
        for (n, changes) in [BTreeMap::new(), half].iter().enumerate() {
            let (spans, _) = spans(&all, changes);
            for s in &spans {
                let calls = s.kind == SpanKind::Client;
                gaps += usize::from(calls && text(s, "ktrdr.link.missing") == Some("left-out"));
                if let Some(method) = text(s, "ktrdr.link.method") {
                    methods.entry(method.to_owned()).or_default()[n] += 1;
                }
            }
        }
    }
    println!("{methods:?}, {gaps} left out");
    let kinds = ["connection", "python-context", "thread", "same-request", "request-id", "relay", "process"];
    for method in kinds {
        let found = methods.get(method).copied().unwrap_or_default();
        assert!(found[0] > 0, "{method}: {methods:?}");
    }
    assert!(methods["python-context"][1] * 3 > methods["python-context"][0], "{methods:?}");
    assert!(gaps > 0);
}
