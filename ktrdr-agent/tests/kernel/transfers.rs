//! Every form of send and receive, on real sockets, with both hooks.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use ktrdr_agent::kernel::{Hook, KernelOptions, Misses, Seconds};
use ktrdr_ebpf_common::{Counter, RECV, SEND, flags, limits::DEFAULT_CAPTURE};

use crate::{
    observer::{Body, Observer, Record, Transfer, conn_of, options},
    sys,
};

/// What must be equal whichever hook saw it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    len: u32,
    flags: u16,
    payload: Vec<u8>,
}

impl Seen {
    fn new(payload: &[u8]) -> Seen {
        Seen { len: payload.len() as u32, flags: flags::TUPLE, payload: payload.to_vec() }
    }

    fn without_buffer(len: u32) -> Seen {
        Seen { len, flags: flags::TUPLE | flags::NO_BUFFER, payload: Vec::new() }
    }

    fn end() -> Seen {
        Seen { len: 0, flags: flags::TUPLE | flags::EOF, payload: Vec::new() }
    }
}

impl From<&Transfer> for Seen {
    fn from(transfer: &Transfer) -> Seen {
        Seen { len: transfer.body.len, flags: transfer.header.flags, payload: transfer.payload.clone() }
    }
}

/// The transfers of both ends of one connection, in order.
#[derive(Debug, PartialEq, Eq)]
struct Both {
    client: Vec<Seen>,
    server: Vec<Seen>,
}

fn exchange(client: &mut TcpStream, server: &mut TcpStream) -> Both {
    let mut seen = Both { client: Vec::new(), server: Vec::new() };
    let mut buffer = vec![0; 64 * 1024];

    // write → a look, which moves nothing → read in two parts.
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(sys::recv(server, 100, libc::MSG_PEEK).unwrap(), 18);
    assert_eq!(sys::recvmsg(server, 100, libc::MSG_PEEK).unwrap(), 18);
    assert_eq!(server.read(&mut buffer[..5]).unwrap(), 5);
    assert_eq!(server.read(&mut buffer).unwrap(), 13);
    seen.client.push(Seen::new(b"GET / HTTP/1.1\r\n\r\n"));
    seen.server.extend([Seen::new(b"GET /"), Seen::new(b" HTTP/1.1\r\n\r\n")]);

    // writev with an empty part → readv.
    assert_eq!(sys::writev(server, &[b"head", b"", b"body", b"!"]).unwrap(), 9);
    assert_eq!(sys::readv(client, &[3, 100]).unwrap(), 9);
    seen.server.push(Seen::new(b"headbody!"));
    seen.client.push(Seen::new(b"headbody!"));

    // sendmsg → recvmsg; send → recv.
    assert_eq!(sys::sendmsg(client, &[b"one ", b"two"]).unwrap(), 7);
    assert_eq!(sys::recvmsg(server, 100, 0).unwrap(), 7);
    seen.client.push(Seen::new(b"one two"));
    seen.server.push(Seen::new(b"one two"));

    // Nothing to read, nothing asked for: no records.
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    server.set_nonblocking(false).unwrap();
    assert_eq!(sys::recv(server, 0, libc::MSG_DONTWAIT).unwrap_or(0), 0);
    assert_eq!(client.write(&[]).unwrap(), 0);

    // Longer than what is captured, in one piece and in several.
    let long: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
    client.write_all(&long).unwrap();
    server.read_exact(&mut buffer[..20_000]).unwrap();
    let cut =
        || Seen { len: 20_000, flags: flags::TUPLE, payload: long[..DEFAULT_CAPTURE as usize].to_vec() };
    seen.client.push(cut());
    seen.server.push(cut());
    let (front, back) = long.split_at(5_000);
    assert_eq!(sys::writev(client, &[front, back]).unwrap(), 20_000);
    server.read_exact(&mut buffer[..20_000]).unwrap();
    seen.client.push(cut());
    seen.server.push(cut());

    // Without a buffer of the process's.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&long[..3000]).unwrap();
    assert_eq!(sys::sendfile(client, &file, 3000).unwrap(), 3000);
    server.read_exact(&mut buffer[..3000]).unwrap();
    seen.client.push(Seen::without_buffer(3000));
    seen.server.push(Seen::new(&long[..3000]));
    let (from, mut to) = std::io::pipe().unwrap();
    to.write_all(b"through a pipe").unwrap();
    assert_eq!(sys::splice(from.as_raw_fd(), client, 14).unwrap(), 14);
    assert_eq!(sys::recv(server, 14, libc::MSG_TRUNC | libc::MSG_WAITALL).unwrap(), 14);
    seen.client.push(Seen::without_buffer(14));
    seen.server.push(Seen::without_buffer(14));

    // The end arrives together with the last bytes: a FIN has a sequence number, but is no byte.
    client.write_all(b"bye").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    wait_for_fin(server);
    assert_eq!(server.read(&mut buffer).unwrap(), 3);
    assert_eq!(server.read(&mut buffer[..0]).unwrap(), 0);
    assert_eq!(server.read(&mut buffer).unwrap(), 0);
    seen.client.push(Seen::new(b"bye"));
    seen.server.extend([Seen::new(b"bye"), Seen::end()]);
    seen
}

