//! The kernel programs, built by `build.rs` and carried in the binary.

/// The BPF object file.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ktrdr-ebpf.o"));
