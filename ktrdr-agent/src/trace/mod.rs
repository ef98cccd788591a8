//! From calls to traces: identity, causality, assembly.

pub mod assembly;
pub mod attributes;
pub mod body;
pub mod causality;
pub mod commands;
pub mod connects;
pub mod deaths;
pub mod gpu;
pub mod ids;
pub mod listeners;
pub mod logs;
pub mod model;
pub mod operations;
pub mod processes;
pub mod relays;
pub mod spans;
pub mod stdio;
