//! What the agent tells the programs, what happens when it cannot keep up, and that nothing stays behind.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use ktrdr_agent::event::losses::Losses;
use ktrdr_agent::kernel::{Hook, KernelOptions};
use ktrdr_ebpf_common::{
    Counter, SEND, flags, limits,
    policies::{self, Policy},
};

use crate::observer::{Body, Observer, Record, conn_of, options};

/// Both ends of a connection.
pub struct Pair {
    pub client: TcpStream,
    server: TcpStream,
}

impl Pair {
    pub fn new() -> Pair {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Pair { client, server: listener.accept().unwrap().0 }
    }

    pub fn ports(&self) -> (u16, u16) {
        (self.client.local_addr().unwrap().port(), self.client.peer_addr().unwrap().port())
    }

    /// One message from the client to the server.
    pub fn send(&mut self, message: &[u8]) {
        self.client.write_all(message).unwrap();
        let mut buffer = vec![0; message.len()];
        self.server.read_exact(&mut buffer).unwrap();
    }
}

#[test]
fn a_policy_ignores_or_cuts_a_connection() {
    for hook in [Hook::Socket, Hook::Syscall] {
        let Some(mut observer) = Observer::start(&options(hook)) else { return };
        let mut pair = Pair::new();
        let (client_port, server_port) = pair.ports();
        let conn = observer.until("the client", |records| conn_of(records, client_port, server_port));

        pair.send(b"unknown");
        observer.kernel.set_policy(conn, Policy::capture(4));
        pair.send(b"first four");
        observer.kernel.set_policy(conn, Policy::IGNORE);
        let ignored = observer.counter(Counter::Ignored);
        pair.send(b"nothing");
        assert_eq!(observer.counter(Counter::Ignored), ignored + 1);
        observer.settle();
        let seen: Vec<_> = observer
            .stream(conn, SEND)
            .iter()
            .map(|t| (t.header.flags, t.body.len, t.payload.clone()))
            .collect();
        assert_eq!(seen, [(flags::TUPLE, 7, b"unknown".to_vec()), (0, 10, b"firs".to_vec())]);

        observer.records.clear();
        observer.kernel.forget_policy(conn);
        observer.kernel.forget_policy(conn);
        pair.send(b"unknown again");
        observer.settle();
        assert_eq!(observer.stream(conn, SEND)[0].header.flags, flags::TUPLE);
    }
}

/// Two connections have room at one place. The one that has been there longest makes room for a third.
#[test]
fn policies_that_share_a_place() {
    for hook in [Hook::Socket, Hook::Syscall] {
        let Some(mut observer) = Observer::start(&options(hook)) else { return };
        let mut pair = Pair::new();
        let (client_port, server_port) = pair.ports();
        let conn = observer.until("the client", |records| conn_of(records, client_port, server_port));
        let mut beside = (1_u64 << 40..).filter(|n| policies::place_of(*n) == policies::place_of(conn));
        let [one, other, third] = [(); 3].map(|()| beside.next().unwrap());
        let kernel = &mut observer.kernel;
        kernel.set_policy(conn, Policy::capture(1));
        pair.send(b"alone");
        kernel.set_policy(one, Policy::IGNORE);
        pair.send(b"one beside it");
        kernel.set_policy(conn, Policy::capture(2));
        kernel.forget_policy(one);
        kernel.set_policy(other, Policy::IGNORE);
        pair.send(b"another");
        kernel.set_policy(third, Policy::IGNORE);
        pair.send(b"two");
        kernel.set_policy(conn, Policy::capture(3));
        pair.send(b"known again");
        observer.settle();
        let seen: Vec<_> =
            observer.stream(conn, SEND).iter().map(|t| (t.header.flags, t.payload.clone())).collect();
        let known = |payload: &[u8]| (0, payload.to_vec());
        let unknown = (flags::TUPLE, b"two".to_vec());
        assert_eq!(seen, [known(b"a"), known(b"o"), known(b"an"), unknown, known(b"kno")], "{hook}");
    }
}

/// Its beginning, and from the next turn of the direction on everything again.
#[test]
fn of_a_long_body_little_is_copied() {
    const TRANSFER: usize = 65_536;
    // Also before the agent has said anything: a download may be over by then.
    for (hook, said) in [(Hook::Socket, true), (Hook::Socket, false), (Hook::Syscall, true)] {
        let Some(mut observer) = Observer::start(&options(hook)) else { return };
        let mut pair = Pair::new();
        let (client_port, server_port) = pair.ports();
        let conn = observer.until("the client", |records| conn_of(records, client_port, server_port));
        if said {
            observer.kernel.set_policy(conn, Policy::capture(limits::DEFAULT_CAPTURE));
        }

        for _ in 0..10 {
            pair.send(&[b'x'; TRANSFER]);
        }
        pair.send(b"the end");
        pair.server.write_all(b"answer").unwrap();
        pair.client.read_exact(&mut [0; 6]).unwrap();
        pair.send(&[b'y'; TRANSFER]);
        observer.settle();
        let sent: Vec<_> =
            observer.stream(conn, SEND).iter().map(|t| (t.body.len as usize, t.payload.len())).collect();
        let whole = (TRANSFER, limits::DEFAULT_CAPTURE as usize);
        let mut expected = vec![whole; 8];
        expected.extend([(TRANSFER, limits::RUN_CAPTURE as usize); 2]);
        expected.extend([(7, 7), whole]);
        assert_eq!(sent, expected, "{hook:?}, {said}");
    }
}

