//! `cargo xtask bench`.

use anyhow::Result;

pub fn run(_rounds: usize, _seconds: u64) -> Result<()> {
    anyhow::bail!("the benchmark is not there yet")
}
