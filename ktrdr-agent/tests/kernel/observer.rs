//! A loaded kernel side and the records it sent, taken apart.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use ktrdr_agent::kernel::{CallEnds, Hook, Kernel, KernelOptions, Seconds};
use ktrdr_ebpf_common::{
    ConnTuple, ConnectErrorBody, Counter, DataBody, EventHeader, ExecBody, ExitBody, ForkBody, PyCopyBody,
    PyWorkBody, StateBody, WriteBody, flags, kind,
    maps::{PyContexts, PyThread},
};
use zerocopy::FromBytes;

/// What the programs take for a Python thread under a context.
pub struct Pretended {
    /// At offset 40 it says that it was entered, at 16 that no other was before.
    context: Box<[u64; 6]>,
    /// The context is at offset 16.
    state: Box<[u64; 3]>,
}

impl Pretended {
    pub fn new() -> Pretended {
        let context = Box::new([0, 0, 0, 0, 0, 1]);
        let state = Box::new([0, 0, context.as_ptr() as u64]);
        Pretended { context, state }
    }

    /// Another context is current from now on.
    pub fn enter(&mut self, context: u64) {
        // The programs read it behind the compiler's back.
        // SAFETY: a place of its own.
        unsafe { std::ptr::from_mut(&mut self.state[2]).write_volatile(context) };
    }

    /// The address of its context.
    pub fn context(&self) -> u64 {
        self.context.as_ptr() as u64
    }

    /// It, as one of this process.
    pub fn thread(&self) -> PyThread {
        PyThread {
            tstate: self.state.as_ptr() as u64,
            contexts: PyContexts { current: 16, entered: 40, threads_enter: 0, writes: 0 },
            tgid: std::process::id(),
            reserved: 0,
        }
    }
}

/// A record's body.
#[derive(Clone, Debug)]
pub enum Body {
    Data { body: DataBody, tuple: Option<ConnTuple>, payload: Vec<u8> },
    State(StateBody),
    Exec { body: ExecBody, args: Vec<u8> },
    Fork(ForkBody),
    Exit(ExitBody),
    PyCopy(PyCopyBody),
    PySubmit(PyWorkBody),
    PyTake(PyWorkBody),
    PyWrite(PyWorkBody),
    ConnectError(ConnectErrorBody),
    Write { body: WriteBody, payload: Vec<u8> },
}

/// A record.
#[derive(Clone, Debug)]
pub struct Record {
    pub header: EventHeader,
    /// A second program sent it. The header is then as the first one's.
    pub second: bool,
    pub body: Body,
}

impl Record {
    /// Takes a record apart; every length in it must be exact.
    fn parse(bytes: &[u8]) -> Record {
        let (mut header, rest) = EventHeader::read_from_prefix(bytes).unwrap();
        let second = header.kind == kind::DATA && header.flags & flags::SECOND != 0;
        header.flags &= if second { !flags::SECOND } else { u16::MAX };
        assert_eq!(header.length() as usize, bytes.len(), "the header's length is the record's");
        let body = match header.kind {
            kind::DATA => {
                let (body, rest) = DataBody::read_from_prefix(rest).unwrap();
                let (tuple, rest) = if header.flags & flags::TUPLE != 0 {
                    let (tuple, rest) = ConnTuple::read_from_prefix(rest).unwrap();
                    (Some(tuple), rest)
                } else {
                    (None, rest)
                };
                assert_eq!(body.captured as usize, rest.len(), "the payload fills the record");
                assert!(body.captured <= body.len);
                Body::Data { body, tuple, payload: rest.to_vec() }
            }
            kind::STATE => Body::State(StateBody::read_from_bytes(rest).unwrap()),
            kind::EXEC => {
                let (body, args) = ExecBody::read_from_prefix(rest).unwrap();
                assert_eq!(body.args_len as usize, args.len());
                Body::Exec { body, args: args.to_vec() }
            }
            kind::FORK => Body::Fork(ForkBody::read_from_bytes(rest).unwrap()),
            kind::EXIT => Body::Exit(ExitBody::read_from_bytes(rest).unwrap()),
            kind::PY_COPY => Body::PyCopy(PyCopyBody::read_from_bytes(rest).unwrap()),
            kind::PY_SUBMIT => Body::PySubmit(PyWorkBody::read_from_bytes(rest).unwrap()),
            kind::PY_TAKE => Body::PyTake(PyWorkBody::read_from_bytes(rest).unwrap()),
            kind::PY_WRITE => Body::PyWrite(PyWorkBody::read_from_bytes(rest).unwrap()),
            kind::CONNECT_ERROR => Body::ConnectError(ConnectErrorBody::read_from_bytes(rest).unwrap()),
            kind::WRITE => {
                let (body, payload) = WriteBody::read_from_prefix(rest).unwrap();
                assert_eq!(body.captured as usize, payload.len(), "the payload fills the record");
                assert!(body.offset + body.captured <= body.len);
                Body::Write { body, payload: payload.to_vec() }
            }
            other => panic!("unknown kind {other}"),
        };
        Record { header, second, body }
    }
}

