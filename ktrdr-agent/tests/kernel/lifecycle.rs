//! Connections, listeners, failed connects and processes.

use std::{
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::Command,
};

use ktrdr_agent::kernel::Hook;
use ktrdr_ebpf_common::{StateBody, flags};

use crate::{
    observer::{Body, Observer, Record, conn_of, options, ways},
    sys,
    transfers::netns,
};

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
const LOCALHOST: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];

fn transitions(observer: &Observer, conn: u64) -> Vec<(u8, u8)> {
    observer.states(conn).iter().map(|(_, state)| (state.old, state.new)).collect()
}

#[test]
fn a_connection_and_its_listener_live_and_end() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let client_port = client.local_addr().unwrap().port();
    let (server, _) = listener.accept().unwrap();
    drop((client, server, listener));

    let client = observer.until("the client", |records| conn_of(records, client_port, port));
    let server = observer.until("the server", |records| conn_of(records, port, client_port));
    let listener = observer.until("the listener", |records| conn_of(records, port, 0));
    observer.until("the ends", |records| {
        let ended = |conn| {
            records.iter().any(|r| matches!(&r.body, Body::State(s) if s.conn == conn && s.new == CLOSE))
        };
        (ended(client) && ended(server) && ended(listener)).then_some(())
    });

    assert_eq!(
        transitions(&observer, client),
        [(CLOSE, SYN_SENT), (SYN_SENT, ESTABLISHED), (transitions(&observer, client)[2].0, CLOSE)]
    );
    let server_states = transitions(&observer, server);
    assert_eq!(server_states[0], (SYN_RECV, ESTABLISHED));
    assert_eq!(server_states.len(), 2);
    assert_eq!(transitions(&observer, listener), [(CLOSE, LISTEN), (LISTEN, CLOSE)]);

    // The caller of connect and of listen.
    for (header, _) in [observer.states(client)[0], observer.states(listener)[0]] {
        assert_eq!((header.tgid, header.tid), (std::process::id(), sys::gettid()));
    }
    let first = observer.states(client)[0].1.tuple;
    assert_eq!((first.remote_addr, first.remote_port), (LOCALHOST, port));
    assert_eq!(first.local_port, 0, "not chosen yet");
    let listening = observer.states(listener)[0].1.tuple;
    assert_eq!((listening.local_addr, listening.local_port), (LOCALHOST, port));
    assert_eq!(listening.netns, netns());
    // The bound port is given back before the last change, and is told all the same.
    let last = observer.states(client)[2].1;
    assert_eq!((last.tuple.local_port, last.tuple.remote_port), (client_port, port));
    assert_eq!(last.error, 0);
}

/// A port on which nothing listens.
fn closed_port(address: &str) -> u16 {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

fn refused(record: &Record, port: u16) -> Option<StateBody> {
    match record.body {
        Body::State(state)
            if state.tuple.remote_port == port && (state.old, state.new) == (SYN_SENT, CLOSE) =>
        {
            Some(state)
        }
        _ => None,
    }
}

#[test]
fn a_refused_connect_tells_its_error() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    for (address, family) in [("127.0.0.1", libc::AF_INET), ("::1", libc::AF_INET6)] {
        let port = closed_port(address);
        observer.settle();
        observer.records.clear();
        TcpStream::connect((address, port)).unwrap_err();
        let end =
            observer.until("the refusal", |records| records.iter().find_map(|record| refused(record, port)));
        assert_eq!(i32::from(end.error), libc::ECONNREFUSED);
        assert_eq!(i32::from(end.tuple.family), family);
        assert_ne!(end.tuple.local_port, 0);
        let begin = observer.states(end.conn)[0];
        assert_eq!((begin.1.old, begin.1.new), (CLOSE, SYN_SENT));
        assert_eq!((begin.0.tgid, begin.0.tid), (std::process::id(), sys::gettid()));
        assert!(!observer.records.iter().any(|record| matches!(record.body, Body::ConnectError(_))));
    }
}

