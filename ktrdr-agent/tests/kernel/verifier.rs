//! How much work the programs are for the verifier.

use crate::observer::{Observer, ways};

/// A quarter of what the verifier walks at most (`BPF_COMPLEXITY_LIMIT_INSNS`): how much it walks depends on the code
/// that a compiler happens to make and on the kernel, which remembers more of what it has seen from version to version.
const LIMIT: u32 = 250_000;

#[test]
fn programs_keep_clear_of_the_verifiers_limit() {
    for way in ways() {
        let (hook, Some(observer)) = (way.hook, Observer::start(&way)) else { return };
        let mut told = 0;
        for program in observer.kernel.program_stats() {
            let Some(verified) = program.verified else { continue };
            println!("{hook:8} {:24} {verified:7} instructions verified", program.name);
            assert!(verified < LIMIT, "{}: {verified}", program.name);
            told += 1;
        }
        assert!(told > 5 || told == 0, "all programs tell, or (before 5.16) none does");
    }
}