/// Until the peer's FIN is in the receive queue, behind the last bytes.
fn wait_for_fin(socket: &TcpStream) {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "no FIN");
}

fn observe(hook: Hook, listen: &str) -> Option<()> {
    observe_with(&options(hook), listen)
}

fn observe_with(options: &KernelOptions, listen: &str) -> Option<()> {
    let mut observer = Observer::start(options)?;
    let hook = options.hook;
    assert_eq!(observer.kernel.hook(), hook);
    let listener = TcpListener::bind(listen).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let (client_port, server_port) =
        (client.local_addr().unwrap().port(), server.local_addr().unwrap().port());

    let expected = exchange(&mut client, &mut server);

    let client_conn = observer.until("the client", |records| conn_of(records, client_port, server_port));
    let server_conn = observer.until("the server", |records| conn_of(records, server_port, client_port));
    observer.settle();
    let streams = |conn| {
        let mut all = observer.stream(conn, SEND);
        all.extend(observer.stream(conn, RECV));
        all.sort_by_key(|transfer| transfer.header.ts);
        all
    };
    let (of_client, of_server) = (streams(client_conn), streams(server_conn));
    let seen = Both {
        client: of_client.iter().map(Seen::from).collect(),
        server: of_server.iter().map(Seen::from).collect(),
    };
    assert_eq!(seen, expected);

    // Both ends use the same numbers, and begin where the handshake said.
    let sent = observer.stream(client_conn, SEND);
    let received = observer.stream(server_conn, RECV);
    assert_eq!(sent.last().unwrap().body.seq_end, received.last().unwrap().body.seq_end);
    let first = |transfers: &[Transfer]| transfers[0].body.seq_end.wrapping_sub(transfers[0].body.len);
    assert_eq!(first(&sent), first(&received));
    let opened = observer.states(client_conn).into_iter().find(|(_, state)| state.new == 1).unwrap().1;
    assert_eq!(opened.write_seq, first(&sent));
    assert_eq!(opened.copied_seq, first(&observer.stream(client_conn, RECV)));

    for transfer in of_client.iter().chain(&of_server) {
        assert_eq!((transfer.header.tgid, transfer.header.tid), (std::process::id(), sys::gettid()));
        assert_eq!(transfer.body.py_context, 0);
    }
    let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let mapped = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(v6) => v6.octets(),
    };
    let tuple = of_client[0].tuple.unwrap();
    assert_eq!((tuple.local_addr, tuple.local_port), (mapped(local.ip()), local.port()));
    assert_eq!((tuple.remote_addr, tuple.remote_port), (mapped(remote.ip()), remote.port()));
    assert_eq!(i32::from(tuple.family), if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 });
    assert_eq!(tuple.netns, netns());

    for fault in [Counter::CopyFault, Counter::KernelReadFault, Counter::MapFault, Counter::LostRingFull] {
        assert_eq!(observer.counter(fault), 0, "{}", fault.name());
    }
    assert_eq!(observer.kernel.misses(), Misses::default());
    Some(())
}

/// Inode number of this process's network namespace.
pub fn netns() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self/ns/net").unwrap().ino() as u32
}

#[test]
fn socket_hook_v4() {
    observe(Hook::Socket, "127.0.0.1:0");
}

#[test]
fn socket_hook_v6() {
    observe(Hook::Socket, "[::1]:0");
}

/// What the kernel refuses the first programs, the second ones tell: here all of it.
#[test]
fn second_programs_alone() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        observe_with(&KernelOptions { seconds: Seconds::Alone, ..options(Hook::Socket) }, listen);
    }
}

#[test]
fn second_programs_beside_the_first() {
    observe_with(&KernelOptions { seconds: Seconds::Beside, ..options(Hook::Socket) }, "127.0.0.1:0");
}

#[test]
fn syscall_hook_v4() {
    observe(Hook::Syscall, "127.0.0.1:0");
}

#[test]
fn syscall_hook_v6() {
    observe(Hook::Syscall, "[::1]:0");
}

