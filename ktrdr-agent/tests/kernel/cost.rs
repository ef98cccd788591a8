//! Own cost of each program per event, as the kernel measures it. Not a test, because time proves nothing on a shared
//! machine: `cargo test -p ktrdr-agent --test kernel -- --ignored --nocapture own_cost` prints the table.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
};

use ktrdr_agent::kernel::{CallEnds, Hook, KernelOptions, Seconds, enable_stats};
use ktrdr_ebpf_common::{
    maps::{PyContexts, Watch},
    policies::Policy,
    thinning::ALL,
};

use crate::{
    contexts::Interpreter,
    observer::{Observer, Pretended, conn_of, options},
    stream::{self, Stream},
    sys,
};

const ROUNDS: usize = 9;
const MESSAGES: usize = 2_000;
const MESSAGE: [u8; 300] = [b'x'; 300];

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    let server = listener.accept().unwrap().0;
    (client, server)
}

fn pump(from: &mut impl Write, to: &mut impl Read) {
    let mut buffer = [0; MESSAGE.len()];
    for _ in 0..MESSAGES {
        from.write_all(&MESSAGE).unwrap();
        to.read_exact(&mut buffer).unwrap();
    }
}

/// Per program: the best round's nanoseconds per run, and runs per message.
fn measure(observer: &mut Observer, case: &str, mut work: impl FnMut()) {
    let mut best = std::collections::BTreeMap::<String, (f64, f64)>::new();
    for _ in 0..ROUNDS {
        let before = observer.kernel.program_stats();
        work();
        for (new, old) in observer.kernel.program_stats().into_iter().zip(before) {
            let (runs, ns) = (new.runs - old.runs, new.run_ns - old.run_ns);
            if runs as usize >= MESSAGES / 2 {
                let cost = (ns as f64 / runs as f64, runs as f64 / MESSAGES as f64);
                let kept = best.entry(new.name).or_insert(cost);
                if cost.0 < kept.0 {
                    *kept = cost;
                }
            }
        }
        observer.settle();
        observer.records.clear();
    }
    for (program, (ns, runs)) in best {
        println!("{:8} {case:34} {program:20} {ns:6.0} ns  × {runs:.1} per message", observer.kernel.hook());
    }
}

