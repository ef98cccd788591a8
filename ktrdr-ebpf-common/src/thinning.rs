//! Which connections are left out when all of them would take more of the host than the agent may.
//!
//! The two ports of a connection alone decide, the same way at both ends and in every process: a call is seen whole or not
//! at all. What is left out of a port's connections grows by adding to it, so that a connection stays observed as long as
//! possible, and comes back in the opposite order.

/// All connections of a port, as [`left_out`] counts them.
pub const ALL: u32 = 1 << 16;

/// Whether a connection between these ports (host byte order) is left out, where `share` tells of a port how many of its
/// connections are, in 65,536ths.
#[inline(always)]
pub fn left_out(local: u16, remote: u16, share: impl Fn(u16) -> u32) -> bool {
    of(share(local), local, remote) || of(share(remote), remote, local)
}

/// Whether it is among the `share` that is left out of the connections of `port`.
#[inline(always)]
fn of(share: u32, port: u16, other: u16) -> bool {
    share != 0 && place(port, other) < share
}

/// A place from 0 to 65,535 for the connection: neighbouring ports are far from each other.
#[inline(always)]
const fn place(port: u16, other: u16) -> u32 {
    // The finaliser of MurmurHash3 (Austin Appleby, public domain): every bit of the input changes half of the output.
    let mut h = (port as u32) << 16 | other as u32;
    h = (h ^ h >> 16).wrapping_mul(0x85eb_ca6b);
    h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
    (h ^ h >> 16) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_of_80(share: u32) -> impl Fn(u16) -> u32 {
        move |port| if port == 80 { share } else { 0 }
    }

    #[test]
    fn nothing_is_left_out_unless_said() {
        assert!((0..=u16::MAX).all(|other| !left_out(80, other, |_| 0)));
        assert!((0..=u16::MAX).all(|other| other == 80 || !left_out(81, other, share_of_80(ALL))));
        assert!((0..=u16::MAX).all(|other| left_out(80, other, share_of_80(ALL))));
    }

    #[test]
    fn both_ends_agree() {
        for other in 0..=u16::MAX {
            let share = |port| u32::from(port) * 7 % ALL;
            assert_eq!(left_out(8000, other, share), left_out(other, 8000, share), "{other}");
        }
    }

    #[test]
    fn a_larger_share_leaves_out_the_same_and_more() {
        for other in 32_768..=60_999 {
            let mut before = false;
            for share in (0..=ALL).step_by(4_096) {
                let now = left_out(80, other, share_of_80(share));
                assert!(now || !before, "{other} came back at {share}");
                before = now;
            }
        }
    }

    /// Linux gives out every other port of its range, 32,768 to 60,999, to `connect`.
    #[test]
    fn few_ports_in_a_row_are_divided_as_said() {
        for first in (32_768..60_000).step_by(1_000) {
            let out =
                (first..first + 400).step_by(2).filter(|p| left_out(80, *p, share_of_80(ALL / 2))).count();
            assert!((70..=130).contains(&out), "{out} of 200 from {first} on");
        }
    }
}