/// Several messages by one call are bytes without a buffer: one record for each (socket hook) or for all.
#[test]
fn many_messages_by_one_call_are_counted() {
    for hook in [Hook::Socket, Hook::Syscall] {
        let Some(mut observer) = Observer::start(&options(hook)) else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(sys::sendmmsg(&client, &[b"first", b"second one"]).unwrap(), 2);
        server.read_exact(&mut [0; 15]).unwrap();
        observer.settle();
        let (local, remote) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
        let sent = observer.stream(conn_of(&observer.records, local, remote).unwrap(), SEND);
        assert_eq!(sent.iter().map(|transfer| transfer.body.len).sum::<u32>(), 15, "{hook}");
        assert!(sent.iter().all(|transfer| transfer.header.flags == flags::TUPLE | flags::NO_BUFFER));
        let received = observer.stream(conn_of(&observer.records, remote, local).unwrap(), RECV);
        assert_eq!(sent.last().unwrap().body.seq_end, received.last().unwrap().body.seq_end);
    }
}

/// A connection that is older than the agent is whole from its next transfer on.
#[test]
fn a_connection_older_than_the_agent() {
    for hook in [Hook::Socket, Hook::Syscall] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"before").unwrap();
        server.read_exact(&mut [0; 6]).unwrap();
        let Some(mut observer) = Observer::start(&options(hook)) else { return };
        client.write_all(b"after").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        observer.settle();
        let (local, remote) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
        let sent = observer.stream(conn_of(&observer.records, local, remote).unwrap(), SEND);
        assert_eq!(sent.iter().map(Seen::from).collect::<Vec<_>>(), [Seen::new(b"after")], "{hook}");
        assert_eq!(i32::from(sent[0].tuple.unwrap().state), 1, "established");
        let conn = sent[0].body.conn;
        assert!(observer.states(conn).is_empty());
        if hook == Hook::Socket {
            // Its end is told under the same identity.
            drop((client, server));
            observer.until("the end", |records| {
                let ended = |r: &&Record| matches!(r.body, Body::State(s) if s.conn == conn && s.new == 7);
                records.iter().find(ended).map(|_| ())
            });
        }
    }
}

/// Short writes and full socket buffers: what was accepted, and nothing for what was not.
#[test]
fn short_writes_count_what_was_accepted() {
    for hook in [Hook::Socket, Hook::Syscall] {
        let Some(mut observer) = Observer::start(&options(hook)) else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        let message = vec![b'm'; 8 * 1024 * 1024];
        let mut accepted = Vec::new();
        loop {
            match client.write(&message) {
                Ok(bytes) => accepted.push(bytes as u32),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        assert!((accepted[0] as usize) < message.len(), "the first write was to be short");
        observer.settle();
        let (local, remote) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
        let sent = observer.stream(conn_of(&observer.records, local, remote).unwrap(), SEND);
        assert_eq!(sent.iter().map(|transfer| transfer.body.len).collect::<Vec<_>>(), accepted, "{hook}");
        assert!(sent.iter().all(|transfer| transfer.body.captured == DEFAULT_CAPTURE.min(transfer.body.len)));
        drop(server);
    }
}

/// A 32-bit system call has other numbers and structures: its bytes are counted by the socket hook and not followed, and
/// the syscall hook must not take its number for another call's.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_32_bit_system_call_is_not_misread() {
    // There if the kernel runs 32-bit programs (CONFIG_IA32_EMULATION); without, the instruction is a fault.
    if !std::path::Path::new("/proc/sys/abi/vsyscall32").exists() {
        println!("skipped: this kernel has no 32-bit system calls");
        return;
    }
    for hook in [Hook::Socket, Hook::Syscall] {
        let Some(mut observer) = Observer::start(&options(hook)) else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(sys::write_32_bit(&client, b"thirty-two"), 10);
        server.read_exact(&mut [0; 10]).unwrap();
        observer.settle();
        let (local, remote) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
        let sent = observer.stream(conn_of(&observer.records, local, remote).unwrap(), SEND);
        let expected = if hook == Hook::Socket { vec![Seen::without_buffer(10)] } else { Vec::new() };
        assert_eq!(sent.iter().map(Seen::from).collect::<Vec<_>>(), expected, "{hook}");
    }
}

/// A v4 client of a dual-stack server: different families, the same addresses, so that the ends can be paired.
#[test]
fn both_families_name_one_connection_alike() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let listener = TcpListener::bind("[::]:0").unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", listener.local_addr().unwrap().port())).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    observer.settle();
    let (local, remote) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
    let sent = observer.stream(conn_of(&observer.records, local, remote).unwrap(), SEND)[0].tuple.unwrap();
    let received =
        observer.stream(conn_of(&observer.records, remote, local).unwrap(), RECV)[0].tuple.unwrap();
    assert_eq!((i32::from(sent.family), i32::from(received.family)), (libc::AF_INET, libc::AF_INET6));
    assert_eq!((sent.local_addr, sent.local_port), (received.remote_addr, received.remote_port));
    assert_eq!((sent.remote_addr, sent.remote_port), (received.local_addr, received.local_port));
    assert_eq!(sent.netns, received.netns);
}
