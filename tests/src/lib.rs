//! Shared helpers of the end-to-end tests: a running agent, the programs it observes, and comparisons between what
//! those programs say they did and the spans that the agent made of it.
//!
//! Helpers fail the test by panicking, with a sentence that says what was expected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod agent;
pub mod compare;
pub mod namespace;
pub mod net;
pub mod otlp;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod servers;
pub mod span;
pub mod standin;
pub mod truth;
pub mod wait;
