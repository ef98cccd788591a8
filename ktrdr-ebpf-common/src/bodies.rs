//! How much is copied of long bodies: a download would fill the ring with bytes that nobody wants.

use crate::limits::{RUN_BYTES, RUN_CAPTURE, RUNS};

/// What was copied of a connection since its direction last turned. A request is answered before the next one comes, so
/// whatever moves in one direction for so long is a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Run(u64);

impl Run {
    /// Where a connection's is, unless another has the place: then both are copied as if they turned.
    pub const fn place_of(conn: u64) -> u32 {
        // Cookies are given out one after the other per processor, addresses lie a few KiB apart.
        (conn ^ conn >> 12) as u32 % RUNS
    }

    /// Payload bytes to copy of a transfer of `len`, where `most` would be otherwise. Transfers that fit are copied all the
    /// same: the sizes of chunks stand anywhere in them, and so do requests that do not wait for answers.
    pub const fn limit(self, conn: u64, direction: u8, len: u32, most: u32) -> u32 {
        let body = len > most && self.copied(conn, direction) >= RUN_BYTES;
        if body && most > RUN_CAPTURE { RUN_CAPTURE } else { most }
    }

    /// What it is once `captured` bytes more were copied.
    pub const fn and(self, conn: u64, direction: u8, captured: u32) -> Run {
        let copied = self.copied(conn, direction) + captured;
        let copied = if copied > RUN_BYTES { RUN_BYTES } else { copied };
        Run(Run::key(conn, direction) << 32 | copied as u64)
    }

    /// Bytes copied, if it is this connection's and of this direction.
    const fn copied(self, conn: u64, direction: u8) -> u32 {
        if self.0 >> 32 == Run::key(conn, direction) { self.0 as u32 } else { 0 }
    }

    /// Of 32 bits. Two connections at one place with one key are 2³¹ cookies apart.
    const fn key(conn: u64, direction: u8) -> u64 {
        (conn << 1 | direction as u64) & u32::MAX as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{RECV, SEND};

    /// What is copied of transfers (direction, bytes) of a connection, one after the other.
    fn copied<const N: usize>(most: u32, transfers: [(u8, u32); N]) -> [u32; N] {
        let mut run = Run::default();
        transfers.map(|(direction, len)| {
            let captured = run.limit(7, direction, len, most).min(len);
            run = run.and(7, direction, captured);
            captured
        })
    }

    #[test]
    fn a_long_body_is_copied_at_its_beginning_only() {
        let mut expected = [8_192; 12];
        expected[8..].fill(RUN_CAPTURE);
        assert_eq!(copied(8_192, [(SEND, 65_536); 12]), expected);
    }

    #[test]
    fn its_end_and_what_comes_after_the_turn_are_copied() {
        let mut transfers = [(RECV, 65_536); 16];
        transfers[12..15].copy_from_slice(&[(RECV, 5), (SEND, 200), (RECV, 300)]);
        assert_eq!(copied(8_192, transfers)[12..], [5, 200, 300, 8_192]);
    }

    #[test]
    fn what_fits_is_copied_however_long_it_goes_on() {
        assert_eq!(copied(8_192, [(SEND, 300); 1_000]), [300; 1_000]);
        assert_eq!(copied(8_192, [(RECV, 8_192); 1_000]), [8_192; 1_000]);
    }

    #[test]
    fn less_than_that_is_never_made_more() {
        assert_eq!(copied(64, [(SEND, 65_536); 2_000]), [64; 2_000]);
        assert_eq!(copied(0, [(SEND, 100_000), (RECV, 0)]), [0; 2]);
    }

    #[test]
    fn another_connection_at_its_place_begins_anew() {
        let run = Run::default().and(7, SEND, RUN_BYTES);
        assert_eq!(run.limit(7, SEND, 65_536, 8_192), RUN_CAPTURE);
        assert_eq!(run.limit(7 + u64::from(RUNS), SEND, 65_536, 8_192), 8_192);
        let both = run.and(7 + u64::from(RUNS), SEND, 100);
        assert_eq!(both.limit(7, SEND, 65_536, 8_192), 8_192);
    }
}
