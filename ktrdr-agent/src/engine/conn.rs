//! One observed socket: its two directions, its protocol, its open exchanges.

use super::half::{Half, Mark, Report, Reports};
use super::pairing::{Paired, Pairing};
use super::sequence::{Chunk, Piece, Sequencer};
use crate::event::{ConnId, Data, Direction, MS, Ns, Task, Tuple};
use crate::protocol::{ConnContext, PROTOCOLS, ParseEvent, Parser, Role, Side, Sniff};
use crate::trace::causality::SpanRef;

/// First bytes kept while no protocol can be told; every known protocol shows itself within these.
const MAX_SNIFF: usize = 64;
/// Transfers looked at on a connection whose beginning was not seen: some begin inside a body.
const SNIFF_ATTEMPTS: u32 = 16;

/// A response whose framing was lost (chunks behind the capture) has ended if nothing more of it comes for so long. Longer
/// than pauses inside a reply of that size, short enough for the call to be seen while somebody looks.
const SILENCE_NS: Ns = 500 * MS;

/// A successful connect, for the first call on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// When the SYN left.
    pub start: Ns,
    /// When the connection stood.
    pub end: Ns,
    /// The request whose head the connecting thread had received last.
    pub after: Option<SpanRef>,
}

/// Settings the connections share.
#[derive(Clone, Debug)]
pub struct ConnSettings {
    /// See [`ConnContext::semconv_dup`].
    pub semconv_dup: bool,
    /// See [`ConnContext::max_head`].
    pub max_head: usize,
    /// See [`ConnContext::kept_headers`].
    pub kept_headers: std::sync::Arc<[String]>,
    /// See [`ConnContext::mask`].
    pub mask: std::sync::Arc<crate::mask::Mask>,
    /// See [`ConnContext::shared`].
    pub shared: std::sync::Arc<crate::protocol::Shared>,
}

enum Protocol {
    /// First bytes are collected, per direction (received, sent).
    Sniffing { attempts: u32, kept: [Vec<u8>; 2], marks: [Mark; 2] },
    /// Known.
    Parsing { parser: Box<dyn Parser> },
    /// Nothing we know, or not any more.
    Opaque,
}

/// One observed socket.
pub struct Conn {
    /// Its identity.
    pub id: ConnId,
    /// Its addresses.
    pub tuple: Tuple,
    /// Which end it is, once known.
    pub role: Option<Role>,
    /// Opened under our eyes: the first bytes are the protocol's first.
    pub from_start: bool,
    /// Process that used it last.
    pub owner: u32,
    /// How the connect went, until the first call takes it.
    pub connected: Option<Connected>,
    /// When something last happened.
    pub touched: Ns,
    /// Name of the protocol, once known.
    pub protocol: Option<&'static str>,
    /// Transfers without a user buffer were seen (sendfile, splice, io_uring).
    pub no_buffer: bool,
    /// Where the streams (received, sent) began, if that was seen.
    begins: Option<[u32; 2]>,
    halves: [Half; 2],
    sequencers: [Sequencer; 2],
    state: Protocol,
    /// Requests and responses.
    pub pairing: Pairing,
}

/// What a transfer did to the connection.
#[derive(Default)]
pub struct Effects {
    /// For the trace, in order.
    pub paired: Vec<Paired>,
    /// The protocol was found with this transfer.
    pub recognised: bool,
    /// Nothing more is to be had from this connection.
    pub opaque: bool,
}

/// The other end closed the connection.
const PEER_CLOSED: &str = "peer_closed";

fn index(direction: Direction) -> usize {
    match direction {
        Direction::Recv => 0,
        Direction::Send => 1,
    }
}

/// The side that bytes of this direction belong to.
fn side(role: Role, direction: Direction) -> Side {
    match (role, direction) {
        (Role::Server, Direction::Recv) | (Role::Client, Direction::Send) => Side::Request,
        (Role::Server, Direction::Send) | (Role::Client, Direction::Recv) => Side::Response,
    }
}

/// The role of a socket whose bytes in this direction belong to `side`.
fn role_of(side: Side, direction: Direction) -> Role {
    match (side, direction) {
        (Side::Request, Direction::Recv) | (Side::Response, Direction::Send) => Role::Server,
        (Side::Request, Direction::Send) | (Side::Response, Direction::Recv) => Role::Client,
    }
}

