//! One observed socket: its two directions, its protocol, its open exchanges.

mod end;
mod sides;
mod sniff;

use self::sides::{index, side};
use self::sniff::Sniffing;
use super::Numbers;
use super::half::{Half, Report, Reports};
use super::pairing::{Paired, Pairing};
use super::sequence::{Chunk, Piece, Sequencer};
use crate::event::{ConnId, Data, Direction, Ns, Task, Tuple};
use crate::protocol::{Parser, Role, Side};
use crate::trace::causality::SpanRef;

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
    Sniffing(Sniffing),
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
    /// When it was opened, if under our eyes: then the first bytes are the protocol's first.
    pub opened: Option<Ns>,
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

/// What a connection works with.
pub struct Work<'a> {
    /// Settings.
    pub settings: &'a ConnSettings,
    /// Numbers for new spans.
    pub numbers: &'a mut Numbers,
    /// Room for what a direction reports; empty in between.
    pub reports: &'a mut Reports,
    /// What came of it.
    pub effects: Effects,
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
    /// Another process than before uses it, at the server's end.
    pub served: bool,
}

impl Conn {
    /// A connection first seen now.
    pub fn new(id: ConnId, tuple: Tuple, now: Ns) -> Self {
        Self {
            id,
            tuple,
            role: None,
            opened: None,
            owner: 0,
            connected: None,
            touched: now,
            protocol: None,
            no_buffer: false,
            begins: None,
            halves: Default::default(),
            sequencers: Default::default(),
            state: Protocol::Sniffing(Sniffing::default()),
            pairing: Pairing::default(),
        }
    }

    /// The connection was opened under our eyes; both streams begin at these sequence numbers.
    pub fn opens(&mut self, ts: Ns, role: Role, write_seq: u32, copied_seq: u32) {
        self.role = Some(role);
        self.opened = Some(ts);
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

    /// Whether the bytes of this transfer were here before.
    pub fn has(&self, d: &Data<'_>) -> bool {
        self.sequencers[index(d.direction)].has(d.seq_end.wrapping_sub(d.len), d.len)
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
        let kept = match &self.state {
            Protocol::Sniffing(sniffing) => sniffing.in_hand(),
            Protocol::Parsing { .. } | Protocol::Opaque => 0,
        };
        let halves: u64 = self.halves.iter().map(Half::in_hand).sum();
        let sequencers: u64 = self.sequencers.iter().map(Sequencer::in_hand).sum();
        kept + halves + sequencers
    }

    /// Whether time decides something here: a transfer waits for an earlier one, or a response whose end may have been
    /// missed for its next bytes.
    pub fn waits(&self) -> bool {
        self.pairing.lossy() || self.sequencers.iter().any(Sequencer::holding)
    }

    /// Takes a transfer.
    pub fn data(&mut self, ts: Ns, task: Task, d: &Data<'_>, work: &mut Work<'_>) {
        self.touched = ts;
        self.no_buffer |= d.no_buffer;
        let at = index(d.direction);
        if self.sequencers[1 - at].holding() {
            // Threads that swap their records are microseconds apart; once the other direction has moved on, what
            // is still missing is lost.
            let other = if at == 0 { Direction::Send } else { Direction::Recv };
            let mut sequencer = std::mem::take(&mut self.sequencers[1 - at]);
            sequencer.finish(&mut |p| self.piece(other, p, work));
            self.sequencers[1 - at] = sequencer;
        }
        let mut sequencer = std::mem::take(&mut self.sequencers[at]);
        let chunk = Chunk { start: d.seq_end.wrapping_sub(d.len), len: d.len, bytes: d.payload, ts, task };
        if d.len > 0 {
            sequencer.push(chunk, &mut |p| self.piece(d.direction, p, work));
        }
        if d.eof {
            sequencer.finish(&mut |p| self.piece(d.direction, p, work));
        }
        self.sequencers[at] = sequencer;
        if d.eof {
            self.ended(d.direction, ts, work);
        }
    }

    fn piece(&mut self, direction: Direction, piece: Piece<'_>, work: &mut Work<'_>) {
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
                let mut reports = std::mem::take(work.reports);
                self.halves[index(direction)].piece(parser.as_mut(), side, piece, &mut reports);
                self.reports(side, &mut reports, work);
                *work.reports = reports;
            }
            Protocol::Sniffing(_) => self.sniff(direction, piece, work),
        }
    }

    fn reports(&mut self, side: Side, reports: &mut Reports, work: &mut Work<'_>) {
        for report in reports.drain(..) {
            match report {
                Report::Boundary(b) => {
                    if side == Side::Request && self.pairing.lossy() && b.begins() {
                        self.end_response(work);
                    }
                    self.pairing.boundary(side, b, work.numbers, &mut work.effects.paired);
                }
                Report::Lost(answer) => self.pairing.lost(side, answer, &mut work.effects.paired),
                Report::Opaque => {
                    self.state = Protocol::Opaque;
                    work.effects.opaque = true;
                }
            }
        }
    }
}