/// The kernel side, observing everything including this process, and what it sent so far.
pub struct Observer {
    pub kernel: Kernel,
    pub records: Vec<Record>,
    /// One at a time: counters are compared, and two processors are shared.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// What the tests start from: this process is observed too (no process has the number 0).
pub fn options(hook: Hook) -> KernelOptions {
    KernelOptions { hook, agent_tgid: 0, ..KernelOptions::default() }
}

/// With either hook; by the second programs of the socket hook alone, as if the kernel refused the first every run; and with the
/// ends of calls looked at as on kernels that let programs be put neither at their functions nor at their tracepoints.
pub fn ways() -> [KernelOptions; 4] {
    let second = KernelOptions { seconds: Seconds::Alone, ..options(Hook::Socket) };
    let every = KernelOptions { call_ends: CallEnds::Every, ..options(Hook::Socket) };
    [options(Hook::Socket), options(Hook::Syscall), second, every]
}

impl Observer {
    /// `None`, said aloud, only where the test cannot run: not root. Any other failure fails the test.
    pub fn start(options: &KernelOptions) -> Option<Observer> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: loading kernel programs needs root");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kernel = Kernel::load(options).unwrap_or_else(|error| panic!("{error}"));
        Some(Observer { kernel, records: Vec::new(), _alone: alone })
    }

    /// Reads what is there after a while.
    pub fn drain(&mut self) {
        self.read(Duration::from_millis(5));
    }

    fn read(&mut self, timeout: Duration) {
        let records = &mut self.records;
        self.kernel.poll(timeout, &mut |bytes| records.push(Record::parse(bytes))).unwrap();
    }

    /// Reads until `found` finds what it looks for.
    pub fn until<T>(&mut self, what: &str, found: impl Fn(&[Record]) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = found(&self.records) {
                return found;
            }
            if Instant::now() > deadline {
                for record in &self.records {
                    if record.header.tgid == std::process::id() {
                        println!("{record:?}");
                    }
                }
                panic!("never came: {what}");
            }
            self.drain();
        }
    }

    /// A counter's value.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.kernel.counters().unwrap()[counter as usize]
    }

    /// Reads what was sent so far, by anybody; nothing this thread caused is left in the ring then.
    pub fn settle(&mut self) {
        let sent = self.counter(Counter::Submitted);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.kernel.records_read() < sent {
            assert!(Instant::now() < deadline, "{} of {sent} records came", self.kernel.records_read());
            self.drain();
        }
        // A record of another processor may lie before ours and be counted later.
        self.drain();
    }

    /// Reads until the programs' count and the reader's agree exactly, in a moment when nobody else sends.
    pub fn agree(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            self.read(Duration::ZERO);
            let read = self.kernel.records_read();
            let submitted = self.counter(Counter::Submitted);
            if read == submitted {
                return;
            }
            assert!(Instant::now() < deadline, "{read} read, {submitted} submitted");
        }
    }

    /// Data records of one connection and direction, by position, and that they leave no gap.
    pub fn stream(&self, conn: u64, direction: u8) -> Vec<Transfer> {
        let mut transfers: Vec<Transfer> = self
            .records
            .iter()
            .filter_map(|record| match &record.body {
                Body::Data { body, tuple, payload } if body.conn == conn && body.direction == direction => {
                    Some(Transfer {
                        header: record.header,
                        body: *body,
                        tuple: *tuple,
                        payload: payload.clone(),
                    })
                }
                _ => None,
            })
            .collect();
        transfers.sort_by_key(|transfer| (transfer.header.ts, transfer.body.seq_end));
        for pair in transfers.windows(2) {
            assert_eq!(
                pair[1].body.seq_end.wrapping_sub(pair[1].body.len),
                pair[0].body.seq_end,
                "gap between {pair:?}"
            );
        }
        transfers
    }

    /// State changes of a connection in order.
    pub fn states(&self, conn: u64) -> Vec<(EventHeader, StateBody)> {
        self.records
            .iter()
            .filter_map(|record| match record.body {
                Body::State(body) if body.conn == conn => Some((record.header, body)),
                _ => None,
            })
            .collect()
    }
}

/// A data record.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub header: EventHeader,
    pub body: DataBody,
    pub tuple: Option<ConnTuple>,
    pub payload: Vec<u8>,
}

/// The connection whose socket has these two ports.
pub fn conn_of(records: &[Record], local: u16, remote: u16) -> Option<u64> {
    records.iter().find_map(|record| match &record.body {
        Body::State(body) if body.tuple.local_port == local && body.tuple.remote_port == remote => {
            Some(body.conn)
        }
        Body::Data { body, tuple: Some(tuple), .. }
            if tuple.local_port == local && tuple.remote_port == remote =>
        {
            Some(body.conn)
        }
        _ => None,
    })
}