impl Conn {
    /// A connection first seen now.
    pub fn new(id: ConnId, tuple: Tuple, now: Ns) -> Self {
        Self {
            id,
            tuple,
            role: None,
            from_start: false,
            owner: 0,
            connected: None,
            touched: now,
            protocol: None,
            no_buffer: false,
            begins: None,
            halves: Default::default(),
            sequencers: Default::default(),
            state: Protocol::Sniffing { attempts: 0, kept: Default::default(), marks: Default::default() },
            pairing: Pairing::default(),
        }
    }

    /// The connection was opened under our eyes; both streams begin at these sequence numbers.
    pub fn opened(&mut self, role: Role, write_seq: u32, copied_seq: u32) {
        self.role = Some(role);
        self.from_start = true;
        self.begins = Some([copied_seq, write_seq]);
        self.sequencers[0].begin(copied_seq);
        self.sequencers[1].begin(write_seq);
    }

    /// Addresses of (client, server), once the role is known.
    pub fn ends(&self) -> Option<(std::net::SocketAddr, std::net::SocketAddr)> {
        self.role.map(|r| match r {
            Role::Client => (self.tuple.local, self.tuple.remote),
            Role::Server => (self.tuple.remote, self.tuple.local),
        })
    }

    /// Sequence number of the next byte in this direction, where it is known.
    pub fn position(&self, direction: Direction) -> Option<u32> {
        self.sequencers[index(direction)].next()
    }

    /// Bytes of the stream before this sequence number, if its beginning was seen (modulo 2³²).
    pub fn offset(&self, direction: Direction, seq: u32) -> Option<u32> {
        Some(seq.wrapping_sub(self.begins?[index(direction)]))
    }

    /// What became of the bytes (received, sent).
    pub fn bytes(&self) -> [super::half::ByteCounts; 2] {
        [self.halves[0].counts, self.halves[1].counts]
    }

    /// Bytes that wait for more: for the transfer before them, for the rest of a head, for a protocol.
    pub fn in_hand(&self) -> u64 {
        let kept: usize = match &self.state {
            Protocol::Sniffing { kept, .. } => kept.iter().map(Vec::len).sum(),
            Protocol::Parsing { .. } | Protocol::Opaque => 0,
        };
        let halves: u64 = self.halves.iter().map(Half::in_hand).sum();
        let sequencers: u64 = self.sequencers.iter().map(Sequencer::in_hand).sum();
        kept as u64 + halves + sequencers
    }

    /// Whether time decides something here: a transfer waits for an earlier one, or a response whose end may have been
    /// missed for its next bytes.
    pub fn waits(&self) -> bool {
        self.pairing.lossy() || self.sequencers.iter().any(Sequencer::holding)
    }

    /// Takes a transfer.
    pub fn data(
        &mut self,
        ts: Ns,
        task: Task,
        d: &Data<'_>,
        settings: &ConnSettings,
        spans: &mut dyn FnMut() -> SpanRef,
        effects: &mut Effects,
    ) {
        self.touched = ts;
        self.no_buffer |= d.no_buffer;
        let at = index(d.direction);
        if self.sequencers[1 - at].holding() {
            // Threads that swap their records are microseconds apart; once the other direction has moved on, what
            // is still missing is lost.
            let other = if at == 0 { Direction::Send } else { Direction::Recv };
            let mut sequencer = std::mem::take(&mut self.sequencers[1 - at]);
            sequencer.finish(&mut |p| self.piece(other, p, settings, spans, effects));
            self.sequencers[1 - at] = sequencer;
        }
        let mut sequencer = std::mem::take(&mut self.sequencers[at]);
        let chunk = Chunk { start: d.seq_end.wrapping_sub(d.len), len: d.len, bytes: d.payload, ts, task };
        if d.len > 0 {
            sequencer.push(chunk, &mut |p| self.piece(d.direction, p, settings, spans, effects));
        }
        if d.eof {
            sequencer.finish(&mut |p| self.piece(d.direction, p, settings, spans, effects));
        }
        self.sequencers[at] = sequencer;
        if d.eof {
            let why = if self.role == Some(Role::Client) { PEER_CLOSED } else { "connection_closed" };
            self.eof(d.direction, ts, why, spans, effects);
            if self.role == Some(Role::Client) {
                // The server will answer no more, whether or not this end goes on sending.
                self.pairing.close(Some(ts), PEER_CLOSED, &mut effects.paired);
            }
        }
    }

