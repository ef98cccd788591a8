//! A small language for tests: hosts, processes and sockets that produce records, with a clock of their own.

use std::net::SocketAddr;

use ktrdr_ebpf_common::limits::{MAX_PAYLOAD, MAX_WRITE_RECORDS};
use ktrdr_ebpf_common::{
    ConnTuple, DataBody, EventHeader, ExecBody, ExitBody, ForkBody, PyCopyBody, RECV, SEND, StateBody,
    WriteBody, file, flags, kind, maps::FileId,
};
use zerocopy::IntoBytes;

use super::{Core, CoreConfig, Output};
use crate::event::shell::{ProcessMeta, Start, tick};
use crate::event::{MS, Ns, ShellEvent, tcp};
use crate::trace::model::Span;

/// A connection between two processes on one host.
#[derive(Clone, Copy)]
pub struct Pipe {
    client: End,
    server: End,
    /// Next sequence numbers: client to server, server to client.
    seq: [u32; 2],
}

impl Pipe {
    /// A thread of the server reads and answers.
    pub fn served_by(mut self, tid: u32) -> Self {
        self.server.tid = tid;
        self
    }

    /// A thread of the client calls, and its task's context is this one.
    pub fn called_by(&mut self, tid: u32, context: u64) {
        (self.client.tid, self.client.context) = (tid, context);
    }

    /// The server reads or answers under this context.
    pub fn served_under(&mut self, context: u64) {
        self.server.context = context;
    }

    /// The client's port.
    pub fn client_port(&self) -> u16 {
        self.client.local.port()
    }
}

#[derive(Clone, Copy)]
struct End {
    id: u64,
    pid: u32,
    tid: u32,
    context: u64,
    local: SocketAddr,
    remote: SocketAddr,
}

impl End {
    fn of(pid: u32) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { id: 0, pid, tid: pid, context: 0, local: nowhere, remote: nowhere }
    }
}

/// A host under test.
pub struct Host {
    pub core: Core,
    pub now: Ns,
    next_conn: u64,
    spans: Vec<Span>,
    pub records: Vec<Vec<u8>>,
    /// Products that are no spans.
    pub outputs: Vec<Output>,
    /// Transfers come with addresses, as of connections that the kernel programs have no policy for.
    pub addressed: bool,
}

impl Host {
    pub fn new() -> Self {
        Self::with(CoreConfig {
            port_names: vec![(5001, "ktrdr-ib-host-service".into())],
            ..CoreConfig::default()
        })
    }

    pub fn with(config: CoreConfig) -> Self {
        let mut host = Self {
            core: Core::new(config),
            now: 1000 * MS,
            next_conn: 1,
            spans: Vec::new(),
            records: Vec::new(),
            outputs: Vec::new(),
            addressed: true,
        };
        host.shell(ShellEvent::Start(Start { id_seed: 7, agent_tgid: 1, ..Start::default() }));
        host
    }

    pub fn process(&mut self, pid: u32, service: &str) {
        self.shell(ShellEvent::Process(ProcessMeta {
            tgid: pid,
            service: service.to_owned(),
            command: vec![service.to_owned()],
            ..ProcessMeta::default()
        }));
    }

    pub fn shell(&mut self, event: ShellEvent) {
        let record = event.to_record(self.now);
        self.feed(record);
    }

    pub fn feed(&mut self, record: Vec<u8>) {
        self.core.feed(&record);
        self.records.push(record);
        while let Some(o) = self.core.next_output() {
            match o {
                Output::Span(s) => self.spans.push(*s),
                other => self.outputs.push(other),
            }
        }
    }

