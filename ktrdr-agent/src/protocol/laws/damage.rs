//! Whatever comes, nothing panics and nothing grows without bounds.

use proptest::prelude::*;

use super::{Act, recordings};
use crate::protocol::driver::{Driver, context};
use crate::protocol::{PROTOCOLS, Role, Side};

/// Damage done to a recording.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Remove(usize, usize),
    Repeat(usize, usize),
    Gap(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let (at, len) = (0..8192usize, 1..400usize);
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, b)| Damage::Flip(at, b)),
        (at.clone(), len.clone()).prop_map(|(at, n)| Damage::Remove(at, n)),
        (at.clone(), len.clone()).prop_map(|(at, n)| Damage::Repeat(at, n)),
        (at, len).prop_map(|(at, n)| Damage::Gap(at, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn garbage_never_panics_and_stays_bounded(
        transfers in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..300)), 0..40),
    ) {
        for protocol in PROTOCOLS {
            let context = context(Role::Server);
            let mut driver = Driver::new(*protocol, &context);
            for (request, bytes) in &transfers {
                driver.feed(if *request { Side::Request } else { Side::Response }, bytes);
                prop_assert!(driver.held() <= 2 * context.max_head + 300);
            }
            driver.eof(Side::Request);
            driver.eof(Side::Response);
        }
    }

    #[test]
    fn damaged_recordings_never_panic_and_stay_bounded(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
        piece in 1..3000usize,
    ) {
        for protocol in PROTOCOLS {
            let recordings = recordings(*protocol);
            let recording = which.get(&recordings);
            let context = context(Role::Client);
            let mut driver = Driver::new(*protocol, &context);
            for act in &recording.acts {
                let Act::Bytes(side, bytes) = act else { continue };
                let mut bytes = bytes.clone();
                for damage in &damages {
                    let range = |at: usize, n: usize| at.min(bytes.len())..(at.saturating_add(n)).min(bytes.len());
                    match damage {
                        Damage::Flip(at, b) => if let Some(byte) = bytes.get_mut(*at) { *byte ^= b },
                        Damage::Remove(at, n) => { bytes.drain(range(*at, *n)); }
                        Damage::Repeat(at, n) => {
                            let again = bytes[range(*at, *n)].to_vec();
                            let at = (*at).min(bytes.len());
                            bytes.splice(at..at, again);
                        }
                        Damage::Gap(at, n) => {
                            let range = range(*at, *n);
                            bytes[..range.start].chunks(piece).for_each(|piece| driver.feed(*side, piece));
                            if !range.is_empty() {
                                driver.gap(*side, range.len() as u64);
                            }
                            bytes.drain(..range.end);
                        }
                    }
                }
                bytes.chunks(piece).for_each(|piece| driver.feed(*side, piece));
                prop_assert!(driver.held() <= 2 * (context.max_head + piece));
            }
            driver.eof(Side::Request);
            driver.eof(Side::Response);
        }
    }
}