    /// Gives up on bytes that were waited for too long.
    pub fn expire(
        &mut self,
        now: Ns,
        settings: &ConnSettings,
        spans: &mut dyn FnMut() -> SpanRef,
        effects: &mut Effects,
    ) {
        for direction in [Direction::Recv, Direction::Send] {
            let at = index(direction);
            let mut sequencer = std::mem::take(&mut self.sequencers[at]);
            sequencer.expire(now, &mut |p| self.piece(direction, p, settings, spans, effects));
            self.sequencers[at] = sequencer;
        }
        if self.pairing.lossy() && now.saturating_sub(self.touched) > SILENCE_NS {
            self.end_response(spans, effects);
        }
    }

    /// The socket is closed; `why` goes on the calls that this breaks off.
    pub fn closed(
        &mut self,
        ts: Ns,
        why: &'static str,
        settings: &ConnSettings,
        spans: &mut dyn FnMut() -> SpanRef,
        effects: &mut Effects,
    ) {
        for direction in [Direction::Recv, Direction::Send] {
            let at = index(direction);
            let mut sequencer = std::mem::take(&mut self.sequencers[at]);
            sequencer.finish(&mut |p| self.piece(direction, p, settings, spans, effects));
            self.eof(direction, ts, why, spans, effects);
        }
        self.pairing.close(Some(ts), why, &mut effects.paired);
        self.halves[0].counts.lost += self.in_hand();
        self.state = Protocol::Opaque;
    }

    fn eof(
        &mut self,
        direction: Direction,
        ts: Ns,
        why: &'static str,
        spans: &mut dyn FnMut() -> SpanRef,
        effects: &mut Effects,
    ) {
        let Some(role) = self.role else { return };
        let side = side(role, direction);
        if side == Side::Response && self.pairing.lossy() {
            // It may have ended long ago, with bytes that were not seen.
            self.end_response(spans, effects);
        }
        let Protocol::Parsing { parser } = &mut self.state else { return };
        let mut reports = Reports::new();
        self.halves[index(direction)].eof(parser.as_mut(), side, ts, &mut reports);
        let cut = |r: &Report| matches!(r, Report::Boundary(b) if matches!(&b.event, ParseEvent::End(e) if e.incomplete.is_some()));
        let cut = side == Side::Response && reports.iter().any(cut);
        self.reports(side, reports, spans, effects);
        if cut && let Some(Paired::Done(x)) = effects.paired.last_mut() {
            x.cut = Some(why);
        }
    }

    fn piece(
        &mut self,
        direction: Direction,
        piece: Piece<'_>,
        settings: &ConnSettings,
        spans: &mut dyn FnMut() -> SpanRef,
        effects: &mut Effects,
    ) {
        if let Piece::Missing { len, lost: true, .. } = piece {
            self.halves[index(direction)].counts.gaps += len;
        }
        match &mut self.state {
            Protocol::Opaque => {
                let counts = &mut self.halves[index(direction)].counts;
                counts.lost += match piece {
                    Piece::Bytes { bytes, .. } => bytes.len() as u64,
                    Piece::Missing { len, .. } => len,
                };
            }
            Protocol::Parsing { parser } => {
                let Some(role) = self.role else { return };
                let side = side(role, direction);
                let mut reports = Reports::new();
                self.halves[index(direction)].piece(parser.as_mut(), side, piece, &mut reports);
                self.reports(side, reports, spans, effects);
            }
            Protocol::Sniffing { .. } => self.sniff(direction, piece, settings, spans, effects),
        }
    }