    /// Lets time pass in reader timers.
    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.now += 10 * MS;
            self.feed(tick(self.now));
        }
    }

    /// All spans so far, after everything due came out.
    pub fn spans(&mut self) -> Vec<Span> {
        self.pass(500);
        std::mem::take(&mut self.spans)
    }

    /// The spans that have left by now.
    pub fn so_far(&self) -> &[Span] {
        &self.spans
    }

    pub fn listen(&mut self, pid: u32, addr: &str) {
        let addr: SocketAddr = addr.parse().unwrap();
        let end = End { local: addr, ..End::of(pid) };
        self.state(&end, tcp::CLOSE, tcp::LISTEN, 0, [0, 0]);
    }

    pub fn unlisten(&mut self, pid: u32, addr: &str) {
        let addr: SocketAddr = addr.parse().unwrap();
        let end = End { local: addr, ..End::of(pid) };
        self.state(&end, tcp::LISTEN, tcp::CLOSE, 0, [0, 0]);
    }

    pub fn exit(&mut self, pid: u32, code: u32) {
        self.exit_with(pid, code, 0);
    }

    pub fn exit_with(&mut self, pid: u32, code: u32, flags: u16) {
        let body = ExitBody { code, ppid: 1, comm: [0; 16] };
        self.record(kind::EXIT, flags, (pid, pid), body.as_bytes());
    }

    /// A process is told with its command line, and executes it.
    pub fn exec(&mut self, pid: u32, ppid: u32, service: &str, line: &str, named: bool) {
        self.shell(ShellEvent::Process(ProcessMeta {
            tgid: pid,
            ppid,
            service: service.to_owned(),
            command: line.split(' ').map(str::to_owned).collect(),
            exe: format!("/usr/bin/{}", line.split(' ').next().unwrap_or_default()),
            command_line: named,
            ..ProcessMeta::default()
        }));
        let body = ExecBody { ppid, args_len: 0, comm: [0; 16] };
        self.record(kind::EXEC, 0, (pid, pid), body.as_bytes());
    }

    pub fn fork(&mut self, pid: u32, child: u32) {
        let body = ForkBody { child_tgid: child, child_tid: child, py_context: 0 };
        self.record(kind::FORK, 0, (pid, pid), body.as_bytes());
    }

    /// A thread copies a Python context.
    pub fn copy_context(&mut self, pid: u32, tid: u32, parent: u64, child: u64) {
        self.record(kind::PY_COPY, 0, (pid, tid), PyCopyBody { parent, child }.as_bytes());
    }

    /// A connect that the server accepts.
    pub fn connect(&mut self, client: u32, server: u32, addr: &str) -> Pipe {
        let p = self.older(client, server, addr);
        self.handshake(p)
    }

    fn handshake(&mut self, mut p: Pipe) -> Pipe {
        let unbound = End { local: "127.0.0.1:0".parse().unwrap(), ..p.client };
        self.state(&unbound, tcp::CLOSE, tcp::SYN_SENT, 0, p.seq);
        self.state(&p.client, tcp::SYN_SENT, tcp::ESTABLISHED, 0, p.seq);
        self.state(&p.server, tcp::SYN_RECV, tcp::ESTABLISHED, 0, [p.seq[1], p.seq[0]]);
        p.seq = [1000, u32::MAX - 5];
        p
    }

    /// A connect whose addresses are translated on the way: the client asks for `asked`, `from` reaches the server.
    pub fn connect_translated(
        &mut self,
        client: u32,
        asked: &str,
        from: &str,
        server: u32,
        addr: &str,
    ) -> Pipe {
        let mut p = self.older(client, server, addr);
        p.client.remote = asked.parse().unwrap();
        p.server.remote = from.parse().unwrap();
        self.handshake(p)
    }

    /// A connect by one thread of the client.
    pub fn connect_from(&mut self, client: u32, tid: u32, server: u32, addr: &str) -> Pipe {
        self.connect_under(client, (tid, 0), server, addr)
    }

    /// A connect by one thread of the client, under a Python context.
    pub fn connect_under(
        &mut self,
        client: u32,
        (tid, context): (u32, u64),
        server: u32,
        addr: &str,
    ) -> Pipe {
        let mut p = self.older(client, server, addr);
        p.called_by(tid, context);
        self.handshake(p)
    }

    /// The ports of a connection that is over are another client's.
    pub fn connect_again(&mut self, before: &Pipe, client: u32) -> Pipe {
        let mut p = self.older(client, before.server.pid, &before.server.local.to_string());
        (p.client.local, p.server.remote) = (before.client.local, before.client.local);
        self.handshake(p)
    }

    /// A connection older than the agent.
    pub fn older(&mut self, client: u32, server: u32, addr: &str) -> Pipe {
        let id = self.next_conn;
        self.next_conn += 2;
        let remote: SocketAddr = addr.parse().unwrap();
        let local = SocketAddr::new(remote.ip(), 40000 + u16::try_from(id).unwrap());
        Pipe {
            client: End { id, local, remote, ..End::of(client) },
            server: End { id: id + 1, local: remote, remote: local, ..End::of(server) },
            seq: [1000, u32::MAX - 5],
        }
    }

    /// A thread writes to a descriptor, as the kernel side tells of it; 1 and 2 are pipes, others log files.
    pub fn write(&mut self, pid: u32, tid: u32, fd: u32, bytes: &[u8]) {
        let kind_of = if fd <= 2 { file::PIPE } else { file::REGULAR };
        for (n, part) in bytes.chunks(MAX_PAYLOAD).take(MAX_WRITE_RECORDS as usize).enumerate() {
            let body = WriteBody {
                py_context: 0,
                id: FileId { inode: fd.into(), device: 1, generation: 1 },
                lost: 0,
                fd,
                len: u32::try_from(bytes.len()).unwrap(),
                offset: u32::try_from(n * MAX_PAYLOAD).unwrap(),
                captured: u32::try_from(part.len()).unwrap(),
                file: kind_of,
                reserved: [0; 7],
            };
            let mut b = body.as_bytes().to_vec();
            b.extend_from_slice(part);
            self.record(kind::WRITE, 0, (pid, tid), &b);
        }
    }

    /// A connect that fails with `errno`.
    pub fn fail(&mut self, client: u32, addr: &str, errno: u16) {
        let p = self.older(client, 0, addr);
        self.state(&p.client, tcp::CLOSE, tcp::SYN_SENT, 0, p.seq);
        self.state(&p.client, tcp::SYN_SENT, tcp::CLOSE, errno, p.seq);
    }

    /// The client sends, the server receives.
    pub fn request(&mut self, p: &mut Pipe, bytes: &[u8]) {
        p.seq[0] = p.seq[0].wrapping_add(u32::try_from(bytes.len()).unwrap());
        self.data(&p.client, SEND, p.seq[0], bytes, bytes.len());
        self.data(&p.server, RECV, p.seq[0], bytes, bytes.len());
    }

    /// The server sends, the client receives.
    pub fn response(&mut self, p: &mut Pipe, bytes: &[u8]) {
        p.seq[1] = p.seq[1].wrapping_add(u32::try_from(bytes.len()).unwrap());
        self.data(&p.server, SEND, p.seq[1], bytes, bytes.len());
        self.data(&p.client, RECV, p.seq[1], bytes, bytes.len());
    }

    /// The server sends, but only `captured` bytes of it are recorded at the client.
    pub fn response_captured(&mut self, p: &mut Pipe, bytes: &[u8], captured: usize) {
        p.seq[1] = p.seq[1].wrapping_add(u32::try_from(bytes.len()).unwrap());
        self.data(&p.server, SEND, p.seq[1], bytes, bytes.len());
        self.data(&p.client, RECV, p.seq[1], &bytes[..captured], bytes.len());
    }

    /// The client sends, and every record of it is lost.
    pub fn request_lost(&mut self, p: &mut Pipe, bytes: &[u8]) {
        p.seq[0] = p.seq[0].wrapping_add(u32::try_from(bytes.len()).unwrap());
    }

    /// Both sockets close.
    pub fn close(&mut self, p: &Pipe, errno: u16) {
        self.state(&p.server, tcp::ESTABLISHED, tcp::CLOSE, 0, p.seq);
        self.state(&p.client, tcp::ESTABLISHED, tcp::CLOSE, errno, p.seq);
    }

    fn data(&mut self, e: &End, direction: u8, seq_end: u32, bytes: &[u8], len: usize) {
        let body = DataBody {
            conn: e.id,
            py_context: e.context,
            seq_end,
            len: u32::try_from(len).unwrap(),
            captured: u32::try_from(bytes.len()).unwrap(),
            direction,
            reserved: [0; 3],
        };
        let mut b = body.as_bytes().to_vec();
        if self.addressed {
            b.extend_from_slice(tuple(e).as_bytes());
        }
        b.extend_from_slice(bytes);
        let flags = if self.addressed { flags::TUPLE } else { 0 };
        self.record(kind::DATA, flags, (e.pid, e.tid), &b);
    }

    fn state(&mut self, e: &End, old: u8, new: u8, error: u16, seq: [u32; 2]) {
        let body = StateBody {
            conn: e.id,
            py_context: e.context,
            write_seq: seq[0],
            copied_seq: seq[1],
            old,
            new,
            error,
            tuple: tuple(e),
        };
        self.record(kind::STATE, 0, (e.pid, e.tid), body.as_bytes());
    }

    pub fn record(&mut self, kind: u16, flags: u16, of: (u32, u32), body: &[u8]) {
        self.now += MS;
        self.record_at(self.now, kind, flags, of, body);
    }

    /// A record with this time, or none (0).
    pub fn record_at(&mut self, ts: Ns, kind: u16, flags: u16, (pid, tid): (u32, u32), body: &[u8]) {
        let len = u32::try_from(size_of::<EventHeader>() + body.len()).unwrap();
        let header = EventHeader { ts, tgid: pid, tid, len, kind, flags };
        let mut r = header.as_bytes().to_vec();
        r.extend_from_slice(body);
        self.feed(r);
    }
}

fn tuple(e: &End) -> ConnTuple {
    let ip = |a: SocketAddr| match a.ip() {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(v6) => v6.octets(),
    };
    ConnTuple {
        local_addr: ip(e.local),
        remote_addr: ip(e.remote),
        local_port: e.local.port(),
        remote_port: e.remote.port(),
        netns: 1,
        family: 2,
        state: 1,
    }
}
