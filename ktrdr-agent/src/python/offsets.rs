//! Where CPython keeps what is needed, by version. Bytes; x86_64 and aarch64 alike (LP64).
//!
//! Computed from published struct bindings and checked by `tests/python.rs` against every interpreter that can be had.

use std::fmt;
use std::io;

use super::memory::Memory;

/// `major.minor.micro` of an interpreter; `micro` is `None` where only the minor version is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// 3.
    pub major: u8,
    /// e.g. 13.
    pub minor: u8,
    /// e.g. 0.
    pub micro: Option<u8>,
}

impl Version {
    /// From `PY_VERSION_HEX` (also `Py_Version`).
    pub fn from_hex(hex: u64) -> Option<Self> {
        let byte = |shift: u32| (hex >> shift) as u8;
        (hex >> 32 == 0 && byte(24) == 3).then(|| Self { major: 3, minor: byte(16), micro: Some(byte(8)) })
    }

    /// From a file name such as `libpython3.9.so.1.0` or `python3.8`.
    pub fn from_name(name: &str) -> Option<Self> {
        let rest = name.split_once("python3.")?.1;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(Self { major: 3, minor: digits.parse().ok()?, micro: None })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        self.micro.map_or(Ok(()), |m| write!(f, ".{m}"))
    }
}

/// Offsets of one interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// `_PyRuntime.interpreters.head`.
    pub interpreters: u64,
    /// `PyInterpreterState.next`.
    pub interp_next: u64,
    /// Head of the thread list in `PyInterpreterState`.
    pub threads: u64,
    /// `PyThreadState.next`.
    pub next: u64,
    /// `PyThreadState.context`.
    pub context: u64,
    /// `PyThreadState.thread_id`: address of the thread's pthread structure.
    pub thread_id: u64,
    /// `PyThreadState.native_thread_id`, from 3.11 on.
    pub native_thread_id: Option<u64>,
    /// `threading` runs each thread it starts inside a context made for it (`Thread(context=…)`, since 3.14).
    pub threads_in_contexts: bool,
}

/// Bytes of a thread state that hold all fields above, in every version of the table.
pub const THREAD_STATE: usize = 256;

const fn offsets(
    (interpreters, threads): (u64, u64),
    (context, thread_id): (u64, u64),
    native_thread_id: Option<u64>,
) -> Offsets {
    Offsets {
        interpreters,
        interp_next: 0,
        threads,
        next: 8,
        context,
        thread_id,
        native_thread_id,
        threads_in_contexts: false,
    }
}

/// The table. `interp_next` is 0 except where [`published`] says otherwise.
pub fn by_version(minor: u8) -> Option<Offsets> {
    let in_contexts = |o: Offsets| Offsets { threads_in_contexts: true, ..o };
    Some(match minor {
        8..=10 => offsets((32, 8), (240, 176), None),
        11 => offsets((40, 16), (224, 152), Some(160)),
        12 => offsets((40, 72), (208, 136), Some(144)),
        13 => offsets((632, 7344), (208, 152), Some(160)),
        14 => in_contexts(offsets((808, 7344), (208, 152), Some(160))),
        15 => in_contexts(offsets((936, 7336), (232, 176), Some(184))),
        _ => return None,
    })
}

const COOKIE: &[u8; 8] = b"xdebugpy";

/// What an interpreter of 3.13 and later says about itself at the start of `_PyRuntime` (`_Py_DebugOffsets`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Version.
    pub version: Version,
    /// Built without the GIL: objects and thread states are laid out differently.
    pub free_threaded: bool,
    /// `_PyRuntime.interpreters.head`.
    pub interpreters: u64,
    /// `PyInterpreterState.next`.
    pub interp_next: u64,
    /// `PyInterpreterState.threads.head`.
    pub threads: u64,
}

/// Reads the published offsets; `None` before 3.13.
///
/// # Errors
/// The memory cannot be read.
pub fn published(memory: &impl Memory, runtime: u64) -> io::Result<Option<Published>> {
    let mut head = [0; 80];
    memory.read(runtime, &mut head)?;
    if &head[..8] != COOKIE {
        return Ok(None);
    }
    let field = |n: usize| head[n * 8..].first_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
    // cookie, version, free_threaded; runtime: size, finalizing, interpreters_head; interpreter: size, id, next,
    // threads_head: in this order since 3.13.
    Ok(Version::from_hex(field(1)).map(|version| Published {
        version,
        free_threaded: field(2) != 0,
        interpreters: field(5),
        interp_next: field(8),
        threads: field(9),
    }))
}
