//! What is to be done with the transfers of a connection, and where the agent writes it down for the programs.

use crate::limits::{MAX_PAYLOAD, MAX_POLICIES};

/// What to do with the transfers of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Payload bytes to copy per transfer, at most [`MAX_PAYLOAD`]; 0 = send nothing at all for this connection's transfers
    /// ("ignore").
    pub capture: u32,
}

impl Policy {
    /// No records for this connection's transfers.
    pub const IGNORE: Policy = Policy { capture: 0 };

    /// The first `bytes` of each transfer.
    pub const fn capture(bytes: u32) -> Policy {
        Policy { capture: bytes }
    }
}

/// A place in the array, for the policies of two connections: a look-up in it takes a program a tenth of one in a hash. Those
/// that have a place in common are random, so that three of many thousand hardly ever meet.
pub type Place = [Entry; 2];

/// A connection and its policy, in one word, so that it changes as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Entry(pub u64);

/// Bits that number the places; the rest of the connection stands in the entry.
const PLACE_BITS: u32 = 15;
/// How many places there are.
pub const PLACES: u32 = 1 << PLACE_BITS;
const _: () = assert!(PLACES as usize * size_of::<Place>() / size_of::<Entry>() == MAX_POLICIES as usize);
const _: () = assert!(MAX_PAYLOAD + 1 < 1 << PLACE_BITS, "a policy takes the bits that the place frees");

impl Entry {
    /// Nobody's.
    pub const NONE: Entry = Entry(0);

    /// A connection's policy.
    pub const fn new(conn: u64, policy: Policy) -> Entry {
        let most = MAX_PAYLOAD as u32;
        let capture = if policy.capture < most { policy.capture } else { most };
        Entry(spread(conn) << PLACE_BITS | (capture as u64 + 1))
    }

    /// The policy, if it is this connection's, for an entry at the connection's place.
    #[inline(always)]
    pub const fn of(self, conn: u64) -> Option<Policy> {
        let own = spread(conn) << PLACE_BITS;
        let told = self.0 ^ own;
        // What is left of another's is more than a policy, or it is an empty place.
        if told != 0 && told < 1 << PLACE_BITS { Some(Policy { capture: told as u32 - 1 }) } else { None }
    }
}

/// The place of a connection, below [`PLACES`].
#[inline(always)]
pub const fn place_of(conn: u64) -> u32 {
    (spread(conn) >> (u64::BITS - PLACE_BITS)) as u32
}

/// Another number for each connection, which differs most in its upper bits: cookies are given out in a row, addresses of
/// sockets are multiples of some KiB. By an odd factor, so no two get the same.
#[inline(always)]
const fn spread(conn: u64) -> u64 {
    // 2⁶⁴ by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
    conn.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Policy; 4] =
        [Policy::IGNORE, Policy::capture(1), Policy::capture(8_192), Policy::capture(MAX_PAYLOAD as u32)];

    fn identities() -> impl Iterator<Item = u64> {
        let cookies = (0..2_000).chain((1..2_000).map(|n| n << 20));
        let addresses = (0..2_000).map(|n| 0xffff_8880_0000_0000 + n * 2_432);
        cookies.chain(addresses).chain([u64::MAX, u64::MAX - 1])
    }

    #[test]
    fn a_policy_is_its_connections_and_nobody_elses() {
        for policy in ALL {
            for conn in identities() {
                let entry = Entry::new(conn, policy);
                assert_ne!(entry, Entry::NONE);
                assert_eq!(entry.of(conn), Some(policy));
                assert_eq!(Entry::NONE.of(conn), None);
                // All bits count, those that name the place and those beside.
                for bit in 0..u64::BITS {
                    let other = conn ^ 1 << bit;
                    let mistaken = place_of(other) == place_of(conn) && entry.of(other).is_some();
                    assert!(!mistaken, "{conn:#x} and {other:#x}");
                }
            }
        }
    }

    #[test]
    fn more_than_can_be_copied_is_as_much_as_can_be() {
        let most = Policy::capture(MAX_PAYLOAD as u32);
        assert_eq!(Entry::new(1, Policy::capture(u32::MAX)).of(1), Some(most));
    }

    /// How many of these connections would find both entries of their place taken.
    fn without_room(conns: impl Iterator<Item = u64>) -> usize {
        let mut taken = [0_u8; PLACES as usize];
        let crowded = |conn: &u64| {
            let taken = &mut taken[place_of(*conn) as usize];
            *taken += 1;
            *taken > 2
        };
        conns.filter(crowded).count()
    }

    #[test]
    fn many_connections_have_room() {
        for batch in [0, 12_345_678, 1 << 40] {
            assert_eq!(without_room(batch..batch + 30_000), 0);
        }
        // Four processors take 4,096 at a time, and every third is a connection that stays.
        let cookie = |n: u64, processor| n / 4_096 * 4 * 4_096 + processor * 4_096 + n % 4_096;
        let batches = (0..10_000).map(|n| cookie(n / 4 * 3, n % 4));
        assert!(without_room(batches) < 100);
        let addresses = (0..10_000_u64).map(|n| 0xffff_8880_0000_0000 + n / 13 * 32_768 + n % 13 * 2_432);
        assert!(without_room(addresses) < 500);
    }
}