/// Nanoseconds of a call, the best of several rounds.
fn ns_of(mut call: impl FnMut()) -> f64 {
    const CALLS: u32 = 10_000;
    let mut round = |_| {
        let begin = std::time::Instant::now();
        (0..CALLS).for_each(|_| call());
        begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    (0..30).map(&mut round).fold(f64::INFINITY, f64::min)
}

/// What system calls of this process, which is not watched, take: one that nobody asks about, and those that somebody does.
fn calls() -> String {
    let mut null = std::fs::File::create("/dev/null").unwrap();
    let mut zero = std::fs::File::open("/dev/zero").unwrap();
    // SAFETY: no arguments.
    let getppid = ns_of(|| unsafe {
        libc::syscall(libc::SYS_getppid);
    });
    let write = ns_of(|| null.write_all(&MESSAGE).unwrap());
    let read = ns_of(|| zero.read_exact(&mut [0]).unwrap());
    format!("{getppid:6.0} ns per getppid, {write:6.0} per write, {read:6.0} per read")
}

/// What a hook costs the system calls it has no interest in.
#[test]
#[ignore = "prints times"]
fn cost_to_others() {
    println!("{:64} {}", "nothing attached", calls());
    let cases = [
        (Hook::Socket, CallEnds::Auto, false, false),
        (Hook::Socket, CallEnds::Every, true, false),
        (Hook::Socket, CallEnds::Every, true, true),
        (Hook::Socket, CallEnds::Tracepoints, true, true),
        (Hook::Socket, CallEnds::Auto, true, true),
        (Hook::Syscall, CallEnds::Auto, true, false),
        (Hook::Syscall, CallEnds::Auto, true, true),
    ];
    for (hook, call_ends, connect_errors, logs) in cases {
        let options = KernelOptions { call_ends, connect_errors, logs, stdio: logs, ..options(hook) };
        let Some(observer) = Observer::start(&options) else { return };
        println!("{hook}, connect errors {connect_errors}, logs and standard input {logs}: {}", calls());
        println!("  (calls are {})", observer.kernel.calls_seen());
        drop(observer);
    }
}

#[test]
#[ignore = "prints times"]
fn own_cost() {
    let _stats = enable_stats().unwrap();
    for hook in [Hook::Socket, Hook::Syscall] {
        let Some(mut observer) = Observer::start(&options(hook)) else { return };
        let (mut client, mut server) = tcp_pair();
        let (local, remote) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
        measure(&mut observer, "TCP, unknown (tuple + 300 B)", || pump(&mut client, &mut server));
        let conns = [(local, remote), (remote, local)].map(|(from, to)| {
            observer.until("the connection", |records| {
                pump(&mut client.try_clone().unwrap(), &mut server.try_clone().unwrap());
                conn_of(records, from, to)
            })
        });
        for (case, policy) in [
            ("TCP, captured (300 B)", Policy::capture(8192)),
            ("TCP, captured (64 of 300 B)", Policy::capture(64)),
            ("TCP, ignored by policy", Policy::IGNORE),
        ] {
            for conn in conns {
                observer.kernel.set_policy(conn, policy);
            }
            measure(&mut observer, case, || pump(&mut client, &mut server));
        }
        for conn in conns {
            observer.kernel.set_policy(conn, Policy::capture(8192));
        }
        observer.kernel.leave_out(remote, ALL).unwrap();
        measure(&mut observer, "TCP, left out", || pump(&mut client, &mut server));
        observer.kernel.leave_out(remote, 0).unwrap();
        measure(&mut observer, "TCP, captured, others left out", || pump(&mut client, &mut server));
        measure(&mut observer, "TCP, captured (writev 3 parts)", || {
            let mut buffer = [0; MESSAGE.len()];
            for _ in 0..MESSAGES {
                sys::writev(&client, &[&MESSAGE[..100], &MESSAGE[..100], &MESSAGE[..100]]).unwrap();
                server.read_exact(&mut buffer).unwrap();
            }
        });
        measure(&mut observer, "AF_UNIX", || {
            let (mut from, mut to) = UnixStream::pair().unwrap();
            pump(&mut from, &mut to);
        });
        measure(&mut observer, "UDP", || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(socket.local_addr().unwrap()).unwrap();
            let mut buffer = [0; MESSAGE.len()];
            for _ in 0..MESSAGES {
                socket.send(&MESSAGE).unwrap();
                socket.recv(&mut buffer).unwrap();
            }
        });
        measure(&mut observer, "file", || {
            let mut file = std::fs::File::open("/dev/zero").unwrap();
            let mut buffer = [0; MESSAGE.len()];
            (0..MESSAGES).for_each(|_| file.read_exact(&mut buffer).unwrap());
        });
        let mut null = std::fs::File::create("/dev/null").unwrap();
        measure(&mut observer, "write, process not watched", || {
            (0..MESSAGES).for_each(|_| null.write_all(&MESSAGE).unwrap());
        });
        let me = std::process::id();
        observer.kernel.watch(me, u32::MAX, Watch::PIPES).unwrap();
        measure(&mut observer, "write, no log", || {
            (0..MESSAGES).for_each(|_| null.write_all(&MESSAGE).unwrap());
        });
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        measure(&mut observer, "write to a pipe, captured (300 B)", || pump(&mut writer, &mut reader));
        observer.kernel.watch(me, 0, Watch::PIPES).unwrap();
        measure(&mut observer, "write to a pipe, over its rate", || pump(&mut writer, &mut reader));
        observer.kernel.unwatch(me).unwrap();
        let probe = stream::attach(&mut observer);
        let python = Pretended::new();
        stream::told(&mut observer, &python, PyContexts::OBJECT);
        let (to, text) = (Stream::of(client.as_raw_fd()), stream::Object::bytes(b"given to a loop."));
        measure(&mut observer, "TCP, captured (16 B), given before", || {
            let mut buffer = [0; 16];
            for _ in 0..MESSAGES {
                to.write(&text);
                client.write_all(text.text()).unwrap();
                server.read_exact(&mut buffer).unwrap();
            }
        });
        observer.kernel.remove_py_thread(sys::gettid()).unwrap();
        observer.kernel.detach_py(probe);
        #[cfg(target_arch = "x86_64")]
        {
            let interpreter = Interpreter::start(&mut observer);
            measure(&mut observer, "copies of a context", || {
                (0..MESSAGES as u64).for_each(|n| interpreter.copy(n + 1, n + 1));
            });
            measure(&mut observer, "TCP, captured, under a context", || pump(&mut client, &mut server));
        }
        measure(&mut observer, "getppid", || {
            // SAFETY: no arguments.
            (0..MESSAGES).for_each(|_| unsafe {
                libc::syscall(libc::SYS_getppid);
            });
        });
        measure(&mut observer, "threads", || {
            (0..MESSAGES).for_each(|_| std::thread::spawn(|| ()).join().unwrap());
        });
        measure(&mut observer, "refused connects", || {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            (0..MESSAGES).for_each(|_| drop(TcpStream::connect(address).unwrap_err()));
        });
        drop(observer);
        let options = KernelOptions { exclude: vec![std::process::id()], ..options(hook) };
        let Some(mut observer) = Observer::start(&options) else { return };
        measure(&mut observer, "TCP, excluded process", || pump(&mut client, &mut server));
    }
}

/// What second programs cost beside the first, which then also leave their signs.
#[test]
#[ignore = "prints times"]
fn seconds_cost() {
    let _stats = enable_stats().unwrap();
    for seconds in [Seconds::Auto, Seconds::Beside] {
        let Some(mut observer) = Observer::start(&KernelOptions { seconds, ..options(Hook::Socket) }) else {
            return;
        };
        let (mut client, mut server) = tcp_pair();
        let (local, remote) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
        let conns = [(local, remote), (remote, local)].map(|(from, to)| {
            observer.until("the connection", |records| {
                pump(&mut client.try_clone().unwrap(), &mut server.try_clone().unwrap());
                conn_of(records, from, to)
            })
        });
        for (case, policy) in
            [("captured (300 B)", Policy::capture(8192)), ("ignored by policy", Policy::IGNORE)]
        {
            for conn in conns {
                observer.kernel.set_policy(conn, policy);
            }
            measure(&mut observer, &format!("{case}, {seconds:?}"), || pump(&mut client, &mut server));
        }
    }
}
