//! How what is under way on a connection ends: with its streams, its socket, or because nothing more comes.

use super::sides::{index, side};
use super::{Conn, Protocol, Work};
use crate::engine::half::{Half, Report, Reports};
use crate::engine::pairing::Paired;
use crate::event::{Direction, MS, Ns};
use crate::protocol::{ParseEvent, Role, Side};

/// A response whose framing was lost (chunks behind the capture) has ended if nothing more of it comes for so long. Longer
/// than pauses inside a reply of that size, short enough for the call to be seen while somebody looks.
const SILENCE_NS: Ns = 500 * MS;

/// The other end closed the connection.
const PEER_CLOSED: &str = "peer_closed";

impl Conn {
    /// Gives up on bytes that were waited for too long.
    pub fn expire(&mut self, now: Ns, work: &mut Work<'_>) {
        for direction in [Direction::Recv, Direction::Send] {
            let at = index(direction);
            let mut sequencer = std::mem::take(&mut self.sequencers[at]);
            sequencer.expire(now, &mut |p| self.piece(direction, p, work));
            self.sequencers[at] = sequencer;
        }
        if self.pairing.lossy() && now.saturating_sub(self.touched) > SILENCE_NS {
            self.end_response(work);
        }
    }

    /// The socket is closed; `why` goes on the calls that this breaks off.
    pub fn closed(&mut self, ts: Ns, why: &'static str, work: &mut Work<'_>) {
        for direction in [Direction::Recv, Direction::Send] {
            let at = index(direction);
            let mut sequencer = std::mem::take(&mut self.sequencers[at]);
            sequencer.finish(&mut |p| self.piece(direction, p, work));
            self.eof(direction, ts, why, work);
        }
        self.pairing.close(Some(ts), why, &mut work.effects.paired);
        self.halves[0].counts.lost += self.in_hand();
        self.state = Protocol::Opaque;
    }

    /// Nobody looks at the connection any more, and it goes on: `why` goes on the calls under way. Its streams have not
    /// ended, so nothing is concluded from where they were.
    pub fn left(&mut self, ts: Ns, why: &'static str, work: &mut Work<'_>) {
        self.halves.iter_mut().for_each(Half::leave);
        self.halves[0].counts.skipped += self.in_hand();
        self.sequencers = Default::default();
        self.state = Protocol::Opaque;
        self.pairing.close(Some(ts), why, &mut work.effects.paired);
    }

    /// One direction ended.
    pub(super) fn ended(&mut self, direction: Direction, ts: Ns, work: &mut Work<'_>) {
        let why = if self.role == Some(Role::Client) { PEER_CLOSED } else { "connection_closed" };
        self.eof(direction, ts, why, work);
        if self.role == Some(Role::Client) {
            // The server will answer no more, whether or not this end goes on sending.
            self.pairing.close(Some(ts), PEER_CLOSED, &mut work.effects.paired);
        }
    }

    fn eof(&mut self, direction: Direction, ts: Ns, why: &'static str, work: &mut Work<'_>) {
        let Some(role) = self.role else { return };
        let side = side(role, direction);
        if side == Side::Response && self.pairing.lossy() {
            // It may have ended long ago, with bytes that were not seen.
            self.end_response(work);
        }
        let Protocol::Parsing { parser } = &mut self.state else { return };
        let mut reports = std::mem::take(work.reports);
        self.halves[index(direction)].eof(parser.as_mut(), side, ts, &mut reports);
        let cut = |r: &Report| matches!(r, Report::Boundary(b) if matches!(&b.event, ParseEvent::End(e) if e.incomplete.is_some()));
        let cut = side == Side::Response && reports.iter().any(cut);
        self.reports(side, &mut reports, work);
        *work.reports = reports;
        if cut && let Some(Paired::Done(x)) = work.effects.paired.last_mut() {
            x.cut = Some(why);
        }
    }

    /// The response under way has not been seen to end, because bytes of it were lost or not captured; it is over, as
    /// the next request began, the connection ended or nothing more came. Its end is the last byte that moved.
    pub(super) fn end_response(&mut self, work: &mut Work<'_>) {
        let Protocol::Parsing { parser } = &mut self.state else { return };
        let at = match self.role {
            Some(Role::Client) => index(Direction::Recv),
            _ => index(Direction::Send),
        };
        let mut reports = Reports::new();
        self.halves[at].abandon(parser.as_mut(), Side::Response, &mut reports);
        for report in reports {
            if let Report::Boundary(b) = report {
                self.pairing.boundary(Side::Response, b, work.numbers, &mut work.effects.paired);
            }
        }
    }
}
