//! Connections that are left out: which ones, what is told of them all the same, and that the rest is counted.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use ktrdr_ebpf_common::{
    ConnTuple, Counter, RECV, SEND, flags,
    policies::Policy,
    thinning::{self, ALL},
};

use crate::{
    observer::{Body, Observer, Pretended, Record, conn_of, ways},
    sys,
};

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// A listener and connections to it.
struct Service {
    listener: TcpListener,
    port: u16,
}

impl Service {
    fn new() -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Service { listener, port }
    }

    fn connect(&self) -> Connection {
        let client = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        Connection { client, server: self.listener.accept().unwrap().0 }
    }
}

/// Both ends.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    /// Sends and receives of one [`Connection::exchange`].
    const TRANSFERS: u64 = 4;

    fn client_port(&self) -> u16 {
        self.client.local_addr().unwrap().port()
    }

    fn exchange(&mut self) {
        self.client.write_all(b"question").unwrap();
        self.server.read_exact(&mut [0; 8]).unwrap();
        self.server.write_all(b"answer").unwrap();
        self.client.read_exact(&mut [0; 6]).unwrap();
    }
}

/// What is told of connections to a port, as (local port, what): both ends of each, by what their addresses say.
fn told(observer: &Observer, port: u16) -> Vec<(u16, String)> {
    let ours = |tuple: &ConnTuple| tuple.local_port == port || tuple.remote_port == port;
    let what = |record: &Record| match &record.body {
        Body::Data { body, tuple: Some(tuple), .. } if ours(tuple) => {
            let direction = if body.direction == SEND { "sent" } else { "received" };
            Some((tuple.local_port, format!("{direction} {}", body.len)))
        }
        Body::State(state) if ours(&state.tuple) => {
            Some((state.tuple.local_port, format!("{} to {}", state.old, state.new)))
        }
        _ => None,
    };
    observer.records.iter().filter_map(what).collect()
}

fn change(old: u8, new: u8) -> String {
    format!("{old} to {new}")
}

/// Waits for a counter, whose last steps may come from a softirq.
fn reaches(observer: &Observer, counter: Counter, value: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while observer.counter(counter) < value && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(observer.counter(counter), value, "{}", counter.name());
}

#[test]
fn of_a_port_of_which_all_is_left_out_only_connects_and_listeners_are_told() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let service = Service::new();
        let port = service.port;
        observer.kernel.leave_out(port, ALL).unwrap();
        let mut connection = service.connect();
        let client_port = connection.client_port();
        connection.exchange();
        reaches(&observer, Counter::TransfersLeftOut, Connection::TRANSFERS);
        drop(connection);
        // The server's beginning, both ends' end.
        reaches(&observer, Counter::StatesLeftOut, 3);
        drop(service);
        TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        observer.settle();

        let (mut listener, mut connects, mut client, mut refusals) = Default::default();
        for (local, what) in told(&observer, port) {
            let of: &mut Vec<String> = match local {
                0 => &mut connects,
                _ if local == port => &mut listener,
                _ if local == client_port => &mut client,
                _ => &mut refusals,
            };
            of.push(what);
        }
        assert_eq!(listener, [change(CLOSE, LISTEN), change(LISTEN, CLOSE)], "{way:?}");
        assert_eq!(connects, [change(CLOSE, SYN_SENT), change(CLOSE, SYN_SENT)], "{way:?}");
        assert_eq!(client, [change(SYN_SENT, ESTABLISHED)], "{way:?}");
        assert_eq!(refusals, [change(SYN_SENT, CLOSE)], "{way:?}");
    }
}

