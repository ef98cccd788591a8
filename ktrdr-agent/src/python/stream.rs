//! `UVStream` of uvloop, the base class of its transports: where the functions that write to one are in the file that has them.

use std::path::Path;

use ktrdr_ebpf_common::maps::PyContexts;

use super::methods::{self, FAST, KEYWORDS, MethodsError, ONE};

/// Where the functions are probed in the file, and how they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// `write` and `writelines`.
    pub writes: [u64; 2],
    /// As [`PyContexts::writes`]: up to 0.19 in one way, from 0.20 on (Cython 3) in another.
    pub passed: u16,
}

/// What the table has (0.12 to 0.23), beside what Cython adds.
const NAMES: [&str; 7] =
    ["write", "writelines", "write_eof", "can_write_eof", "is_reading", "pause_reading", "resume_reading"];
/// What it has not: the transport over TLS has all of those, and this.
const OTHERS: &str = "abort";

impl Stream {
    /// Looks into the module's file.
    ///
    /// # Errors
    /// The file cannot be read, or has no such functions.
    pub fn open(path: &Path) -> Result<Stream, MethodsError> {
        methods::find(path, "UVStream", "can_write_eof", |table| {
            if !table.has(&NAMES) || table.method(OTHERS).is_some() {
                return None;
            }
            let passed = |name: &str| match table.method(name)?.flags {
                ONE => Some(PyContexts::OBJECT),
                flags if flags & !KEYWORDS == FAST => Some(PyContexts::ARGUMENTS),
                _ => None,
            };
            let both = passed("write").filter(|how| passed("writelines") == Some(*how))?;
            Some(Stream { writes: [table.probed("write")?, table.probed("writelines")?], passed: both })
        })
    }
}
