//! Which protocol a connection speaks.

use super::sides::{index, role_of};
use super::{Conn, Protocol, Work};
use crate::engine::half::Mark;
use crate::engine::sequence::Piece;
use crate::event::Direction;
use crate::protocol::{self, ConnContext, PROTOCOLS, Role, Sniff};

/// First bytes kept while no protocol can be told; every known protocol shows itself within these. HTTP/1 may need a whole
/// request line, and nginx reads 1024 bytes at first (`client_header_buffer_size`).
const MAX_SNIFF: usize = 2048;
/// Transfers looked at on a connection whose beginning was not seen: some begin inside a body.
const SNIFF_ATTEMPTS: u32 = 16;

/// First bytes, per direction (received, sent), as long as they do not say enough.
#[derive(Default)]
pub(super) struct Sniffing {
    attempts: u32,
    kept: [Vec<u8>; 2],
    marks: [Mark; 2],
}

impl Sniffing {
    /// Bytes kept.
    pub(super) fn in_hand(&self) -> u64 {
        self.kept.iter().map(|kept| kept.len() as u64).sum()
    }
}

impl Conn {
    pub(super) fn sniff(&mut self, direction: Direction, piece: Piece<'_>, work: &mut Work<'_>) {
        let at = index(direction);
        let Protocol::Sniffing(Sniffing { attempts, kept, marks }) = &mut self.state else { return };
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
        let first = self.opened.is_some() && self.halves[at].counts.lost == 0;
        let judge = |p: &dyn protocol::Protocol| if first { p.opens(&kept[at]) } else { p.sniff(&kept[at]) };
        let found = PROTOCOLS.iter().find_map(|p| match judge(*p) {
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
                if self.opened.is_some() || *attempts >= SNIFF_ATTEMPTS {
                    // What the other direction kept will not be understood either.
                    self.halves[1 - at].counts.lost += kept[1 - at].len() as u64;
                    self.state = Protocol::Opaque;
                    work.effects.opaque = true;
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
            semconv_dup: work.settings.semconv_dup,
            max_head: work.settings.max_head,
            kept_headers: work.settings.kept_headers.clone(),
            mask: work.settings.mask.clone(),
            shared: work.settings.shared.clone(),
        };
        self.state = Protocol::Parsing { parser: protocol.parser(&context) };
        self.protocol = Some(protocol.name());
        work.effects.recognised = true;
        // What was kept is the beginning of both streams as far as they were seen: requests before responses.
        let request_first = match role {
            Role::Server => [Direction::Recv, Direction::Send],
            Role::Client => [Direction::Send, Direction::Recv],
        };
        for d in request_first {
            let (bytes, m) = (&kept[index(d)], marks[index(d)]);
            if !bytes.is_empty() {
                let piece = Piece::Bytes { seq: m.seq, bytes, ts: m.ts, task: m.task };
                self.piece(d, piece, work);
            }
        }
    }
}