#[test]
fn of_many_connections_those_are_left_out_that_the_rule_names() {
    const CONNECTIONS: usize = 200;
    const HALF: u32 = ALL / 2;
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let service = Service::new();
        let port = service.port;
        observer.kernel.leave_out(port, HALF).unwrap();
        let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| service.connect()).collect();
        connections.iter_mut().for_each(Connection::exchange);
        let client_ports: Vec<u16> = connections.iter().map(Connection::client_port).collect();
        drop(connections);
        let share = |of: u16| if of == port { HALF } else { 0 };
        let out = client_ports.iter().filter(|client| thinning::left_out(**client, port, share)).count();
        assert!((1..CONNECTIONS).contains(&out), "{out} of {CONNECTIONS}");
        reaches(&observer, Counter::TransfersLeftOut, out as u64 * Connection::TRANSFERS);
        reaches(&observer, Counter::StatesLeftOut, out as u64 * 3);
        let whole = |records: &[Record]| {
            let ends = |r: &&Record| {
                matches!(&r.body, Body::State(s) if s.new == CLOSE
                    && [s.tuple.local_port, s.tuple.remote_port].contains(&port))
            };
            (records.iter().filter(ends).count() >= 2 * (CONNECTIONS - out)).then_some(())
        };
        observer.until("the ends of those that are observed", whole);
        observer.settle();

        let mut recorded = 0;
        for client in client_ports {
            let end_of = |local: u16, remote: u16| -> Vec<String> {
                let of_this = |tuple: &ConnTuple| (tuple.local_port, tuple.remote_port) == (local, remote);
                let what = |record: &Record| match &record.body {
                    Body::Data { body, tuple: Some(tuple), .. } if of_this(tuple) => {
                        Some(if body.direction == SEND { "sent" } else { "received" }.to_owned())
                    }
                    Body::State(state) if of_this(&state.tuple) => match state.new {
                        CLOSE => Some("ended".to_owned()),
                        _ => Some(change(state.old, state.new)),
                    },
                    _ => None,
                };
                observer.records.iter().filter_map(what).collect()
            };
            let opened = change(SYN_SENT, ESTABLISHED);
            let accepted = change(SYN_RECV, ESTABLISHED);
            let (of_client, of_server) = (end_of(client, port), end_of(port, client));
            if thinning::left_out(port, client, share) {
                assert_eq!((of_client, of_server), (vec![opened], Vec::new()), "{way:?}, {client}");
            } else {
                assert_eq!(of_client, [&opened, "sent", "received", "ended"], "{way:?}, {client}");
                assert_eq!(of_server, [&accepted, "received", "sent", "ended"], "{way:?}, {client}");
                recorded += Connection::TRANSFERS;
            }
        }
        let left_out = observer.counter(Counter::TransfersLeftOut);
        assert_eq!(recorded + left_out, CONNECTIONS as u64 * Connection::TRANSFERS);
    }
}

/// Also in mid-stream, and by either port: a connection that is open is as much of the port as a new one.
#[test]
fn what_is_observed_again_comes_with_its_addresses() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let service = Service::new();
        let mut connection = service.connect();
        let (client, port) = (connection.client_port(), service.port);
        connection.exchange();
        for by in [port, client] {
            observer.kernel.leave_out(by, ALL).unwrap();
            let before = observer.counter(Counter::TransfersLeftOut);
            connection.exchange();
            assert_eq!(observer.counter(Counter::TransfersLeftOut), before + Connection::TRANSFERS);
            observer.kernel.leave_out(by, 0).unwrap();
            connection.exchange();
            assert_eq!(observer.counter(Counter::TransfersLeftOut), before + Connection::TRANSFERS);
        }
        observer.settle();
        for (local, remote, direction, len) in [
            (client, port, SEND, 8),
            (port, client, RECV, 8),
            (port, client, SEND, 6),
            (client, port, RECV, 6),
        ] {
            let conn = conn_of(&observer.records, local, remote).unwrap();
            let seen = observer.records.iter().filter_map(|record| match &record.body {
                Body::Data { body, payload, .. } if body.conn == conn && body.direction == direction => {
                    Some((record.header.flags, body.len, payload.len()))
                }
                _ => None,
            });
            assert_eq!(seen.collect::<Vec<_>>(), [(flags::TUPLE, len, len as usize); 3], "{way:?}");
        }
    }
}

/// A receive on a Python thread says that its loop went on to other work, whatever became of the connection's policy.
#[test]
fn receives_on_a_python_thread_are_told_without_what_was_received() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let service = Service::new();
        let mut connection = service.connect();
        let (client, port) = (connection.client_port(), service.port);
        let ends = [(client, port), (port, client)].map(|(local, remote)| {
            observer.until("the connection", |records| conn_of(records, local, remote))
        });
        for conn in ends {
            observer.kernel.set_policy(conn, Policy::capture(64));
        }
        let python = Pretended::new();
        observer.kernel.set_py_thread(sys::gettid(), python.thread()).unwrap();
        observer.kernel.leave_out(port, ALL).unwrap();
        observer.records.clear();
        connection.exchange();
        // Nor what a receive tells that found the end.
        connection.client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(connection.server.read(&mut [0; 8]).unwrap(), 0);
        observer.settle();

        let seen: Vec<_> = observer
            .records
            .iter()
            .filter_map(|record| match &record.body {
                Body::Data { body, tuple: Some(tuple), payload }
                    if record.header.tid == sys::gettid() && ends.contains(&body.conn) =>
                {
                    let ports = (tuple.local_port, tuple.remote_port);
                    assert_eq!((body.direction, body.py_context), (RECV, python.context()), "{way:?}");
                    Some((ports, record.header.flags, body.len, payload.len()))
                }
                _ => None,
            })
            .collect();
        let expected = [
            ((port, client), flags::TUPLE, 8, 0),
            ((client, port), flags::TUPLE, 6, 0),
            ((port, client), flags::TUPLE | flags::EOF, 0, 0),
        ];
        assert_eq!(seen, expected, "{way:?}");
        assert_eq!(observer.counter(Counter::TransfersLeftOut), 2, "{way:?}: both sends");
        observer.kernel.remove_py_thread(sys::gettid()).unwrap();
    }
}
