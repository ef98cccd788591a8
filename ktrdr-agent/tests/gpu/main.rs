//! The real NVML code path (symbols, structures, error codes, lost devices), against a stand-in for the library.

// Helpers of tests fail as tests do; clippy lets only `#[test]` functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod reading;
mod sampling;
mod standin;
mod states;
