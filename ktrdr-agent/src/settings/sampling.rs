//! Settings of sampling, checked.

use super::{Bad, said};

/// Which spans are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Part of the traces, from 0 to 1.
    pub ratio: f64,
    /// Follow what callers decided.
    pub parent_based: bool,
    /// What is kept besides.
    pub keep: said::Keep,
}

impl Sampling {
    pub(super) fn resolve(said: &said::Sampling) -> Result<Self, Bad> {
        if !(0.0..=1.0).contains(&said.ratio) {
            return Err(Bad::new("sampling.ratio", "must be from 0 to 1, such as 0.1"));
        }
        // A wait of hours would only fill the memory that bounds it, and then count as none.
        if said.keep.wait.0 > std::time::Duration::from_secs(600) {
            return Err(Bad::new("sampling.keep.wait", "must be at most 10m"));
        }
        Ok(Self { ratio: said.ratio, parent_based: said.parent_based, keep: said.keep.clone() })
    }

    /// Whether anything is left out.
    pub fn samples(&self) -> bool {
        self.ratio < 1.0 || self.parent_based
    }
}
