//! From calls to traces: identity, causality, assembly.

mod addresses;
pub mod assembly;
pub mod attributes;
pub mod body;
pub mod causality;
pub mod commands;
pub mod connects;
pub mod deaths;
pub mod departed;
pub mod gpu;
pub mod ids;
pub mod listeners;
pub mod logs;
pub mod model;
pub mod operations;
pub mod processes;
mod refusal;
pub mod relays;
pub mod spans;
pub mod stdio;
