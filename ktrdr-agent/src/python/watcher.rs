//! When to look at a process, and what the kernel programs are told.
