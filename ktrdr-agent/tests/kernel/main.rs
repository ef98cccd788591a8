//! The kernel programs on the running kernel: real traffic in, records out, compared field by field.
//! Needs root; says so and passes where it is missing, and fails for any other reason.

mod lifecycle;
mod observer;
mod steering;
mod sys;
mod transfers;
