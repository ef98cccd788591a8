//! Any bytes, splits, gaps and ends, to the parser of every protocol: no panic, always progress.
//!
//! Input: records as in `tests/fixtures` (so the recordings are a seed corpus) with the length in one byte, plus
//! `g` and `G`: a gap on the request or response side.
#![no_main]

use ktrdr_agent::protocol::{ConnContext, PROTOCOLS, Parser, Role, Side, Step};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Half {
    held: Vec<u8>,
    skip: u64,
}

impl Half {
    fn pass(&mut self, n: u64) -> u64 {
        let passed = self.skip.min(n);
        self.skip -= passed;
        n - passed
    }
}

fn feed(parser: &mut dyn Parser, half: &mut Half, side: Side, bytes: &[u8]) -> bool {
    let rest = half.pass(bytes.len() as u64) as usize;
    half.held.extend_from_slice(&bytes[bytes.len() - rest..]);
    let (mut at, mut idle) = (0, 0);
    while at < half.held.len() {
        match parser.step(side, &half.held[at..]) {
            Step::NeedMore => break,
            Step::Lost => {
                parser.lost(side);
                at = half.held.len();
            }
            Step::Opaque(_) => return false,
            Step::Advance { consumed, skip, .. } => {
                idle = if consumed > 0 || skip > 0 { 0 } else { idle + 1 };
                assert!(idle < 4, "no progress");
                at += consumed;
                assert!(at <= half.held.len(), "consumed what was not shown");
                half.skip = skip;
                let left = half.pass((half.held.len() - at) as u64) as usize;
                at = half.held.len() - left;
            }
        }
    }
    half.held.drain(..at);
    true
}

fuzz_target!(|input: &[u8]| {
    for protocol in PROTOCOLS {
        let role = if input.len() % 2 == 0 { Role::Server } else { Role::Client };
        let context = ConnContext {
            role,
            server: ([127, 0, 0, 1], 8000).into(),
            client: ([10, 0, 0, 9], 40000).into(),
            semconv_dup: input.len() % 3 == 0,
            max_head: 4096,
            kept_headers: Default::default(),
            mask: Default::default(),
            shared: Default::default(),
        };
        let mut parser = protocol.parser(&context);
        let mut halves = [Half::default(), Half::default()];
        let mut rest = input;
        while let [kind, len, tail @ ..] = rest {
            let (bytes, tail) = tail.split_at(tail.len().min(usize::from(*len)));
            rest = tail;
            let side = if matches!(kind, b'<' | b'G' | b'(') { Side::Response } else { Side::Request };
            let half = &mut halves[side as usize];
            match kind {
                b'g' | b'G' => {
                    let missing = half.pass(u64::from(*len) + 1);
                    if missing > 0 {
                        let held = std::mem::take(&mut half.held);
                        if !held.is_empty() {
                            parser.salvage(side, &held);
                            parser.lost(side);
                        } else if parser.bridge(side, missing).is_none() {
                            parser.lost(side);
                        }
                    }
                }
                _ => {
                    if !feed(&mut *parser, half, side, bytes) {
                        break;
                    }
                    assert!(half.held.len() <= context.max_head + 256, "grows without bound");
                }
            }
        }
        for side in [Side::Request, Side::Response] {
            parser.eof(side, halves[side as usize].skip);
        }
    }
});
