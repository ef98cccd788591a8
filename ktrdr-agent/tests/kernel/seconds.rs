//! Second programs at the socket tracepoints: silent beside the first, and as good where those are not run.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
};

use ktrdr_agent::kernel::{Hook, KernelOptions, ProbeStatus, Seconds};
use ktrdr_ebpf_common::{Counter, RECV, SEND, maps::Watch};

use crate::observer::{Body, Observer, conn_of, options};

const THREADS: usize = 4;
/// Exchanges of each thread, of as many bytes as its number says: equal transfers in a row, and different ones.
const EXCHANGES: usize = 500;

fn with(seconds: Seconds) -> KernelOptions {
    KernelOptions { seconds, ..options(Hook::Socket) }
}

fn exchange(thread: usize, client: &mut TcpStream, server: &mut TcpStream) {
    let (message, mut buffer) = (vec![b'm'; 1 + thread], vec![0; 1 + thread]);
    for n in 0..EXCHANGES {
        client.write_all(&message[..1 + n % message.len()]).unwrap();
        server.read_exact(&mut buffer[..1 + n % message.len()]).unwrap();
    }
}

/// Threads that move between the two processors and write while others do.
fn traffic() -> Vec<(u16, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let threads = (0..THREADS).map(|thread| {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let ports = (client.local_addr().unwrap().port(), server.local_addr().unwrap().port());
        (ports, std::thread::spawn(move || exchange(thread, &mut client, &mut server)))
    });
    let threads: Vec<_> = threads.collect();
    threads
        .into_iter()
        .map(|(ports, thread)| {
            thread.join().unwrap();
            ports
        })
        .collect()
}

/// Of each transfer there is one record, whichever programs are there, and all of them are of the expected one.
fn told_once(seconds: Seconds, by_second: bool) {
    let Some(mut observer) = Observer::start(&with(seconds)) else { return };
    let connections = traffic();
    observer.settle();
    for (client, server) in connections {
        for (local, remote, direction) in [(client, server, SEND), (server, client, RECV)] {
            let conn = conn_of(&observer.records, local, remote).unwrap();
            assert_eq!(observer.stream(conn, direction).len(), EXCHANGES, "{seconds:?}");
        }
    }
    let ours = observer.records.iter().filter(|record| {
        record.header.tgid == std::process::id() && matches!(record.body, Body::Data { .. })
    });
    let unexpected = ours.filter(|record| record.second != by_second).count();
    // Where programs may be interrupted, a sign may be lost or a run be refused; not often.
    let few = THREADS * EXCHANGES / 20;
    assert!(unexpected <= few, "{seconds:?}: {unexpected}");
    let counted = observer.counter(Counter::TransfersBySecond);
    assert_eq!(counted > 0, by_second || unexpected > 0, "{seconds:?}: {counted}");
    assert_eq!(observer.kernel.misses().others(), 0, "{seconds:?}");
}

#[test]
fn beside_the_first_they_tell_nothing() {
    told_once(Seconds::Beside, false);
}

#[test]
fn alone_they_tell_all() {
    told_once(Seconds::Alone, true);
}

#[test]
fn they_are_attached_where_the_kernel_interrupts_programs() {
    let Some(observer) = Observer::start(&with(Seconds::Auto)) else { return };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version: u32 = release.split('.').next().unwrap().parse().unwrap();
    for probe in observer.kernel.probes().iter().filter(|probe| probe.name.ends_with("_second")) {
        let expected = probe.status == ProbeStatus::Attached;
        assert_eq!(expected, version >= 7, "{release}: {probe:?}");
    }
}

/// A line to a Unix socket has no position; it is told once all the same.
#[test]
fn lines_to_unix_sockets() {
    for (seconds, lines) in [(Seconds::Beside, 200), (Seconds::Alone, 200)] {
        let Some(mut observer) = Observer::start(&with(seconds)) else { return };
        observer.kernel.watch(std::process::id(), u32::MAX, Watch::PIPES).unwrap();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        for _ in 0..lines {
            near.write_all(b"always the same\n").unwrap();
            far.read_exact(&mut [0; 16]).unwrap();
        }
        observer.settle();
        let told = observer.records.iter().filter(
            |record| matches!(&record.body, Body::Write { payload, .. } if payload == b"always the same\n"),
        );
        assert_eq!(told.count(), lines, "{seconds:?}");
    }
}
