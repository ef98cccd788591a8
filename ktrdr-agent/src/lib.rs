//! `ktrdr-agent`: zero-code observability for Linux services. See `docs/ARCHITECTURE.md` for the picture.
//!
//! Core (sans-IO, deterministic, no `unsafe`): [`event`], [`engine`], [`protocol`], [`trace`], [`metrics`], [`explain`], [`mask`].
//! Shell: everything else.

pub mod allocator;
pub mod cli;
pub mod core;
#[cfg(test)]
mod dice;
pub mod engine;
pub mod event;
pub mod explain;
pub mod export;
pub mod gpu;
pub mod kernel;
pub mod mask;
pub mod mcp;
pub mod meta;
pub mod metrics;
pub mod pipeline;
pub mod privileges;
pub mod protocol;
pub mod python;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod trace;
pub mod web;
