//! From calls to traces: identity, causality, assembly.

pub mod causality;
pub mod model;