#[test]
fn excluded_processes_and_the_agent_are_left_alone() {
    for (exclude, agent_tgid) in [(vec![std::process::id()], 0), (Vec::new(), std::process::id())] {
        for hook in [Hook::Socket, Hook::Syscall] {
            let options = KernelOptions { exclude: exclude.clone(), agent_tgid, ..options(hook) };
            let Some(mut observer) = Observer::start(&options) else { return };
            let before = observer.counter(Counter::Excluded);
            Pair::new().send(b"not a word of this");
            observer.settle();
            assert!(observer.counter(Counter::Excluded) >= before + 2);
            let ours = |record: &Record| {
                record.header.tgid == std::process::id() && matches!(record.body, Body::Data { .. })
            };
            assert!(!observer.records.iter().any(ours));
        }
    }
}

/// Conservation: what does not fit is counted, and everything else arrives.
#[test]
fn a_full_ring_loses_records_by_number() {
    let options = KernelOptions { ring_bytes: 4096, ..options(Hook::Auto) };
    let Some(mut observer) = Observer::start(&options) else { return };
    let mut pair = Pair::new();
    let (client_port, server_port) = pair.ports();
    const MESSAGES: usize = 200;
    for _ in 0..MESSAGES {
        pair.send(&[b'x'; 100]);
    }
    let lost = observer.counter(Counter::LostRingFull);
    observer.agree();
    let ours = |record: &&Record| {
        matches!(&record.body, Body::Data { tuple: Some(tuple), .. }
            if [(client_port, server_port), (server_port, client_port)].contains(&(tuple.local_port, tuple.remote_port)))
    };
    let arrived = observer.records.iter().filter(ours).count();
    assert!(arrived < 2 * MESSAGES);
    // Other processes of the host lose records here too, so not less than ours.
    assert!(lost >= (2 * MESSAGES - arrived) as u64, "{lost} lost, {arrived} arrived");

    // With room again records arrive, and the first of them says that others are missing before it.
    let mark = |record: &Record| record.header.losses();
    let mut losses = Losses::default();
    let mut told = observer.records.iter().filter(|r| losses.advance(mark(r))).count();
    observer.records.clear();
    let deadline = Instant::now() + Duration::from_secs(10);
    while observer.records.iter().filter(ours).count() == 0 {
        assert!(Instant::now() < deadline, "the ring stayed full");
        pair.send(b"room again");
        observer.drain();
    }
    told += observer.records.iter().filter(|r| losses.advance(mark(r))).count();
    assert!(told >= 1, "no record told of the loss");
}

/// Kernel identities of the programs, maps and links this process holds.
fn held_objects() -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap() {
        // Descriptors come and go with other tests' sockets.
        let Ok(info) = fs::read_to_string(entry.unwrap().path()) else { continue };
        for line in info.lines() {
            if ["prog_id:", "map_id:", "link_id:"].iter().any(|key| line.starts_with(key)) {
                held.insert(line.to_owned());
            }
        }
    }
    held
}

#[test]
fn nothing_stays_in_the_kernel() {
    let Some(observer) = Observer::start(&options(Hook::Auto)) else { return };
    let program_ids: Vec<u32> =
        held_objects().iter().filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()).collect();
    assert!(program_ids.len() >= 6, "{program_ids:?}");
    let loaded =
        || -> BTreeSet<u32> { aya::programs::loaded_programs().filter_map(|p| Some(p.ok()?.id())).collect() };
    assert!(program_ids.iter().all(|id| loaded().contains(id)));
    drop(observer);
    assert_eq!(held_objects(), BTreeSet::new());
    // The kernel frees a program after a grace period, which is none of ours to wait for; but it must come.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while program_ids.iter().any(|id| loaded().contains(id)) {
        assert!(std::time::Instant::now() < deadline, "programs are still there: {program_ids:?}");
        std::thread::yield_now();
    }
}

/// What is soon gone ends a wait: the reader must see a process while it still has a `/proc` entry.
#[test]
fn a_new_program_wakes_the_reader() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let mut child = None;
    wakes(&mut observer, || {
        let started = std::process::Command::new("/bin/true").spawn().unwrap();
        child.insert(started).id()
    });
    child.unwrap().wait().unwrap();
}

/// A new service is asked something soon, and what it writes then is to be seen.
#[test]
fn a_new_listener_wakes_the_reader() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let mut listener = None;
    wakes(&mut observer, || {
        listener = Some(TcpListener::bind("127.0.0.1:0").unwrap());
        std::process::id()
    });
}

/// A record of the process that `work` names is read before the time is over that only a wake-up ends.
fn wakes(observer: &mut Observer, work: impl FnOnce() -> u32) {
    observer.settle();
    let begin = Instant::now();
    let pid = work();
    let mut seen = false;
    while !seen {
        // Longer than the test may take.
        let timeout = Duration::from_secs(60);
        observer.kernel.poll(timeout, &mut |bytes| seen |= bytes[8..12] == pid.to_ne_bytes()).unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}
