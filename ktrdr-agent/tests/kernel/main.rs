//! The kernel programs on the running kernel: real traffic in, records out, compared field by field.
//! Needs root; says so and passes where it is missing, and fails for any other reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its helpers"
)]

mod contexts;
mod cost;
mod handled;
mod leaving_out;
mod lifecycle;
mod observer;
mod own_stack;
mod pool;
#[path = "../pythons/mod.rs"]
mod pythons;
mod reading;
mod return_probes;
mod seconds;
mod steering;
mod stream;
mod sys;
mod transfers;
mod verifier;
mod writes;
