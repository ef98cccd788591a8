//! What of the records goes into a recording: those of the wanted connections and of who uses them, and of processes
//! and time what a replay needs. Payload is kept as it is (a recording is raw bytes, readable by its owner only);
//! arguments of programs are masked.

use std::borrow::Cow;
use std::collections::BTreeSet;

use hashlink::LruCache;
use ktrdr_ebpf_common::{EventHeader, ExecBody};
use zerocopy::{FromBytes, IntoBytes};

use crate::core::CoreConfig;
use crate::event::{Body, ConnId, decode};

/// Connections whose ports are remembered: as many as are followed at most.
const MAX_CONNS: usize = crate::engine::MAX_CONNS;

/// Decides, record by record.
pub(super) struct Scope {
    config: CoreConfig,
    all: bool,
    wanted: LruCache<ConnId, bool>,
    /// Processes that used a wanted connection.
    involved: BTreeSet<u32>,
}

impl Scope {
    /// As the ports of the configuration say.
    pub fn new(config: CoreConfig) -> Self {
        let all = config.ports.is_empty() && config.excluded_ports.is_empty();
        Self { config, all, wanted: LruCache::new(MAX_CONNS), involved: BTreeSet::new() }
    }

    /// The record as it is to be kept, if it is.
    pub fn keep<'a>(&mut self, record: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        // What the core will count as undecoded is part of the recording; it can hold anything, so not of a part.
        let Ok(event) = decode(record) else { return self.all.then_some(Cow::Borrowed(record)) };
        let tgid = event.tgid;
        let keep = match event.body {
            Body::Exec(e) => return Some(self.exec(record, e.args)),
            Body::Exit(_) => {
                let kept = Some(Cow::Borrowed(record));
                self.involved.remove(&tgid);
                return kept;
            }
            _ if self.all => true,
            Body::Data(d) => {
                let ports = d.tuple.map(|t| (t.local.port(), t.remote.port()));
                self.conn(d.conn, ports, tgid)
            }
            // Before the kernel chose a local port, the remote one has to say it.
            Body::State(s) => self.conn(s.conn, Some((s.tuple.local.port(), s.tuple.remote.port())), 0),
            Body::ConnectError(c) => self.config.wanted_ports(0, c.remote.port()),
            Body::Write(_) | Body::Read(_) => self.involved.contains(&tgid),
            Body::Fork(_)
            | Body::PyCopy(_)
            | Body::PySubmit(_)
            | Body::PyTake(_)
            | Body::PyWrite(_)
            | Body::Tick
            | Body::Shell(_) => true,
        };
        keep.then_some(Cow::Borrowed(record))
    }

    fn conn(&mut self, conn: ConnId, ports: Option<(u16, u16)>, tgid: u32) -> bool {
        let known = self.wanted.get(&conn).copied();
        let wanted = match (ports, known) {
            (Some((local, remote)), _) => {
                let wanted = self.config.wanted_ports(local, remote);
                self.wanted.insert(conn, wanted);
                wanted
            }
            (None, known) => known == Some(true),
        };
        if wanted && tgid != 0 {
            self.involved.insert(tgid);
        }
        wanted
    }

    /// An exec record with masked arguments.
    fn exec<'a>(&self, record: &'a [u8], args: &[u8]) -> Cow<'a, [u8]> {
        let before: Vec<String> = args
            .strip_suffix(b"\0")
            .unwrap_or(args)
            .split(|b| *b == 0)
            .map(|a| String::from_utf8_lossy(a).into_owned())
            .collect();
        let masked = self.config.mask.args(&before);
        if masked == before {
            return Cow::Borrowed(record);
        }
        let mut text: Vec<u8> = masked.iter().flat_map(|a| a.bytes().chain([0])).collect();
        text.truncate(ktrdr_ebpf_common::limits::MAX_ARGS);
        const HEADER: usize = size_of::<EventHeader>();
        let len = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (Ok((header, rest)), size) =
            (EventHeader::read_from_prefix(record), HEADER + size_of::<ExecBody>())
        else {
            return Cow::Borrowed(record);
        };
        let Ok((mut body, _)) = ExecBody::read_from_prefix(rest) else { return Cow::Borrowed(record) };
        let header = header.with_length(len(size + text.len()));
        body.args_len = len(text.len());
        let mut out = [header.as_bytes(), body.as_bytes()].concat();
        out.extend_from_slice(&text);
        Cow::Owned(out)
    }
}