    fn reports(
        &mut self,
        side: Side,
        reports: Reports,
        spans: &mut dyn FnMut() -> SpanRef,
        effects: &mut Effects,
    ) {
        for report in reports {
            match report {
                Report::Boundary(b) => {
                    if side == Side::Request && self.pairing.lossy() && b.begins() {
                        self.end_response(spans, effects);
                    }
                    self.pairing.boundary(side, b, spans, &mut effects.paired);
                }
                Report::Lost => self.pairing.lost(side, &mut effects.paired),
                Report::Opaque => {
                    self.state = Protocol::Opaque;
                    effects.opaque = true;
                }
            }
        }
    }

    /// The response under way has not been seen to end, because bytes of it were lost or not captured; it is over, as
    /// the next request began, the connection ended or nothing more came. Its end is the last byte that moved.
    fn end_response(&mut self, spans: &mut dyn FnMut() -> SpanRef, effects: &mut Effects) {
        let Protocol::Parsing { parser } = &mut self.state else { return };
        let at = match self.role {
            Some(Role::Client) => index(Direction::Recv),
            _ => index(Direction::Send),
        };
        let mut reports = Reports::new();
        self.halves[at].abandon(parser.as_mut(), Side::Response, &mut reports);
        for report in reports {
            if let Report::Boundary(b) = report {
                self.pairing.boundary(Side::Response, b, spans, &mut effects.paired);
            }
        }
    }

    fn sniff(
        &mut self,
        direction: Direction,
        piece: Piece<'_>,
        settings: &ConnSettings,
        spans: &mut dyn FnMut() -> SpanRef,
        effects: &mut Effects,
    ) {
        let at = index(direction);
        let Protocol::Sniffing { attempts, kept, marks } = &mut self.state else { return };
        let (seq, bytes, ts, task) = match piece {
            Piece::Bytes { seq, bytes, ts, task } => (seq, bytes, ts, task),
            Piece::Missing { len, .. } => {
                self.halves[at].counts.lost += len + kept[at].len() as u64;
                kept[at].clear();
                return;
            }
        };
        if kept[at].is_empty() {
            marks[at] = Mark { ts, seq, task };
        }
        kept[at].extend_from_slice(bytes);
        let mut need_more = false;
        let found = PROTOCOLS.iter().find_map(|p| match p.sniff(&kept[at]) {
            Sniff::Yes(side) => Some((*p, side)),
            Sniff::NeedMore => {
                need_more = true;
                None
            }
            Sniff::No => None,
        });
        // A socket that accepted does not send requests: bytes that contradict the role are something else.
        let found = found.filter(|(_, side)| self.role.is_none_or(|r| r == role_of(*side, direction)));
        let Some((protocol, side)) = found else {
            if !need_more || kept[at].len() > MAX_SNIFF {
                self.halves[at].counts.lost += kept[at].len() as u64;
                kept[at].clear();
                *attempts += 1;
                if self.from_start || *attempts >= SNIFF_ATTEMPTS {
                    // What the other direction kept will not be understood either.
                    self.halves[1 - at].counts.lost += kept[1 - at].len() as u64;
                    self.state = Protocol::Opaque;
                    effects.opaque = true;
                }
            }
            return;
        };
        let role = *self.role.get_or_insert(role_of(side, direction));
        let (kept, marks) = (std::mem::take(kept), *marks);
        let Some((client, server)) = self.ends() else { return };
        let context = ConnContext {
            role,
            server,
            client,
            semconv_dup: settings.semconv_dup,
            max_head: settings.max_head,
            kept_headers: settings.kept_headers.clone(),
            mask: settings.mask.clone(),
            shared: settings.shared.clone(),
        };
        self.state = Protocol::Parsing { parser: protocol.parser(&context) };
        self.protocol = Some(protocol.name());
        effects.recognised = true;
        // What was kept is the beginning of both streams as far as they were seen: requests before responses.
        let request_first = match role {
            Role::Server => [Direction::Recv, Direction::Send],
            Role::Client => [Direction::Send, Direction::Recv],
        };
        for d in request_first {
            let (bytes, m) = (&kept[index(d)], marks[index(d)]);
            if !bytes.is_empty() {
                let piece = Piece::Bytes { seq: m.seq, bytes, ts: m.ts, task: m.task };
                self.piece(d, piece, settings, spans, effects);
            }
        }
    }
}
