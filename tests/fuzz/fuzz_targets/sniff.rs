//! Any first bytes: a judgement once made does not change with more bytes.
#![no_main]

use ktrdr_agent::protocol::{PROTOCOLS, Sniff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for protocol in PROTOCOLS {
        for first in [false, true] {
            let mut last = Sniff::NeedMore;
            for end in 1..=input.len() {
                let now = if first { protocol.opens(&input[..end]) } else { protocol.sniff(&input[..end]) };
                assert!(last == Sniff::NeedMore || now == last, "{last:?} became {now:?} after {end} bytes");
                last = now;
            }
        }
    }
});
