//! Everything that crosses the boundary between the kernel programs (`ktrdr-ebpf`) and the agent.
//!
//! Every shared struct is free of padding by construction: `zerocopy`'s derives refuse padding at compile time.
//! No `bool`, no `Option`, no data-carrying enum crosses; numbers do, and the agent checks them.
#![no_std]

pub mod bodies;
pub mod counters;
pub mod limits;
pub mod maps;
pub mod offsets;
pub mod policies;
pub mod records;
pub mod thinning;

pub use counters::Counter;
pub use records::*;

/// Version of the record layout, written into recorded trace files. Raise it whenever a record changes shape.
pub const ABI_VERSION: u16 = 2;