#[test]
fn a_connect_without_a_packet_is_reported_once() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        // TCP to the broadcast address has no route; UDP to it is not permitted and not our business.
        let target = sys::sockaddr_v4([255, 255, 255, 255], 4321);
        let error = sys::connect(libc::AF_INET, libc::SOCK_STREAM, &target).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        let error = sys::connect(libc::AF_INET, libc::SOCK_DGRAM, &target).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        // Refusals come by the socket's state, not here.
        TcpStream::connect(("127.0.0.1", closed_port("127.0.0.1"))).unwrap_err();
        observer.settle();
        let errors: Vec<_> = observer
            .records
            .iter()
            .filter(|record| record.header.tgid == std::process::id())
            .filter_map(|record| match record.body {
                Body::ConnectError(body) => Some((record.header.tid, body)),
                _ => None,
            })
            .collect();
        let [(tid, body)] = errors[..] else { panic!("{way:?}: {errors:?}") };
        assert_eq!(tid, sys::gettid());
        assert_eq!(body.error, libc::ENETUNREACH as u32);
        assert_eq!((body.remote_port, i32::from(body.family)), (4321, libc::AF_INET));
        assert_eq!(body.remote_addr[12..], [255, 255, 255, 255]);
        assert_eq!(body.netns, netns());
    }
}

fn of_process(records: &[Record], pid: u32) -> Vec<Body> {
    records.iter().filter(|record| record.header.tgid == pid).map(|record| record.body.clone()).collect()
}

#[test]
fn processes_and_threads_come_and_go() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let us = std::process::id();
    for (script, code) in [("exit 7", 7 << 8), ("kill -9 $$", 9)] {
        let mut child = Command::new("/bin/sh").arg0("my shell").args(["-c", script]).spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let exit = observer.until("the exit", |records| {
            of_process(records, pid).into_iter().find_map(|body| match body {
                Body::Exit(exit) => Some(exit),
                _ => None,
            })
        });
        assert_eq!(exit.code, code);
        assert_eq!(exit.ppid, us);
        assert_eq!(&exit.comm[..3], b"sh\0");
        let exec = of_process(&observer.records, pid).into_iter().find_map(|body| match body {
            Body::Exec { body, args } => Some((body, args)),
            _ => None,
        });
        let (body, args) = exec.unwrap();
        assert_eq!(args, [b"my shell\0-c\0".as_slice(), script.as_bytes(), b"\0"].concat());
        assert_eq!(body.ppid, us);
        let forked = observer.records.iter().any(|record| {
            matches!(record.body, Body::Fork(fork) if fork.child_tgid == pid && fork.child_tid == pid)
                && record.header.tgid == us
                && record.header.flags == 0
        });
        assert!(forked);
    }

    let tid = std::thread::spawn(sys::gettid).join().unwrap();
    observer.until("the thread", |records| {
        records
            .iter()
            .find(|record| {
                matches!(record.body, Body::Fork(fork) if fork.child_tgid == us && fork.child_tid == tid)
                    && record.header.flags == flags::THREAD
            })
            .map(|_| ())
    });
    // A thread that ends is no process that ends.
    observer.settle();
    assert!(!of_process(&observer.records, us).iter().any(|body| matches!(body, Body::Exit(_))));
}

#[test]
fn arguments_longer_than_the_limit_are_cut() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let long = "x".repeat(5000);
    let mut child = Command::new("/bin/true").arg(&long).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let args = observer.until("the exec", |records| {
        of_process(records, pid).into_iter().find_map(|body| match body {
            Body::Exec { args, .. } => Some(args),
            _ => None,
        })
    });
    assert_eq!(args.len(), ktrdr_ebpf_common::limits::MAX_ARGS);
    assert!(args.starts_with(b"/bin/true\0xxx"));
}
