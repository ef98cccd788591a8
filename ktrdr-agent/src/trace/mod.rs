//! From calls to traces: identity, causality, assembly.

pub mod causality;
pub mod ids;
pub mod listeners;
pub mod model;
pub mod processes;
